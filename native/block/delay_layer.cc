#include "block/delay_layer.h"

#include <cerrno>
#include <chrono>
#include <thread>

#include "io/async_io.h"

namespace atoll_native {

namespace {
constexpr uint64_t kNsPerMs = 1'000'000;
}

int DelayLayer::read_now(uint64_t address, uint8_t* buffer, uint32_t length) {
  return touches(Touched::kRead) ? -EAGAIN : below_->read_now(address, buffer, length);
}

int DelayLayer::write_now(uint64_t address, const uint8_t* buffer, uint32_t length) {
  return touches(Touched::kWrite) ? -EAGAIN : below_->write_now(address, buffer, length);
}

void DelayLayer::submit(BlockIo* io, AsyncIo& async) {
  if (!touches(kind_of(io->op))) {
    below_->submit(io, async);
    return;
  }
  io->peer_data = this;
  async.after(this, spec_.delay_ms * kNsPerMs, io, go_on);
}

void DelayLayer::go_on(BlockIo* io, AsyncIo& async) {
  static_cast<DelayLayer*>(io->peer_data)->below_->submit(io, async);
}

void DelayLayer::sleep() const { std::this_thread::sleep_for(std::chrono::milliseconds(spec_.delay_ms)); }

int DelayLayer::sync_now(uint32_t file) {
  if (touches(Touched::kSync)) sleep();
  return below_->sync_now(file);
}

int DelayLayer::zero_now(uint64_t address, uint64_t length) {
  if (touches(Touched::kZero)) sleep();
  return below_->zero_now(address, length);
}

}  // namespace atoll_native
