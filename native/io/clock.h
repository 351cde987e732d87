// The clock that everything native measures with.
#pragma once
#include <cstdint>
#include <ctime>

namespace atoll_native {

inline uint64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

inline uint64_t monotonic_ms() { return monotonic_ns() / 1'000'000; }

}  // namespace atoll_native
