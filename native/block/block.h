// The operation table of all block peers: the pool drivers (`local`), the measuring sticks (`null`, `memory`) and the
// layers that break things (`error`, `delay`, `log`). Addresses are bytes in the pool's slot space (slot << shift |
// offset); one operation never crosses the border of a pool file (file_span()).
#pragma once
#include <bit>
#include <cstdint>

#include "block/file_range.h"
#include "io/pool_task.h"

namespace atoll_native {

class BlockPeer;
class AsyncIo;  // io/async_io.h: one per reactor, and one "background" instance with threads only

enum class BlockOp : uint8_t { kRead, kWrite, kWriteDurable, kCopy, kZero, kSync };

/// An asynchronous block operation; owned by the caller, valid until done().
struct BlockIo {
  BlockOp op;
  uint64_t address = 0;              // read, write, zero; copy: the target; sync: unused
  uint64_t source = 0;               // copy: where from (same pool)
  uint64_t length = 0;               // bytes
  uint32_t file = 0;                 // sync: which file
  uint8_t* buffer = nullptr;         // read, write
  int error = 0;                     // errno or 0
  void (*done)(BlockIo*) = nullptr;  // runs on the thread that owns the AsyncIo it was submitted to
  void* owner = nullptr;
  // private to block peers and AsyncIo; set anew by every submit(), so that a record is reused as it is
  BlockIo* next = nullptr;
  PoolTask task = {};
  void (*step)(BlockIo*, AsyncIo&) = nullptr;
  AsyncIo* async = nullptr;
  const void* lane = nullptr;
  union {
    struct {
      uint8_t* buffer;
      uint64_t offset;
      uint32_t length;
      uint32_t moved;  // bytes of `length` that are done
      uint32_t rw_flags;
      int fd;
      bool cached;  // a write into the page cache
    } fd_op;
    struct {
      int (*work)(BlockIo*);
    } work;
    uint64_t delay_ns;
  } state = {};
  uint8_t kind = 0;
  uint8_t io_class = 0;
  bool on_thread = false;
  BlockPeer* peer = nullptr;  // the driver that runs it
  void* peer_data = nullptr;  // of the peer that holds it
};

struct BlockCapabilities {
  bool persistent = false;    // sync means something
  bool zero_is_hole = false;  // kZero gives the space back
  bool direct = false;        // O_DIRECT: prefers aligned buffers
  uint32_t alignment = 1;     // of buffers and addresses, when direct
};

struct BlockUsage {
  // What the pool can hold: the declared size, or (thin) what we use and what is free in the file system.
  uint64_t capacity_bytes = 0;
  uint64_t physical_bytes = 0;  // what it takes on its backend now
};

class BlockPeer {
 public:
  virtual ~BlockPeer() = default;
  virtual BlockCapabilities capabilities() const = 0;
  virtual uint64_t file_span() const = 0;  // bytes of slot space per file; a power of two
  /// A shift and not a division: this is on the path of every request.
  uint32_t file_of(uint64_t address) const { return static_cast<uint32_t>(address >> std::countr_zero(file_span())); }

  /// Reads what can be read without waiting for a disk. 0 when all of it was, -EAGAIN to submit() instead, or -errno.
  virtual int read_now(uint64_t address, uint8_t* buffer, uint32_t length) = 0;
  /// Where [address, address+length) may be sent from without a copy, in this turn: all of it is in the page cache now.
  /// Whoever still has its pages later may see zeroes in them, or another slot's bytes (decision 4). False: read it.
  virtual bool lend(uint64_t, uint64_t, FileRange*) { return false; }
  /// Writes inline when that is expected not to wait. 0 when all of it was, -EAGAIN to submit() instead, or -errno.
  virtual int write_now(uint64_t address, const uint8_t* buffer, uint32_t length) = 0;
  /// Starts an operation; io->done runs later on `async`'s owner thread (never inside submit).
  virtual void submit(BlockIo* io, AsyncIo& async) = 0;
  /// Makes all completed writes of a file durable; blocks the caller. 0 or -errno. A failure marks the peer failed for
  /// good: every later write and sync answers -EIO (invariant 1); so does EIO from a write. Other errors of writes
  /// (ENOSPC) are only returned. It covers what writes and zero_now() did before it was called, also before the daemon
  /// started.
  virtual int sync_now(uint32_t file) = 0;
  /// For how long there has always been a sync under way, nanoseconds; 0 when there is none. Long ones fill the disk's
  /// queue.
  virtual uint64_t syncing_ns() const { return 0; }
  virtual bool failed() const = 0;
  /// Makes file `file` exist and span file_span(); blocks. 0 or -errno.
  virtual int ensure_file(uint32_t file) = 0;
  /// The declared size is a larger one now: a preallocated pool file gets it at once. Blocks. 0, or -errno with nothing
  /// changed.
  virtual int grow(uint64_t) { return 0; }
  /// Zeroes [address, address+length) so that it reads as zeroes for certain; gives space back where it can. Blocks. 0
  /// or -errno.
  virtual int zero_now(uint64_t address, uint64_t length) = 0;
  virtual BlockUsage usage() = 0;
};

}  // namespace atoll_native
