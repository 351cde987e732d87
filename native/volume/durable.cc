// FLUSH, and the end of requests with FUA.
//
// A flush covers every write that was acknowledged before it was asked, on whatever connection or reactor (NBD's
// CAN_MULTI_CONN). Before a write is acknowledged its file is marked, and if it changed the map, map_dirty was advanced
// before the mapper's reply. Its acknowledgement happened before the flush came in, so reading both here sees them: no
// reactor has to be asked what it has done.
#include <cerrno>

#include "core.h"
#include "io/async_io.h"
#include "segment/atomic.h"
#include "volume/volume_peer.h"

namespace atoll_native {

/// map_dirty first: if map_durable has moved on when it is read, more is durable than we ask for.
bool VolumePeer::map_is_durable(const VolumeRecord& record) {
  const uint32_t dirty = load_acquire(record.map_dirty);
  return load_acquire(record.map_durable) == dirty;
}

VolumePeer::Progress VolumePeer::drive_flush(Request* request) {
  const VolumeRecord& record = segment_.volume(request->volume);
  const int failed = static_cast<int>(load_acquire(record.failed));
  if (failed != 0) {
    fail(request, failed);
    return Progress::kFinished;
  }
  if (!map_is_durable(record)) {
    Work* const work = take_work(request);
    if (work == nullptr) return Progress::kWaiting;
    RequestRecord fault;
    fault.op = kOpFlush;
    send(work, Step::kFlush, &fault);
    return Progress::kFinished;
  }
  int error = 0;
  if (sync_inline(request->volume, &error)) {
    if (error != 0) fail(request, error);
    return Progress::kFinished;
  }
  Work* const work = take_work(request);
  if (work == nullptr) return Progress::kWaiting;
  work->step = Step::kSync;
  io_in_flight_++;
  core_.syncer().sync(request->volume, &work->waiter);
  return Progress::kFinished;
}

/// The sync on this thread, when there is nothing to sync, or when the reactor has nobody else to serve: one
/// connection, and nothing of it on its way. Blocking is faster then, by two thread hops.
bool VolumePeer::sync_inline(uint32_t volume, int* error) {
  if (core_.syncer().try_sync_inline(volume, 0, error)) return true;
  if (reactor_.connections() > 1 || io_in_flight_ != 0 || faults_out_ != 0) return false;
  // It may take long, and nothing that was looked up is in use: the mapper need not wait for us with frames and slots.
  core_.epochs().leave(id_, oldest_epoch());
  const bool synced = core_.syncer().try_sync_inline(volume, VolumeSyncer::kInlineFilesMax, error);
  epoch_ = core_.epochs().enter(id_, oldest_epoch());
  return synced;
}

/// On a thread of the pool.
void VolumePeer::on_synced(VolumeSyncer::Waiter* waiter) {
  Work* const work = reinterpret_cast<Work*>(reinterpret_cast<uint8_t*>(waiter) - offsetof(Work, waiter));
  work->peer->reactor_.io().complete(&work->io, waiter->error);
}

}  // namespace atoll_native
