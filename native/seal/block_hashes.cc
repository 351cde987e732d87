#include "seal/block_hashes.h"

#include <cstring>

#include "io/zero.h"
#include "seal/blake3.h"

namespace atoll_native {

void hash_blocks(const uint8_t* blocks, size_t block_bytes, size_t count, uint8_t* hashes, uint8_t* hashed) {
  for (size_t i = 0; i < count; i++) {
    const uint8_t* const block = blocks + i * block_bytes;
    hashed[i] = is_zero(block, block_bytes) ? 0 : 1;
    if (hashed[i] == 0) continue;
    const BlockHash hash = blake3(block, block_bytes);
    std::memcpy(hashes + i * hash.size(), hash.data(), hash.size());
  }
}

}  // namespace atoll_native
