// A plain reactor for tests and measurements of what lives on one: epoll, a task queue, timers, and an optional busy
// poll. It has no volume peer and no asynchronous I/O.
#pragma once
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "reactor/reactor.h"

namespace atoll_native {

class SimpleReactor final : public Reactor {
 public:
  explicit SimpleReactor(Options options = {0, 0}) : options_(options) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    epoll_event event = {};
    event.events = EPOLLIN;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  }
  ~SimpleReactor() override {
    stop();
    for (EventHandler* handler : doomed_) delete handler;
    close(wake_);
    close(epoll_);
  }

  void start() {
    thread_ = std::thread([this] {
      while (!stopping_.load(std::memory_order_acquire)) turn(-1);
    });
  }
  void stop() {
    stopping_.store(true, std::memory_order_release);
    ring();
    if (thread_.joinable()) thread_.join();
  }

  /// One turn; for programs that drive the loop themselves. Waits up to `wait_ms` (-1: as long as it takes).
  void turn(int wait_ms) {
    now_ns_ = clock_ns();
    epoll_event events[64];
    int count = 0;
    if (!turn_ends_.empty()) wait_ms = 0;
    if (wait_ms != 0 && options_.spin_us_max != 0 && last_ != nullptr) {
      // Only while it keeps succeeding.
      const uint64_t end = now_ns_ + options_.spin_us_max * 1000ull;
      bool hit = false;
      do {
        if (last_->poll()) hit = true;
      } while (!hit && last_ != nullptr && clock_ns() < end);
      if (hit) wait_ms = 0;
    }
    const int timer_ms = next_timer_ms();
    if (timer_ms >= 0 && (wait_ms < 0 || timer_ms < wait_ms)) wait_ms = timer_ms;
    count = epoll_wait(epoll_, events, 64, wait_ms);
    for (int i = 0; i < count; ++i) {
      auto* handler = static_cast<EventHandler*>(events[i].data.ptr);
      if (handler == nullptr) {
        uint64_t value;
        (void)!read(wake_, &value, sizeof(value));
      } else if (handlers_.count(handler) != 0) {
        last_ = handler;
        handler->on_events(events[i].events);
      }
    }
    run_tasks();
    run_timers();
    std::vector<EventHandler*> ends;
    ends.swap(turn_ends_);
    for (EventHandler* handler : ends) {
      if (handlers_.count(handler) != 0) handler->on_turn_end();
    }
    std::vector<EventHandler*> doomed;
    doomed.swap(doomed_);
    for (EventHandler* handler : doomed) delete handler;
  }

  uint32_t id() const override { return options_.id; }
  void post(std::function<void()> task) override {
    {
      std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    ring();
  }
  int add(int fd, uint32_t events, EventHandler* handler) override {
    epoll_event event = {};
    event.events = events;
    event.data.ptr = handler;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) return -errno;
    handlers_.insert(handler);
    return 0;
  }
  void modify(int fd, uint32_t events, EventHandler* handler) override {
    epoll_event event = {};
    event.events = events;
    event.data.ptr = handler;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
  }
  void remove(int fd, EventHandler* handler) override {
    epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
    handlers_.erase(handler);
    if (last_ == handler) last_ = nullptr;
  }
  void at_turn_end(EventHandler* handler) override { turn_ends_.push_back(handler); }
  void destroy_later(EventHandler* handler) override { doomed_.push_back(handler); }
  uint64_t add_timer(uint64_t delay_ms, std::function<void()> task) override {
    const uint64_t id = next_timer_++;
    timers_[id] = {clock_ns() + delay_ms * 1'000'000, std::move(task)};
    return id;
  }
  void cancel_timer(uint64_t id) override { timers_.erase(id); }
  uint64_t now_ns() const override { return now_ns_; }
  uint32_t connections() const override { return connections_; }
  void connection_count_changed(int delta) override { connections_ += static_cast<uint32_t>(delta); }
  AsyncIo& io() override { std::abort(); }
  VolumePeer& volumes() override { std::abort(); }

 private:
  struct Timer {
    uint64_t at_ns;
    std::function<void()> task;
  };

  static uint64_t clock_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  }
  void ring() {
    const uint64_t one = 1;
    (void)!write(wake_, &one, sizeof(one));
  }
  void run_tasks() {
    std::vector<std::function<void()>> tasks;
    {
      std::lock_guard lock(mutex_);
      tasks.swap(tasks_);
    }
    for (auto& task : tasks) task();
  }
  int next_timer_ms() const {
    uint64_t first = UINT64_MAX;
    for (const auto& [id, timer] : timers_) first = timer.at_ns < first ? timer.at_ns : first;
    if (first == UINT64_MAX) return -1;
    const uint64_t now = clock_ns();
    return first <= now ? 0 : static_cast<int>((first - now) / 1'000'000) + 1;
  }
  void run_timers() {
    const uint64_t now = clock_ns();
    for (auto it = timers_.begin(); it != timers_.end();) {
      if (it->second.at_ns > now) {
        ++it;
        continue;
      }
      auto task = std::move(it->second.task);
      timers_.erase(it);
      task();
      it = timers_.begin();
    }
  }

  const Options options_;
  int epoll_;
  int wake_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::vector<std::function<void()>> tasks_;
  std::set<EventHandler*> handlers_;
  EventHandler* last_ = nullptr;  // who had work last
  std::vector<EventHandler*> turn_ends_;
  std::vector<EventHandler*> doomed_;
  std::map<uint64_t, Timer> timers_;
  uint64_t next_timer_ = 1;
  uint64_t now_ns_ = 0;
  uint32_t connections_ = 0;
};

}  // namespace atoll_native
