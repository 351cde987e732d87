#include "map/leaf_hash.h"

#include <vector>

namespace atoll_native {

uint32_t LeafHash::locate(uint64_t key) const {
  uint32_t at = home_of(key);
  for (uint32_t i = 0; i < kProbeMax; i++, at = (at + 1) & mask_) {
    const uint64_t entry = entries_[at].load(std::memory_order_relaxed);
    if (entry == kEmpty) return kNoPlace;
    if (entry >> kFrameBits == key && entry != kTombstone) return at;
  }
  return kNoPlace;
}

uint32_t LeafHash::free_place(uint64_t key) const {
  uint32_t at = home_of(key);
  for (uint32_t i = 0; i < kProbeMax; i++, at = (at + 1) & mask_) {
    if (entries_[at].load(std::memory_order_relaxed) <= kTombstone) return at;
  }
  return kNoPlace;
}

bool LeafHash::insert(uint32_t volume, uint64_t leaf, uint32_t frame) {
  const uint64_t key = key_of(volume, leaf);
  const uint64_t entry = key << kFrameBits | (frame + kFrameBias);
  if (const uint32_t at = locate(key); at != kNoPlace) {
    entries_[at].store(entry, std::memory_order_release);
    return true;
  }
  if (live_ >= live_max()) return false;
  if (tombstones_ > capacity_ / kTombstoneShare) rebuild();
  uint32_t at = free_place(key);
  if (at == kNoPlace && tombstones_ != 0) {
    rebuild();
    at = free_place(key);
  }
  if (at == kNoPlace) return false;
  if (entries_[at].load(std::memory_order_relaxed) == kTombstone) tombstones_--;
  entries_[at].store(entry, std::memory_order_release);
  live_++;
  return true;
}

bool LeafHash::remove(uint32_t volume, uint64_t leaf) {
  uint32_t at = locate(key_of(volume, leaf));
  if (at == kNoPlace) return false;
  live_--;
  if (entries_[(at + 1) & mask_].load(std::memory_order_relaxed) != kEmpty) {
    entries_[at].store(kTombstone, std::memory_order_release);
    tombstones_++;
    return true;
  }
  // A probe that comes to the end of a cluster ends one entry later anyway, so the entry and all tombstones right
  // before it can be empty. Back to front: a reader never meets a new hole before an entry that is still there.
  entries_[at].store(kEmpty, std::memory_order_release);
  for (;;) {
    ATOLL_STEP();
    at = (at - 1) & mask_;
    if (entries_[at].load(std::memory_order_relaxed) != kTombstone) return true;
    entries_[at].store(kEmpty, std::memory_order_release);
    tombstones_--;
  }
}

void LeafHash::rebuild() {
  // The new table is made aside and then copied over the old one, word by word: each word that a reader meets on the
  // way is right in one of the two tables, and both say the same. It may miss entries until the copy is complete.
  std::vector<uint64_t> fresh(capacity_, kEmpty);
  uint32_t placed = 0;
  for (uint32_t i = 0; i < capacity_; i++) {
    const uint64_t entry = entries_[i].load(std::memory_order_relaxed);
    if (entry <= kTombstone) continue;
    uint32_t at = home_of(entry >> kFrameBits);
    uint32_t probes = 0;
    while (probes < kProbeMax && fresh[at] != kEmpty) {
      at = (at + 1) & mask_;
      probes++;
    }
    // An entry without a place is forgotten: its leaf costs a map fault, whose insert then says that there is no room.
    if (probes == kProbeMax) continue;
    fresh[at] = entry;
    placed++;
  }
  for (uint32_t i = 0; i < capacity_; i++) {
    if (entries_[i].load(std::memory_order_relaxed) == fresh[i]) continue;
    ATOLL_STEP();
    entries_[i].store(fresh[i], std::memory_order_release);
  }
  live_ = placed;
  tombstones_ = 0;
}

}  // namespace atoll_native
