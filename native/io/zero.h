#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace atoll_native {

/// Whether all bytes are zero. The first ones decide for nearly all data.
inline bool is_zero(const uint8_t* at, size_t bytes) {
  constexpr size_t kProbeBytes = 16;
  const auto zero = [](uint8_t byte) { return byte == 0; };
  if (!std::all_of(at, at + std::min(bytes, kProbeBytes), zero)) return false;
  return bytes <= kProbeBytes || std::memcmp(at, at + kProbeBytes, bytes - kProbeBytes) == 0;
}

}  // namespace atoll_native
