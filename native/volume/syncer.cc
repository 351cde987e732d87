#include "volume/syncer.h"

#include <algorithm>
#include <cerrno>

#include "block/block.h"
#include "core.h"
#include "io/thread_pool.h"
#include "segment/step.h"

namespace atoll_native {
namespace {

struct BoxedWaiter : VolumeSyncer::Waiter {
  std::function<void(int)> function;
};

void run_boxed(VolumeSyncer::Waiter* waiter) {
  const std::unique_ptr<BoxedWaiter> boxed(static_cast<BoxedWaiter*>(waiter));
  boxed->function(boxed->error);
}

}  // namespace

VolumeSyncer::VolumeSyncer(Core& core) : core_(core), dirty_(core.segment()) {}

VolumeSyncer::~VolumeSyncer() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return jobs_.empty(); });
}

VolumeSyncer::Job* VolumeSyncer::make_job(uint32_t volume) {
  auto made = std::make_unique<Job>();
  Job* job = made.get();
  job->syncer = this;
  job->volume = volume;
  for (Share& share : job->shares) {
    share.job = job;
    share.run = run_share;
  }
  jobs_.emplace(volume, std::move(made));
  return job;
}

void VolumeSyncer::sync(uint32_t volume, Waiter* waiter) {
  Job* job = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto running = jobs_.find(volume);
    if (running != jobs_.end()) {
      waiter->next = running->second->next;
      running->second->next = waiter;
      return;
    }
    job = make_job(volume);
    waiter->next = nullptr;
    job->current = waiter;
  }
  start(job);
}

void VolumeSyncer::sync(uint32_t volume, std::function<void(int)> done) {
  auto* waiter = new BoxedWaiter;
  waiter->function = std::move(done);
  waiter->done = run_boxed;
  sync(volume, waiter);
}

bool VolumeSyncer::try_sync_inline(uint32_t volume, uint32_t files_max, int* error) {
  Job* job = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.contains(volume) || dirty_.count(volume, files_max + 1) > files_max) return false;
    job = make_job(volume);
  }
  prepare(job);
  sync_files(job);
  *error = settle(job);
  Waiter* nobody = nullptr;
  if (next_round(job, &nobody)) start(job);
  return true;
}

/// Decides what the round syncs. Whoever waits for it is in `current` by now, so what they wrote is marked.
void VolumeSyncer::prepare(Job* job) {
  VolumeRecord& record = core_.segment().volume(job->volume);
  job->files.clear();
  job->unsynced.clear();
  job->next_file.store(0, std::memory_order_relaxed);
  job->peer = core_.shared_pool(load_relaxed(record.pool));
  int error = static_cast<int>(load_acquire(record.failed));
  if (error == 0 && (job->peer == nullptr || job->peer->failed())) error = EIO;
  job->error.store(error, std::memory_order_relaxed);
  ATOLL_STEP();
  if (error == 0) dirty_.take(job->volume, &job->files);
  ATOLL_STEP();
}

void VolumeSyncer::start(Job* job) {
  prepare(job);
  // At least one share even without files: done() never runs inside sync().
  const uint32_t shares = std::clamp<uint32_t>(static_cast<uint32_t>(job->files.size()), 1, kParallelMax);
  job->shares_running.store(shares, std::memory_order_relaxed);
  // The lane by value: the last share may have ended the job before the loop does.
  const void* lane = job->peer.get();
  for (uint32_t i = 0; i < shares; i++) core_.threads().post_task(IoClass::kSync, lane, &job->shares[i]);
}

void VolumeSyncer::run_share(PoolTask* task) {
  Job* job = static_cast<Share*>(task)->job;
  sync_files(job);
  // Acquire and release: the last one sees what the others found.
  if (job->shares_running.fetch_sub(1, std::memory_order_acq_rel) == 1) job->syncer->end(job);
}

void VolumeSyncer::sync_files(Job* job) {
  for (;;) {
    const uint32_t at = job->next_file.fetch_add(1, std::memory_order_relaxed);
    if (at >= job->files.size()) return;
    const uint32_t file = job->files[at];
    const bool synced =
        job->error.load(std::memory_order_relaxed) == 0 && job->syncer->core_.sync_file_now(*job->peer, file) == 0;
    if (synced) continue;
    // Whatever the cause was: what is lost is lost, and EIO is the word for that.
    job->error.store(EIO, std::memory_order_relaxed);
    const std::lock_guard lock(job->unsynced_mutex);
    job->unsynced.push_back(file);
  }
}

/// The round's outcome; a failure is written where every later write and flush sees it.
int VolumeSyncer::settle(Job* job) {
  const int error = job->error.load(std::memory_order_relaxed);
  if (error == 0) return 0;
  for (const uint32_t file : job->unsynced) dirty_.mark(job->volume, file);
  uint32_t well = 0;
  // The first cause stays.
  std::atomic_ref<uint32_t>(core_.segment().volume(job->volume).failed)
      .compare_exchange_strong(well, static_cast<uint32_t>(error), std::memory_order_release,
                               std::memory_order_relaxed);
  return error;
}

/// Hands over who waited for the round, and says whether others wait for another one; else the job is gone.
bool VolumeSyncer::next_round(Job* job, Waiter** finished) {
  const std::lock_guard lock(mutex_);
  *finished = job->current;
  job->current = job->next;
  job->next = nullptr;
  if (job->current != nullptr) return true;
  jobs_.erase(job->volume);
  if (jobs_.empty()) idle_.notify_all();
  return false;
}

void VolumeSyncer::end(Job* job) {
  const int error = settle(job);
  const std::shared_ptr<BlockPeer> peer = std::move(job->peer);
  Waiter* finished = nullptr;
  const bool again = next_round(job, &finished);
  if (again) start(job);
  while (finished != nullptr) {
    Waiter* waiter = finished;
    finished = waiter->next;
    waiter->error = error;
    waiter->done(waiter);
  }
}

}  // namespace atoll_native
