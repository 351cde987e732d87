// Makes operations take longer: what would be done at once goes the asynchronous way, after the delay.
#pragma once
#include "block/layer.h"

namespace atoll_native {

class DelayLayer final : public Layer {
 public:
  using Layer::Layer;
  int read_now(uint64_t address, uint8_t* buffer, uint32_t length) override;
  int write_now(uint64_t address, const uint8_t* buffer, uint32_t length) override;
  void submit(BlockIo* io, AsyncIo& async) override;
  int sync_now(uint32_t file) override;
  int zero_now(uint64_t address, uint64_t length) override;

 private:
  static void go_on(BlockIo* io, AsyncIo& async);
  void sleep() const;
};

}  // namespace atoll_native
