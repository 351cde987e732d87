// BLAKE3-256 of bytes that lie together in memory (https://github.com/BLAKE3-team/BLAKE3-specs), unkeyed: what the
// index of sealed blocks has for each slot. Several chunks at a time in vectors of the compiler's: sixteen with
// AVX-512, else eight, with AVX2 where the machine has it.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace atoll_native {

using BlockHash = std::array<uint8_t, 32>;

/// How many inputs are hashed side by side, and with what.
enum class Blake3Lanes : uint8_t { kEight, kEightAvx2, kSixteen, kSixteenAvx512 };

/// Whether this machine can.
bool blake3_can(Blake3Lanes lanes);

/// Any length. No allocation; about 10 KiB of stack, and 4 more for each doubling beyond 64 KiB.
BlockHash blake3(const uint8_t* bytes, size_t length);

/// The same with lanes that the machine can.
BlockHash blake3(const uint8_t* bytes, size_t length, Blake3Lanes lanes);

}  // namespace atoll_native
