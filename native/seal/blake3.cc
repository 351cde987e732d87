#include "seal/blake3.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace atoll_native {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr size_t kLanes = 8;
constexpr size_t kChunk = 1024;
constexpr size_t kBlock = 64;
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

/// One word of eight inputs.
using Words = uint32_t __attribute__((vector_size(kLanes * 4)));
using Bytes = uint8_t __attribute__((vector_size(kLanes * 4)));

ATOLL_INLINE void rotate(uint32_t& x, int by) { x = std::rotr(x, by); }

ATOLL_INLINE void rotate(Words& x, int by) {
  if (by == 16) {
    const auto b = reinterpret_cast<const Bytes&>(x);
    const Bytes r = __builtin_shufflevector(b, b, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 18, 19, 16, 17,
                                            22, 23, 20, 21, 26, 27, 24, 25, 30, 31, 28, 29);
    x = reinterpret_cast<const Words&>(r);
  } else if (by == 8) {
    const auto b = reinterpret_cast<const Bytes&>(x);
    const Bytes r = __builtin_shufflevector(b, b, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12, 17, 18, 19, 16,
                                            21, 22, 23, 20, 25, 26, 27, 24, 29, 30, 31, 28);
    x = reinterpret_cast<const Words&>(r);
  } else {
    x = (x >> by) | (x << (32 - by));
  }
}

template <typename T>
ATOLL_INLINE void mix(T* v, int a, int b, int c, int d, const T& x, const T& y) {
  v[a] += v[b] + x;
  v[d] ^= v[a];
  rotate(v[d], 16);
  v[c] += v[d];
  v[b] ^= v[c];
  rotate(v[b], 12);
  v[a] += v[b] + y;
  v[d] ^= v[a];
  rotate(v[d], 8);
  v[c] += v[d];
  v[b] ^= v[c];
  rotate(v[b], 7);
}

/// The seven rounds over `v`, whose first half then is the chaining value when both halves are joined.
template <typename T>
ATOLL_INLINE void rounds(T* v, const T* m) {
#pragma GCC unroll 7
  for (size_t r = 0; r < 7; r++) {
    const auto& s = kSchedule[r];
    mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
    mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
    mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
    mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
    mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
    mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
    mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
    mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
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
ATOLL_INLINE void transpose(Words* r) {
  Words t[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  Words u[kLanes];
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

/// Inputs of whole blocks: chunks, or parents.
struct Batch {
  const uint8_t* inputs[kLanes];
  size_t blocks;
  uint64_t counters[kLanes];
  uint32_t flags, flags_start, flags_end;
};

ATOLL_INLINE void hash_lanes(const Batch& batch, uint32_t (*out)[kCvWords]) {
  Words h[kCvWords];
  Words low, high;
  for (size_t i = 0; i < kCvWords; i++) h[i] = Words{} + kIv[i];
  for (size_t lane = 0; lane < kLanes; lane++) {
    low[lane] = static_cast<uint32_t>(batch.counters[lane]);
    high[lane] = static_cast<uint32_t>(batch.counters[lane] >> 32);
  }
  for (size_t b = 0; b < batch.blocks; b++) {
    Words m[kBlockWords];
    for (size_t lane = 0; lane < kLanes; lane++) {
      std::memcpy(&m[lane], batch.inputs[lane] + b * kBlock, sizeof(Words));
      std::memcpy(&m[lane + kLanes], batch.inputs[lane] + b * kBlock + sizeof(Words), sizeof(Words));
    }
    transpose(m);
    transpose(m + kLanes);
    uint32_t flags = batch.flags;
    if (b == 0) flags |= batch.flags_start;
    if (b + 1 == batch.blocks) flags |= batch.flags_end;
    Words v[16];
    for (size_t i = 0; i < kCvWords; i++) v[i] = h[i];
    for (size_t i = 0; i < 4; i++) v[8 + i] = Words{} + kIv[i];
    v[12] = low;
    v[13] = high;
    v[14] = Words{} + static_cast<uint32_t>(kBlock);
    v[15] = Words{} + flags;
    rounds(v, m);
    for (size_t i = 0; i < kCvWords; i++) h[i] = v[i] ^ v[i + 8];
  }
  transpose(h);
  std::memcpy(out, h, sizeof(h));
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] void hash_lanes_avx2(const Batch& batch, uint32_t (*out)[kCvWords]) { hash_lanes(batch, out); }
#endif
void hash_lanes_any(const Batch& batch, uint32_t (*out)[kCvWords]) { hash_lanes(batch, out); }

/// Chaining values of `count` inputs of `blocks` whole blocks each, one after the other in memory.
void hash_many(const uint8_t* inputs, size_t count, size_t blocks, uint64_t counter, bool counts, uint32_t flags,
               uint32_t flags_start, uint32_t flags_end, uint32_t (*out)[kCvWords]) {
#if defined(__x86_64__)
  static const bool avx2 = __builtin_cpu_supports("avx2") != 0;
#endif
  size_t done = 0;
  while (count - done > 1) {
    const size_t lanes = std::min(kLanes, count - done);
    Batch batch{.inputs = {},
                .blocks = blocks,
                .counters = {},
                .flags = flags,
                .flags_start = flags_start,
                .flags_end = flags_end};
    for (size_t lane = 0; lane < kLanes; lane++) {
      // Lanes that nothing is left for do the first's work again.
      const size_t input = done + (lane < lanes ? lane : 0);
      batch.inputs[lane] = inputs + input * blocks * kBlock;
      batch.counters[lane] = counts ? counter + input : counter;
    }
    uint32_t hashed[kLanes][kCvWords];
#if defined(__x86_64__)
    (avx2 ? hash_lanes_avx2 : hash_lanes_any)(batch, hashed);
#else
    hash_lanes_any(batch, hashed);
#endif
    std::memcpy(out + done, hashed, lanes * kCvBytes);
    done += lanes;
  }
  if (done == count) return;
  std::memcpy(out[done], kIv, kCvBytes);
  for (size_t b = 0; b < blocks; b++) {
    const uint32_t start = b == 0 ? flags_start : 0;
    const uint32_t end = b + 1 == blocks ? flags_end : 0;
    compress(out[done], inputs + (done * blocks + b) * kBlock, kBlock, counts ? counter + done : counter,
             flags | start | end);
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

void hash_tree(const uint8_t* bytes, size_t length, uint64_t counter, uint32_t root, uint32_t* cv) {
  if (length <= kChunk) {
    hash_chunk(bytes, length, counter, root, cv);
    return;
  }
  if (length > kSubtreeChunks * kChunk) {
    // The left half is the largest power of two of chunks that leaves something for the right.
    const size_t left = std::bit_floor((length - 1) / kChunk) * kChunk;
    uint32_t pair[2][kCvWords];
    hash_tree(bytes, left, counter, 0, pair[0]);
    hash_tree(bytes + left, length - left, counter + left / kChunk, 0, pair[1]);
    join(pair, root, cv);
    return;
  }
  uint32_t level[kSubtreeChunks][kCvWords];
  const size_t whole = length / kChunk;
  hash_many(bytes, whole, kChunk / kBlock, counter, true, 0, kChunkStart, kChunkEnd, level);
  size_t count = whole;
  if (length % kChunk != 0) {
    hash_chunk(bytes + whole * kChunk, length % kChunk, counter + whole, 0, level[whole]);
    count++;
  }
  // Neighbours are joined and the odd one goes up as it is: the same tree as halving makes.
  while (count > 2) {
    uint32_t above[kSubtreeChunks / 2][kCvWords];
    hash_many(reinterpret_cast<const uint8_t*>(level), count / 2, 1, 0, false, kParent, 0, 0, above);
    if (count % 2 != 0) std::memcpy(level[count / 2], level[count - 1], kCvBytes);
    std::memcpy(level, above, count / 2 * kCvBytes);
    count = count / 2 + count % 2;
  }
  join(level, root, cv);
}

}  // namespace

BlockHash blake3(const uint8_t* bytes, size_t length) {
  uint32_t cv[kCvWords];
  hash_tree(bytes, length, 0, kRoot, cv);
  BlockHash hash;
  std::memcpy(hash.data(), cv, hash.size());
  return hash;
}

}  // namespace atoll_native
