// Buffers of one reactor's copies: how many there may be, which are kept, and which give their memory back.
#include "volume/block_buffers.h"

#include <vector>

#include "test/check.h"

namespace atoll_native {
namespace {

constexpr uint32_t kShift = 16;
constexpr uint64_t kBytes = uint64_t{1} << kShift;

std::vector<uint8_t*> take(BlockBuffers& buffers, uint64_t count) {
  std::vector<uint8_t*> taken;
  for (uint64_t i = 0; i < count; i++) {
    uint8_t* const buffer = buffers.take(kShift);
    REQUIRE(buffer != nullptr);
    CHECK_EQ(reinterpret_cast<uintptr_t>(buffer) % 4096, 0u);  // O_DIRECT
    buffer[0] = buffer[kBytes - 1] = 1;
    taken.push_back(buffer);
  }
  return taken;
}

void give(BlockBuffers& buffers, const std::vector<uint8_t*>& taken) {
  for (uint8_t* const buffer : taken) buffers.give(buffer, kShift);
}

void so_many_are_in_use() {
  BlockBuffers buffers;
  std::vector<uint8_t*> taken = take(buffers, BlockBuffers::kBytesMax / kBytes);
  CHECK_EQ(buffers.bytes_in_use(), BlockBuffers::kBytesMax);
  CHECK(buffers.take(kShift) == nullptr);
  CHECK(buffers.take(BlockBuffers::kShiftMin) == nullptr);
  buffers.give(taken.back(), kShift);
  taken.pop_back();
  taken.push_back(buffers.take(kShift));
  CHECK(taken.back() != nullptr);
  give(buffers, taken);
  CHECK_EQ(buffers.bytes_in_use(), 0u);
}

void so_many_are_kept() {
  BlockBuffers buffers;
  give(buffers, take(buffers, BlockBuffers::kIdleBytesMax / kBytes));
  CHECK_EQ(buffers.bytes_idle(), BlockBuffers::kIdleBytesMax);
  give(buffers, take(buffers, BlockBuffers::kIdleBytesMax / kBytes + 1));
  CHECK_EQ(buffers.bytes_idle(), BlockBuffers::kIdleBytesMax);
  // of another size: what is kept is counted together
  buffers.give(buffers.take(BlockBuffers::kShiftMin), BlockBuffers::kShiftMin);
  CHECK_EQ(buffers.bytes_idle(), BlockBuffers::kIdleBytesMax);
}

void those_that_nobody_needed_go() {
  BlockBuffers buffers;
  buffers.age(1);
  give(buffers, take(buffers, 10));
  buffers.give(buffers.take(BlockBuffers::kShiftMax), BlockBuffers::kShiftMax);
  const uint64_t largest = uint64_t{1} << BlockBuffers::kShiftMax;
  // the largest found no room beside the ten
  CHECK(largest + 10 * kBytes > BlockBuffers::kIdleBytesMax);
  CHECK_EQ(buffers.bytes_idle(), 10 * kBytes);
  // three at once is the most from here on
  buffers.age(1 + BlockBuffers::kIdleNs);
  CHECK_EQ(buffers.bytes_idle(), 10 * kBytes);
  for (int i = 0; i < 5; i++) give(buffers, take(buffers, 3));
  buffers.age(2 * BlockBuffers::kIdleNs);
  CHECK_EQ(buffers.bytes_idle(), 10 * kBytes);
  buffers.age(1 + 2 * BlockBuffers::kIdleNs);
  CHECK_EQ(buffers.bytes_idle(), 3 * kBytes);
  buffers.age(1 + 3 * BlockBuffers::kIdleNs);
  CHECK_EQ(buffers.bytes_idle(), 0u);
}

void those_in_use_stay() {
  BlockBuffers buffers;
  buffers.age(1);
  const std::vector<uint8_t*> taken = take(buffers, 4);
  for (uint64_t i = 1; i < 5; i++) buffers.age(1 + i * BlockBuffers::kIdleNs);
  for (uint8_t* const buffer : taken) CHECK_EQ(buffer[kBytes - 1], 1u);
  give(buffers, taken);
  CHECK_EQ(buffers.bytes_idle(), 4 * kBytes);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  so_many_are_in_use();
  so_many_are_kept();
  those_that_nobody_needed_go();
  those_in_use_stay();
  return check_summary();
}
