// How long a reactor polls before it sleeps: a window that follows success, as halt polling does for guests.
//
// Sleeping and being woken costs up to ~55 us on a virtual CPU, polling costs a core. So the window grows while the
// work that came would have been caught by a longer poll, and shrinks to nothing when it would not: a reactor whose
// work arrives in slow intervals never spins, and an idle one costs nothing.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

namespace atoll_native {

class SpinWindow {
 public:
  /// First window after none: shorter than this catches hardly anything that was not there already.
  static constexpr uint64_t kStartNsMax = 10'000;
  /// A window below this is none.
  static constexpr uint64_t kUsefulNs = 500;

  explicit SpinWindow(uint64_t ns_max) : ns_max_(ns_max), ns_(0) {}

  uint64_t ns() const { return ns_; }
  /// Work came while polling. The window gets headroom over the time it took, slowly when it is large enough.
  void hit(uint64_t waited_ns) {
    if (waited_ns * 2 > ns_) grow();
  }
  /// Polling (if any) was in vain: work came after `waited_ns` altogether, sleep included.
  void miss(uint64_t waited_ns) {
    if (waited_ns <= ns_max_) {
      grow();
    } else {
      ns_ /= 2;
      if (ns_ < kUsefulNs) ns_ = 0;
    }
  }

 private:
  void grow() { ns_ = std::min(ns_max_, ns_ == 0 ? std::min(kStartNsMax, ns_max_) : ns_ * 2); }

  const uint64_t ns_max_;
  uint64_t ns_;
};

/// How many threads of the process may poll at once. On a busy machine a polling thread takes the core that the one it
/// waits for needs, so one core is always left to those.
class SpinPermits {
 public:
  explicit SpinPermits(uint32_t cores) : permits_(std::max<int32_t>(1, static_cast<int32_t>(cores) - 1)) {}
  bool take() {
    // Relaxed: a count, it orders nothing.
    if (permits_.fetch_sub(1, std::memory_order_relaxed) > 0) return true;
    permits_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  void give() { permits_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<int32_t> permits_;
};

}  // namespace atoll_native
