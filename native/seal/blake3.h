// BLAKE3-256 of bytes that lie together in memory (https://github.com/BLAKE3-team/BLAKE3-specs), unkeyed: what the
// index of sealed blocks has for each slot. Portable: eight chunks at a time in vectors of the compiler's, with AVX2
// where the machine has it.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace atoll_native {

using BlockHash = std::array<uint8_t, 32>;

/// Any length. No allocation; about 5 KiB of stack.
BlockHash blake3(const uint8_t* bytes, size_t length);

}  // namespace atoll_native
