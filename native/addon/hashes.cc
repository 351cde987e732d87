// Hashes of blocks that JavaScript has in memory.
#include <cerrno>

#include "addon/addon.h"
#include "seal/blake3.h"
#include "seal/block_hashes.h"

namespace atoll_native::addon {
namespace {

Napi::Value hash_given_blocks(const Napi::CallbackInfo& info) {
  size_t length = 0;
  const uint8_t* const blocks = bytes(info, 0, &length);
  size_t hashes_length = 0;
  uint8_t* const hashes = blocks == nullptr ? nullptr : bytes(info, 2, &hashes_length);
  size_t count = 0;
  uint8_t* const hashed = hashes == nullptr ? nullptr : bytes(info, 3, &count);
  if (hashed == nullptr) return info.Env().Undefined();
  const uint64_t block_bytes = u32(info, 1);
  if (block_bytes == 0 || length != count * block_bytes || hashes_length != count * sizeof(BlockHash)) {
    throw_errno(info.Env(), EINVAL, "a hash and a byte for each whole block are wanted");
    return info.Env().Undefined();
  }
  hash_blocks(blocks, block_bytes, count, hashes, hashed);
  return info.Env().Undefined();
}

}  // namespace

void register_hashes(Napi::Env env, Napi::Object exports) { method(env, exports, "hashBlocks", hash_given_blocks); }

}  // namespace atoll_native::addon
