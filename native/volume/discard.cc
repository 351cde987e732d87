// TRIM and WRITE_ZEROES: whole blocks are unmapped, by one fault however many they are; parts of mapped blocks are
// written with zeroes.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "core.h"
#include "segment/atomic.h"
#include "volume/volume_peer.h"

namespace atoll_native {

VolumePeer::Progress VolumePeer::drive_discard(Request* request) {
  const Target target = target_of(request->volume);
  const uint64_t end = request->offset + request->length;
  const bool keep_slots = request->op == Op::kWriteZeroes && (request->flags & kNoHole) != 0;
  if ((request->flags & kFastZero) != 0 && request->op == Op::kWriteZeroes && request->stage == kStageData) {
    bool passed = false;
    const Progress progress = check_fast_zero(request, target, &passed);
    if (!passed) return progress;
    request->stage = kStageZeroChecked;
  }
  // A last block that the volume's size cuts is whole when all of it that belongs to the volume goes.
  const bool to_the_end = end == load_relaxed(target.record->size);
  const uint64_t whole_end =
      to_the_end ? (end + target.block_mask()) & ~target.block_mask() : end & ~target.block_mask();
  while (request->cursor < end) {
    const uint64_t inside = request->cursor & target.block_mask();
    if (inside == 0 && request->cursor < whole_end) {
      Work* const work = take_work(request);
      if (work == nullptr) return Progress::kWaiting;
      RequestRecord record;
      record.op = kOpUnmap;
      record.flags = keep_slots ? kFlagAllocate : 0;
      record.block = request->cursor >> target.shift;
      record.count = (whole_end - request->cursor) >> target.shift;
      record.length = whole_end > end ? end & target.block_mask() : 0;
      work->cursor = (end - 1) & ~target.block_mask();
      send(work, Step::kUnmap, &record);
      request->cursor = std::min(end, whole_end);
      continue;
    }
    // An edge. What is not mapped reads as zeroes already.
    const uint64_t edge_end = std::min(end, request->cursor - inside + target.block_bytes());
    const Span span = read_span(target, request->cursor, edge_end);
    if (span.place == Place::kMissing) return load_and_park(request, target, request->cursor, edge_end);
    if (span.place != Place::kZero || keep_slots) {
      Work* const work = take_work(request);
      if (work == nullptr) return Progress::kWaiting;
      work->cursor = request->cursor;
      work->end = edge_end;
      request->cursor = edge_end;
      drive_work(work);
    }
    request->cursor = edge_end;
    request->retries = 0;
  }
  return Progress::kFinished;
}

/// When the volume has grown since, the last block was left: what lies behind the end that was may be in use by now.
void VolumePeer::on_unmapped(Work* work, const ReplyRecord& reply) {
  Request* const request = work->request;
  if (reply.error != 0) fail(request, static_cast<int>(reply.error));
  if (reply.error == 0 && reply.count != 0) {
    request->cursor = work->cursor;
    request->pending++;
    make_runnable(request);
  }
  release_work(work);
}

/// FAST_ZERO: ENOTSUP before anything is done when data would have to be written, that is, at an edge inside a block
/// that is mapped (or has to get a slot).
VolumePeer::Progress VolumePeer::check_fast_zero(Request* request, const Target& target, bool* passed) {
  const uint64_t end = request->offset + request->length;
  const bool head = (request->offset & target.block_mask()) != 0;
  const bool tail = (end & target.block_mask()) != 0 && end != load_relaxed(target.record->size);
  if ((head || tail) && (request->flags & kNoHole) != 0) {
    fail(request, ENOTSUP);
    return Progress::kFinished;
  }
  for (const auto& [edge, at] : {std::pair(head, request->offset), std::pair(tail, end - 1)}) {
    if (!edge) continue;
    const Span span = read_span(target, at, at + 1);
    if (span.place == Place::kMissing) return load_and_park(request, target, at, at + 1);
    if (span.place != Place::kZero) {
      fail(request, ENOTSUP);
      return Progress::kFinished;
    }
  }
  *passed = true;
  return Progress::kFinished;
}

}  // namespace atoll_native
