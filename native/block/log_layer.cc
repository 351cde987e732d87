#include "block/log_layer.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "io/async_io.h"

namespace atoll_native {

namespace {

/// Stands for "not known yet" where a result would be.
constexpr int kSubmitted = 1;

const char* name_of(BlockOp op) {
  constexpr std::array<const char*, 6> kNames = {"read", "write", "write-durable", "copy", "zero", "sync"};
  return kNames[static_cast<size_t>(op)];
}

}  // namespace

std::shared_ptr<BlockPeer> LogLayer::open(std::shared_ptr<BlockPeer> below, const FaultSpec& spec, std::string* message,
                                          int* error_number) {
  const int fd = ::open(spec.path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) {
    *error_number = errno;
    *message = "log " + spec.path + ": " + strerror(errno);
    return nullptr;
  }
  return std::shared_ptr<BlockPeer>(new LogLayer(std::move(below), spec, fd));
}

LogLayer::~LogLayer() { close(fd_); }

int LogLayer::line(const char* operation, uint64_t address, uint64_t length, uint64_t source, int result) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  char text[160];
  char end[16] = "-";
  if (result != kSubmitted) snprintf(end, sizeof end, "%d", -result);
  const int bytes =
      snprintf(text, sizeof text, "%" PRId64 " %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n",
               static_cast<int64_t>(std::chrono::nanoseconds(now).count()), operation, address, length, source, end);
  const auto size = static_cast<uint64_t>(bytes);
  if (written_.fetch_add(size, std::memory_order_relaxed) + size > kLogBytesMax) return result;
  // One write per line: O_APPEND keeps the lines of several threads whole. What cannot be logged is not worth an error.
  [[maybe_unused]] const ssize_t written = write(fd_, text, size);
  return result;
}

int LogLayer::read_now(uint64_t address, uint8_t* buffer, uint32_t length) {
  const int result = below_->read_now(address, buffer, length);
  return touches(Touched::kRead) ? line("read-now", address, length, 0, result) : result;
}

int LogLayer::write_now(uint64_t address, const uint8_t* buffer, uint32_t length) {
  const int result = below_->write_now(address, buffer, length);
  return touches(Touched::kWrite) ? line("write-now", address, length, 0, result) : result;
}

void LogLayer::submit(BlockIo* io, AsyncIo& async) {
  if (touches(kind_of(io->op))) {
    line(name_of(io->op), io->op == BlockOp::kSync ? io->file : io->address, io->length, io->source, kSubmitted);
  }
  below_->submit(io, async);
}

int LogLayer::sync_now(uint32_t file) {
  const int result = below_->sync_now(file);
  return touches(Touched::kSync) ? line("sync-now", file, 0, 0, result) : result;
}

int LogLayer::ensure_file(uint32_t file) {
  const int result = below_->ensure_file(file);
  return touches(Touched::kWrite) ? line("ensure-file", file, 0, 0, result) : result;
}

int LogLayer::zero_now(uint64_t address, uint64_t length) {
  const int result = below_->zero_now(address, length);
  return touches(Touched::kZero) ? line("zero-now", address, length, 0, result) : result;
}

}  // namespace atoll_native
