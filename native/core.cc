#include "core.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <limits>
#include <semaphore>
#include <thread>
#include <utility>

#include "block/block.h"
#include "block/factory.h"
#include "block/zero_pace.h"
#include "io/async_io.h"
#include "io/clock.h"
#include "io/thread_pool.h"
#include "reactor/factory.h"
#include "reactor/reactor.h"
#include "volume/syncer.h"

namespace atoll_native {
namespace {

/// Polls of the rings between two looks at the clock while take() spins.
constexpr uint32_t kPollsPerClock = 16;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// 0 or errno. Writers into the files get their turn between the pieces.
uint32_t zero_in_pieces(BlockPeer& peer, const std::vector<ByteRun>& runs) {
  ZeroPace pace;
  ZeroWait wait;
  for (const ByteRun& run : runs) {
    for (uint64_t at = 0; at < run.length;) {
      uint64_t start = monotonic_ns();
      while (wait.wants(peer.syncing_ns())) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        const uint64_t now = monotonic_ns();
        wait.waited(now - start);
        start = now;
      }
      const uint64_t piece = std::min(pace.bytes(), run.length - at);
      const int result = peer.zero_now(run.address + at, piece);
      if (result != 0) return static_cast<uint32_t>(-result);
      if (piece == pace.bytes()) pace.took(monotonic_ns() - start);
      at += piece;
    }
  }
  return 0;
}

/// 0, -errno, or -EAGAIN: it is to be submitted.
int try_here(BlockPeer& pool, const BlockIo& io) {
  if (io.length > std::numeric_limits<uint32_t>::max()) return -EAGAIN;
  const auto length = static_cast<uint32_t>(io.length);
  if (io.op == BlockOp::kRead) return pool.read_now(io.address, io.buffer, length);
  if (io.op == BlockOp::kWrite) return pool.write_now(io.address, io.buffer, length);
  return -EAGAIN;
}

}  // namespace

Core::ReactorEnds::ReactorEnds(Segment& segment, uint32_t reactor, int event_fd)
    : requests(segment.request_ring(reactor)),
      replies(segment.reply_ring(reactor)),
      inbox(segment.request_ring(reactor)),
      outbox(segment.reply_ring(reactor)),
      doorbell(segment.header().reactor_asleep[reactor].value, event_fd) {}

Core::ReactorEnds::~ReactorEnds() { close(doorbell.event_fd()); }

Core::Core(const Options& options, std::shared_ptr<Segment> segment)
    : options_(options),
      segment_(std::move(segment)),
      epochs_(*segment_),
      leaf_hash_(*segment_),
      frames_(*segment_),
      mapper_doorbell_(segment_->header().mapper_asleep),
      misc_out_(segment_->misc_ring()),
      misc_in_(segment_->misc_ring()) {}

std::shared_ptr<Core> Core::create(const Options& options, std::string* message, int* error) {
  std::shared_ptr<Segment> segment = Segment::create({options.reactors, options.frames}, error);
  if (segment == nullptr) {
    *message = *error == EINVAL ? "reactors or frames out of range" : "cannot make the shared segment";
    return nullptr;
  }
  std::shared_ptr<Core> core(new Core(options, std::move(segment)));
  *error = core->start(message);
  if (*error != 0) return nullptr;
  return core;
}

int Core::start(std::string* message) {
  for (uint32_t r = 0; r < options_.reactors; r++) {
    const int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event_fd < 0) {
      *message = "cannot make an eventfd";
      return errno;
    }
    ends_.push_back(std::make_unique<ReactorEnds>(*segment_, r, event_fd));
  }
  threads_ = std::make_unique<ThreadPool>(options_.io_threads);
  background_io_ = std::make_unique<AsyncIo>(*threads_, AsyncIo::Options{.io_uring = false, .background = true});
  syncer_ = std::make_unique<VolumeSyncer>(*this);
  // Reserved first: a reactor that runs may look at reactor() of another.
  reactors_.reserve(options_.reactors);
  for (uint32_t r = 0; r < options_.reactors; r++) {
    std::unique_ptr<Reactor> reactor = make_reactor(*this, {.id = r, .spin_us_max = options_.spin_us_max});
    if (reactor == nullptr) {
      *message = "cannot start a reactor";
      return EMFILE;
    }
    reactors_.push_back(std::move(reactor));
  }
  return 0;
}

Core::~Core() { stop(); }

void Core::on_stop(std::function<void()> hook) {
  std::unique_lock lock(life_mutex_);
  stop_hooks_.push_back(std::move(hook));
}

void Core::stop() {
  std::vector<std::function<void()>> hooks;
  {
    std::unique_lock lock(life_mutex_);
    if (stopped_.exchange(true, std::memory_order_acq_rel)) return;
    hooks.swap(stop_hooks_);
  }
  ring_mapper();
  // What they hold lives on: requests of theirs may still be on their way, and the reactors end those.
  for (auto hook = hooks.rbegin(); hook != hooks.rend(); ++hook) (*hook)();
  // Reactors first, for they use everything else. The threads then run what is queued, the syncer's work among it, and
  // are joined before what that work uses goes.
  reactors_.clear();
  if (background_io_ != nullptr) background_io_->drain();
  background_io_.reset();
  threads_.reset();
  syncer_.reset();
  for (uint32_t handle = 0; handle < kPoolsMax; handle++) {
    pools_[handle].store(nullptr, std::memory_order_release);
    pool_owners_[handle].reset();
  }
}

// ----------------------------------------------------------------------------------------------------------------
// pools

std::shared_ptr<BlockPeer> Core::shared_pool(uint32_t handle) {
  if (handle >= kPoolsMax) return nullptr;
  std::lock_guard lock(pools_mutex_);
  return pool_owners_[handle];
}

int Core::open_pool(const PoolSpec& spec, uint32_t* handle, std::string* message) {
  std::shared_lock life(life_mutex_);
  if (stopped_) return -ESHUTDOWN;
  int error = 0;
  // Outside the lock: it may take long, and others look up pools.
  std::shared_ptr<BlockPeer> peer = make_block_peer(spec, message, &error);
  if (peer == nullptr) return -error;
  std::lock_guard lock(pools_mutex_);
  for (uint32_t i = 0; i < kPoolsMax; i++) {
    if (pool_owners_[i] != nullptr) continue;
    pool_owners_[i] = std::move(peer);
    pools_[i].store(pool_owners_[i].get(), std::memory_order_release);
    *handle = i;
    return 0;
  }
  *message = "too many open pools";
  return -EMFILE;
}

int Core::close_pool(uint32_t handle) {
  if (handle >= kPoolsMax) return -EBADF;
  std::shared_ptr<BlockPeer> last;  // goes after the lock, for it may close many files
  std::lock_guard lock(pools_mutex_);
  if (pool_owners_[handle] == nullptr) return -EBADF;
  for (uint32_t v = 0; v < kVolumesMax; v++) {
    const VolumeRecord& volume = segment_->volume(v);
    if (load_acquire(volume.state) == kVolumeOpen && load_relaxed(volume.pool) == handle) return -EBUSY;
  }
  pools_[handle].store(nullptr, std::memory_order_release);
  last = std::move(pool_owners_[handle]);
  return 0;
}

int Core::sync_file_now(BlockPeer& pool, uint32_t file) {
  const uint64_t started = monotonic_ns();
  const int result = pool.sync_now(file);
  data_syncs_.count((monotonic_ns() - started) / 1000);
  // Relaxed: statistics order nothing.
  if (result != 0) data_sync_errors_.fetch_add(1, std::memory_order_relaxed);
  return result;
}

int Core::run_now(BlockPeer& pool, BlockIo* io) {
  std::shared_lock life(life_mutex_);
  if (stopped_) return -ESHUTDOWN;
  if (io->length == 0) return 0;
  const uint64_t span = pool.file_span();
  if (io->length > span || io->address % span > span - io->length) return -EINVAL;
  // Another thread costs two wake-ups, and the bytes end up in its cache.
  if (const int result = try_here(pool, *io); result != -EAGAIN) return result;
  std::binary_semaphore ended(0);
  io->owner = &ended;
  io->done = [](BlockIo* done) { static_cast<std::binary_semaphore*>(done->owner)->release(); };
  pool.submit(io, *background_io_);
  ended.acquire();
  return -io->error;
}

// ----------------------------------------------------------------------------------------------- messages to the
// mapper

void Core::post_misc(const RequestRecord& record) {
  {
    std::lock_guard lock(misc_mutex_);
    // What waits beside the ring goes first, so that messages keep their order.
    if (!misc_overflow_.empty() || !misc_out_.put(record)) {
      misc_overflow_.push_back(record);
      misc_overflowed_.store(true, std::memory_order_release);
    }
  }
  ring_mapper();
}

void Core::wake_mapper() {
  // Acquire-release both here and in take_misc(): a wake that finds one on its way has its message seen by that one.
  if (wake_posted_.exchange(true, std::memory_order_acq_rel)) return;
  RequestRecord record;
  record.op = kOpWake;
  post_misc(record);
}

void Core::done(uint32_t op, uint32_t ticket, int error) {
  RequestRecord record;
  record.op = op;
  record.ticket = ticket;
  record.error = static_cast<uint32_t>(error);
  post_misc(record);
}

uint32_t Core::take_misc(uint8_t* out, uint32_t max) {
  if (misc_overflowed_.load(std::memory_order_acquire)) {
    std::lock_guard lock(misc_mutex_);
    while (!misc_overflow_.empty() && misc_out_.put(misc_overflow_.front())) misc_overflow_.pop_front();
    misc_overflowed_.store(!misc_overflow_.empty(), std::memory_order_release);
  }
  const uint32_t count = misc_in_.take(out, max);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t op;
    std::memcpy(&op, out + size_t{i} * kRecordBytes + offsetof(RequestRecord, op), sizeof op);
    if (op == kOpWake) wake_posted_.exchange(false, std::memory_order_acq_rel);
  }
  return count;
}

// ------------------------------------------------------------------------------------------------------------ the
// mapper

uint32_t Core::sweep(uint8_t* out, uint32_t max) {
  const uint32_t rings = options_.reactors + 1;  // the last one is the misc ring
  uint32_t total = 0;
  for (bool found = true; found && total < max;) {
    found = false;
    for (uint32_t i = 0; i < rings && total < max; i++) {
      const uint32_t ring = take_start_;
      take_start_ = (take_start_ + 1) % rings;
      uint8_t* to = out + size_t{total} * kRecordBytes;
      const uint32_t room = std::min(max - total, kTakeBatch);
      const uint32_t count = ring == options_.reactors ? take_misc(to, room) : ends_[ring]->inbox.take(to, room);
      total += count;
      found = found || count != 0;
    }
  }
  return total;
}

uint32_t Core::take(void* out, uint32_t max, uint32_t timeout_ms) {
  uint8_t* to = static_cast<uint8_t*>(out);
  uint32_t count = sweep(to, max);
  if (count != 0 || timeout_ms == 0 || max == 0) return count;
  const uint64_t start = monotonic_ns();
  const uint64_t deadline = start + uint64_t{timeout_ms} * 1'000'000;
  for (uint64_t now = start; now - start < kTakeSpinNs; now = monotonic_ns()) {
    for (uint32_t i = 0; i < kPollsPerClock; i++) {
      if ((count = sweep(to, max)) != 0) return count;
      relax();
    }
    sched_yield();  // whoever else wants this core may be who brings work
  }
  while (!stopped_.load(std::memory_order_acquire)) {
    mapper_doorbell_.arm();
    // Both after arm(), which orders this look at the rings (and at stopped_) against those who put and then ring.
    count = sweep(to, max);
    const uint64_t now = monotonic_ns();
    if (count == 0 && now < deadline && !stopped_.load(std::memory_order_acquire)) {
      mapper_doorbell_.wait(static_cast<int64_t>(deadline - now));
      count = sweep(to, max);
    }
    mapper_doorbell_.disarm();
    if (count != 0 || monotonic_ns() >= deadline) return count;
  }
  return sweep(to, max);
}

bool Core::put_reply(const ReplyRecord& record) {
  ReactorEnds& ends = *ends_[record.reactor];
  if (ends.outbox.put(record)) return true;
  const uint64_t deadline = monotonic_ns() + kReplyWaitNsMax;
  do {
    ends.doorbell.ring();
    sched_yield();
    if (ends.outbox.put(record)) return true;
  } while (monotonic_ns() < deadline);
  return false;
}

int Core::reply(const void* records, uint32_t count) {
  const uint8_t* from = static_cast<const uint8_t*>(records);
  uint32_t touched = 0;  // one bit per reactor
  static_assert(kReactorsMax <= 32);
  int result = 0;
  for (uint32_t i = 0; i < count && result == 0; i++) {
    ReplyRecord record;
    std::memcpy(&record, from + size_t{i} * kRecordBytes, sizeof record);
    if (record.reactor >= options_.reactors) {
      result = -EINVAL;
    } else if (put_reply(record)) {
      touched |= 1u << record.reactor;
    } else {
      result = -ETIMEDOUT;
    }
  }
  for (uint32_t r = 0; r < options_.reactors; r++) {
    if ((touched >> r & 1) != 0) ends_[r]->doorbell.ring();
  }
  return result;
}

// ------------------------------------------------------------------------------------------------------- background
// work

void Core::sync_volume(uint32_t volume, uint32_t ticket) {
  std::shared_lock life(life_mutex_);
  if (stopped_) return done(kOpSyncDone, ticket, ESHUTDOWN);
  syncer_->sync(volume, [this, ticket](int error) { done(kOpSyncDone, ticket, error); });
}

void Core::sync_file(uint32_t pool, uint32_t file, uint32_t ticket) {
  std::shared_lock life(life_mutex_);
  if (stopped_) return done(kOpSyncDone, ticket, ESHUTDOWN);
  std::shared_ptr<BlockPeer> peer = shared_pool(pool);
  if (peer == nullptr) return done(kOpSyncDone, ticket, EBADF);
  const bool posted = threads_->post(IoClass::kSync, peer.get(), [this, peer, file, ticket] {
    done(kOpSyncDone, ticket, -sync_file_now(*peer, file));
  });
  if (!posted) done(kOpSyncDone, ticket, EAGAIN);
}

void Core::zero_runs(uint32_t pool, std::vector<ByteRun> runs, uint32_t ticket) {
  std::shared_lock life(life_mutex_);
  if (stopped_) return done(kOpZeroDone, ticket, ESHUTDOWN);
  std::shared_ptr<BlockPeer> peer = shared_pool(pool);
  if (peer == nullptr) return done(kOpZeroDone, ticket, EBADF);
  const bool posted = threads_->post(IoClass::kZero, peer.get(), [this, peer, runs = std::move(runs), ticket] {
    done(kOpZeroDone, ticket, zero_in_pieces(*peer, runs));
  });
  if (!posted) done(kOpZeroDone, ticket, EAGAIN);
}

}  // namespace atoll_native
