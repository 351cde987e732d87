// Listings that came before anybody asked for them: who walks a tree asks for the folder beside next. They are believed
// for as long as the kernel believes attributes, and until anything in the tree changes.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "fuse/names.h"

namespace atoll_native::fuse {

/// Any thread.
class Ahead {
 public:
  explicit Ahead(uint64_t ms_max) : ms_max_(ms_max) {}

  /// In place of what there was.
  void put(std::vector<std::pair<uint64_t, Listing>> listings) {
    const std::lock_guard lock(mutex_);
    listings_.clear();
    for (auto& [folder, listing] : listings) listings_.emplace(folder, std::move(listing));
  }
  /// Once for each.
  std::optional<Listing> take(uint64_t folder, uint64_t now_ms) {
    const std::lock_guard lock(mutex_);
    const auto found = listings_.find(folder);
    if (found == listings_.end()) return std::nullopt;
    Listing listing = std::move(found->second);
    listings_.erase(found);
    if (now_ms - listing.made_ms >= ms_max_) return std::nullopt;
    return listing;
  }
  void drop() {
    const std::lock_guard lock(mutex_);
    listings_.clear();
  }

 private:
  const uint64_t ms_max_;
  std::mutex mutex_;
  std::map<uint64_t, Listing> listings_;
};

}  // namespace atoll_native::fuse
