#include <cerrno>
#include <cstring>

#include "block/block.h"
#include "core.h"
#include "volume/volume_peer.h"

namespace atoll_native {

VolumePeer::Progress VolumePeer::drive_read(Request* request) {
  const Target target = target_of(request->volume);
  const uint64_t end = request->offset + request->length;
  uint64_t moved = 0;
  while (request->cursor < end) {
    if (moved >= kDriveBytesMax) return put_off(request);
    const Span span = read_span(target, request->cursor, end);
    if (span.place == Place::kMissing) return load_and_park(request, target, request->cursor, end);
    uint8_t* const buffer = request->buffer + (request->cursor - request->offset);
    if (span.place == Place::kZero) {
      std::memset(buffer, 0, span.length);
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

}  // namespace atoll_native
