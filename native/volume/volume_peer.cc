#include "volume/volume_peer.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "core.h"
#include "segment/atomic.h"

namespace atoll_native {
namespace {

/// Adds to a counter that only this thread writes; others may read it.
void add_relaxed(std::atomic<uint64_t>& counter, uint64_t n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

/// The mapper or this peer broke the protocol between them: what would follow is somebody's data in the wrong place.
[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "volume peer: %s\n", what);
  std::abort();
}

void add_shared(uint64_t& field, uint64_t n) {
  // Relaxed: statistics order nothing.
  if (n != 0) std::atomic_ref<uint64_t>(field).fetch_add(n, std::memory_order_relaxed);
}

}  // namespace

void VolumePeer::FreeLocals::operator()(Local* locals) const { std::free(locals); }

VolumePeer::VolumePeer(Core& core, Reactor& reactor)
    : core_(core),
      reactor_(reactor),
      segment_(core.segment()),
      hash_(core.leaf_hash()),
      id_(reactor.id()),
      requests_(core.request_ring(id_)),
      replies_(core.reply_ring(id_)),
      admission_(segment_, id_),
      dirty_(segment_),
      works_(std::make_unique<Work[]>(kWorksMax)),
      // Zeroed and untouched: memory only for the volumes that are used here. All-zero is an empty Local.
      locals_(static_cast<Local*>(std::calloc(kVolumesMax, sizeof(Local)))) {
  for (uint32_t i = kWorksMax; i-- > 0;) {
    Work& work = works_[i];
    work.ticket = i;
    work.peer = this;
    work.io.owner = &work;
    work.io.done = on_io;
    work.waiter.done = on_synced;
    work.next = free_works_;
    free_works_ = &work;
  }
}

VolumePeer::~VolumePeer() = default;

// ------------------------------------------------------------------------------------------------ requests come and go

/// What only the volume's record can tell, because it may have changed since the frontend looked: it was closed, its
/// pool failed, it became smaller.
int VolumePeer::refusal(const Request& request) const {
  if (request.volume >= kVolumesMax) return EINVAL;
  const VolumeRecord& record = segment_.volume(request.volume);
  if (load_acquire(record.state) != kVolumeOpen || core_.pool(load_relaxed(record.pool)) == nullptr) return ESHUTDOWN;
  const uint64_t size = load_relaxed(record.size);
  const bool changes = request.op == Op::kWrite || request.op == Op::kTrim || request.op == Op::kWriteZeroes;
  if (request.offset > size || request.length > size - request.offset) return changes ? ENOSPC : EINVAL;
  if (changes && (load_relaxed(record.flags) & kVolumeReadOnly) != 0) return EROFS;
  if (changes || request.op == Op::kFlush) return static_cast<int>(load_relaxed(record.failed));
  return 0;
}

VolumePeer::Target VolumePeer::target_of(uint32_t volume) const {
  const VolumeRecord& record = segment_.volume(volume);
  return {&record, core_.pool(load_relaxed(record.pool)), volume, load_relaxed(record.block_shift)};
}

void VolumePeer::submit(Request* request) {
  request->next = nullptr;
  request->cursor = request->offset;
  request->pending = 1;
  request->retries = 0;
  request->stage = kStageData;
  request->wait = kNotWaiting;
  request->extent_count = 0;
  request->since_us = turn_us_;
  request->error = refusal(*request);
  add_relaxed(requests_count_, 1);
  if (request->error == 0) count_request(*request);
  // done() may submit again, even the same record: each level finds what it left.
  Request* const outer = std::exchange(submitting_, request);
  const bool was_resuming = std::exchange(resuming_, false);
  drive(request);
  submitting_ = outer;
  resuming_ = was_resuming;
}

void VolumePeer::drive(Request* request) {
  Progress progress = Progress::kFinished;
  if (request->error == 0) {
    if (request->stage == kStageDurable) {
      progress = drive_flush(request);
    } else {
      switch (request->op) {
        case Op::kRead:
          progress = drive_read(request);
          break;
        case Op::kWrite:
          progress = drive_write(request);
          break;
        case Op::kFlush:
          progress = drive_flush(request);
          break;
        case Op::kTrim:
        case Op::kWriteZeroes:
          progress = drive_discard(request);
          break;
        case Op::kCache:
          progress = drive_cache(request);
          break;
        case Op::kStatus:
          progress = drive_status(request);
          break;
      }
    }
  }
  if (progress == Progress::kFinished) unpend(request);
}

void VolumePeer::unpend(Request* request) {
  if (--request->pending == 0) complete(request);
}

void VolumePeer::complete(Request* request) {
  const bool fua = (request->flags & kFua) != 0 &&
                   (request->op == Op::kWrite || request->op == Op::kTrim || request->op == Op::kWriteZeroes);
  if (request->error == 0 && fua && request->stage != kStageDurable) {
    request->stage = kStageDurable;
    request->pending = 1;
    drive(request);
    return;
  }
  const bool inside_submit = submitting_ == request;
  add_relaxed(inside_submit ? inline_count_ : async_count_, 1);
  if (inside_submit) {
    submitting_ = nullptr;
  } else {
    count_wait(*request);
  }
  if (request->error != 0) [[unlikely]]
    add_relaxed(errors_count_, 1);
  request->done(request);
}

void VolumePeer::fail(Request* request, int error) {
  if (request->error == 0) request->error = error;
}

// ---------------------------------------------------------------------------------------------------------- queues

/// Until one of the request's works ends.
VolumePeer::Progress VolumePeer::park(Request* request) {
  request->wait = kParked;
  return Progress::kWaiting;
}

/// Until others had their turn.
VolumePeer::Progress VolumePeer::put_off(Request* request) {
  make_runnable(request);
  return Progress::kWaiting;
}

void VolumePeer::make_runnable(Request* request) {
  request->wait = kQueued;
  runnable_.push(request);
}

/// Until there is a Work for it.
void VolumePeer::starve(Request* request) {
  Local& local = locals_[request->volume];
  request->wait = kQueued;
  local.starved.push(request);
  if (local.in_starved) return;
  local.in_starved = true;
  local.next_starved = kVolumesMax;
  (starved_head_ == kVolumesMax ? starved_head_ : locals_[starved_tail_].next_starved) = request->volume;
  starved_tail_ = request->volume;
}

bool VolumePeer::starved_can_run() const {
  if (free_count_ == 0) return false;
  for (uint32_t v = starved_head_; v != kVolumesMax; v = locals_[v].next_starved) {
    if (locals_[v].works < kWorksPerVolume) return true;
  }
  return false;
}

/// One starved request per free Work, volumes in turn.
void VolumePeer::wake_starved() {
  uint32_t woken = 0;
  for (bool found = true; found && woken < free_count_;) {
    found = false;
    // Once around: what is put back at the end is looked at in the next round.
    for (uint32_t last = starved_tail_, v = kVolumesMax; v != last && starved_head_ != kVolumesMax;) {
      v = starved_head_;
      Local& local = locals_[v];
      starved_head_ = local.next_starved;
      if (local.works < kWorksPerVolume && woken < free_count_) {
        make_runnable(local.starved.pop());
        woken++;
        found = true;
      }
      local.in_starved = !local.starved.empty();
      if (!local.in_starved) continue;
      local.next_starved = kVolumesMax;
      (starved_head_ == kVolumesMax ? starved_head_ : locals_[starved_tail_].next_starved) = v;
      starved_tail_ = v;
    }
  }
}

/// A Work for the request, or null: the request waits in a queue then, and its drive ends.
Work* VolumePeer::take_work(Request* request) {
  Local& local = locals_[request->volume];
  // The fewer there are, the fewer one request gets.
  const bool scarce = free_count_ < kWorksMax / 8 || local.works > kWorksPerVolume / 8 * 7;
  const bool plenty = free_count_ > kWorksMax / 2 && local.works < kWorksPerVolume / 2;
  const uint32_t most = scarce ? 1 : plenty ? kWorksPerRequest : kWorksPerRequest / 8;
  if (request->pending > most) {
    park(request);
    return nullptr;
  }
  const bool overtakes = !resuming_ && starved_head_ != kVolumesMax && (!local.starved.empty() || starved_can_run());
  if (free_works_ == nullptr || local.works >= kWorksPerVolume || overtakes) {
    starve(request);
    return nullptr;
  }
  Work* const work = free_works_;
  free_works_ = work->next;
  free_count_--;
  local.works++;
  request->pending++;
  work->request = request;
  work->volume = request->volume;
  work->retries = 0;
  work->mismatches = 0;
  work->buffer = nullptr;
  return work;
}

void VolumePeer::release_work(Work* work) {
  Request* const request = work->request;
  work->step = Step::kFree;
  work->request = nullptr;
  work->next = free_works_;
  free_works_ = work;
  free_count_++;
  locals_[work->volume].works--;
  if (request->wait == kParked) make_runnable(request);
  unpend(request);
}

bool VolumePeer::run_deferred() {
  if (runnable_.empty() && put_off_.empty() && starved_head_ == kVolumesMax) return false;
  wake_starved();
  // Both move bytes and the turn has a bound, so they take turns in being first.
  works_first_ = !works_first_;
  bool ran = works_first_ && run_put_off();
  ran = run_runnable() || ran;
  return (!works_first_ && run_put_off()) || ran;
}

bool VolumePeer::run_runnable() {
  // What is put off again in here goes behind the others, to the next turn.
  Queue<Request> due = std::exchange(runnable_, {});
  Request* request = nullptr;
  bool ran = false;
  resuming_ = true;
  while (turn_bytes_ < kTurnBytesMax && (request = due.pop()) != nullptr) {
    request->wait = kNotWaiting;
    drive(request);
    ran = true;
  }
  resuming_ = false;
  // What the turn had no time for stays in front.
  due.append(&runnable_);
  runnable_ = due;
  return ran;
}

bool VolumePeer::run_put_off() {
  Queue<Work> due = std::exchange(put_off_, {});
  Work* work = nullptr;
  bool ran = false;
  while (turn_bytes_ < kTurnBytesMax && (work = due.pop()) != nullptr) {
    if (work->step == Step::kCheckPutOff) {
      check_read(work);
    } else {
      move(work);
    }
    ran = true;
    // Nobody has a buffer, so nobody will give one back and wake who waits for it.
    if (buffers_.bytes_in_use() == 0) wake_for_buffer();
  }
  due.append(&put_off_);
  put_off_ = due;
  return ran;
}

// ------------------------------------------------------------------------------------------------------- block I/O

void VolumePeer::start_io(Work* work, Step step, BlockOp op, const Target& target, uint64_t address, uint8_t* buffer,
                          uint64_t length) {
  work->step = step;
  work->io.op = op;
  work->io.address = address;
  work->io.buffer = buffer;
  work->io.length = length;
  work->io.error = 0;
  // In order of submission, which is the order of epochs: the oldest is the head.
  work->epoch = epoch_;
  work->next = nullptr;
  work->prev = io_tail_;
  (io_tail_ == nullptr ? io_head_ : io_tail_->next) = work;
  io_tail_ = work;
  io_in_flight_++;
  target.pool->submit(&work->io, reactor_.io());
}

void VolumePeer::on_io(BlockIo* io) {
  Work* const work = static_cast<Work*>(io->owner);
  work->peer->io_ended(work);
}

void VolumePeer::io_ended(Work* work) {
  io_in_flight_--;
  if (work->step == Step::kSync) {
    if (work->io.error != 0) fail(work->request, work->io.error);
    release_work(work);
    return;
  }
  (work->prev == nullptr ? io_head_ : work->prev->next) = work->next;
  (work->next == nullptr ? io_tail_ : work->next->prev) = work->prev;
  switch (work->step) {
    case Step::kRead:
      if (work->io.error != 0) fail(work->request, work->io.error);
      release_work(work);
      break;
    case Step::kWriteInPlace:
      in_place_ended(work);
      break;
    case Step::kCopyRead:
      if (work->io.error != 0) {
        answer_grant(work, work->io.error);
      } else {
        overlay_and_write(work, target_of(work->volume));
      }
      break;
    case Step::kMove:
      move_ended(work);
      break;
    case Step::kCheckRead:
      whole_read(work, work->io.error);
      break;
    default:
      broken("I/O ended in a step that has none");
  }
}

// ---------------------------------------------------------------------------------------------------------- faults

void VolumePeer::send(Work* work, Step step, RequestRecord* record) {
  work->step = step;
  record->volume = work->volume;
  record->reactor = id_;
  record->ticket = work->ticket;
  // A Work has one record out at most, so there is room for all.
  out_[out_count_++] = *record;
  faults_out_++;
  if (record->op != kOpDone) {
    add_relaxed(faults_count_, 1);
    counted(work->volume).faults++;
  }
}

bool VolumePeer::flush_faults() {
  if (out_count_ == 0) return false;
  const uint32_t put = requests_.put(std::span<const RequestRecord>(out_.data(), out_count_));
  // A Work has one record out at most and there are fewer Works than places.
  if (put != out_count_) broken("the request ring is full");
  out_count_ = 0;
  core_.ring_mapper();
  return true;
}

bool VolumePeer::replies_wait() { return faults_out_ != 0 && !replies_.empty(); }

bool VolumePeer::take_replies() {
  if (faults_out_ == 0) return false;
  constexpr uint32_t kBatch = 32;
  std::array<ReplyRecord, kBatch> batch;
  uint32_t taken = 0;
  while (taken < kRepliesPerTurn) {
    const uint32_t count = replies_.take(batch);
    for (uint32_t i = 0; i < count; i++) on_reply(batch[i]);
    taken += count;
    if (count < kBatch) break;
  }
  return taken != 0;
}

void VolumePeer::on_reply(const ReplyRecord& reply) {
  if (reply.ticket >= kWorksMax) broken("a reply to no ticket");
  Work* const work = &works_[reply.ticket];
  faults_out_--;
  const int error = static_cast<int>(reply.error);
  switch (work->step) {
    case Step::kMapWrite:
      on_grant(work, reply);
      return;
    case Step::kAnswered:
      grant_published(work, error);
      return;
    case Step::kStatus:
      on_status(work, reply);
      return;
    case Step::kHash:
      on_hash(work, reply);
      return;
    case Step::kRotten:
      on_rotten(work, error);
      return;
    case Step::kCheckLoad:
      if (error != 0) {
        end_check(work, error);
      } else {
        check_read(work);
      }
      return;
    case Step::kUnmap:
      on_unmapped(work, reply);
      return;
    case Step::kLoad:
    case Step::kFlush:
      if (error != 0) fail(work->request, error);
      release_work(work);
      return;
    default:
      broken("a reply that nothing waits for");
  }
}

// ------------------------------------------------------------------------------------------------------ statistics

void VolumePeer::begin_turn(uint64_t epoch, uint64_t now_ns) {
  epoch_ = epoch;
  turn_bytes_ = 0;
  turn_us_ = static_cast<uint32_t>(now_ns / 1000);
  buffers_.age(now_ns);
}

VolumePeer::Local& VolumePeer::counted(uint32_t volume) {
  Local& local = locals_[volume];
  if (!local.touched) {
    if (touched_count_ == touched_.size()) publish_statistics();
    local.touched = true;
    touched_[touched_count_++] = volume;
  }
  return local;
}

void VolumePeer::count_request(const Request& request) {
  Local& local = counted(request.volume);
  if (request.op == Op::kRead) {
    local.reads++;
    local.read_bytes += request.length;
  } else if (request.op == Op::kWrite) {
    local.writes++;
    local.write_bytes += request.length;
  }
  if (request.op == Op::kWrite || request.op == Op::kTrim || request.op == Op::kWriteZeroes) {
    local.changes++;
    if ((request.flags & kFromMount) != 0) local.mount_changes++;
  }
}

void VolumePeer::count_wait(const Request& request) {
  const WaitKind kind = request.op == Op::kRead    ? WaitKind::kRead
                        : request.op == Op::kWrite ? WaitKind::kWrite
                        : request.op == Op::kFlush ? WaitKind::kFlush
                                                   : WaitKind::kOther;
  // Modulo 2^32, like its parts: a request that waits for more than an hour is told too short.
  waits_[static_cast<size_t>(kind)].count_alone(static_cast<uint32_t>(turn_us_ - request.since_us));
}

void VolumePeer::publish_statistics() {
  for (uint32_t i = 0; i < touched_count_; i++) {
    Local& local = locals_[touched_[i]];
    VolumeRecord& record = segment_.volume(touched_[i]);
    add_shared(record.reads, local.reads);
    add_shared(record.writes, local.writes);
    add_shared(record.read_bytes, local.read_bytes);
    add_shared(record.write_bytes, local.write_bytes);
    add_shared(record.faults, local.faults);
    add_shared(record.changes, local.changes);
    add_shared(record.mount_changes, local.mount_changes);
    add_relaxed(reads_count_, local.reads);
    add_relaxed(writes_count_, local.writes);
    add_relaxed(read_bytes_count_, local.read_bytes);
    add_relaxed(write_bytes_count_, local.write_bytes);
    local.reads = local.writes = local.read_bytes = local.write_bytes = local.faults = 0;
    local.changes = local.mount_changes = 0;
    local.touched = false;
  }
  touched_count_ = 0;
}

void VolumePeer::add_statistics(ReactorStats* stats) const {
  stats->requests = requests_count_.load(std::memory_order_relaxed);
  stats->inline_done = inline_count_.load(std::memory_order_relaxed);
  stats->async_done = async_count_.load(std::memory_order_relaxed);
  stats->faults = faults_count_.load(std::memory_order_relaxed);
  stats->errors = errors_count_.load(std::memory_order_relaxed);
  stats->reads = reads_count_.load(std::memory_order_relaxed);
  stats->writes = writes_count_.load(std::memory_order_relaxed);
  stats->read_bytes = read_bytes_count_.load(std::memory_order_relaxed);
  stats->write_bytes = write_bytes_count_.load(std::memory_order_relaxed);
  for (uint32_t i = 0; i < kWaitKinds; i++) stats->waits[i] = waits_[i].read();
}

}  // namespace atoll_native
