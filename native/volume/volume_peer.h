// The volume peer: takes client requests on the reactor that received them, and serves those whose blocks are mapped
// (and, for writes, the volume's alone) to completion, from the map leaves in the segment. Everything else is a fault
// at the mapper.
//
// How a request goes:
//   submit -> drive ................ goes over the request's bytes with `cursor`; each piece is served inline, or
//   becomes
//                                    a Work (block I/O or fault)
//   io or reply -> the Work's step . ends the Work, or goes on with it
//   pending == 0 -> complete ....... flush when FUA was asked for, then done()
// What a drive cannot go on with, it leaves in one of the queues; run_deferred() goes on with it in a later turn.
//
// Files: volume_peer.cc queues and lifetimes · spans.cc what lies where · read.cc · write.cc in-place writes and faults
// · grant.cc moving data into granted slots · durable.cc flush and FUA · discard.cc trim and zeroes · status.cc status,
// cache · verify.cc blocks that are compared with their hashes before they are given out.
//
// One per reactor; everything runs on its thread.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "reactor/reactor.h"
#include "ring/ring.h"
#include "volume/admission.h"
#include "volume/block_buffers.h"
#include "volume/dirty_files.h"
#include "volume/request.h"
#include "volume/work.h"

namespace atoll_native {

class BlockPeer;
class Core;
class LeafHash;

class VolumePeer final : public RequestSink {
 public:
  /// Works of a reactor. Each has at most one record in the request ring and one in the reply ring, so that neither is
  /// ever full.
  static constexpr uint32_t kWorksMax = kRingRecords / 2;
  /// Of these, one volume's: a pool that hangs does not take all.
  static constexpr uint32_t kWorksPerVolume = kWorksMax / 4;
  /// And one request's: enough for throughput of a large one, and a small part of its volume's.
  static constexpr uint32_t kWorksPerRequest = 32;
  /// Bytes moved inline for one request before others have their turn.
  static constexpr uint64_t kDriveBytesMax = 1u << 20;
  /// Bytes moved in one loop turn for what was put off.
  static constexpr uint64_t kTurnBytesMax = 4u << 20;
  /// Bytes of one block operation.
  static constexpr uint64_t kIoBytesMax = 1u << 20;
  /// Leaves asked for by one load.
  static constexpr uint32_t kLoadLeavesMax = 64;
  /// Leaves that one CACHE request loads; it is advice, and the map cache is everybody's.
  static constexpr uint32_t kCacheLeavesMax = 256;
  /// Loads or grants for the same bytes that led nowhere, after which something is broken and the request fails. A leaf
  /// may well be evicted again before it is looked at when the cache is small and the load heavy, but not so often.
  static constexpr uint32_t kRetriesMax = 1000;
  /// Times that a block's bytes differ from its hash and the mapper finds them right, before the reader gets EIO.
  static constexpr uint32_t kMismatchesMax = 3;
  /// Replies taken in one loop turn.
  static constexpr uint32_t kRepliesPerTurn = 256;

  VolumePeer(Core& core, Reactor& reactor);
  ~VolumePeer() override;
  VolumePeer(const VolumePeer&) = delete;
  VolumePeer& operator=(const VolumePeer&) = delete;

  void submit(Request* request) override;
  bool lend(uint32_t volume, uint64_t offset, uint64_t* length, FileRange* range) override;
  void lent(uint32_t volume, uint64_t length) override;

  // ---- for the reactor
  /// `epoch`: what lookups of this turn are made under; `now_ns`: the turn's one look at the clock.
  void begin_turn(uint64_t epoch, uint64_t now_ns);
  /// Epoch of the oldest I/O in flight; Epochs::kIdle when there is none. A request that waits for the mapper holds no
  /// epoch: it holds nothing it looked up, and the mapper may need the epoch to pass to serve it.
  uint64_t oldest_epoch() const { return io_head_ == nullptr ? UINT64_MAX : io_head_->epoch; }
  bool replies_wait();
  bool take_replies();
  /// Goes on with what was put off; true when there was something.
  bool run_deferred();
  bool deferred() const { return !runnable_.empty() || !put_off_.empty() || starved_can_run(); }
  /// Puts the faults collected in this turn into the ring, with one doorbell. True when there were some.
  bool flush_faults();
  uint32_t faults_out() const { return faults_out_; }
  /// Block I/O and syncs on their way: the peer may not be destroyed while there are some.
  uint32_t io_in_flight() const { return io_in_flight_; }
  /// Hands the statistics collected here to the volume records.
  void publish_statistics();
  /// Any thread.
  void add_statistics(ReactorStats* stats) const;

 private:
  enum class Progress : uint8_t { kFinished, kWaiting };
  enum Stage : uint8_t { kStageData, kStageZeroChecked, kStageDurable };
  enum Wait : uint8_t { kNotWaiting, kParked, kQueued };

  /// A volume as one drive needs it.
  struct Target {
    const VolumeRecord* record;
    BlockPeer* pool;
    uint32_t volume;
    uint32_t shift;
    uint64_t block_bytes() const { return uint64_t{1} << shift; }
    uint64_t block_mask() const { return block_bytes() - 1; }
  };
  enum class Place : uint8_t { kMissing, kZero, kData, kBad, kInPlace, kFault };
  /// What the bytes from some cursor on are: one operation's worth.
  struct Span {
    Place place;
    uint64_t length;
    uint64_t address;  // kData, kInPlace: in the pool's slot space
  };
  /// What a reactor keeps of a volume for itself, so that reactors share no cache line on the fast path.
  struct Local {
    Queue<Request> starved;  // wait for a Work
    uint32_t works;
    uint32_t next_starved;  // volume; list of those with starved requests
    bool in_starved;
    bool touched;  // has statistics to hand over
    uint64_t reads, writes, read_bytes, write_bytes, faults, changes, mount_changes;
  };
  /// Counted in while it lives.
  class Admitted {
   public:
    Admitted(Admission& admission, uint32_t volume)
        : admission_(admission), volume_(volume), generation_(admission.enter(volume)) {}
    ~Admitted() { admission_.leave(volume_, generation_); }
    Admitted(const Admitted&) = delete;
    Admitted& operator=(const Admitted&) = delete;
    uint32_t generation() const { return generation_; }

   private:
    Admission& admission_;
    const uint32_t volume_;
    const uint32_t generation_;
  };

  // volume_peer.cc
  int refusal(const Request& request) const;
  Target target_of(uint32_t volume) const;
  void drive(Request* request);
  void unpend(Request* request);
  void complete(Request* request);
  static void fail(Request* request, int error);
  Progress park(Request* request);
  Progress put_off(Request* request);
  void make_runnable(Request* request);
  void starve(Request* request);
  bool starved_can_run() const;
  void wake_starved();
  Work* take_work(Request* request);
  void release_work(Work* work);
  void start_io(Work* work, Step step, BlockOp op, const Target& target, uint64_t address, uint8_t* buffer,
                uint64_t length);
  static void on_io(BlockIo* io);
  void io_ended(Work* work);
  void send(Work* work, Step step, RequestRecord* record);
  void on_reply(const ReplyRecord& reply);
  bool run_runnable();
  bool run_put_off();
  Local& counted(uint32_t volume);
  void count_request(const Request& request);
  [[gnu::noinline]] void count_wait(const Request& request);

  // spans.cc
  Span read_span(const Target& target, uint64_t cursor, uint64_t end);
  Span write_span(const Target& target, uint64_t cursor, uint64_t end, uint32_t generation);
  void touch(uint32_t frame);
  void mark_written(const Target& target, uint64_t address);
  void send_load(Work* work, const Target& target, uint64_t cursor, uint64_t end, uint64_t* loaded_end);
  Progress load_and_park(Request* request, const Target& target, uint64_t cursor, uint64_t end);

  // read.cc
  Progress drive_read(Request* request);

  // verify.cc
  static bool verifies(const Target& target);
  bool written_in_place(const Target& target, uint64_t cursor);
  void ask_hash(Work* work, uint64_t slot);
  void on_hash(Work* work, const ReplyRecord& reply);
  void check_read(Work* work);
  void read_unchecked(Work* work, const Target& target, const Span& span);
  void read_whole(Work* work, const Target& target);
  void whole_read(Work* work, int error);
  void on_rotten(Work* work, int error);
  void end_check(Work* work, int error);
  void give_buffer(Work* work);
  void wake_for_buffer();

  // write.cc
  Progress drive_write(Request* request);
  static bool beyond_end(const Target& target, uint64_t end);
  bool write_durable(Request* request, const Target& target, const Span& span, uint32_t generation, Progress* progress);
  const uint8_t* source_of(const Request& request, uint64_t cursor) const;
  void drive_work(Work* work);
  void start_in_place(Work* work, const Target& target, const Span& span, uint32_t generation, BlockOp op);
  void in_place_ended(Work* work);
  void send_map_write(Work* work, const Target& target, uint64_t length);

  // grant.cc
  void on_grant(Work* work, const ReplyRecord& reply);
  void move(Work* work);
  void move_run(Work* work, const Target& target);
  void fill_and_write(Work* work, const Target& target);
  void fill_unchecked(Work* work, const Target& target);
  void overlay_and_write(Work* work, const Target& target);
  void move_ended(Work* work);
  void answer_grant(Work* work, int error);
  void grant_published(Work* work, int error);

  // durable.cc
  static bool map_is_durable(const VolumeRecord& record);
  Progress drive_flush(Request* request);
  bool sync_inline(uint32_t volume, int* error);
  static void on_synced(VolumeSyncer::Waiter* waiter);

  // discard.cc
  Progress drive_discard(Request* request);
  void on_unmapped(Work* work, const ReplyRecord& reply);
  Progress check_fast_zero(Request* request, const Target& target, bool* passed);

  // status.cc
  Progress drive_status(Request* request);
  void on_status(Work* work, const ReplyRecord& reply);
  void wake_for_scratch();
  Progress drive_cache(Request* request);

  Core& core_;
  Reactor& reactor_;
  const Segment& segment_;
  const LeafHash& hash_;
  const uint32_t id_;
  RingProducer<RequestRecord>& requests_;
  RingConsumer<ReplyRecord>& replies_;
  Admission admission_;
  DirtyFiles dirty_;
  BlockBuffers buffers_;
  uint64_t epoch_ = 0;
  uint64_t turn_bytes_ = 0;
  uint32_t turn_us_ = 0;  // modulo 2^32

  std::unique_ptr<Work[]> works_;
  Work* free_works_ = nullptr;
  uint32_t free_count_ = kWorksMax;
  Work* io_head_ = nullptr;  // block I/O in flight, oldest first
  Work* io_tail_ = nullptr;
  uint32_t io_in_flight_ = 0;
  uint32_t faults_out_ = 0;

  struct FreeLocals {
    void operator()(Local* locals) const;
  };
  std::unique_ptr<Local[], FreeLocals> locals_;  // by volume; memory only where touched
  Queue<Request> runnable_;
  Queue<Work> put_off_;
  Queue<Work> buffer_waiters_;
  Queue<Request> scratch_waiters_;
  uint32_t scratch_free_ = (1u << kScratchSlots) - 1;
  uint32_t starved_head_ = kVolumesMax;  // volumes with starved requests, in turn
  uint32_t starved_tail_ = kVolumesMax;
  Request* submitting_ = nullptr;  // inside submit() and not complete
  bool works_first_ = false;
  bool resuming_ = false;  // a request of the queues is being driven: it does not queue behind the starved ones

  std::array<RequestRecord, kWorksMax> out_;  // faults of this turn
  uint32_t out_count_ = 0;
  std::array<uint32_t, 64> touched_;  // volumes with statistics to hand over
  uint32_t touched_count_ = 0;

  // Written by the reactor's thread, read by any.
  std::atomic<uint64_t> requests_count_{0};
  std::atomic<uint64_t> inline_count_{0};
  std::atomic<uint64_t> async_count_{0};
  std::atomic<uint64_t> faults_count_{0};
  std::atomic<uint64_t> errors_count_{0};
  std::atomic<uint64_t> reads_count_{0};
  std::atomic<uint64_t> writes_count_{0};
  std::atomic<uint64_t> read_bytes_count_{0};
  std::atomic<uint64_t> write_bytes_count_{0};
  std::array<Latency, kWaitKinds> waits_;
};

}  // namespace atoll_native
