// Writes in place, and the faults of those that cannot be.
#include <cerrno>

#include "block/block.h"
#include "core.h"
#include "segment/atomic.h"
#include "volume/volume_peer.h"
#include "volume/zero_region.h"

namespace atoll_native {

/// What is written at `cursor`: the client's bytes, or zeroes for the edges of trim and zeroes (never more than a
/// block).
const uint8_t* VolumePeer::source_of(const Request& request, uint64_t cursor) const {
  return request.op == Op::kWrite ? request.buffer + (cursor - request.offset) : zero_region();
}

/// Whether the volume became smaller since the request was let in. Asked after the entry was seen: who sees an entry
/// made writable behind a shrink sees the new size too.
bool VolumePeer::beyond_end(const Target& target, uint64_t end) { return end > load_relaxed(target.record->size); }

VolumePeer::Progress VolumePeer::drive_write(Request* request) {
  const Target target = target_of(request->volume);
  const uint64_t end = request->offset + request->length;
  uint64_t moved = 0;
  const Admitted admitted(admission_, request->volume);
  while (request->cursor < end) {
    if (moved >= kDriveBytesMax) return put_off(request);
    const Span span = write_span(target, request->cursor, end, admitted.generation());
    if (span.place == Place::kFault) {
      if (target.pool->failed()) {
        fail(request, EIO);
        return Progress::kFinished;
      }
      Work* const work = take_work(request);
      if (work == nullptr) return Progress::kWaiting;
      work->cursor = request->cursor;
      work->end = request->cursor + span.length;
      // Collected now, sent at the end of the turn, when nobody is admitted but I/O that ends by itself.
      send_map_write(work, target, span.length);
    } else if (beyond_end(target, request->cursor + span.length)) {
      fail(request, ENOSPC);
      return Progress::kFinished;
    } else {
      Progress progress = Progress::kFinished;
      if (write_durable(request, target, span, admitted.generation(), &progress)) return progress;
      const int result = target.pool->write_now(span.address, source_of(*request, request->cursor),
                                                static_cast<uint32_t>(span.length));
      if (result == 0) {
        // Before leaving admission: a snapshot syncs what is marked once the writers are out.
        mark_written(target, span.address);
      } else if (result == -EAGAIN) {
        Work* const work = take_work(request);
        if (work == nullptr) return Progress::kWaiting;
        work->cursor = request->cursor;
        work->end = request->cursor + span.length;
        start_in_place(work, target, span, admitted.generation(), BlockOp::kWrite);
      } else {
        fail(request, -result);
        return Progress::kFinished;
      }
      moved += span.length;
      turn_bytes_ += span.length;
    }
    request->cursor += span.length;
  }
  return Progress::kFinished;
}

/// FUA of one run in place whose map is durable already: one durable write instead of a write and a sync of all that
/// the volume wrote. (A lone connection's sync runs inline, which is faster still.) True when it was taken care of.
bool VolumePeer::write_durable(Request* request, const Target& target, const Span& span, uint32_t generation,
                               Progress* progress) {
  if ((request->flags & kFua) == 0 || span.length != request->length || request->op != Op::kWrite) return false;
  if (reactor_.connections() <= 1 || !map_is_durable(*target.record)) return false;
  Work* const work = take_work(request);
  *progress = Progress::kWaiting;
  if (work == nullptr) return true;
  work->cursor = request->cursor;
  work->end = request->cursor + span.length;
  // Its entry was durable before it was written, so nothing is left for the end.
  request->stage = kStageDurable;
  request->cursor = work->end;
  start_in_place(work, target, span, generation, BlockOp::kWriteDurable);
  *progress = Progress::kFinished;
  return true;
}

/// Asynchronous; stays admitted until it has ended.
void VolumePeer::start_in_place(Work* work, const Target& target, const Span& span, uint32_t generation, BlockOp op) {
  work->generation = generation;
  work->piece_end = work->cursor + span.length;
  admission_.hold(work->volume, generation);
  // The driver does not write to what it is given to write from.
  uint8_t* const source = const_cast<uint8_t*>(source_of(*work->request, work->cursor));
  start_io(work, Step::kWriteInPlace, op, target, span.address, source, span.length);
}

void VolumePeer::in_place_ended(Work* work) {
  const Target target = target_of(work->volume);
  // Also after an error: some of it may have been written.
  mark_written(target, work->io.address);
  admission_.leave(work->volume, work->generation);
  if (work->io.error != 0) fail(work->request, work->io.error);
  work->cursor = work->piece_end;
  drive_work(work);
}

/// Goes on with what is left of a Work's bytes: in place where that is possible by now, else by another fault.
void VolumePeer::drive_work(Work* work) {
  Request* const request = work->request;
  const Target target = target_of(work->volume);
  while (work->cursor < work->end && request->error == 0) {
    const Admitted admitted(admission_, work->volume);
    const Span span = write_span(target, work->cursor, work->end, admitted.generation());
    if (span.place == Place::kFault) {
      send_map_write(work, target, span.length);
      return;
    }
    if (beyond_end(target, work->cursor + span.length)) {
      fail(request, ENOSPC);
      break;
    }
    const int result =
        target.pool->write_now(span.address, source_of(*request, work->cursor), static_cast<uint32_t>(span.length));
    if (result == -EAGAIN) {
      start_in_place(work, target, span, admitted.generation(), BlockOp::kWrite);
      return;
    }
    if (result != 0) {
      fail(request, -result);
    } else {
      mark_written(target, span.address);
    }
    work->cursor += span.length;
    turn_bytes_ += span.length;
  }
  release_work(work);
}

void VolumePeer::send_map_write(Work* work, const Target& target, uint64_t length) {
  const uint64_t inside = work->cursor & target.block_mask();
  work->piece_end = work->cursor + length;
  RequestRecord record;
  record.op = kOpMapWrite;
  record.block = work->cursor >> target.shift;
  if (inside != 0 || length < target.block_bytes()) {
    record.count = 1;
    record.offset = inside;
    record.length = length;
  } else {
    record.flags = kFlagFull;
    record.count = length >> target.shift;
  }
  send(work, Step::kMapWrite, &record);
}

}  // namespace atoll_native
