// Syncs of one file, one at a time, each for everybody who asked before it began.
//
// One at a time, because the kernel tells a lost page once per open file: with two syncs at once, one could be told of
// the error and the other succeed and be answered before the first has marked the pool failed. Together, because ten
// waiters need one fdatasync and not ten.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "block/failure.h"

namespace atoll_native {

class FileSync {
 public:
  /// Returns when a sync that began after this call has ended. 0 or -errno.
  template <typename Sync>
  int run(FailureLatch& latch, Sync sync) {
    std::unique_lock lock(mutex_);
    const uint64_t wanted = started_ + 1;
    while (ended_ < wanted) {
      if (running_) {
        ended_wake_.wait(lock);
        continue;
      }
      // The first to find nobody running leads; for the others waiting it is a sync that began after they asked.
      if (const int result = lead(lock, latch, sync); result != 0) return result;
    }
    return latch.failed() ? -EIO : 0;
  }

  /// The same by this very `sync`, which does more than others do; it is one for who waits in run(), too.
  template <typename Sync>
  int run_this(FailureLatch& latch, Sync sync) {
    std::unique_lock lock(mutex_);
    while (running_) ended_wake_.wait(lock);
    const int result = lead(lock, latch, sync);
    return result == 0 && latch.failed() ? -EIO : result;
  }

 private:
  template <typename Sync>
  int lead(std::unique_lock<std::mutex>& lock, FailureLatch& latch, Sync& sync) {
    running_ = true;
    const uint64_t number = ++started_;
    lock.unlock();
    const int result = latch.after_sync(sync());
    lock.lock();
    running_ = false;
    ended_ = number;
    ended_wake_.notify_all();
    return result;
  }

  std::mutex mutex_;
  std::condition_variable ended_wake_;
  bool running_ = false;
  uint64_t started_ = 0;
  uint64_t ended_ = 0;
};

/// The FileSync of each file that was ever synced; as many as the pool has files.
class FileSyncs {
 public:
  FileSync& of(uint32_t file) {
    std::lock_guard lock(mutex_);
    std::unique_ptr<FileSync>& entry = entries_[file];
    if (entry == nullptr) entry = std::make_unique<FileSync>();
    return *entry;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<uint32_t, std::unique_ptr<FileSync>> entries_;
};

}  // namespace atoll_native
