// BLAKE3 against what the npm library that scrubbing hashes blocks with (@napi-rs/blake-hash) says of the same
// bytes: every length up to two chunks and one byte, every number of chunks to 130 with and without a byte behind them,
// and lengths around each border of the tree.
#include "seal/blake3.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "seal/block_hashes.h"
#include "test/check.h"

namespace atoll_native {
namespace {

std::vector<uint8_t> input(uint64_t length) {
  std::vector<uint8_t> bytes(length);
  for (uint64_t i = 0; i < length; i++) bytes[i] = static_cast<uint8_t>((i * i + (i >> 8) * 7 + 13 * i) % 251);
  return bytes;
}

std::string hex(const BlockHash& hash) {
  std::string text;
  for (const uint8_t byte : hash) {
    char two[3];
    std::snprintf(two, sizeof(two), "%02x", byte);
    text += two;
  }
  return text;
}

/// With all kinds of lanes that the machine can, which say the same.
BlockHash hash_of(const uint8_t* bytes, size_t length) {
  const BlockHash hash = blake3(bytes, length);
  for (const Blake3Lanes lanes :
       {Blake3Lanes::kEight, Blake3Lanes::kEightAvx2, Blake3Lanes::kSixteen, Blake3Lanes::kSixteenAvx512}) {
    if (!blake3_can(lanes)) continue;
    if (!CHECK(blake3(bytes, length, lanes) == hash))
      std::printf("  lanes %d, length %zu\n", static_cast<int>(lanes), length);
  }
  return hash;
}

void test_every_length_to_two_chunks() {
  const std::vector<uint8_t> bytes = input(2049);
  std::vector<uint8_t> hashes;
  for (size_t length = 0; length <= bytes.size(); length++) {
    // In memory of its own length: a read beyond it is a finding under ASan.
    const std::vector<uint8_t> alone(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(length));
    const BlockHash hash = hash_of(alone.data(), length);
    hashes.insert(hashes.end(), hash.begin(), hash.end());
  }
  CHECK(hex(hash_of(hashes.data(), hashes.size())) ==
        "51647f6118f38dd57cd7756205b51660964420fc0322d20ad82f689dd3a924c7");
}

void test_lengths_around_the_borders_of_the_tree() {
  constexpr struct {
    size_t length;
    const char* hash;
  } kVectors[] = {
      {0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
      {1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"},
      {63, "576f55939f878f71ea050f05e1d3bbec3ee7675d12cc79e1885a7661b3fbe288"},
      {64, "6cfadc02717145cda37a578972ce887896fe2eceddde3eee2c95ba4581a5d3a5"},
      {65, "718d8e4bb2721cc54ed0480da58154dbf39642774e7897617ab350fd0b0003a6"},
      {1023, "852694bec6ab1ecb3851c693a0d6fd81c048455e8e38a7aa1661dabd3ad5d7f1"},
      {1024, "963c07b3a8f656f963085c9539451eb8d87c1aba4ea4e21e5baa2d79bf3caa10"},
      {1025, "af5be6d7b48af3d6d28619c29f763e2bee2af57767e6b54029a595818268f9eb"},
      {2048, "101b980aafb00255b4cd638bda2129754af04d404aed8032492e573ebfe858d5"},
      {2049, "593961d56b009f04c739ba9916ee5eb39bf0e8c30283d661f35248cad260405b"},
      {3072, "62daf4b6b2f8920b94d0fe324e3d24a9cc339cf7bc43ec487bd2dee4285b0d2b"},
      {3073, "327475904ad68a0ff21109e6d871809aa52e8fd430cb15e5cbdbdf611399ae2d"},
      {4096, "bdfd7bc7b78e3abca7d125b219e9d9be5fc38cb425b0192febd8dc74fe2d2f30"},
      {8192, "dd5c994e28507135c0b48039bfae17ed5eacc472e532e7086709fd209fc3bd6a"},
      {8193, "cea02a386886c9b8e02bde1536059539658249867b6d8394528ab2f190df58da"},
      {16384, "eacbe3ea2d4c4640d17b06a462e14cc0d8872f7557c64d396cb04fc69a98bc0a"},
      {31744, "ce0bdeb3a9ff861a17274ba9237addbe82bbc3b7a468c36ce92030a33397b6fb"},
      {65535, "3b838a0b9dc2cb2a8eccae05851a0f5064137e83d97ab95780df5d2782825e66"},
      {65536, "c01835ac9356a3f823dad0cbf3ca620fbf0f03a0ef333fdc2c0a33b991307c72"},
      {65537, "b0e019dfcfc58f7108bc3ac48957ce67980eb1d8b7bbbbd72e978d8bcf8e9946"},
      {66560, "4eff6cda04d1a9d87c8fcb164b9acc2c2364f6d54908581cacfb17b6cd6730e1"},
      {69632, "c27bc086bc61eb03108492f9338901ff53167dc39085208f145611269d38054c"},
      {131072, "01e01fe3a5411020916de77b83c2f4ab621ce4125e27e5c55a270189f1d06752"},
      {135169, "af9346d60854983fe7707153f24fc882a7bc20c256ae2c4d8e21f1a42e057eec"},
      {1048576, "8bc94a5efd26f3d8dfa7b5214f8d6545d910f1d895a401dd2de8bbcd36959c6c"},
      {1048577, "67e301e4755f37a1a71c3589d0454fa0c22dfaf401356bdec615aefe7969bc7b"},
      {3145729, "3aee1940f2f75c6bbc42397dc9a872bf1108edbcd3402b6230ef7a63faf8d1b7"},
      {4194303, "ca5a82f8708ccf600c8a2d040e012377929e0700c2bf0acca6c4b55d7a612a90"},
      {4194304, "2b4ee11dd5028337b85fd11a990c4ed5a89c635f93fafa403e4bc6f06c98c637"},
  };
  const std::vector<uint8_t> bytes = input(4 << 20);
  for (const auto& vector : kVectors) {
    if (!CHECK(hex(hash_of(bytes.data(), vector.length)) == vector.hash)) std::printf("  length %zu\n", vector.length);
  }
  // Wherever the bytes lie.
  std::vector<uint8_t> shifted(65536 + 3);
  std::copy(bytes.begin(), bytes.begin() + 65536, shifted.begin() + 3);
  CHECK(hash_of(shifted.data() + 3, 65536) == blake3(bytes.data(), 65536));
  // Every bit counts, in every lane.
  for (size_t at = 500; at < 65536; at += 1024) {
    std::vector<uint8_t> other(bytes.begin(), bytes.begin() + 65536);
    other[at] ^= 1;
    CHECK(hash_of(other.data(), other.size()) != blake3(bytes.data(), 65536));
  }
}

void test_every_number_of_chunks() {
  constexpr size_t kChunksMax = 130;
  const std::vector<uint8_t> bytes = input((kChunksMax << 10) + 1);
  std::vector<uint8_t> hashes;
  for (size_t chunks = 1; chunks <= kChunksMax; chunks++) {
    for (const size_t tail : {0, 1}) {
      const BlockHash hash = hash_of(bytes.data(), (chunks << 10) + tail);
      hashes.insert(hashes.end(), hash.begin(), hash.end());
    }
  }
  CHECK(hex(hash_of(hashes.data(), hashes.size())) ==
        "b037e68e45463043457195de580436eda634447a3ee9cfc7ebc7367065944371");
}

void test_blocks() {
  constexpr size_t kBlockBytes = 4096;
  std::vector<uint8_t> blocks = input(4 * kBlockBytes);
  std::fill(blocks.begin() + kBlockBytes, blocks.begin() + 2 * kBlockBytes, 0);
  // All but its last byte, and all but its first.
  std::fill(blocks.begin() + 2 * kBlockBytes, blocks.end(), 0);
  blocks[3 * kBlockBytes - 1] = 1;
  blocks[3 * kBlockBytes] = 1;
  std::vector<uint8_t> hashes(4 * sizeof(BlockHash), 0xee);
  uint8_t hashed[4] = {7, 7, 7, 7};
  hash_blocks(blocks.data(), kBlockBytes, 4, hashes.data(), hashed);
  for (size_t i = 0; i < 4; i++) {
    BlockHash hash;
    std::copy_n(hashes.begin() + static_cast<ptrdiff_t>(i * hash.size()), hash.size(), hash.begin());
    BlockHash wanted;
    wanted.fill(0xee);
    if (i != 1) wanted = blake3(blocks.data() + i * kBlockBytes, kBlockBytes);
    CHECK(hashed[i] == (i == 1 ? 0 : 1));
    CHECK(hash == wanted);
  }
}

}  // namespace
}  // namespace atoll_native

int main() {
  atoll_native::test_every_length_to_two_chunks();
  atoll_native::test_lengths_around_the_borders_of_the_tree();
  atoll_native::test_every_number_of_chunks();
  atoll_native::test_blocks();
  return atoll_native::check_summary();
}
