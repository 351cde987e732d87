#include "block/range_lock.h"

#include <condition_variable>

namespace atoll_native {

bool RangeLock::blocked(const RangeHold& hold) {
  // Waiting ones count too: nobody overtakes.
  for (const RangeHold* earlier = hold.prev; earlier != nullptr; earlier = earlier->prev) {
    if (conflict(*earlier, hold)) return true;
  }
  return false;
}

bool RangeLock::acquire(RangeHold* hold) {
  std::lock_guard lock(mutex_);
  hold->prev = last_;
  hold->next = nullptr;
  if (last_ != nullptr) {
    last_->next = hold;
  } else {
    first_ = hold;
  }
  last_ = hold;
  hold->waiting = blocked(*hold);
  if (hold->waiting && hold->wait != nullptr) hold->wait(hold);
  return !hold->waiting;
}

void RangeLock::release(RangeHold* hold) {
  RangeHold* granted = nullptr;
  RangeHold** tail = &granted;
  {
    std::lock_guard lock(mutex_);
    (hold->prev != nullptr ? hold->prev->next : first_) = hold->next;
    (hold->next != nullptr ? hold->next->prev : last_) = hold->prev;
    for (RangeHold* later = hold->next; later != nullptr; later = later->next) {
      if (!later->waiting || !conflict(*hold, *later) || blocked(*later)) continue;
      later->waiting = false;
      later->next_granted = nullptr;
      *tail = later;
      tail = &later->next_granted;
    }
  }
  while (granted != nullptr) {
    RangeHold* next = granted->next_granted;  // once told, it may be gone
    granted->granted(granted);
    granted = next;
  }
}

void RangeLock::acquire_blocking(RangeHold* hold) {
  struct Sleeper {
    std::mutex mutex;
    std::condition_variable wake;
    bool granted = false;
  } sleeper;
  hold->wait = nullptr;
  hold->owner = &sleeper;
  hold->granted = [](RangeHold* granted) {
    auto* waiting = static_cast<Sleeper*>(granted->owner);
    // Told under the mutex: once the sleeper can see it, its stack may go.
    std::lock_guard lock(waiting->mutex);
    waiting->granted = true;
    waiting->wake.notify_one();
  };
  if (acquire(hold)) return;
  std::unique_lock lock(sleeper.mutex);
  sleeper.wake.wait(lock, [&] { return sleeper.granted; });
}

}  // namespace atoll_native
