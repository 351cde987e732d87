// Fails operations: the first `after` pass, then `times` fail (0: all). What fails is not done below. An error here
// means what it means in a real pool: a failed sync, and EIO from a write, mark the peer failed for good, also when
// `times` is over.
#pragma once
#include <atomic>

#include "block/failure.h"
#include "block/layer.h"

namespace atoll_native {

class ErrorLayer final : public Layer {
 public:
  using Layer::Layer;
  int read_now(uint64_t address, uint8_t* buffer, uint32_t length) override;
  int write_now(uint64_t address, const uint8_t* buffer, uint32_t length) override;
  void submit(BlockIo* io, AsyncIo& async) override;
  int sync_now(uint32_t file) override;
  int zero_now(uint64_t address, uint64_t length) override;
  bool failed() const override { return latch_.failed() || below_->failed(); }

 private:
  /// 0: goes on below; -errno: fails.
  int strike(Touched kind);
  /// What passed here did not happen below (-EAGAIN): it will come again through submit() and is counted there.
  int passed(Touched kind, int result);

  FailureLatch latch_;
  std::atomic<uint64_t> seen_{0};
};

}  // namespace atoll_native
