// The measuring stick with nothing behind it: reads zeroes, takes writes and forgets them.
#pragma once
#include "block/block.h"
#include "block/factory.h"

namespace atoll_native {

class NullPeer final : public BlockPeer {
 public:
  explicit NullPeer(const PoolSpec& spec) : span_(spec.file_span), capacity_(spec.capacity_bytes) {}
  BlockCapabilities capabilities() const override { return {.zero_is_hole = true}; }
  uint64_t file_span() const override { return span_; }
  int read_now(uint64_t address, uint8_t* buffer, uint32_t length) override;
  int write_now(uint64_t address, const uint8_t* buffer, uint32_t length) override;
  void submit(BlockIo* io, AsyncIo& async) override;
  int sync_now(uint32_t) override { return 0; }
  bool failed() const override { return false; }
  int ensure_file(uint32_t) override { return 0; }
  int zero_now(uint64_t, uint64_t) override { return 0; }
  BlockUsage usage() override { return {capacity_, 0}; }

 private:
  const uint64_t span_;
  const uint64_t capacity_;
};

}  // namespace atoll_native
