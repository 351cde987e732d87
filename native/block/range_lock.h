// Orders overlapping changes of a direct pool. Writing less than a sector is reading the sector, changing it and
// writing it back: nobody else may write any byte of that sector meanwhile, or what they wrote is lost. Writes of whole
// sectors take their range shared, read-modify-write takes it exclusively; who comes first goes first.
//
// The list is as long as writes are in flight in one pool (tens), so it is simply walked.
#pragma once
#include <cstdint>
#include <mutex>

namespace atoll_native {

struct RangeHold {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool exclusive = false;
  /// Called inside acquire() when the range has to be waited for, before anybody can grant it. May be null.
  void (*wait)(RangeHold*) = nullptr;
  /// Called by whoever makes the range free, on that thread; not when acquire() said true.
  void (*granted)(RangeHold*) = nullptr;
  void* owner = nullptr;  // of whoever gave the callbacks
  // the lock's own
  bool waiting = false;
  RangeHold* prev = nullptr;
  RangeHold* next = nullptr;
  RangeHold* next_granted = nullptr;
};

class RangeLock {
 public:
  /// True: held now. False: `granted` comes later.
  bool acquire(RangeHold* hold);
  void release(RangeHold* hold);
  /// Waits for the range; for threads that may block.
  void acquire_blocking(RangeHold* hold);

 private:
  static bool conflict(const RangeHold& a, const RangeHold& b) {
    return (a.exclusive || b.exclusive) && a.begin < b.end && b.begin < a.end;
  }
  static bool blocked(const RangeHold& hold);

  std::mutex mutex_;
  RangeHold* first_ = nullptr;  // in the order they came
  RangeHold* last_ = nullptr;
};

}  // namespace atoll_native
