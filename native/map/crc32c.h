// CRC-32C (Castagnoli), the checksum of map pages and of all other small structures on disk.
#pragma once
#include <cstddef>
#include <cstdint>

namespace atoll_native {

/// Checksum of `bytes`, going on from `seed` (0, or the checksum of what came before).
uint32_t crc32c(const void* bytes, size_t length, uint32_t seed = 0);

/// The same without special instructions: the fallback, and what tests compare with.
uint32_t crc32c_table(const void* bytes, size_t length, uint32_t seed = 0);

}  // namespace atoll_native
