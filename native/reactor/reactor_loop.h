// The reactor: one thread, one epoll, and the ends of everything that can wake it.
//
// One turn of the loop:
//   find events (poll the active handlers, or ask epoll, or sleep in it) · publish the epoch · replies of the mapper ·
//   posted tasks · ends of asynchronous I/O · events of handlers · what the volume peer put off · timers · on_turn_end
//   · destroy · submit I/O · put faults and ring the mapper once
// While polling has paid (reactor/spin.h) a turn without work is followed by another one; else the reactor sleeps.
#pragma once
#include <pthread.h>
#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "io/async_io.h"
#include "reactor/reactor.h"
#include "reactor/spin.h"
#include "reactor/timers.h"
#include "ring/doorbell.h"
#include "ring/epoch.h"
#include "volume/volume_peer.h"

namespace atoll_native {

class Core;

class ReactorLoop final : public Reactor {
 public:
  /// Events taken by one epoll_wait.
  static constexpr int kEventsMax = 64;
  /// Handlers that are polled while spinning: the ones that had events last. With more active ones than these there is
  /// always something in some socket, and epoll finds it.
  static constexpr uint32_t kHotMax = 8;
  /// Turns made from polls alone before the others' events are looked at again.
  static constexpr uint32_t kPolledTurnsMax = 8;
  /// Longest polling for the mapper's replies: a ring round trip is 5-7 us; the mapper may need this core.
  static constexpr uint64_t kMapperSpinNsMax = 5'000;
  /// A hot handler whose polls brought nothing for so long is left to epoll.
  static constexpr uint64_t kHotNsMax = 1'000'000;
  /// While the reactor ends: how often it looks whether the last I/O and syncs have ended.
  static constexpr int kFinishWaitMs = 10;
  /// Turns after which statistics are handed over even when the reactor never sleeps.
  static constexpr uint32_t kStatisticsTurns = 1024;

  ReactorLoop(Core& core, Options options);
  ~ReactorLoop() override;
  ReactorLoop(const ReactorLoop&) = delete;
  ReactorLoop& operator=(const ReactorLoop&) = delete;
  /// 0 or -errno.
  int start();

  uint32_t id() const override { return options_.id; }
  void post(std::function<void()> task) override;
  int add(int fd, uint32_t epoll_events, EventHandler* handler) override;
  void modify(int fd, uint32_t epoll_events, EventHandler* handler) override;
  void remove(int fd, EventHandler* handler) override;
  void at_turn_end(EventHandler* handler) override;
  void destroy_later(EventHandler* handler) override;
  uint64_t add_timer(uint64_t delay_ms, std::function<void()> task) override;
  void cancel_timer(uint64_t id) override { timers_.cancel(id); }
  uint64_t now_ns() const override { return now_ns_; }
  uint32_t connections() const override { return connections_; }
  void connection_count_changed(int delta) override;
  AsyncIo& io() override { return io_; }
  VolumePeer& volumes() override { return volumes_; }
  ReactorStats stats() const override;

 private:
  /// Who has a descriptor. Events name descriptor and round, so that one for a handler that was removed in the same
  /// batch (whose descriptor may have a new owner by then) is dropped.
  struct Registration {
    EventHandler* handler = nullptr;
    uint32_t round = 0;
  };
  static constexpr uint64_t kDoorbellEvent = UINT64_MAX;
  static constexpr uint64_t kAsyncIoEvent = UINT64_MAX - 1;
  /// A handler that had work lately.
  struct Hot {
    EventHandler* handler;
    uint64_t since_ns;  // last work
  };

  static void* run_thread(void* self);
  void run();
  void find_events();
  bool goes_on_polling();
  void stop_polling();
  void sleep();
  bool work_waits();
  int sleep_ms() const;
  void learn(bool from_mapper);
  bool serve();
  bool run_tasks();
  bool dispatch_events();
  bool poll_hot();
  void heat(EventHandler* handler);
  void forget(EventHandler* handler);
  bool end_turn();
  void finish();
  bool stopping() const { return stopping_.load(std::memory_order_acquire); }

  const Options options_;
  Epochs& epochs_;
  Doorbell& doorbell_;
  AsyncIo io_;
  VolumePeer volumes_;
  int epoll_fd_ = -1;
  std::optional<pthread_t> thread_;
  std::atomic<bool> stopping_{false};

  std::mutex tasks_mutex_;
  std::vector<std::function<void()>> tasks_;
  std::atomic<bool> tasks_wait_{false};
  std::vector<std::function<void()>> tasks_running_;

  std::vector<Registration> registrations_;  // by descriptor
  uint32_t round_ = 0;
  std::array<epoll_event, kEventsMax> events_;
  int event_count_ = 0;
  std::array<Hot, kHotMax> hot_ = {};
  uint32_t hot_count_ = 0;
  std::vector<EventHandler*> turn_ends_;
  std::vector<EventHandler*> turn_ends_running_;
  std::vector<EventHandler*> destroyed_;
  Timers timers_;
  uint64_t now_ns_ = 0;
  uint32_t connections_ = 0;

  SpinWindow spin_window_;
  SpinWindow mapper_window_;
  bool go_on_ = true;           // the last turn had work
  bool polling_ = false;        // has a permit, and waits without sleeping
  bool polled_ = false;         // this turn looks at hot handlers instead of epoll
  bool slept_ = true;           // the epoch must be entered
  uint64_t idle_since_ns_ = 0;  // when it began to wait; 0: it does not
  uint32_t polled_turns_ = 0;

  // Written by the reactor's thread, read by any.
  std::atomic<uint64_t> loops_{0};
  std::atomic<uint64_t> spins_{0};
  std::atomic<uint64_t> spin_hits_{0};
};

}  // namespace atoll_native
