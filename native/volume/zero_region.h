// Zeroes to write from: read-only memory that costs one page, however much of it is read.
#pragma once
#include <cstdint>

namespace atoll_native {

/// The largest block: no piece of zeroes that is written is larger.
inline constexpr uint32_t kZeroRegionBytes = 4u << 20;

/// kZeroRegionBytes of zeroes, page aligned, or null when the process has no address space left. Any thread.
const uint8_t* zero_region();

}  // namespace atoll_native
