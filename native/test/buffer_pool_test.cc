// Buffers of one reactor's connections: which are kept, and which give their memory back.
#include "nbd/buffer_pool.h"

#include <vector>

#include "test/check.h"

namespace atoll_native::nbd {
namespace {

std::vector<Buffer*> take(BufferPool& pool, uint32_t count) {
  std::vector<Buffer*> taken;
  for (uint32_t i = 0; i < count; i++) {
    Buffer* const buffer = pool.take_shared();
    REQUIRE(buffer != nullptr);
    buffer->data[0] = buffer->data[kBufferBytes - 1] = 1;
    taken.push_back(buffer);
  }
  return taken;
}

void give(BufferPool& pool, const std::vector<Buffer*>& taken) {
  for (Buffer* const buffer : taken) pool.give(buffer);
}

void so_many_stay_warm() {
  BufferPool pool;
  give(pool, take(pool, kBuffersWarmMax + 1));
  CHECK_EQ(pool.taken(), 0u);
  CHECK_EQ(pool.warm(), kBuffersWarmMax);
}

void so_many_are_shared() {
  BufferPool pool;
  std::vector<Buffer*> taken = take(pool, kBuffersSharedMax);
  CHECK(pool.take_shared() == nullptr);
  Buffer* const own = pool.take_own();
  REQUIRE(own != nullptr);
  pool.give(own);
  pool.give(taken.back());
  taken.pop_back();
  taken.push_back(pool.take_shared());
  CHECK(taken.back() != nullptr);
  CHECK(pool.take_shared() == nullptr);
  give(pool, taken);
}

void those_that_nobody_needed_go() {
  BufferPool pool;
  pool.age(1);
  give(pool, take(pool, 10));
  // three at once is the most from here on
  pool.age(1 + kBufferIdleNs);
  CHECK_EQ(pool.warm(), 10u);
  for (int i = 0; i < 5; i++) give(pool, take(pool, 3));
  pool.age(2 * kBufferIdleNs);
  CHECK_EQ(pool.warm(), 10u);
  pool.age(1 + 2 * kBufferIdleNs);
  CHECK_EQ(pool.warm(), 3u);
  // none was needed
  pool.age(1 + 3 * kBufferIdleNs);
  CHECK_EQ(pool.warm(), 0u);
}

void those_that_are_taken_stay() {
  BufferPool pool;
  pool.age(1);
  const std::vector<Buffer*> taken = take(pool, 4);
  for (uint64_t i = 1; i < 5; i++) pool.age(1 + i * kBufferIdleNs);
  CHECK_EQ(pool.taken(), 4u);
  for (Buffer* const buffer : taken) CHECK_EQ(buffer->data[kBufferBytes - 1], 1u);
  give(pool, taken);
  CHECK_EQ(pool.warm(), 4u);
}

}  // namespace
}  // namespace atoll_native::nbd

int main() {
  using namespace atoll_native;
  using namespace atoll_native::nbd;
  so_many_stay_warm();
  so_many_are_shared();
  those_that_nobody_needed_go();
  those_that_are_taken_stay();
  return check_summary();
}
