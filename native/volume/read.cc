#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "block/block.h"
#include "core.h"
#include "volume/volume_peer.h"

namespace atoll_native {
namespace {

uint64_t page_bytes() {
  static const auto bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

VolumePeer::Progress VolumePeer::drive_read(Request* request) {
  const Target target = target_of(request->volume);
  const uint64_t end = request->offset + request->length;
  uint64_t moved = 0;
  const bool checks = verifies(target);
  while (request->cursor < end) {
    if (moved >= kDriveBytesMax) return put_off(request);
    const uint64_t until = checks ? std::min(end, (request->cursor | target.block_mask()) + 1) : end;
    const Span span = read_span(target, request->cursor, until);
    if (span.place == Place::kMissing) return load_and_park(request, target, request->cursor, end);
    if (span.place == Place::kBad) {
      fail(request, EIO);
      return Progress::kFinished;
    }
    uint8_t* const buffer = request->buffer + (request->cursor - request->offset);
    if (span.place == Place::kZero) {
      std::memset(buffer, 0, span.length);
    } else if (checks && !written_in_place(target, request->cursor)) {
      Work* const work = take_work(request);
      if (work == nullptr) return Progress::kWaiting;
      work->cursor = request->cursor;
      work->end = request->cursor + span.length;
      work->copying = false;
      ask_hash(work, span.address >> target.shift);
    } else {
      const int result = target.pool->read_now(span.address, buffer, static_cast<uint32_t>(span.length));
      if (result == -EAGAIN) {
        Work* const work = take_work(request);
        if (work == nullptr) return Progress::kWaiting;
        start_io(work, Step::kRead, BlockOp::kRead, target, span.address, buffer, span.length);
      } else if (result != 0) {
        fail(request, -result);
        return Progress::kFinished;
      }
    }
    request->cursor += span.length;
    request->retries = 0;
    moved += span.length;
    turn_bytes_ += span.length;
  }
  return Progress::kFinished;
}

/// What lies together in the page cache from `offset` on. Where anything is in the way (a leaf that is not resident, a
/// block that is not mapped, a cold page) a read finds out what to do.
bool VolumePeer::lend(uint32_t volume, uint64_t offset, uint64_t* length, FileRange* range) {
  const Request asked{.op = Op::kRead, .volume = volume, .offset = offset, .length = *length};
  if (refusal(asked) != 0) return false;
  const Target target = target_of(volume);
  // What is sent from the page cache is seen by nobody here.
  if (verifies(target)) return false;
  // Slots smaller than a page share pages with others, which zeroing them does not replace.
  if (target.block_bytes() < page_bytes()) return false;
  const Span span = read_span(target, offset, offset + *length);
  if (span.place != Place::kData || !target.pool->lend(span.address, span.length, range)) return false;
  *length = span.length;
  return true;
}

void VolumePeer::lent(uint32_t volume, uint64_t length) {
  count_request({.op = Op::kRead, .volume = volume, .length = length});
}

}  // namespace atoll_native
