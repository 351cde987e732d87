// The data of a grant: into its new slots, then OP_DONE, and when the mapper has published them the piece is written.
// A grant is always answered, whatever went wrong: the mapper holds the slots, and other faults on the block, until
// then.
//
// No epoch is needed for the slots of a grant: the new ones are named by no map yet, and the old one stays what it is
// until the mapper has our answer (faults on one block queue in order). I/O on them holds one all the same.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "block/block.h"
#include "core.h"
#include "volume/volume_peer.h"

namespace atoll_native {

void VolumePeer::on_grant(Work* work, const ReplyRecord& reply) {
  Request* const request = work->request;
  if (reply.error != 0) {
    fail(request, static_cast<int>(reply.error));
    release_work(work);
    return;
  }
  if ((reply.flags & kGrantInPlace) != 0) {
    if (++work->retries > kRetriesMax) fail(request, EIO);
    drive_work(work);
    return;
  }
  const uint64_t asked = work->piece_end - work->cursor;
  const uint32_t shift = target_of(work->volume).shift;
  work->grant = reply.grant;
  work->grant_flags = reply.flags;
  work->slot_new = reply.slot_new;
  work->slot_old = reply.slot_old;
  work->granted = std::min(asked, uint64_t{reply.count} << shift);
  work->moved = 0;
  if (reply.count == 0 || reply.slot_new >= kSlotNone) {
    answer_grant(work, EIO);
  } else if (request->error != 0) {
    answer_grant(work, ECANCELED);  // another piece failed: the client gets its error
  } else {
    move(work);
  }
}

void VolumePeer::move(Work* work) {
  const Target target = target_of(work->volume);
  const bool partial = work->granted < target.block_bytes();
  const bool rest = partial && (work->slot_old != kSlotNone || (work->grant_flags & kGrantZeroRest) != 0);
  if (!rest) {
    move_run(work, target);
    return;
  }
  if (turn_bytes_ >= kTurnBytesMax) {
    work->step = Step::kPutOff;
    put_off_.push(work);
    return;
  }
  work->buffer = buffers_.take(target.shift);
  if (work->buffer == nullptr) {
    if (buffers_.bytes_in_use() == 0) {
      answer_grant(work, ENOMEM);  // nobody will give one back
      return;
    }
    work->step = Step::kWaitBuffer;
    buffer_waiters_.push(work);
    return;
  }
  fill_and_write(work, target);
}

/// Data that needs no more than itself: runs of whole blocks, or a part of a block whose rest is zero or nobody's.
void VolumePeer::move_run(Work* work, const Target& target) {
  while (work->moved < work->granted) {
    if (turn_bytes_ >= kTurnBytesMax) {
      work->step = Step::kPutOff;
      put_off_.push(work);
      return;
    }
    const uint64_t cursor = work->cursor + work->moved;
    const uint64_t address = (work->slot_new << target.shift) + (work->cursor & target.block_mask()) + work->moved;
    const uint64_t span = target.pool->file_span();
    const uint64_t length = std::min({work->granted - work->moved, kIoBytesMax, span - (address & (span - 1))});
    const uint8_t* const source = source_of(*work->request, cursor);
    const int result = target.pool->write_now(address, source, static_cast<uint32_t>(length));
    if (result == -EAGAIN) {
      start_io(work, Step::kMove, BlockOp::kWrite, target, address, const_cast<uint8_t*>(source), length);
      return;
    }
    if (result != 0) {
      answer_grant(work, -result);
      return;
    }
    mark_written(target, address);
    work->moved += length;
    turn_bytes_ += length;
  }
  answer_grant(work, 0);
}

/// A part of a block with a copy around it: reads what the write does not cover, in one piece, around it if need be.
void VolumePeer::fill_and_write(Work* work, const Target& target) {
  const uint64_t from = work->cursor & target.block_mask();
  const uint64_t to = from + work->granted;
  if (work->slot_old == kSlotNone) {
    std::memset(work->buffer, 0, from);
    std::memset(work->buffer + to, 0, target.block_bytes() - to);
    overlay_and_write(work, target);
    return;
  }
  if (verifies(target)) {
    // Else what is wrong would be copied to where no hash tells.
    work->copying = true;
    work->mismatches = 0;
    ask_hash(work, work->slot_old);
    return;
  }
  fill_unchecked(work, target);
}

void VolumePeer::fill_unchecked(Work* work, const Target& target) {
  const uint64_t from = work->cursor & target.block_mask();
  const uint64_t to = from + work->granted;
  const uint64_t read_from = from == 0 ? to : 0;
  const uint64_t read_to = to == target.block_bytes() ? from : target.block_bytes();
  const uint64_t address = (work->slot_old << target.shift) + read_from;
  const int result =
      target.pool->read_now(address, work->buffer + read_from, static_cast<uint32_t>(read_to - read_from));
  if (result == -EAGAIN) {
    start_io(work, Step::kCopyRead, BlockOp::kRead, target, address, work->buffer + read_from, read_to - read_from);
  } else if (result != 0) {
    answer_grant(work, -result);
  } else {
    overlay_and_write(work, target);
  }
}

/// One write of the whole block: faster than pieces, and no sector is written twice.
void VolumePeer::overlay_and_write(Work* work, const Target& target) {
  const uint64_t from = work->cursor & target.block_mask();
  std::memcpy(work->buffer + from, source_of(*work->request, work->cursor), work->granted);
  const uint64_t address = work->slot_new << target.shift;
  const uint64_t length = target.block_bytes();
  turn_bytes_ += length;
  const int result = target.pool->write_now(address, work->buffer, static_cast<uint32_t>(length));
  if (result == -EAGAIN) {
    start_io(work, Step::kMove, BlockOp::kWrite, target, address, work->buffer, length);
    return;
  }
  if (result == 0) mark_written(target, address);
  answer_grant(work, -result);
}

void VolumePeer::move_ended(Work* work) {
  const Target target = target_of(work->volume);
  if (work->io.error != 0) {
    answer_grant(work, work->io.error);
    return;
  }
  mark_written(target, work->io.address);
  if (work->buffer != nullptr) {
    answer_grant(work, 0);
    return;
  }
  work->moved += work->io.length;
  move_run(work, target);
}

/// The files written are marked by now: the mapper syncs them before the commit that names the slots.
void VolumePeer::answer_grant(Work* work, int error) {
  const uint32_t shift = target_of(work->volume).shift;
  if (work->buffer != nullptr) give_buffer(work);
  if (error != 0 && error != ECANCELED) fail(work->request, error);
  RequestRecord record;
  record.op = kOpDone;
  record.grant = work->grant;
  record.block = work->cursor >> shift;
  record.count = std::max<uint64_t>(work->granted >> shift, 1);
  record.error = static_cast<uint32_t>(error);
  send(work, Step::kAnswered, &record);
}

void VolumePeer::grant_published(Work* work, int error) {
  if (error != 0) fail(work->request, error);
  work->cursor += work->granted;
  drive_work(work);
}

}  // namespace atoll_native
