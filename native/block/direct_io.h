// Reads and writes of a direct pool. The kernel wants addresses, lengths and buffers aligned; clients send what they
// like:
//   - all aligned: straight to the kernel;
//   - only the buffer is not: through a bounce buffer, piece by piece (when all are out, on a thread with one of its
//   own);
//   - part of a sector is written: read-modify-write on a thread, alone in its range (RangeLock), so that two writes
//   into
//     one sector never lose one;
//   - part of a sector is read: through a bounce buffer that takes the whole sectors.
// Pool addresses and file offsets are aligned alike (checked when the pool is opened), so ranges are pool addresses.
#pragma once
#include <mutex>
#include <vector>

#include "block/aligned_buffer.h"
#include "block/failure.h"
#include "block/range_lock.h"
#include "io/async_io.h"

namespace atoll_native {

class DirectIo {
 public:
  /// Finished operations kept for reuse; more are in flight only for moments.
  static constexpr size_t kSpareOpsMax = 1024;

  DirectIo(const void* lane, uint32_t offset_alignment, uint32_t memory_alignment, FailureLatch& latch)
      : lane_(lane), sector_(offset_alignment), memory_alignment_(memory_alignment), latch_(latch) {}
  ~DirectIo();

  void read(int fd, uint64_t offset, BlockIo* io, AsyncIo& async);
  /// kWrite and kWriteDurable.
  void write(int fd, uint64_t offset, BlockIo* io, AsyncIo& async);
  /// Runs `work` on a thread, holding [address, address + length) of `io` against writes: copies and zeroing.
  void change(BlockIo* io, AsyncIo& async, IoClass io_class, AsyncIo::Work work);

  /// Blocking, any alignment, for threads that may. Do not lock: the caller holds the range, or nobody else knows it.
  /// Like all work on threads, they tell the latch themselves: only a write's EIO counts, not that of a read before it.
  int read_blocking(int fd, uint64_t offset, uint8_t* buffer, uint64_t length);
  int write_blocking(int fd, uint64_t offset, const uint8_t* buffer, uint64_t length, uint32_t rw_flags);
  /// The range [address, address + length), as `change` holds it, for blocking callers.
  void hold_blocking(RangeHold* hold, uint64_t address, uint64_t length);
  void release(RangeHold* hold) { locks_.release(hold); }

 private:
  struct Op {
    DirectIo* direct = nullptr;
    BlockIo* io = nullptr;
    AsyncIo* async = nullptr;
    int fd = -1;
    uint64_t offset = 0;  // in the file
    uint32_t rw_flags = 0;
    AlignedBuffer* bounce = nullptr;
    uint64_t piece_at = 0;      // file offset of the piece that is in the bounce buffer
    uint64_t piece_length = 0;  // its bytes, whole sectors
    IoClass io_class = IoClass::kIo;
    AsyncIo::Work work = nullptr;
    RangeHold hold;
  };

  uint64_t down(uint64_t offset) const { return offset & ~static_cast<uint64_t>(sector_ - 1); }
  uint64_t up(uint64_t offset) const { return down(offset + sector_ - 1); }
  bool whole_sectors(uint64_t offset, uint64_t length) const { return ((offset | length) & (sector_ - 1)) == 0; }
  bool buffer_aligned(const uint8_t* buffer) const {
    return (reinterpret_cast<uintptr_t>(buffer) & (memory_alignment_ - 1)) == 0;
  }
  void set_range(RangeHold* hold, uint64_t address, uint64_t length) const;

  Op* take_op(BlockIo* io, AsyncIo& async, int fd, uint64_t offset);
  void give_op(Op* op);
  static Op* op_of(BlockIo* io) { return static_cast<Op*>(io->peer_data); }
  void lock_then_start(Op* op);
  void start_locked(Op* op);
  void next_piece(Op* op, uint64_t at);
  void end(Op* op, int error);
  static void locked_step(BlockIo* io, AsyncIo& async);
  static void piece_step(BlockIo* io, AsyncIo& async);
  static void written_step(BlockIo* io, AsyncIo& async);
  static void worked_step(BlockIo* io, AsyncIo& async);
  static int blocking_work(BlockIo* io);

  const void* const lane_;
  const uint64_t sector_;
  const uint64_t memory_alignment_;
  FailureLatch& latch_;
  RangeLock locks_;
  BouncePool bounces_;
  std::mutex ops_mutex_;
  std::vector<Op*> spare_ops_;
};

}  // namespace atoll_native
