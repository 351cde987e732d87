#include "io/async_io.h"

#include <liburing.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "io/full_io.h"

namespace atoll_native {

namespace {

constexpr int kDrainPollMs = 1;
/// Completions taken from the ring before their callbacks run.
constexpr uint32_t kReapBatch = 64;

BlockIo* io_of(PoolTask* task) {
  return reinterpret_cast<BlockIo*>(reinterpret_cast<char*>(task) - offsetof(BlockIo, task));
}

}  // namespace

AsyncIo::AsyncIo(ThreadPool& pool, Options options) : pool_(pool), background_(options.background) {
  if (background_) return;
  event_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd_ < 0) {
    // Without it completions could not be waited for; it happens only when the process is out of descriptors at start.
    perror("eventfd");
    abort();
  }
  if (!options.io_uring) return;
  auto ring = std::make_unique<struct io_uring>();
  io_uring_params params = {};
  params.flags = IORING_SETUP_CQSIZE;
  params.cq_entries = kHeldMax;
  static_assert(kHeldMax >= kRingEntries);
  if (io_uring_queue_init_params(kRingEntries, ring.get(), &params) < 0) return;  // not there or not allowed: threads
  if (io_uring_register_eventfd(ring.get(), event_fd_) < 0) {
    io_uring_queue_exit(ring.get());
    return;
  }
  ring_ = std::move(ring);
}

AsyncIo::~AsyncIo() {
  assert(in_flight() == 0);
  // The last to push may not have come back from ringing yet, though what it pushed is done: the descriptor must not be
  // closed, and given to somebody else, under its hands.
  while (pushing_.load(std::memory_order_acquire) != 0) sched_yield();
  if (ring_ != nullptr) io_uring_queue_exit(ring_.get());
  if (event_fd_ >= 0) close(event_fd_);
}

// ---------------------------------------------------------------- starting

void AsyncIo::begin(const void* lane, Kind kind, BlockIo* io, Step step) {
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  io->async = this;
  io->lane = lane;
  io->kind = kind;
  io->step = step;
  io->error = 0;
}

void AsyncIo::start_range(const void* lane, Kind kind, const Range& range, uint32_t rw_flags, bool on_thread,
                          BlockIo* io, Step step) {
  begin(lane, kind, io, step);
  io->io_class = static_cast<uint8_t>(IoClass::kIo);
  io->on_thread = on_thread || ring_ == nullptr;
  io->state.fd_op = {range.buffer, range.offset, range.length, 0, rw_flags, range.fd, on_thread};
  dispatch(io);
}

void AsyncIo::read(const void* lane, int fd, uint64_t offset, uint8_t* buffer, uint32_t length, BlockIo* io,
                   Step step) {
  start_range(lane, kRead, {fd, offset, buffer, length}, 0, false, io, step);
}

void AsyncIo::write(const void* lane, int fd, uint64_t offset, const uint8_t* buffer, uint32_t length, BlockIo* io,
                    Step step) {
  start_range(lane, kWrite, {fd, offset, const_cast<uint8_t*>(buffer), length}, 0, false, io, step);
}

void AsyncIo::write_durable(const void* lane, int fd, uint64_t offset, const uint8_t* buffer, uint32_t length,
                            BlockIo* io, Step step) {
  start_range(lane, kWrite, {fd, offset, const_cast<uint8_t*>(buffer), length}, RWF_DSYNC, false, io, step);
}

void AsyncIo::write_on_thread(const void* lane, int fd, uint64_t offset, const uint8_t* buffer, uint32_t length,
                              BlockIo* io, Step step) {
  start_range(lane, kWrite, {fd, offset, const_cast<uint8_t*>(buffer), length}, 0, true, io, step);
}

void AsyncIo::run_blocking(const void* lane, IoClass io_class, BlockIo* io, Work work, Step step) {
  begin(lane, kWork, io, step);
  io->io_class = static_cast<uint8_t>(io_class);
  io->on_thread = true;
  io->state.work.work = work;
  dispatch(io);
}

void AsyncIo::after(const void* lane, uint64_t delay_ns, BlockIo* io, Step step) {
  begin(lane, kReady, io, step);
  io->task.run = run_timer;
  pool_.post_task_after(delay_ns, IoClass::kIo, lane, &io->task);
}

void AsyncIo::complete(BlockIo* io, int error, Step step) {
  begin(nullptr, kReady, io, step);
  io->error = error;
  resume(io);
}

void AsyncIo::park(BlockIo* io, Step step) { begin(nullptr, kReady, io, step); }

void AsyncIo::resume(BlockIo* io) {
  if (!background_) {
    push_ready(io);
    return;
  }
  // Nobody reaps here, and the caller's stack is no place for callbacks: it may hold what they want.
  io->task.run = run_timer;
  pool_.post_task(IoClass::kIo, io->lane, &io->task);
}

// ---------------------------------------------------------------- towards the kernel and the pool

void AsyncIo::dispatch(BlockIo* io) {
  if (background_) {
    queue_thread(io);
    return;
  }
  // First come, first served: nobody overtakes those who wait.
  if (waiting_head_ == nullptr && held_ < kHeldMax) {
    if (io->on_thread) {
      held_++;
      queue_thread(io);
      return;
    }
    if (queue_ring(io)) {
      held_++;
      return;
    }
  }
  io->next = nullptr;
  if (waiting_head_ == nullptr) {
    waiting_head_ = io;
  } else {
    waiting_tail_->next = io;
  }
  waiting_tail_ = io;
}

void AsyncIo::dispatch_waiting() {
  while (waiting_head_ != nullptr && held_ < kHeldMax) {
    BlockIo* io = waiting_head_;
    BlockIo* next = io->next;  // queueing may use the link
    if (io->on_thread) {
      queue_thread(io);
    } else if (!queue_ring(io)) {
      return;
    }
    held_++;
    waiting_head_ = next;
  }
}

bool AsyncIo::queue_ring(BlockIo* io) {
  io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
  if (sqe == nullptr) {
    flush_submissions();
    sqe = io_uring_get_sqe(ring_.get());
    if (sqe == nullptr) return false;
  }
  const auto& op = io->state.fd_op;
  uint8_t* buffer = op.buffer + op.moved;
  const uint32_t length = op.length - op.moved;
  if (io->kind == kRead) {
    io_uring_prep_read(sqe, op.fd, buffer, length, op.offset + op.moved);
  } else {
    io_uring_prep_write(sqe, op.fd, buffer, length, op.offset + op.moved);
    sqe->rw_flags = static_cast<int>(op.rw_flags);
  }
  io_uring_sqe_set_data(sqe, io);
  unsubmitted_++;
  return true;
}

void AsyncIo::queue_thread(BlockIo* io) {
  io->task.run = run_task;
  pool_.post_task(static_cast<IoClass>(io->io_class), io->lane, &io->task);
}

void AsyncIo::flush_submissions() {
  if (unsubmitted_ == 0) return;
  const int submitted = io_uring_submit(ring_.get());
  if (submitted > 0) unsubmitted_ -= static_cast<uint32_t>(submitted);
  // The kernel is out of memory for the moment, or was interrupted: the next turn tries again, and comes without
  // sleeping.
  if (unsubmitted_ > 0) ring_event();
}

void AsyncIo::ring_event() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the descriptor is readable anyway.
  [[maybe_unused]] const ssize_t written = ::write(event_fd_, &one, sizeof one);
}

// ---------------------------------------------------------------- ending

void AsyncIo::run_task(PoolTask* task) {
  BlockIo* io = io_of(task);
  AsyncIo* async = io->async;
  int result = 0;
  if (io->kind == kWork) {
    result = io->state.work.work(io);
  } else {
    const auto& op = io->state.fd_op;
    const uint64_t offset = op.offset + op.moved;
    const uint32_t length = op.length - op.moved;
    uint8_t* const buffer = op.buffer + op.moved;
    if (io->kind == kRead) {
      result = read_full(op.fd, buffer, length, offset);
    } else if (op.cached) {
      result = write_cached(op.fd, buffer, length, offset);
    } else {
      result = write_full(op.fd, buffer, length, offset, op.rw_flags);
    }
  }
  io->error = -result;
  if (async->background_) {
    async->operation_ended(io);
  } else {
    async->push_ready(io);
  }
}

void AsyncIo::run_timer(PoolTask* task) {
  BlockIo* io = io_of(task);
  if (io->async->background_) {
    io->async->operation_ended(io);
  } else {
    io->async->push_ready(io);
  }
}

void AsyncIo::push_ready(BlockIo* io) {
  pushing_.fetch_add(1, std::memory_order_relaxed);  // seen by whoever takes what is pushed: the push releases it
  BlockIo* head = ready_.load(std::memory_order_relaxed);
  do {
    io->next = head;
    // Release: the owner sees what the operation wrote.
  } while (!ready_.compare_exchange_weak(head, io, std::memory_order_release, std::memory_order_relaxed));
  // Who finds the list empty rings; the owner takes it whole, so the next one finds it empty again.
  if (head == nullptr) ring_event();
  pushing_.fetch_sub(1, std::memory_order_release);
}

void AsyncIo::operation_ended(BlockIo* io) {
  // Counted down last: a step that starts the next operation never lets the count touch zero in between.
  if (io->step != nullptr) {
    io->step(io, *this);
  } else {
    io->done(io);
  }
  in_flight_.fetch_sub(1, std::memory_order_release);
}

void AsyncIo::on_ring_result(BlockIo* io, int result) {
  auto& op = io->state.fd_op;
  const uint32_t left = op.length - op.moved;
  if (result == -EAGAIN || result == -EINTR || result == -EOPNOTSUPP) {
    // Not possible there and then, but on a thread that may block.
    io->on_thread = true;
    dispatch(io);
    return;
  }
  if (result < 0) {
    io->error = -result;
  } else if (static_cast<uint32_t>(result) < left) {
    if (result > 0) {
      op.moved += static_cast<uint32_t>(result);
      dispatch(io);
      return;
    }
    if (io->kind == kRead) {
      memset(op.buffer + op.moved, 0, left);
    } else {
      io->error = EIO;  // a write that takes nothing and says nothing
    }
  }
  operation_ended(io);
}

int AsyncIo::reap_ring() {
  int count = 0;
  io_uring_cqe* batch[kReapBatch];
  uint32_t got;
  // At most kHeldMax: a callback may queue, but what it queues is not submitted before the turn ends.
  while (count < static_cast<int>(kHeldMax) && (got = io_uring_peek_batch_cqe(ring_.get(), batch, kReapBatch)) > 0) {
    BlockIo* ios[kReapBatch];
    int results[kReapBatch];
    for (uint32_t i = 0; i < got; i++) {
      ios[i] = static_cast<BlockIo*>(io_uring_cqe_get_data(batch[i]));
      results[i] = batch[i]->res;
    }
    io_uring_cq_advance(ring_.get(), got);
    held_ -= got;
    for (uint32_t i = 0; i < got; i++) on_ring_result(ios[i], results[i]);
    count += static_cast<int>(got);
  }
  return count;
}

int AsyncIo::reap_ready() {
  if (ready_.load(std::memory_order_relaxed) == nullptr) return 0;
  BlockIo* list = ready_.exchange(nullptr, std::memory_order_acquire);
  BlockIo* ordered = nullptr;  // the list is last in, first out
  while (list != nullptr) {
    BlockIo* next = list->next;
    list->next = ordered;
    ordered = list;
    list = next;
  }
  int count = 0;
  while (ordered != nullptr) {
    BlockIo* io = ordered;
    ordered = io->next;
    if (io->kind != kReady) held_--;
    operation_ended(io);
    count++;
  }
  return count;
}

int AsyncIo::reap() {
  if (background_) return 0;
  int count = reap_ready();
  if (ring_ != nullptr) count += reap_ring();
  if (waiting_head_ != nullptr) dispatch_waiting();
  return count;
}

void AsyncIo::drain() {
  while (in_flight() != 0) {
    if (background_) {
      poll(nullptr, 0, kDrainPollMs);
      continue;
    }
    flush_submissions();
    if (reap() > 0) continue;
    // The descriptor stays readable (see event_fd), so it cannot be waited for here; shutting down may poll.
    poll(nullptr, 0, kDrainPollMs);
  }
}

}  // namespace atoll_native
