#include "block/error_layer.h"

#include "io/async_io.h"

namespace atoll_native {

int ErrorLayer::strike(Touched kind) {
  if (kind != Touched::kRead && latch_.failed()) return -EIO;
  if (!touches(kind)) return 0;
  // Relaxed: a count, nothing is ordered by it.
  const uint64_t number = seen_.fetch_add(1, std::memory_order_relaxed);
  if (number < spec_.after || (spec_.times != 0 && number >= spec_.after + spec_.times)) return 0;
  const int result = -spec_.error_number;
  if (kind == Touched::kSync) return latch_.after_sync(result);
  return kind == Touched::kRead ? result : latch_.after_write(result);
}

int ErrorLayer::passed(Touched kind, int result) {
  if (result == -EAGAIN && touches(kind)) seen_.fetch_sub(1, std::memory_order_relaxed);
  return result;
}

int ErrorLayer::read_now(uint64_t address, uint8_t* buffer, uint32_t length) {
  if (const int result = strike(Touched::kRead); result != 0) return result;
  return passed(Touched::kRead, below_->read_now(address, buffer, length));
}

int ErrorLayer::write_now(uint64_t address, const uint8_t* buffer, uint32_t length) {
  if (const int result = strike(Touched::kWrite); result != 0) return result;
  return passed(Touched::kWrite, below_->write_now(address, buffer, length));
}

void ErrorLayer::submit(BlockIo* io, AsyncIo& async) {
  if (const int result = strike(kind_of(io->op)); result != 0) {
    async.complete(io, -result);
    return;
  }
  below_->submit(io, async);
}

int ErrorLayer::sync_now(uint32_t file) {
  if (const int result = strike(Touched::kSync); result != 0) return result;
  return below_->sync_now(file);
}

int ErrorLayer::zero_now(uint64_t address, uint64_t length) {
  if (const int result = strike(Touched::kZero); result != 0) return result;
  return below_->zero_now(address, length);
}

}  // namespace atoll_native
