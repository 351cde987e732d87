// The pool driver for a directory of files, one file, or a block device.
//
// Buffered pools: reads that hit the page cache and writes that are not expected to wait run inline (write_now says
// -EAGAIN while recent writes into the file were slow, see SlowGate); the others go to io_uring (reads) and threads
// (writes). Direct pools do everything asynchronously and align what is not aligned (see DirectIo).
#pragma once
#include <memory>

#include "block/direct_io.h"
#include "block/failure.h"
#include "block/file_sync.h"
#include "block/pool_files.h"
#include "block/sync_clock.h"
#include "io/clock.h"

namespace atoll_native {

class LocalPeer final : public BlockPeer {
 public:
  /// The most that one read or write operation moves; more than any block or payload.
  static constexpr uint64_t kTransferMax = 64ull << 20;
  /// Zeroes or copies are written in pieces of this size where no system call does it.
  static constexpr uint64_t kPieceBytes = 1ull << 20;

  static std::shared_ptr<BlockPeer> open(const PoolSpec& spec, std::string* message, int* error_number);
  BlockCapabilities capabilities() const override;
  uint64_t file_span() const override { return files_->span(); }
  int read_now(uint64_t address, uint8_t* buffer, uint32_t length) override;
  bool lend(uint64_t address, uint64_t length, FileRange* range) override;
  int write_now(uint64_t address, const uint8_t* buffer, uint32_t length) override;
  void submit(BlockIo* io, AsyncIo& async) override;
  int sync_now(uint32_t file) override;
  uint64_t syncing_ns() const override { return sync_clock_.running_ns(monotonic_ns()); }
  bool failed() const override { return latch_.failed(); }
  int ensure_file(uint32_t file) override;
  int grow(uint64_t bytes) override;
  int zero_now(uint64_t address, uint64_t length) override;
  BlockUsage usage() override { return files_->usage(); }

 private:
  explicit LocalPeer(std::unique_ptr<PoolFiles> files);
  void submit_transfer(BlockIo* io, AsyncIo& async);
  void start_transfer(int fd, BlockIo* io, AsyncIo& async);
  void submit_changed(BlockIo* io, AsyncIo& async);
  int copy(uint64_t target, uint64_t source, uint64_t length);
  int write_whole(int fd, const uint8_t* buffer, uint64_t length, uint64_t offset) const;
  int zero_locked(uint64_t address, uint64_t length);
  int zero_range(int fd, uint64_t offset, uint64_t length);
  int write_zeroes(int fd, uint64_t offset, uint64_t length);
  static int open_work(BlockIo* io);
  static int durable_work(BlockIo* io);
  static void opened(BlockIo* io, AsyncIo& async);
  static void write_ended(BlockIo* io, AsyncIo& async);
  static int work(BlockIo* io);

  std::unique_ptr<PoolFiles> files_;
  FailureLatch latch_;
  FileSyncs syncs_;
  SyncClock sync_clock_;
  std::unique_ptr<DirectIo> direct_;  // direct pools
  // RWF_NOWAIT is not known to every file system; where it is not, all reads go the asynchronous way.
  std::atomic<bool> nowait_works_{true};
  // Whether pages of the page cache may be sent: a freed slot must get other pages, so holes must be punched (and the
  // kernel must tell what is cached).
  std::atomic<bool> lends_;
};

}  // namespace atoll_native
