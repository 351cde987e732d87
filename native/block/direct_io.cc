#include "block/direct_io.h"

#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "io/full_io.h"

namespace atoll_native {

namespace {

/// A thread's own, for work that blocks anyway; as many as the pool has threads.
uint8_t* thread_buffer() {
  thread_local AlignedBuffer buffer(BouncePool::kBufferBytes);
  return buffer.data();
}

}  // namespace

DirectIo::~DirectIo() {
  for (Op* op : spare_ops_) delete op;
}

DirectIo::Op* DirectIo::take_op(BlockIo* io, AsyncIo& async, int fd, uint64_t offset) {
  Op* op = nullptr;
  {
    std::lock_guard lock(ops_mutex_);
    if (!spare_ops_.empty()) {
      op = spare_ops_.back();
      spare_ops_.pop_back();
    }
  }
  if (op == nullptr) op = new Op;
  *op = Op{};
  op->direct = this;
  op->io = io;
  op->async = &async;
  op->fd = fd;
  op->offset = offset;
  io->peer_data = op;
  return op;
}

void DirectIo::give_op(Op* op) {
  if (op->bounce != nullptr) bounces_.give(op->bounce);
  {
    std::lock_guard lock(ops_mutex_);
    if (spare_ops_.size() < kSpareOpsMax) {
      spare_ops_.push_back(op);
      return;
    }
  }
  delete op;
}

void DirectIo::set_range(RangeHold* hold, uint64_t address, uint64_t length) const {
  hold->begin = down(address);
  hold->end = up(address + length);
  hold->exclusive = !whole_sectors(address, length);
}

void DirectIo::hold_blocking(RangeHold* hold, uint64_t address, uint64_t length) {
  set_range(hold, address, length);
  locks_.acquire_blocking(hold);
}

// ---------------------------------------------------------------- starting

void DirectIo::read(int fd, uint64_t offset, BlockIo* io, AsyncIo& async) {
  if (whole_sectors(offset, io->length) && buffer_aligned(io->buffer)) {
    async.read(lane_, fd, offset, io->buffer, static_cast<uint32_t>(io->length), io);
    return;
  }
  Op* op = take_op(io, async, fd, offset);
  op->bounce = bounces_.take();
  if (op->bounce == nullptr) {
    async.run_blocking(lane_, IoClass::kIo, io, blocking_work, worked_step);
    return;
  }
  next_piece(op, offset);
}

void DirectIo::write(int fd, uint64_t offset, BlockIo* io, AsyncIo& async) {
  Op* op = take_op(io, async, fd, offset);
  op->rw_flags = io->op == BlockOp::kWriteDurable ? RWF_DSYNC : 0;
  lock_then_start(op);
}

void DirectIo::change(BlockIo* io, AsyncIo& async, IoClass io_class, AsyncIo::Work work) {
  Op* op = take_op(io, async, -1, 0);
  op->io_class = io_class;
  op->work = work;
  lock_then_start(op);
}

void DirectIo::lock_then_start(Op* op) {
  RangeHold& hold = op->hold;
  set_range(&hold, op->io->address, op->io->length);
  hold.owner = op;
  hold.wait = [](RangeHold* waiting) {
    Op* parked = static_cast<Op*>(waiting->owner);
    parked->async->park(parked->io, locked_step);
  };
  hold.granted = [](RangeHold* granted) {
    Op* resumed = static_cast<Op*>(granted->owner);
    resumed->async->resume(resumed->io);
  };
  if (locks_.acquire(&hold)) start_locked(op);
}

void DirectIo::locked_step(BlockIo* io, AsyncIo&) {
  Op* op = op_of(io);
  op->direct->start_locked(op);
}

void DirectIo::start_locked(Op* op) {
  BlockIo* io = op->io;
  AsyncIo& async = *op->async;
  if (op->work != nullptr) {
    async.run_blocking(lane_, op->io_class, io, op->work, worked_step);
    return;
  }
  if (!op->hold.exclusive && buffer_aligned(io->buffer)) {
    const auto length = static_cast<uint32_t>(io->length);
    if (op->rw_flags != 0) {
      async.write_durable(lane_, op->fd, op->offset, io->buffer, length, io, written_step);
    } else {
      async.write(lane_, op->fd, op->offset, io->buffer, length, io, written_step);
    }
    return;
  }
  if (!op->hold.exclusive) op->bounce = bounces_.take();
  if (op->bounce == nullptr) {
    async.run_blocking(lane_, IoClass::kIo, io, blocking_work, worked_step);
    return;
  }
  next_piece(op, op->offset);
}

// ---------------------------------------------------------------- piece by piece

void DirectIo::next_piece(Op* op, uint64_t at) {
  BlockIo* io = op->io;
  const uint64_t end_of_sectors = up(op->offset + io->length);
  op->piece_at = down(at);
  op->piece_length = std::min(BouncePool::kBufferBytes, end_of_sectors - op->piece_at);
  const auto length = static_cast<uint32_t>(op->piece_length);
  uint8_t* bounce = op->bounce->data();
  if (io->op == BlockOp::kRead) {
    op->async->read(lane_, op->fd, op->piece_at, bounce, length, io, piece_step);
    return;
  }
  // Only whole sectors are written this way, so the piece lies inside the caller's buffer.
  memcpy(bounce, io->buffer + (op->piece_at - op->offset), length);
  if (op->rw_flags != 0) {
    op->async->write_durable(lane_, op->fd, op->piece_at, bounce, length, io, piece_step);
  } else {
    op->async->write(lane_, op->fd, op->piece_at, bounce, length, io, piece_step);
  }
}

void DirectIo::piece_step(BlockIo* io, AsyncIo&) {
  Op* op = op_of(io);
  if (io->error != 0) {
    if (io->op != BlockOp::kRead) op->direct->latch_.after_write(-io->error);
    op->direct->end(op, io->error);
    return;
  }
  const uint64_t piece_end = op->piece_at + op->piece_length;
  const uint64_t wanted_end = op->offset + io->length;
  if (io->op == BlockOp::kRead) {
    const uint64_t from = std::max(op->piece_at, op->offset);
    const uint64_t to = std::min(piece_end, wanted_end);
    memcpy(io->buffer + (from - op->offset), op->bounce->data() + (from - op->piece_at), to - from);
  }
  if (piece_end < wanted_end) {
    op->direct->next_piece(op, piece_end);
  } else {
    op->direct->end(op, 0);
  }
}

void DirectIo::written_step(BlockIo* io, AsyncIo&) {
  Op* op = op_of(io);
  op->direct->latch_.after_write(-io->error);
  op->direct->end(op, io->error);
}

void DirectIo::worked_step(BlockIo* io, AsyncIo&) { op_of(io)->direct->end(op_of(io), io->error); }

void DirectIo::end(Op* op, int error) {
  BlockIo* io = op->io;
  AsyncIo* async = op->async;
  if (io->op != BlockOp::kRead) locks_.release(&op->hold);
  give_op(op);
  async->finish(io, error);
}

// ---------------------------------------------------------------- blocking

int DirectIo::blocking_work(BlockIo* io) {
  Op* op = op_of(io);
  if (io->op == BlockOp::kRead) return op->direct->read_blocking(op->fd, op->offset, io->buffer, io->length);
  return op->direct->write_blocking(op->fd, op->offset, io->buffer, io->length, op->rw_flags);
}

int DirectIo::read_blocking(int fd, uint64_t offset, uint8_t* buffer, uint64_t length) {
  uint8_t* bounce = thread_buffer();
  const uint64_t end = offset + length;
  for (uint64_t at = offset; at < end;) {
    const uint64_t piece = down(at);
    const uint64_t piece_end = std::min(up(end), piece + BouncePool::kBufferBytes);
    if (const int result = read_full(fd, bounce, piece_end - piece, piece); result < 0) return result;
    const uint64_t to = std::min(end, piece_end);
    memcpy(buffer + (at - offset), bounce + (at - piece), to - at);
    at = to;
  }
  return 0;
}

int DirectIo::write_blocking(int fd, uint64_t offset, const uint8_t* buffer, uint64_t length, uint32_t rw_flags) {
  uint8_t* bounce = thread_buffer();
  const uint64_t end = offset + length;
  for (uint64_t at = offset; at < end;) {
    const uint64_t piece = down(at);
    const uint64_t piece_end = std::min(up(end), piece + BouncePool::kBufferBytes);
    const uint64_t to = std::min(end, piece_end);
    const uint64_t last_sector = piece_end - sector_;
    int result = 0;
    if (at != piece) result = read_full(fd, bounce, sector_, piece);
    // The last sector, unless it is the first one too and was read.
    if (result == 0 && to != piece_end && (last_sector != piece || at == piece)) {
      result = read_full(fd, bounce + (last_sector - piece), sector_, last_sector);
    }
    if (result < 0) return result;
    memcpy(bounce + (at - piece), buffer + (at - offset), to - at);
    result = latch_.after_write(write_full(fd, bounce, piece_end - piece, piece, rw_flags));
    if (result < 0) return result;
    at = to;
  }
  return 0;
}

}  // namespace atoll_native
