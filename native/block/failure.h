// A pool that failed once stays failed (invariant 1): after a failed fsync the kernel may have dropped the dirty pages
// and marked them clean, so that the next fsync succeeds without the data. Only an operator may decide to go on.
#pragma once
#include <atomic>
#include <cerrno>

namespace atoll_native {

class FailureLatch {
 public:
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  /// Any failed sync is data loss. Takes and returns 0 or -errno.
  int after_sync(int result) {
    if (result < 0) fail();
    return result;
  }
  /// EIO from a write says that the medium lost something. The others (ENOSPC, EINVAL, EDQUOT…) left what was there as
  /// it was and may pass. Takes and returns 0 or -errno.
  int after_write(int result) {
    if (result == -EIO) fail();
    return result;
  }

 private:
  void fail() { failed_.store(true, std::memory_order_release); }
  std::atomic<bool> failed_{false};
};

}  // namespace atoll_native
