// Hashes of blocks that lie one behind the other in memory.
#pragma once
#include <cstddef>
#include <cstdint>

namespace atoll_native {

/// For each of `count` blocks: 1 into `hashed` and its BLAKE3-256 into `hashes` (32 bytes each); or 0, and no hash,
/// where all of its bytes are zero.
void hash_blocks(const uint8_t* blocks, size_t block_bytes, size_t count, uint8_t* hashes, uint8_t* hashed);

}  // namespace atoll_native
