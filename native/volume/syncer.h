// Makes the data of a volume durable: fdatasync of every pool file that it wrote since its last sync.
//
// Group commit. One sync runs per volume at a time. Who asks while one runs waits for the next one: the running one may
// have taken its list of files before the caller's write was complete. So any number of flushes at once cost two syncs.
//
// A failed sync is data loss, for good (invariant 1): the kernel may have dropped the dirty pages, so that a second
// fdatasync would answer success over lost data. The volume's `failed` is set, the bits go back, and every sync from
// then on answers EIO.
#pragma once
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "io/pool_task.h"
#include "volume/dirty_files.h"

namespace atoll_native {

class BlockPeer;
class Core;

class VolumeSyncer {
 public:
  /// Files of one volume that are synced at once; more would only queue in the same journal, and the pool of threads is
  /// shared.
  static constexpr uint32_t kParallelMax = 4;
  /// An inline sync of more files than this would hold its reactor for long.
  static constexpr uint32_t kInlineFilesMax = 4;

  /// One who waits; the caller's, untouched by it until done() runs (on any thread, never inside sync()).
  struct Waiter {
    Waiter* next = nullptr;
    void (*done)(Waiter*) = nullptr;
    int error = 0;  // errno or 0
  };

  explicit VolumeSyncer(Core& core);
  /// Waits for running syncs.
  ~VolumeSyncer();
  VolumeSyncer(const VolumeSyncer&) = delete;
  VolumeSyncer& operator=(const VolumeSyncer&) = delete;

  /// Any thread. Everything the volume wrote and marked before this call is durable when done() runs with error 0.
  void sync(uint32_t volume, Waiter* waiter);
  /// The same with a function (errno or 0); allocates.
  void sync(uint32_t volume, std::function<void(int)> done);
  /// The same on the calling thread, when no sync of the volume runs and there is little to do; saves two thread hops.
  /// `files_max` 0: only when there is nothing to do. False: nothing was done, use sync(). True: `*error` is errno or
  /// 0.
  bool try_sync_inline(uint32_t volume, uint32_t files_max, int* error);
  /// Marks a file as written by the volume.
  void mark_file(uint32_t volume, uint32_t file) { dirty_.mark(volume, file); }

 private:
  struct Job;
  /// A thread's share of a job.
  struct Share : PoolTask {
    Job* job = nullptr;
  };
  /// A volume with a sync on its way.
  struct Job {
    VolumeSyncer* syncer = nullptr;
    uint32_t volume = 0;
    std::shared_ptr<BlockPeer> peer;  // kept: the pool may be closed by then
    std::vector<uint32_t> files;
    std::vector<uint32_t> unsynced;  // of `files`: failed, or not tried after a failure
    std::atomic<uint32_t> next_file{0};
    std::atomic<uint32_t> shares_running{0};
    std::atomic<int> error{0};
    std::mutex unsynced_mutex;
    std::array<Share, kParallelMax> shares;
    Waiter* current = nullptr;  // wait for the sync that runs
    Waiter* next = nullptr;     // wait for the one after it
  };

  Job* make_job(uint32_t volume);
  void prepare(Job* job);
  void start(Job* job);
  static void run_share(PoolTask* task);
  static void sync_files(Job* job);
  int settle(Job* job);
  bool next_round(Job* job, Waiter** finished);
  void end(Job* job);

  Core& core_;
  DirtyFiles dirty_;
  std::mutex mutex_;  // jobs_ and the waiters' lists; never held across I/O or callbacks
  std::condition_variable idle_;
  std::unordered_map<uint32_t, std::unique_ptr<Job>> jobs_;  // by volume; only those that run
};

}  // namespace atoll_native
