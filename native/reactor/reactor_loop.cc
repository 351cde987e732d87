#include "reactor/reactor_loop.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <utility>

#include "core.h"
#include "io/clock.h"
#include "reactor/factory.h"

namespace atoll_native {
namespace {

uint32_t usable_cores() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return static_cast<uint32_t>(CPU_COUNT(&cores));
}

/// Of the whole process: reactors of several cores share the machine.
SpinPermits& spin_permits() {
  static SpinPermits permits(usable_cores());
  return permits;
}

void add_relaxed(std::atomic<uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

std::unique_ptr<Reactor> make_reactor(Core& core, Reactor::Options options) {
  auto reactor = std::make_unique<ReactorLoop>(core, options);
  if (reactor->start() != 0) return nullptr;
  return reactor;
}

ReactorLoop::ReactorLoop(Core& core, Options options)
    : options_(options),
      epochs_(core.epochs()),
      doorbell_(core.doorbell(options.id)),
      io_(core.threads(), AsyncIo::Options{.io_uring = core.options().io_uring, .background = false}),
      volumes_(core, *this),
      spin_window_(uint64_t{options.spin_us_max} * 1000),
      mapper_window_(std::min(kMapperSpinNsMax, uint64_t{options.spin_us_max} * 1000)) {}

int ReactorLoop::start() {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd_ < 0) return -errno;
  epoll_event doorbell = {.events = EPOLLIN, .data = {.u64 = kDoorbellEvent}};
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, doorbell_.event_fd(), &doorbell) != 0) return -errno;
  // Edge triggered, as AsyncIo wants it: nobody reads the descriptor.
  epoll_event completions = {.events = EPOLLIN | EPOLLET, .data = {.u64 = kAsyncIoEvent}};
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, io_.event_fd(), &completions) != 0) return -errno;
  // Signals are the main thread's. The mask is inherited by the new thread from the start.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, run_thread, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) return -error;
  thread_ = thread;
  return 0;
}

ReactorLoop::~ReactorLoop() {
  if (thread_.has_value()) {
    stopping_.store(true, std::memory_order_release);
    doorbell_.ring();
    pthread_join(*thread_, nullptr);
  }
  if (epoll_fd_ >= 0) close(epoll_fd_);
}

void* ReactorLoop::run_thread(void* self) {
  ReactorLoop* const loop = static_cast<ReactorLoop*>(self);
  char name[16];  // pthread's bound
  std::snprintf(name, sizeof name, "atoll-r%u", loop->options_.id);
  pthread_setname_np(pthread_self(), name);
  loop->run();
  return nullptr;
}

// ---------------------------------------------------------------------------------------------------------- the loop

void ReactorLoop::run() {
  while (!stopping()) {
    find_events();
    now_ns_ = monotonic_ns();
    const uint64_t oldest = volumes_.oldest_epoch();
    volumes_.begin_turn(slept_ ? epochs_.enter(id(), oldest) : epochs_.publish(id(), oldest), now_ns_);
    slept_ = false;
    go_on_ = serve();
    const uint64_t loops = loops_.load(std::memory_order_relaxed) + 1;
    loops_.store(loops, std::memory_order_relaxed);
    if (loops % kStatisticsTurns == 0) volumes_.publish_statistics();
  }
  finish();
}

/// Where the turn's events come from: the hot handlers' own polls, epoll, or epoll after a sleep.
void ReactorLoop::find_events() {
  event_count_ = 0;
  const bool due = volumes_.deferred() || !turn_ends_.empty();
  if (!goes_on_polling() && !due) {
    stop_polling();
    sleep();
    return;
  }
  polled_ = polling_ && hot_count_ != 0 && polled_turns_ < kPolledTurnsMax;
  if (polled_) {
    polled_turns_++;
    if (!go_on_) sched_yield();  // polling in vain: whoever else wants this core may be who brings work
    return;
  }
  polled_turns_ = 0;
  event_count_ = std::max(0, epoll_wait(epoll_fd_, events_.data(), kEventsMax, 0));
}

/// Whether to look for work without sleeping. Without a window the next look is the one that sleeps: one system call
/// for both.
bool ReactorLoop::goes_on_polling() {
  uint64_t window_ns = hot_count_ != 0 ? spin_window_.ns() : 0;
  if (volumes_.faults_out() != 0) window_ns = std::max(window_ns, mapper_window_.ns());
  if (window_ns == 0) return false;
  if (!go_on_) return polling_ && now_ns_ - idle_since_ns_ < window_ns;
  // The wait begins now.
  if (!polling_ && !spin_permits().take()) return false;
  polling_ = true;
  idle_since_ns_ = monotonic_ns();
  add_relaxed(spins_);
  return true;
}

void ReactorLoop::stop_polling() {
  if (!polling_) return;
  polling_ = false;
  spin_permits().give();
}

void ReactorLoop::sleep() {
  polled_ = false;
  polled_turns_ = 0;
  if (idle_since_ns_ == 0) idle_since_ns_ = monotonic_ns();  // else polling was in vain since then
  volumes_.publish_statistics();
  doorbell_.arm();
  int timeout_ms = 0;
  if (!work_waits()) {
    timeout_ms = sleep_ms();
    slept_ = true;
    epochs_.leave(id(), volumes_.oldest_epoch());
  }
  event_count_ = std::max(0, epoll_wait(epoll_fd_, events_.data(), kEventsMax, timeout_ms));
  doorbell_.disarm();
}

/// Whether something came that its sender did not ring for, because the doorbell was not armed yet.
bool ReactorLoop::work_waits() {
  return volumes_.replies_wait() || tasks_wait_.load(std::memory_order_acquire) || stopping();
}

int ReactorLoop::sleep_ms() const {
  const uint64_t due_ns = timers_.next_due_ns();
  if (due_ns == Timers::kNever) return -1;
  if (due_ns <= now_ns_) return 0;
  return static_cast<int>(std::min<uint64_t>((due_ns - now_ns_ + 999'999) / 1'000'000, INT_MAX));
}

/// The wait is over: was polling right, or would it have been?
void ReactorLoop::learn(bool from_mapper) {
  if (idle_since_ns_ == 0) return;
  const uint64_t waited_ns = now_ns_ - idle_since_ns_;
  SpinWindow& window = from_mapper ? mapper_window_ : spin_window_;
  if (polling_) {
    window.hit(waited_ns);
    add_relaxed(spin_hits_);
    stop_polling();
  } else {
    window.miss(waited_ns);
  }
  idle_since_ns_ = 0;
}

bool ReactorLoop::serve() {
  const bool replied = volumes_.take_replies();
  bool worked = run_tasks() || replied;
  worked = io_.reap() > 0 || worked;
  worked = (polled_ ? poll_hot() : dispatch_events()) || worked;
  if (worked) learn(replied);
  worked = volumes_.run_deferred() || worked;
  if (timers_.next_due_ns() <= now_ns_) worked = timers_.run(now_ns_) || worked;
  return end_turn() || worked;
}

bool ReactorLoop::run_tasks() {
  if (!tasks_wait_.load(std::memory_order_acquire)) return false;
  {
    const std::lock_guard lock(tasks_mutex_);
    tasks_running_.swap(tasks_);
    tasks_wait_.store(false, std::memory_order_relaxed);
  }
  for (const std::function<void()>& task : tasks_running_) task();
  tasks_running_.clear();
  return true;
}

bool ReactorLoop::dispatch_events() {
  bool worked = false;
  for (int i = 0; i < event_count_; i++) {
    const uint64_t name = events_[i].data.u64;
    if (name == kAsyncIoEvent) continue;  // reap() was called
    if (name == kDoorbellEvent) {
      doorbell_.drain();
      continue;
    }
    const Registration& registration = registrations_[name & UINT32_MAX];
    EventHandler* const handler = registration.handler;
    if (handler == nullptr || registration.round != name >> 32) continue;  // removed in this batch
    heat(handler);
    handler->on_events(events_[i].events);
    worked = true;
  }
  return worked;
}

bool ReactorLoop::poll_hot() {
  bool worked = false;
  for (uint32_t i = 0; i < hot_count_;) {
    EventHandler* const handler = hot_[i].handler;
    const bool found = handler->poll();
    worked = worked || found;
    if (i >= hot_count_ || hot_[i].handler != handler) continue;  // it left, and another one has its place
    if (found) hot_[i].since_ns = now_ns_;
    if (now_ns_ - hot_[i].since_ns > kHotNsMax) {
      hot_[i] = hot_[--hot_count_];
    } else {
      i++;
    }
  }
  return worked;
}

void ReactorLoop::heat(EventHandler* handler) {
  uint32_t oldest = 0;
  for (uint32_t i = 0; i < hot_count_; i++) {
    if (hot_[i].handler == handler) {
      hot_[i].since_ns = now_ns_;
      return;
    }
    if (hot_[i].since_ns < hot_[oldest].since_ns) oldest = i;
  }
  hot_[hot_count_ < kHotMax ? hot_count_++ : oldest] = {handler, now_ns_};
}

/// No callback of the handler any more.
void ReactorLoop::forget(EventHandler* handler) {
  for (uint32_t i = 0; i < hot_count_; i++) {
    if (hot_[i].handler == handler) {
      hot_[i] = hot_[--hot_count_];
      break;
    }
  }
  std::replace(turn_ends_.begin(), turn_ends_.end(), handler, static_cast<EventHandler*>(nullptr));
  std::replace(turn_ends_running_.begin(), turn_ends_running_.end(), handler, static_cast<EventHandler*>(nullptr));
}

bool ReactorLoop::end_turn() {
  const bool asked = !turn_ends_.empty();
  turn_ends_running_.swap(turn_ends_);
  // By index: forget() may put null in any place.
  for (size_t i = 0; i < turn_ends_running_.size(); i++) {
    EventHandler* const handler = std::exchange(turn_ends_running_[i], nullptr);
    if (handler != nullptr) handler->on_turn_end();
  }
  turn_ends_running_.clear();
  // A destructor may name others.
  for (size_t i = 0; i < destroyed_.size(); i++) delete destroyed_[i];
  destroyed_.clear();
  io_.flush_submissions();
  return volumes_.flush_faults() || asked;
}

/// What is on its way to block peers uses our memory and the frontends', so it is waited for. What waits for the mapper
/// is left as it is: nobody will answer it.
void ReactorLoop::finish() {
  stop_polling();
  now_ns_ = monotonic_ns();
  volumes_.begin_turn(epochs_.enter(id(), volumes_.oldest_epoch()), now_ns_);
  for (;;) {
    run_tasks();
    io_.reap();
    end_turn();
    if (volumes_.io_in_flight() == 0 && !tasks_wait_.load(std::memory_order_acquire)) break;
    epoll_wait(epoll_fd_, events_.data(), kEventsMax, kFinishWaitMs);
  }
  io_.drain();
  end_turn();
  volumes_.publish_statistics();
  epochs_.leave(id(), Epochs::kIdle);
}

// ------------------------------------------------------------------------------------------------- asked by others

void ReactorLoop::post(std::function<void()> task) {
  {
    const std::lock_guard lock(tasks_mutex_);
    tasks_.push_back(std::move(task));
    tasks_wait_.store(true, std::memory_order_release);
  }
  doorbell_.ring();
}

int ReactorLoop::add(int fd, uint32_t epoll_events, EventHandler* handler) {
  if (fd < 0 || handler == nullptr) return -EINVAL;
  if (static_cast<size_t>(fd) >= registrations_.size()) registrations_.resize(static_cast<size_t>(fd) + 1);
  const Registration registration = {handler, ++round_};
  epoll_event event = {.events = epoll_events, .data = {.u64 = uint64_t{registration.round} << 32 | uint32_t(fd)}};
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
  registrations_[fd] = registration;
  return 0;
}

void ReactorLoop::modify(int fd, uint32_t epoll_events, EventHandler* handler) {
  if (static_cast<size_t>(fd) >= registrations_.size() || registrations_[fd].handler != handler) return;
  const uint32_t round = registrations_[fd].round;
  epoll_event event = {.events = epoll_events, .data = {.u64 = uint64_t{round} << 32 | uint32_t(fd)}};
  epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event);
}

void ReactorLoop::remove(int fd, EventHandler* handler) {
  forget(handler);
  if (static_cast<size_t>(fd) >= registrations_.size() || registrations_[fd].handler != handler) return;
  registrations_[fd] = {};
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
}

void ReactorLoop::at_turn_end(EventHandler* handler) { turn_ends_.push_back(handler); }

void ReactorLoop::destroy_later(EventHandler* handler) {
  forget(handler);
  destroyed_.push_back(handler);
}

uint64_t ReactorLoop::add_timer(uint64_t delay_ms, std::function<void()> task) {
  return timers_.add(now_ns_ + delay_ms * 1'000'000, std::move(task));
}

void ReactorLoop::connection_count_changed(int delta) {
  connections_ = static_cast<uint32_t>(static_cast<int>(connections_) + delta);
}

ReactorStats ReactorLoop::stats() const {
  ReactorStats stats;
  stats.loops = loops_.load(std::memory_order_relaxed);
  stats.spins = spins_.load(std::memory_order_relaxed);
  stats.spin_hits = spin_hits_.load(std::memory_order_relaxed);
  volumes_.add_statistics(&stats);
  return stats;
}

}  // namespace atoll_native
