// A point between two atomic steps whose order matters: another thread may come in between, and seldom does. Builds for
// ThreadSanitizer (native/Makefile defines ATOLL_STEPS) can be told to wait there, now and then, so that it often does;
// everywhere else a step is nothing at all.
#pragma once

#if defined(ATOLL_STEPS)
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <ctime>

namespace atoll_native {

/// Delays happen at about one step in so many; 0: at none.
inline std::atomic<uint32_t> step_delays{0};
inline std::atomic<uint64_t> step_seed{1};

/// Relaxed and thread-local throughout: a step that synchronised threads would hide what it is to show.
inline void step() {
  const uint32_t one_in = step_delays.load(std::memory_order_relaxed);
  if (one_in == 0) return;
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15ull;
  thread_local uint64_t state = step_seed.fetch_add(kOdd, std::memory_order_relaxed) | 1;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  const uint64_t draw = (state * kOdd) >> 32;
  if (draw % one_in != 0) return;
  const uint32_t kind = (draw >> 8) % 16;
  if (kind == 0) {
    // Long enough for the other side to go through several turns.
    const timespec pause = {0, static_cast<long>((draw >> 12) % 200'000)};
    nanosleep(&pause, nullptr);
  } else if (kind < 6) {
    sched_yield();
  } else {
    for (uint32_t i = (draw >> 12) % 2000; i != 0; i--) std::atomic_signal_fence(std::memory_order_seq_cst);
  }
}

}  // namespace atoll_native
#define ATOLL_STEP() ::atoll_native::step()
#else
#define ATOLL_STEP() static_cast<void>(0)
#endif
