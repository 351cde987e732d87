#include "seal/blake3.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace atoll_native {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr size_t kChunk = 1024;
constexpr uint32_t kBlock = 64;
constexpr size_t kBlockWords = 16;
constexpr size_t kCvWords = 8;
constexpr size_t kCvBytes = 32;
/// Chunks whose tree is worked out level by level; larger ones are halved first.
constexpr size_t kSubtreeChunks = 64;

enum Flag : uint32_t { kChunkStart = 1, kChunkEnd = 2, kParent = 4, kRoot = 8 };

constexpr uint32_t kIv[kCvWords] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                    0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

/// Which word of the message a round takes where: each round permutes the one before it.
constexpr auto kSchedule = [] {
  constexpr uint8_t permutation[kBlockWords] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};
  std::array<std::array<uint8_t, kBlockWords>, 7> rounds = {};
  for (uint8_t i = 0; i < kBlockWords; i++) rounds[0][i] = i;
  for (size_t r = 1; r < rounds.size(); r++) {
    for (size_t i = 0; i < kBlockWords; i++) rounds[r][i] = rounds[r - 1][permutation[i]];
  }
  return rounds;
}();

// Vectors are handed on by reference and everything is inlined: no call has one in its interface, whose registers would
// depend on what the machine can do.
#define ATOLL_INLINE [[gnu::always_inline]] static inline

/// One word of each of eight inputs, of sixteen.
using Words8 = uint32_t __attribute__((vector_size(32)));
using Words16 = uint32_t __attribute__((vector_size(64)));
using Bytes = uint8_t __attribute__((vector_size(32)));

template <size_t kLanes>
struct Vector;
template <>
struct Vector<8> {
  using Words = Words8;
};
template <>
struct Vector<16> {
  using Words = Words16;
};

ATOLL_INLINE void rotate(uint32_t& x, int by) { x = std::rotr(x, by); }

/// AVX-512 rotates with one instruction, which the compiler finds.
ATOLL_INLINE void rotate(Words16& x, int by) { x = (x >> by) | (x << (32 - by)); }

/// AVX2 does not: bytes are moved where whole ones are.
ATOLL_INLINE void rotate(Words8& x, int by) {
  if (by == 16) {
    const auto b = reinterpret_cast<const Bytes&>(x);
    const Bytes r = __builtin_shufflevector(b, b, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 18, 19, 16, 17,
                                            22, 23, 20, 21, 26, 27, 24, 25, 30, 31, 28, 29);
    x = reinterpret_cast<const Words8&>(r);
  } else if (by == 8) {
    const auto b = reinterpret_cast<const Bytes&>(x);
    const Bytes r = __builtin_shufflevector(b, b, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12, 17, 18, 19, 16,
                                            21, 22, 23, 20, 25, 26, 27, 24, 29, 30, 31, 28);
    x = reinterpret_cast<const Words8&>(r);
  } else {
    x = (x >> by) | (x << (32 - by));
  }
}

/// Four mixings that do not depend on each other, step by step beside each other: columns, or diagonals `turn`ed by
/// one.
template <typename T>
ATOLL_INLINE void mix(T* v, const T* m, const uint8_t* s, int turn) {
  T* const a = v;
  T* const b = v + 4;
  T* const c = v + 8;
  T* const d = v + 12;
#pragma GCC unroll 2
  for (int half = 0; half < 2; half++) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) a[i] += m[s[2 * i + half]];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) a[i] += b[(i + turn) % 4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) d[(i + 3 * turn) % 4] ^= a[i];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) rotate(d[(i + 3 * turn) % 4], half == 0 ? 16 : 8);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) c[(i + 2 * turn) % 4] += d[(i + 3 * turn) % 4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) b[(i + turn) % 4] ^= c[(i + 2 * turn) % 4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) rotate(b[(i + turn) % 4], half == 0 ? 12 : 7);
  }
}

/// The seven rounds over `v`, whose first half then is the chaining value when both halves are joined.
template <typename T>
ATOLL_INLINE void rounds(T* v, const T* m) {
#pragma GCC unroll 7
  for (size_t r = 0; r < 7; r++) {
    mix(v, m, kSchedule[r].data(), 0);
    mix(v, m, kSchedule[r].data() + 8, 1);
  }
}

void compress(uint32_t* cv, const uint8_t* block, uint32_t length, uint64_t counter, uint32_t flags) {
  uint32_t m[kBlockWords];
  std::memcpy(m, block, kBlock);
  uint32_t v[16];
  std::memcpy(v, cv, kCvBytes);
  std::memcpy(v + 8, kIv, kCvBytes / 2);
  v[12] = static_cast<uint32_t>(counter);
  v[13] = static_cast<uint32_t>(counter >> 32);
  v[14] = length;
  v[15] = flags;
  rounds(v, m);
  for (size_t i = 0; i < kCvWords; i++) cv[i] = v[i] ^ v[i + 8];
}

/// Eight rows of eight words become eight columns.
ATOLL_INLINE void transpose(Words8* r) {
  Words8 t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  Words8 u[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    u[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    u[i + 1] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    u[i + 2] = __builtin_shufflevector(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    u[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    r[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

/// Sixteen rows of sixteen words become sixteen columns: first in quarters of four words, then the quarters.
ATOLL_INLINE void transpose(Words16* r) {
  Words16 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
      r[i + 2 * k] =
          __builtin_shufflevector(t[i + k], t[i + k + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      r[i + 2 * k + 1] =
          __builtin_shufflevector(t[i + k], t[i + k + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
      Words16* const u = r + i + 8 * k;
      Words16* const v = t + i + 8 * k;
      v[0] = __builtin_shufflevector(u[0], u[4], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
      v[4] = __builtin_shufflevector(u[0], u[4], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    }
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
      const Words16* const v = t + i + 4 * k;
      r[i + 8 * k] = __builtin_shufflevector(v[0], v[8], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
      r[i + 8 * k + 4] =
          __builtin_shufflevector(v[0], v[8], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
  }
}

/// Inputs of whole blocks: chunks, or parents.
template <size_t kLanes>
struct Batch {
  /// of lanes that nothing is left for: some other's
  const uint8_t* inputs[kLanes];
  size_t lanes;
  size_t blocks;
  /// of the first, and from one to the next
  uint64_t counter;
  uint32_t counter_step;
  uint32_t flags, flags_start, flags_end;
};

template <size_t kLanes>
ATOLL_INLINE void hash_lanes(const Batch<kLanes>& batch, uint32_t (*out)[kCvWords]) {
  using Words = typename Vector<kLanes>::Words;
  Words h[kCvWords];
#pragma GCC unroll 8
  for (size_t i = 0; i < kCvWords; i++) h[i] = Words{} + kIv[i];
  Words lane_numbers;
  for (size_t lane = 0; lane < kLanes; lane++) lane_numbers[lane] = static_cast<uint32_t>(lane);
  // The lanes' counters differ in their low words only: a batch begins at a multiple of its lanes.
  const Words low = lane_numbers * batch.counter_step + static_cast<uint32_t>(batch.counter);
  const Words high = Words{} + static_cast<uint32_t>(batch.counter >> 32);
  for (size_t b = 0; b < batch.blocks; b++) {
    Words m[kBlockWords];
    // Square after square: a vector is as many words as there are inputs.
#pragma GCC unroll 2
    for (size_t word = 0; word < kBlockWords; word += kLanes) {
#pragma GCC unroll 16
      for (size_t lane = 0; lane < kLanes; lane++)
        std::memcpy(&m[word + lane], batch.inputs[lane] + b * kBlock + word * 4, sizeof(Words));
      transpose(m + word);
    }
    uint32_t flags = batch.flags;
    if (b == 0) flags |= batch.flags_start;
    if (b + 1 == batch.blocks) flags |= batch.flags_end;
    const Words none = {};
    Words v[16] = {h[0],          h[1],          h[2],          h[3],          h[4], h[5], h[6],          h[7],
                   none + kIv[0], none + kIv[1], none + kIv[2], none + kIv[3], low,  high, none + kBlock, none + flags};
    rounds(v, m);
#pragma GCC unroll 8
    for (size_t i = 0; i < kCvWords; i++) h[i] = v[i] ^ v[i + 8];
  }
  Words columns[kLanes] = {};
#pragma GCC unroll 8
  for (size_t i = 0; i < kCvWords; i++) columns[i] = h[i];
  transpose(columns);
  for (size_t lane = 0; lane < batch.lanes; lane++) std::memcpy(out[lane], &columns[lane], kCvBytes);
}

#if defined(__x86_64__)
[[gnu::target("avx512f,avx512bw")]] void hash_16_avx512(const Batch<16>& batch, uint32_t (*out)[kCvWords]) {
  hash_lanes(batch, out);
}
[[gnu::target("avx2")]] void hash_8_avx2(const Batch<8>& batch, uint32_t (*out)[kCvWords]) { hash_lanes(batch, out); }
#endif
void hash_16_any(const Batch<16>& batch, uint32_t (*out)[kCvWords]) { hash_lanes(batch, out); }
void hash_8_any(const Batch<8>& batch, uint32_t (*out)[kCvWords]) { hash_lanes(batch, out); }

/// Inputs of `blocks` whole blocks each, one after the other in memory, and what is hashed with each.
struct Inputs {
  const uint8_t* bytes;
  size_t count;
  size_t blocks;
  uint64_t counter;
  uint32_t counter_step;
  uint32_t flags, flags_start, flags_end;
};

template <size_t kLanes>
size_t hash_some(void (*kernel)(const Batch<kLanes>&, uint32_t (*)[kCvWords]), const Inputs& inputs, size_t done,
                 uint32_t (*out)[kCvWords]) {
  const size_t lanes = std::min(kLanes, inputs.count - done);
  Batch<kLanes> batch{.inputs = {},
                      .lanes = lanes,
                      .blocks = inputs.blocks,
                      .counter = inputs.counter + done * inputs.counter_step,
                      .counter_step = inputs.counter_step,
                      .flags = inputs.flags,
                      .flags_start = inputs.flags_start,
                      .flags_end = inputs.flags_end};
  for (size_t lane = 0; lane < kLanes; lane++)
    batch.inputs[lane] = inputs.bytes + (done + (lane < lanes ? lane : 0)) * inputs.blocks * kBlock;
  kernel(batch, out + done);
  return lanes;
}

/// Chaining values of all inputs.
void hash_many(const Inputs& inputs, Blake3Lanes lanes, uint32_t (*out)[kCvWords]) {
  size_t done = 0;
  while (inputs.count - done > 1) {
#if defined(__x86_64__)
    if (lanes == Blake3Lanes::kSixteenAvx512) {
      done += hash_some<16>(hash_16_avx512, inputs, done, out);
      continue;
    }
    if (lanes == Blake3Lanes::kEightAvx2) {
      done += hash_some<8>(hash_8_avx2, inputs, done, out);
      continue;
    }
#endif
    done += lanes == Blake3Lanes::kSixteen ? hash_some<16>(hash_16_any, inputs, done, out)
                                           : hash_some<8>(hash_8_any, inputs, done, out);
  }
  if (done == inputs.count) return;
  std::memcpy(out[done], kIv, kCvBytes);
  for (size_t b = 0; b < inputs.blocks; b++) {
    const uint32_t start = b == 0 ? inputs.flags_start : 0;
    const uint32_t end = b + 1 == inputs.blocks ? inputs.flags_end : 0;
    compress(out[done], inputs.bytes + (done * inputs.blocks + b) * kBlock, kBlock,
             inputs.counter + done * inputs.counter_step, inputs.flags | start | end);
  }
}

/// A chunk that is not whole, or is all there is. Empty: of no bytes at all.
void hash_chunk(const uint8_t* bytes, size_t length, uint64_t counter, uint32_t root, uint32_t* cv) {
  std::memcpy(cv, kIv, kCvBytes);
  uint32_t start = kChunkStart;
  for (; length > kBlock; bytes += kBlock, length -= kBlock, start = 0) compress(cv, bytes, kBlock, counter, start);
  uint8_t last[kBlock] = {};
  if (length != 0) std::memcpy(last, bytes, length);
  compress(cv, last, static_cast<uint32_t>(length), counter, start | kChunkEnd | root);
}

void join(const uint32_t (*pair)[kCvWords], uint32_t root, uint32_t* cv) {
  uint8_t block[kBlock];
  std::memcpy(block, pair, kBlock);
  std::memcpy(cv, kIv, kCvBytes);
  compress(cv, block, kBlock, 0, kParent | root);
}

void hash_tree(const uint8_t* bytes, size_t length, Blake3Lanes lanes, uint64_t counter, uint32_t root, uint32_t* cv) {
  if (length <= kChunk) {
    hash_chunk(bytes, length, counter, root, cv);
    return;
  }
  if (length > kSubtreeChunks * kChunk) {
    // The left half is the largest power of two of chunks that leaves something for the right.
    const size_t left = std::bit_floor((length - 1) / kChunk) * kChunk;
    uint32_t pair[2][kCvWords];
    hash_tree(bytes, left, lanes, counter, 0, pair[0]);
    hash_tree(bytes + left, length - left, lanes, counter + left / kChunk, 0, pair[1]);
    join(pair, root, cv);
    return;
  }
  uint32_t level[kSubtreeChunks][kCvWords];
  const size_t whole = length / kChunk;
  hash_many({.bytes = bytes,
             .count = whole,
             .blocks = kChunk / kBlock,
             .counter = counter,
             .counter_step = 1,
             .flags = 0,
             .flags_start = kChunkStart,
             .flags_end = kChunkEnd},
            lanes, level);
  size_t count = whole;
  if (length % kChunk != 0) {
    hash_chunk(bytes + whole * kChunk, length % kChunk, counter + whole, 0, level[whole]);
    count++;
  }
  // Neighbours are joined and the odd one goes up as it is: the same tree as halving makes.
  while (count > 2) {
    uint32_t above[kSubtreeChunks / 2][kCvWords];
    hash_many({.bytes = reinterpret_cast<const uint8_t*>(level),
               .count = count / 2,
               .blocks = 1,
               .counter = 0,
               .counter_step = 0,
               .flags = kParent,
               .flags_start = 0,
               .flags_end = 0},
              lanes, above);
    if (count % 2 != 0) std::memcpy(level[count / 2], level[count - 1], kCvBytes);
    std::memcpy(level, above, count / 2 * kCvBytes);
    count = count / 2 + count % 2;
  }
  join(level, root, cv);
}

Blake3Lanes best_lanes() {
  for (const Blake3Lanes lanes : {Blake3Lanes::kSixteenAvx512, Blake3Lanes::kEightAvx2}) {
    if (blake3_can(lanes)) return lanes;
  }
  return Blake3Lanes::kEight;
}

}  // namespace

bool blake3_can(Blake3Lanes lanes) {
#if defined(__x86_64__)
  if (lanes == Blake3Lanes::kSixteenAvx512) {
    return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0;
  }
  if (lanes == Blake3Lanes::kEightAvx2) return __builtin_cpu_supports("avx2") != 0;
#endif
  return lanes == Blake3Lanes::kEight || lanes == Blake3Lanes::kSixteen;
}

BlockHash blake3(const uint8_t* bytes, size_t length) {
  static const Blake3Lanes best = best_lanes();
  return blake3(bytes, length, best);
}

BlockHash blake3(const uint8_t* bytes, size_t length, Blake3Lanes lanes) {
  uint32_t cv[kCvWords];
  hash_tree(bytes, length, lanes, 0, kRoot, cv);
  BlockHash hash;
  std::memcpy(hash.data(), cv, hash.size());
  return hash;
}

}  // namespace atoll_native
