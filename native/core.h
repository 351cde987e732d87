// What one daemon has of native things: the segment, the reactors, the pools, the background threads, and the mapper's
// end of the rings. Made on one thread, used by all; each part says who may touch it.
//
// The namespace is atoll_native and not atoll, because the C library has a function atoll() (stdlib.h), and one name
// cannot be both.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "latency.h"
#include "map/frames.h"
#include "map/leaf_hash.h"
#include "ring/doorbell.h"
#include "ring/epoch.h"
#include "ring/ring.h"
#include "segment/segment.h"

namespace atoll_native {

class AsyncIo;
class BlockPeer;
struct BlockIo;
class Reactor;
class ThreadPool;
class VolumeSyncer;
struct PoolSpec;

/// A piece of a pool's slot space, in bytes.
struct ByteRun {
  uint64_t address;
  uint64_t length;
};

class Core {
 public:
  struct Options {
    uint32_t reactors = 1;
    uint32_t frames = 4096;     // map pages in memory, frame 0 (the empty page) included
    uint32_t spin_us_max = 50;  // longest busy poll of a reactor
    uint32_t io_threads = 4;    // for blocking work
    bool io_uring = true;       // false: threads only
  };
  /// How long take() polls before it sleeps: a ring round trip is 5-7 us, and longer spinning starves the other core.
  static constexpr uint64_t kTakeSpinNs = 5'000;
  /// Records taken from one ring before it is the next one's turn.
  static constexpr uint32_t kTakeBatch = 64;
  /// How long reply() waits for a reactor to drain a full ring. Reactors always drain; one that does not for so long
  /// has died, and the daemon with it.
  static constexpr uint64_t kReplyWaitNsMax = 5'000'000'000;

  /// Null on failure, with `*message` and `*error` (errno). Reactors run when it returns.
  static std::shared_ptr<Core> create(const Options& options, std::string* message, int* error);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  /// Runs the on_stop hooks (last first), ends and joins reactors and threads, closes pools. Idempotent. Not on a
  /// reactor.
  void stop();
  /// A frontend's hook: it ends its listeners and connections before the reactors go.
  void on_stop(std::function<void()> hook);

  bool stopped() const { return stopped_.load(std::memory_order_acquire); }

  const Options& options() const { return options_; }
  Segment& segment() { return *segment_; }
  const std::shared_ptr<Segment>& shared_segment() const { return segment_; }
  Epochs& epochs() { return epochs_; }
  LeafHash& leaf_hash() { return leaf_hash_; }  // find: any thread; the rest: the mapper
  Frames& frames() { return frames_; }          // the mapper
  ThreadPool& threads() { return *threads_; }
  AsyncIo& background_io() { return *background_io_; }  // threads only; never io_uring
  VolumeSyncer& syncer() { return *syncer_; }
  uint32_t reactor_count() const { return options_.reactors; }
  Reactor& reactor(uint32_t id) { return *reactors_[id]; }

  // ---- pools. Handles are below kPoolsMax.
  /// Any thread, lock-free; null when there is no such pool. Valid while a volume on the pool is open.
  BlockPeer* pool(uint32_t handle) const {
    return handle < kPoolsMax ? pools_[handle].load(std::memory_order_acquire) : nullptr;
  }
  /// For work that may outlive the pool's closing.
  std::shared_ptr<BlockPeer> shared_pool(uint32_t handle);
  /// 0 and `*handle`, or -errno and `*message`. Blocks.
  int open_pool(const PoolSpec& spec, uint32_t* handle, std::string* message);
  /// 0 or -errno: EBUSY while an open volume record names it.
  int close_pool(uint32_t handle);

  /// A data sync of one pool file, timed. Blocks; any thread that may. 0 or -errno.
  int sync_file_now(BlockPeer& pool, uint32_t file);
  /// How long data syncs took, and how many failed. Any thread.
  LatencyCounts data_syncs() const { return data_syncs_.read(); }
  uint64_t data_sync_errors() const { return data_sync_errors_.load(std::memory_order_relaxed); }

  /// Runs one operation: on the caller's thread when it need not wait for a disk, else in the background, and waits for
  /// it. 0 or -errno; EINVAL when it crosses the border of a pool file. Not on a reactor, and not on the background
  /// threads.
  int run_now(BlockPeer& pool, BlockIo* io);

  // ---- a reactor's ends of its rings: on that reactor's thread only
  RingProducer<RequestRecord>& request_ring(uint32_t reactor) { return ends_[reactor]->requests; }
  RingConsumer<ReplyRecord>& reply_ring(uint32_t reactor) { return ends_[reactor]->replies; }
  /// Eventfd doorbell of a reactor; ring(): any thread. The reactor has event_fd() in its epoll.
  Doorbell& doorbell(uint32_t reactor) { return ends_[reactor]->doorbell; }
  /// Any thread, after putting into a request ring: once per batch.
  void ring_mapper() { mapper_doorbell_.ring(); }

  // ---- messages to the mapper from any thread
  /// Never waits, never loses: what does not fit the misc ring waits beside it (bounded by what the mapper asked for).
  void post_misc(const RequestRecord& record);
  /// Puts an OP_WAKE unless one is on its way.
  void wake_mapper();

  // ---- the mapper's thread
  /// Takes up to `max` records from all rings, fairly, into `out` (kRecordBytes each, any alignment). Waits up to
  /// `timeout_ms` for the first one. Returns how many.
  uint32_t take(void* out, uint32_t max, uint32_t timeout_ms);
  /// Puts `count` ReplyRecords, in order per reactor, and rings each doorbell once. 0, or -EINVAL for a reactor that
  /// does not exist (those before it are sent), or -ETIMEDOUT after kReplyWaitNsMax.
  int reply(const void* records, uint32_t count);

  // ---- background work asked for by the mapper; ends as a misc record {op, ticket, error}
  void sync_volume(uint32_t volume, uint32_t ticket);                         // OP_SYNC_DONE
  void sync_file(uint32_t pool, uint32_t file, uint32_t ticket);              // OP_SYNC_DONE
  void zero_runs(uint32_t pool, std::vector<ByteRun> runs, uint32_t ticket);  // OP_ZERO_DONE

 private:
  /// Everything of one reactor that is not the reactor.
  struct ReactorEnds {
    RingProducer<RequestRecord> requests;  // reactor's
    RingConsumer<ReplyRecord> replies;     // reactor's
    RingConsumer<RequestRecord> inbox;     // mapper's end of `requests`
    RingProducer<ReplyRecord> outbox;      // mapper's end of `replies`
    Doorbell doorbell;
    ReactorEnds(Segment& segment, uint32_t reactor, int event_fd);
    ~ReactorEnds();
  };

  Core(const Options& options, std::shared_ptr<Segment> segment);
  int start(std::string* message);
  uint32_t sweep(uint8_t* out, uint32_t max);
  uint32_t take_misc(uint8_t* out, uint32_t max);
  bool put_reply(const ReplyRecord& record);
  void done(uint32_t op, uint32_t ticket, int error);

  const Options options_;
  const std::shared_ptr<Segment> segment_;
  Epochs epochs_;
  LeafHash leaf_hash_;
  Frames frames_;

  std::array<std::atomic<BlockPeer*>, kPoolsMax> pools_ = {};
  std::mutex pools_mutex_;  // opening and closing
  std::array<std::shared_ptr<BlockPeer>, kPoolsMax> pool_owners_;

  std::vector<std::unique_ptr<ReactorEnds>> ends_;
  Doorbell mapper_doorbell_;
  uint32_t take_start_ = 0;  // ring that the next sweep begins with

  std::mutex misc_mutex_;  // many producers, one ring
  RingProducer<RequestRecord> misc_out_;
  std::deque<RequestRecord> misc_overflow_;
  std::atomic<bool> misc_overflowed_ = false;
  RingConsumer<RequestRecord> misc_in_;
  std::atomic<bool> wake_posted_ = false;

  Latency data_syncs_;
  std::atomic<uint64_t> data_sync_errors_ = 0;

  std::shared_mutex life_mutex_;  // shared: starting background work; exclusive: ending it
  std::vector<std::function<void()>> stop_hooks_;
  std::atomic<bool> stopped_ = false;  // written under life_mutex_

  std::unique_ptr<ThreadPool> threads_;
  std::unique_ptr<AsyncIo> background_io_;
  std::unique_ptr<VolumeSyncer> syncer_;
  std::vector<std::unique_ptr<Reactor>> reactors_;
};

}  // namespace atoll_native
