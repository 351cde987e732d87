// The measuring stick that remembers: anonymous memory that takes no space where nothing was written.
#pragma once
#include <chrono>
#include <mutex>

#include "block/block.h"
#include "block/factory.h"

namespace atoll_native {

class MemoryPeer final : public BlockPeer {
 public:
  /// How long a count of resident pages is good for: counting walks the whole mapping.
  static constexpr std::chrono::milliseconds kUsageAgeMax{1000};

  static std::shared_ptr<BlockPeer> open(const PoolSpec& spec, std::string* message, int* error_number);
  ~MemoryPeer() override;
  BlockCapabilities capabilities() const override { return {.zero_is_hole = true}; }
  uint64_t file_span() const override { return span_; }
  int read_now(uint64_t address, uint8_t* buffer, uint32_t length) override;
  int write_now(uint64_t address, const uint8_t* buffer, uint32_t length) override;
  void submit(BlockIo* io, AsyncIo& async) override;
  int sync_now(uint32_t) override { return 0; }
  bool failed() const override { return false; }
  int ensure_file(uint32_t) override { return 0; }
  int zero_now(uint64_t address, uint64_t length) override;
  BlockUsage usage() override;

 private:
  MemoryPeer(uint8_t* base, uint64_t span, uint64_t capacity) : base_(base), span_(span), capacity_(capacity) {}
  bool inside(uint64_t address, uint64_t length) const { return address <= capacity_ && length <= capacity_ - address; }

  uint8_t* const base_;
  const uint64_t span_;
  const uint64_t capacity_;
  std::mutex usage_mutex_;
  std::chrono::steady_clock::time_point usage_at_{};
  uint64_t resident_ = 0;
};

}  // namespace atoll_native
