// Exports of the volumes of a test mapper. Answers come from a thread of its own, as the daemon's come from JavaScript.
#pragma once
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "nbd/directory.h"

namespace atoll_native::nbd {

class VolumeDirectory final : public Directory {
 public:
  VolumeDirectory() : thread_([this] { run(); }) {}
  ~VolumeDirectory() override {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }

  /// `answer` is what opening it yields, with the handle of an open volume.
  void add(const std::string& name, const OpenAnswer& answer) {
    const std::lock_guard lock(mutex_);
    exports_[name] = answer;
  }
  /// Nobody opens it any more; waits until nobody has it open.
  void remove(const std::string& name) {
    std::unique_lock lock(mutex_);
    const uint32_t handle = exports_.at(name).handle;
    exports_.erase(name);
    changed_.wait(lock, [&] { return users_[handle] == 0; });
  }
  /// Opens that were not closed.
  int64_t open_handles() {
    const std::lock_guard lock(mutex_);
    int64_t sum = 0;
    for (const auto& [handle, users] : users_) sum += users;
    return sum;
  }

  void open(const std::string& name, uint32_t, std::function<void(OpenAnswer)> answer) override {
    later([this, name, answer] {
      OpenAnswer result;
      {
        const std::lock_guard lock(mutex_);
        const auto found = exports_.find(name);
        if (found == exports_.end()) {
          result.error = ENOENT;
          result.message = "no such export";
        } else {
          result = found->second;
          users_[result.handle]++;
        }
      }
      answer(result);
    });
  }
  void list(std::function<void(ListAnswer)> answer) override {
    later([this, answer] {
      ListAnswer result;
      {
        const std::lock_guard lock(mutex_);
        for (const auto& [name, facts] : exports_) result.exports.push_back({name, facts.description});
      }
      answer(result);
    });
  }
  void contexts(const std::string& name, const std::vector<std::string>& queries, bool listing,
                std::function<void(ContextsAnswer)> answer) override {
    later([this, name, queries, listing, answer] {
      ContextsAnswer result;
      {
        const std::lock_guard lock(mutex_);
        if (!exports_.contains(name)) result.error = ENOENT;
      }
      bool wanted = listing && queries.empty();
      for (const std::string& query : queries) wanted |= query == "base:allocation";
      if (wanted && result.error == 0) result.contexts.push_back({"base:allocation"});
      answer(result);
    });
  }
  void closed(uint32_t, uint32_t handle, bool) override {
    const std::lock_guard lock(mutex_);
    users_[handle]--;
    changed_.notify_all();
  }

 private:
  void later(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_all();
  }
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return ending_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::map<std::string, OpenAnswer> exports_;
  std::map<uint32_t, int64_t> users_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace atoll_native::nbd
