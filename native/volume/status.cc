// STATUS (which parts are allocated, or changed since a snapshot) and CACHE.
#include <algorithm>
#include <bit>
#include <cstring>

#include "core.h"
#include "volume/volume_peer.h"

namespace atoll_native {

static_assert(sizeof(Extent) == sizeof(ExtentRecord) && offsetof(Extent, length) == offsetof(ExtentRecord, length) &&
              offsetof(Extent, flags) == offsetof(ExtentRecord, flags));

VolumePeer::Progress VolumePeer::drive_status(Request* request) {
  const uint32_t room = std::min(request->extent_max, kScratchExtents);
  if (request->length == 0 || room == 0) return Progress::kFinished;
  if (scratch_free_ == 0) {
    request->wait = kQueued;
    scratch_waiters_.push(request);
    return Progress::kWaiting;
  }
  Work* const work = take_work(request);
  if (work == nullptr) {
    wake_for_scratch();  // it may have been woken for what it cannot use yet
    return Progress::kWaiting;
  }
  const uint32_t slot = static_cast<uint32_t>(std::countr_zero(scratch_free_));
  scratch_free_ &= ~(1u << slot);
  work->scratch = static_cast<uint8_t>(slot);
  RequestRecord record;
  record.op = kOpStatus;
  record.offset = request->offset;
  record.length = request->length;
  record.arg = slot | ((request->flags & kReqOne) != 0 ? 1 : room) << 8;
  if (request->context != UINT32_MAX) {
    record.flags = kFlagChangedSince;
    record.grant = request->context;
  }
  send(work, Step::kStatus, &record);
  return Progress::kFinished;
}

void VolumePeer::on_status(Work* work, const ReplyRecord& reply) {
  Request* const request = work->request;
  if (reply.error != 0) {
    fail(request, static_cast<int>(reply.error));
  } else {
    // The mapper wrote them before it put the reply, whose taking acquired.
    request->extent_count = std::min({reply.count, request->extent_max, kScratchExtents});
    std::memcpy(static_cast<void*>(request->extents), segment_.scratch(id_, work->scratch),
                request->extent_count * sizeof(Extent));
  }
  scratch_free_ |= 1u << work->scratch;
  wake_for_scratch();
  release_work(work);
}

void VolumePeer::wake_for_scratch() {
  Request* const waiter = scratch_waiters_.pop();
  if (waiter != nullptr) make_runnable(waiter);
}

/// Advice: the leaves become resident. Data is the page cache's business.
VolumePeer::Progress VolumePeer::drive_cache(Request* request) {
  const Target target = target_of(request->volume);
  const uint64_t leaf_bytes = uint64_t{kPageEntries} << target.shift;
  const uint64_t end =
      std::min(request->offset + request->length, (request->offset / leaf_bytes + kCacheLeavesMax) * leaf_bytes);
  while (request->cursor < end) {
    if (hash_.find(target.volume, request->cursor / leaf_bytes) != LeafHash::kNone) {
      request->cursor = (request->cursor / leaf_bytes + 1) * leaf_bytes;
      continue;
    }
    Work* const work = take_work(request);
    if (work == nullptr) return Progress::kWaiting;
    send_load(work, target, request->cursor, end, &request->cursor);
  }
  return Progress::kFinished;
}

}  // namespace atoll_native
