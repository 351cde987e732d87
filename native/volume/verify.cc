// Verify on read: in pools that ask for it, a block that is in the index of sealed blocks is compared with its hash
// before any of its bytes are returned, or copied to where a first write goes.
//
// First the mapper says what the slot should hash to, then the block is looked up again and read whole, under one
// epoch: what is read is what the slot held then. A slot that was freed and used again in between may get the hash of
// what it held before. So a mismatch is no verdict: the mapper looks at slot and index at one moment, in which neither
// can change, and either puts the slot in quarantine, and the reader gets EIO, or finds nothing wrong, and the reader
// looks again.
//
// A slot in the index is written by nobody. What is written in place is in no index, and is not asked for.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "block/block.h"
#include "core.h"
#include "segment/atomic.h"
#include "volume/volume_peer.h"

namespace atoll_native {

/// All that other pools' requests pay for this.
bool VolumePeer::verifies(const Target& target) { return (load_relaxed(target.record->flags) & kVolumeVerify) != 0; }

/// Whether the block's slot is one that this volume writes in place. The bit in the entry says nothing by itself: under
/// a new generation, a snapshot has the slot too.
bool VolumePeer::written_in_place(const Target& target, uint64_t cursor) {
  const uint32_t generation = load_acquire(target.record->generation);
  return write_span(target, cursor, cursor + 1, generation).place == Place::kInPlace;
}

void VolumePeer::ask_hash(Work* work, uint64_t slot) {
  work->slot_old = slot;
  RequestRecord record;
  record.op = kOpHash;
  record.block = slot;
  send(work, Step::kHash, &record);
}

void VolumePeer::on_hash(Work* work, const ReplyRecord& reply) {
  if (reply.error != 0) {
    end_check(work, static_cast<int>(reply.error));
    return;
  }
  work->hashed = reply.count != 0;
  if (work->hashed) {
    static_assert(kReplyHash + sizeof(BlockHash) <= sizeof(ReplyRecord));
    std::memcpy(work->hash.data(), reinterpret_cast<const uint8_t*>(&reply) + kReplyHash, sizeof(BlockHash));
  }
  if (!work->copying) {
    check_read(work);
  } else if (work->hashed) {
    read_whole(work, target_of(work->volume));
  } else {
    fill_unchecked(work, target_of(work->volume));
  }
}

/// [cursor, end) of a read, which is in one block. Looked up anew, for the I/O to be under this turn's epoch.
void VolumePeer::check_read(Work* work) {
  const Target target = target_of(work->volume);
  if (turn_bytes_ >= kTurnBytesMax) {
    work->step = Step::kCheckPutOff;
    put_off_.push(work);
    return;
  }
  const Span span = read_span(target, work->cursor, work->end);
  switch (span.place) {
    case Place::kMissing: {
      if (++work->retries > kRetriesMax) {
        end_check(work, EIO);
        return;
      }
      uint64_t loaded_end = 0;
      send_load(work, target, work->cursor, work->end, &loaded_end);
      work->step = Step::kCheckLoad;
      return;
    }
    case Place::kZero:
      std::memset(work->request->buffer + (work->cursor - work->request->offset), 0, span.length);
      end_check(work, 0);
      return;
    case Place::kData:
      break;
    default:
      end_check(work, EIO);
      return;
  }
  if (span.address >> target.shift != work->slot_old) {
    // It was folded, or written elsewhere, meanwhile.
    if (++work->retries > kRetriesMax) {
      end_check(work, EIO);
    } else {
      ask_hash(work, span.address >> target.shift);
    }
    return;
  }
  if (!work->hashed) {
    read_unchecked(work, target, span);
    return;
  }
  work->buffer = buffers_.take(target.shift);
  if (work->buffer != nullptr) {
    read_whole(work, target);
  } else if (buffers_.bytes_in_use() == 0) {
    end_check(work, ENOMEM);  // nobody will give one back
  } else {
    work->step = Step::kCheckBuffer;
    buffer_waiters_.push(work);
  }
}

void VolumePeer::read_unchecked(Work* work, const Target& target, const Span& span) {
  uint8_t* const buffer = work->request->buffer + (work->cursor - work->request->offset);
  turn_bytes_ += span.length;
  const int result = target.pool->read_now(span.address, buffer, static_cast<uint32_t>(span.length));
  if (result == -EAGAIN) {
    start_io(work, Step::kRead, BlockOp::kRead, target, span.address, buffer, span.length);
  } else {
    end_check(work, -result);
  }
}

void VolumePeer::read_whole(Work* work, const Target& target) {
  const uint64_t address = work->slot_old << target.shift;
  const uint64_t length = target.block_bytes();
  turn_bytes_ += length;
  const int result = target.pool->read_now(address, work->buffer, static_cast<uint32_t>(length));
  if (result == -EAGAIN) {
    start_io(work, Step::kCheckRead, BlockOp::kRead, target, address, work->buffer, length);
  } else {
    whole_read(work, -result);
  }
}

void VolumePeer::whole_read(Work* work, int error) {
  const Target target = target_of(work->volume);
  if (error != 0) {
    end_check(work, error);
    return;
  }
  if (blake3(work->buffer, target.block_bytes()) == work->hash) {
    if (work->copying) {
      overlay_and_write(work, target);
      return;
    }
    std::memcpy(work->request->buffer + (work->cursor - work->request->offset),
                work->buffer + (work->cursor & target.block_mask()), work->end - work->cursor);
    end_check(work, 0);
    return;
  }
  work->mismatches++;
  if (!work->copying) give_buffer(work);
  RequestRecord record;
  record.op = kOpRotten;
  record.block = work->slot_old;
  send(work, Step::kRotten, &record);
}

void VolumePeer::on_rotten(Work* work, int error) {
  if (error != 0 || work->mismatches > kMismatchesMax) {
    end_check(work, error != 0 ? error : EIO);
  } else {
    ask_hash(work, work->slot_old);
  }
}

/// Of a read it is the end; of a copy, errors are.
void VolumePeer::end_check(Work* work, int error) {
  if (work->copying) {
    answer_grant(work, error);
    return;
  }
  if (work->buffer != nullptr) give_buffer(work);
  if (error != 0) fail(work->request, error);
  release_work(work);
}

/// The next one that waits for a buffer goes on later, not from in here: a long queue would become a deep stack.
void VolumePeer::give_buffer(Work* work) {
  buffers_.give(work->buffer, target_of(work->volume).shift);
  work->buffer = nullptr;
  wake_for_buffer();
}

/// Whoever is woken may find that it needs none any more: run_put_off() sees to it that somebody else is then.
void VolumePeer::wake_for_buffer() {
  Work* const waiter = buffer_waiters_.pop();
  if (waiter == nullptr) return;
  waiter->step = waiter->step == Step::kCheckBuffer ? Step::kCheckPutOff : Step::kPutOff;
  put_off_.push(waiter);
}

}  // namespace atoll_native
