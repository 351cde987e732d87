#include "map/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace atoll_native {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // Castagnoli, reflected

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
    table[i] = value;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = make_table();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(const void* bytes, size_t length, uint32_t seed) {
  const uint8_t* at = static_cast<const uint8_t*>(bytes);
  uint64_t value = ~seed;
  for (; length >= 8; at += 8, length -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    value = _mm_crc32_u64(value, word);
  }
  uint32_t narrow = static_cast<uint32_t>(value);
  for (; length > 0; at++, length--) narrow = _mm_crc32_u8(narrow, *at);
  return ~narrow;
}
#endif

}  // namespace

uint32_t crc32c_table(const void* bytes, size_t length, uint32_t seed) {
  const uint8_t* at = static_cast<const uint8_t*>(bytes);
  uint32_t value = ~seed;
  for (size_t i = 0; i < length; i++) value = kTable[(value ^ at[i]) & 0xff] ^ (value >> 8);
  return ~value;
}

uint32_t crc32c(const void* bytes, size_t length, uint32_t seed) {
#if defined(__x86_64__)
  static const bool fast = __builtin_cpu_supports("sse4.2") != 0;
  if (fast) return crc32c_sse42(bytes, length, seed);
#endif
  return crc32c_table(bytes, length, seed);
}

}  // namespace atoll_native
