// Asynchronous I/O for one owner: a reactor (io_uring, or the thread pool where that is missing or switched off), or
// the background instance (threads only).
//
// A reactor uses it so:
//   construct on any thread; `reactor.add(io.event_fd(), EPOLLIN | EPOLLET, handler)`: edge triggered, nobody ever
//   reads the descriptor, so a wake-up costs no further system call; once per loop turn `reap()` (cheap when there is
//   nothing) and, last before sleeping, `flush_submissions()`. Before it is destroyed: `drain()`.
// Everything but complete() and resume() belongs to the owner thread. In the background instance everything may be
// called from any thread, and `done` runs on the pool thread that did the work.
//
// Block peers are its users: they call the fd-level functions with the BlockIo they were given. When an operation ends,
// `io->error` is set and `step` runs when one was given, else `io->done`. Both run inside reap() (background: on a pool
// thread), never inside the call that started the operation. A step starts the next operation on the same BlockIo, or
// parks it, or ends it by finish().
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>

#include "block/block.h"
#include "io/thread_pool.h"

struct io_uring;

namespace atoll_native {

class AsyncIo {
 public:
  using Step = void (*)(BlockIo*, AsyncIo&);
  using Work = int (*)(BlockIo*);  // returns 0 or -errno; runs on a pool thread

  struct Options {
    bool io_uring = true;     // false: threads only
    bool background = false;  // threads only, and no owner thread: done() runs on the pool's threads
  };
  /// Entries of the submission queue; a full one is handed to the kernel before the turn ends.
  static constexpr uint32_t kRingEntries = 256;
  /// Operations that the kernel and the pool hold at once for one owner; what is beyond waits in a list here. The
  /// completion queue has room for all of them, so it cannot overflow.
  static constexpr uint32_t kHeldMax = 2048;

  AsyncIo(ThreadPool& pool, Options options);
  ~AsyncIo();  // nothing may be in flight: drain() first
  AsyncIo(const AsyncIo&) = delete;
  AsyncIo& operator=(const AsyncIo&) = delete;

  /// Becomes readable (edge) when reap() has something to do.
  int event_fd() const { return event_fd_; }
  bool uses_io_uring() const { return ring_ != nullptr; }
  ThreadPool& pool() { return pool_; }
  /// Operations started and not yet done.
  uint64_t in_flight() const { return in_flight_.load(std::memory_order_acquire); }

  /// Hands what was queued to the kernel in one system call; once per loop turn.
  void flush_submissions();
  /// Ends what has ended: runs steps and done callbacks. Returns how many operations it looked at.
  int reap();
  /// Waits until nothing is in flight, running callbacks. For shutdown.
  void drain();

  // ---- for block peers. `lane` is the peer: whose turn it is in the thread pool.
  /// Reads `length` bytes; what is beyond the end of the file is zeroes (files are sparse).
  void read(const void* lane, int fd, uint64_t offset, uint8_t* buffer, uint32_t length, BlockIo* io,
            Step step = nullptr);
  void write(const void* lane, int fd, uint64_t offset, const uint8_t* buffer, uint32_t length, BlockIo* io,
             Step step = nullptr);
  /// A write that is durable when it ends (RWF_DSYNC).
  void write_durable(const void* lane, int fd, uint64_t offset, const uint8_t* buffer, uint32_t length, BlockIo* io,
                     Step step = nullptr);
  /// As write, but on a pool thread whatever the options: for buffered writes, which io_uring hands to kernel threads
  /// of its own.
  void write_on_thread(const void* lane, int fd, uint64_t offset, const uint8_t* buffer, uint32_t length, BlockIo* io,
                       Step step = nullptr);
  /// Runs `work(io)` on a pool thread; its result is the operation's.
  void run_blocking(const void* lane, IoClass io_class, BlockIo* io, Work work, Step step = nullptr);
  /// Ends the operation (or runs the step) `delay_ns` from now.
  void after(const void* lane, uint64_t delay_ns, BlockIo* io, Step step = nullptr);
  /// Ends the operation with `error` (errno or 0), or runs the step; on the owner's thread, not in this call.
  void complete(BlockIo* io, int error, Step step = nullptr);
  /// The operation waits for somebody who will call resume(io), from any thread, which runs `step` on the owner's.
  void park(BlockIo* io, Step step);
  void resume(BlockIo* io);
  /// Inside a step: the operation is over.
  void finish(BlockIo* io, int error) {
    io->error = error;
    io->done(io);
  }

 private:
  enum Kind : uint8_t { kReady, kRead, kWrite, kWork };
  struct Range {
    int fd;
    uint64_t offset;
    uint8_t* buffer;
    uint32_t length;
  };

  void begin(const void* lane, Kind kind, BlockIo* io, Step step);
  void start_range(const void* lane, Kind kind, const Range& range, uint32_t rw_flags, bool on_thread, BlockIo* io,
                   Step step);
  void dispatch(BlockIo* io);
  void dispatch_waiting();
  bool queue_ring(BlockIo* io);
  void queue_thread(BlockIo* io);
  int reap_ring();
  int reap_ready();
  void on_ring_result(BlockIo* io, int result);
  void operation_ended(BlockIo* io);
  void push_ready(BlockIo* io);
  void ring_event();
  static void run_task(PoolTask* task);
  static void run_timer(PoolTask* task);

  ThreadPool& pool_;
  const bool background_;
  int event_fd_ = -1;
  std::unique_ptr<struct io_uring> ring_;
  uint32_t unsubmitted_ = 0;         // queued in the ring, not yet told to the kernel
  uint32_t held_ = 0;                // operations that the kernel and the pool hold
  BlockIo* waiting_head_ = nullptr;  // beyond kHeldMax, or no room in the ring
  BlockIo* waiting_tail_ = nullptr;
  std::atomic<uint64_t> in_flight_{0};
  // Ended elsewhere: many producers, taken whole by the owner. On a line of its own, because pool threads write it.
  alignas(64) std::atomic<BlockIo*> ready_{nullptr};
  std::atomic<uint32_t> pushing_{0};  // threads inside push_ready()
};

}  // namespace atoll_native
