// Writes a line for every operation it touches, when it is asked for:
//   <monotonic ns> <operation> <address or file> <length> <source> <result>
// `result` is 0 or an errno; "-" for submitted operations, whose end is not waited for.
#pragma once
#include <atomic>

#include "block/layer.h"

namespace atoll_native {

class LogLayer final : public Layer {
 public:
  /// A log that is forgotten must not fill the disk.
  static constexpr uint64_t kLogBytesMax = 1ull << 30;

  static std::shared_ptr<BlockPeer> open(std::shared_ptr<BlockPeer> below, const FaultSpec& spec, std::string* message,
                                         int* error_number);
  ~LogLayer() override;
  int read_now(uint64_t address, uint8_t* buffer, uint32_t length) override;
  int write_now(uint64_t address, const uint8_t* buffer, uint32_t length) override;
  void submit(BlockIo* io, AsyncIo& async) override;
  int sync_now(uint32_t file) override;
  int ensure_file(uint32_t file) override;
  int zero_now(uint64_t address, uint64_t length) override;

 private:
  LogLayer(std::shared_ptr<BlockPeer> below, const FaultSpec& spec, int fd) : Layer(std::move(below), spec), fd_(fd) {}
  int line(const char* operation, uint64_t address, uint64_t length, uint64_t source, int result);

  const int fd_;
  std::atomic<uint64_t> written_{0};
};

}  // namespace atoll_native
