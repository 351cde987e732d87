// A native Directory of fixed exports, for tests and measurements of the NBD frontend.
#pragma once
#include <cerrno>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "nbd/directory.h"

namespace atoll_native::nbd {

class MemoryDirectory final : public Directory {
 public:
  struct Export {
    uint64_t size;
    uint32_t block_size = 65536;
    bool read_only = false;
    std::string description;
    std::set<std::string> snapshots;  // contexts atoll:changed-since:NAME
  };

  // Set before use.
  std::map<std::string, Export> exports;
  bool hold = false;  // answers wait for answer_held()
  std::string open_message = "no such export";

  void open(const std::string& name, uint32_t, std::function<void(OpenAnswer)> answer) override {
    std::unique_lock lock(mutex_);
    opens_++;
    OpenAnswer result;
    auto found = exports.find(name);
    if (found == exports.end()) {
      result.error = ENOENT;
      result.message = open_message;
    } else {
      result.handle = take_handle();
      result.size = found->second.size;
      result.block_size = found->second.block_size;
      result.read_only = found->second.read_only;
      result.description = found->second.description;
    }
    finish(lock, [answer, result] { answer(result); });
  }

  void list(std::function<void(ListAnswer)> answer) override {
    std::unique_lock lock(mutex_);
    ListAnswer result;
    for (const auto& [name, facts] : exports) result.exports.push_back({name, facts.description});
    finish(lock, [answer, result] { answer(result); });
  }

  void contexts(const std::string& name, const std::vector<std::string>& queries, bool listing,
                std::function<void(ContextsAnswer)> answer) override {
    std::unique_lock lock(mutex_);
    ContextsAnswer result;
    auto found = exports.find(name);
    if (found == exports.end()) {
      result.error = ENOENT;
      result.message = open_message;
    } else {
      std::vector<std::string> all = {"base:allocation"};
      for (const std::string& snapshot : found->second.snapshots) all.push_back("atoll:changed-since:" + snapshot);
      for (const std::string& context : all) {
        bool wanted = listing && queries.empty();
        for (const std::string& query : queries) {
          wanted |= query == context || (listing && query.back() == ':' && context.starts_with(query));
        }
        if (!wanted) continue;
        const bool base = context == "base:allocation";
        result.contexts.push_back({context, base || listing ? ContextEntry::kBaseAllocation : take_handle()});
      }
    }
    finish(lock, [answer, result] { answer(result); });
  }

  void closed(uint32_t, uint32_t handle, bool) override {
    std::lock_guard lock(mutex_);
    if (open_handles_.erase(handle) == 0) wrong_closes_++;
  }

  /// Answers all that waits. Returns how many.
  size_t answer_held() {
    std::vector<std::function<void()>> held;
    {
      std::lock_guard lock(mutex_);
      held.swap(held_);
    }
    for (auto& answer : held) answer();
    return held.size();
  }
  size_t held() {
    std::lock_guard lock(mutex_);
    return held_.size();
  }
  size_t open_handles() {
    std::lock_guard lock(mutex_);
    return open_handles_.size();
  }
  size_t opens() {
    std::lock_guard lock(mutex_);
    return opens_;
  }
  /// Handles given back that were not out.
  size_t wrong_closes() {
    std::lock_guard lock(mutex_);
    return wrong_closes_;
  }

 private:
  uint32_t take_handle() {
    open_handles_.insert(next_handle_);
    return next_handle_++;
  }
  void finish(std::unique_lock<std::mutex>& lock, std::function<void()> answer) {
    if (hold) {
      held_.push_back(std::move(answer));
      return;
    }
    lock.unlock();
    answer();
  }

  std::mutex mutex_;
  std::vector<std::function<void()>> held_;
  std::set<uint32_t> open_handles_;
  uint32_t next_handle_ = 1;
  size_t opens_ = 0;
  size_t wrong_closes_ = 0;
};

}  // namespace atoll_native::nbd
