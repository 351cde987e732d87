// How a consumer that sleeps is woken, and one that does not sleep is left alone. One word in the segment per consumer:
// 1 while it sleeps. The mapper sleeps on the word itself (futex); a reactor sleeps in epoll with an eventfd.
//
// No wake-up is lost. The consumer stores 1, fences, looks at its queues again, and only then sleeps; the producer puts
// its record, fences, and reads the word. Of two threads that each store, fence and then load what the other stored, at
// least one sees the other's store: either the consumer finds the record in its second look, or the producer sees the 1
// and wakes it. Only the producer that turns the 1 into 0 makes the system call, so doorbells coalesce.
#pragma once
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <ctime>

#include "segment/atomic.h"
#include "segment/step.h"

namespace atoll_native {

class Doorbell {
 public:
  /// `event_fd` < 0: a futex doorbell. The eventfd stays the caller's and is non-blocking.
  explicit Doorbell(uint32_t& asleep, int event_fd = -1) : asleep_(&asleep), event_fd_(event_fd) {}

  // ---- producers, any thread, after putting
  /// Wakes the consumer when it sleeps; one fence and one load when it does not.
  void ring() {
    ATOLL_STEP();
    full_fence();
    ATOLL_STEP();
    if (load_relaxed(*asleep_) == 0) return;
    // Relaxed: the order that matters was made by the fence; this only elects one ringer.
    if (std::atomic_ref<uint32_t>(*asleep_).exchange(0, std::memory_order_relaxed) == 0) return;
    if (event_fd_ >= 0) {
      const uint64_t one = 1;
      // Can only fail when the counter is full, and then it is readable anyway.
      while (write(event_fd_, &one, sizeof one) < 0 && errno == EINTR) {
      }
    } else {
      syscall(SYS_futex, asleep_, FUTEX_WAKE, 1, nullptr, nullptr, 0);
    }
  }

  // ---- the consumer's thread
  /// Says that the consumer is about to sleep. It must look at all its queues once more before it does.
  void arm() {
    store_relaxed(*asleep_, 1u);
    full_fence();
    ATOLL_STEP();
  }
  /// Back at work: producers need not ring.
  void disarm() { store_relaxed(*asleep_, 0u); }
  /// Futex doorbells, between arm() and disarm(): sleeps until rung or for `timeout_ns`.
  void wait(int64_t timeout_ns) {
    ATOLL_STEP();
    timespec timeout{};
    timeout.tv_sec = timeout_ns / 1'000'000'000;
    timeout.tv_nsec = timeout_ns % 1'000'000'000;
    syscall(SYS_futex, asleep_, FUTEX_WAIT, 1, &timeout, nullptr, 0);
  }
  /// Eventfd doorbells: takes the counter so that epoll (level triggered) is quiet again.
  void drain() {
    uint64_t count;
    while (read(event_fd_, &count, sizeof count) < 0 && errno == EINTR) {
    }
  }
  int event_fd() const { return event_fd_; }

 private:
  uint32_t* asleep_;
  int event_fd_;
};

}  // namespace atoll_native
