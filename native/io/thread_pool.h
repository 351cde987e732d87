// The bounded pool of threads for work that blocks: fsync, zeroing, buffered writes that are slow, and cold reads where
// io_uring is missing. One per daemon.
//
// Fairness. Work comes in three classes and, inside a class, in lanes (one per pool). Long work of one kind never holds
// every thread:
//   - syncs and zeroing together hold at most half of the threads, zeroing at most a quarter,
//   - one lane holds at most all threads but one, so that a pool that hangs (a dead NFS server) leaves one for the
//   others,
//   - lanes take turns, and so do the classes.
#pragma once
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

#include "io/pool_task.h"

namespace atoll_native {

/// What kind of work a task is; the pool bounds how many threads each kind may hold.
enum class IoClass : uint8_t { kIo, kSync, kZero };
inline constexpr uint32_t kIoClasses = 3;

class ThreadPool {
 public:
  /// Fewer could not keep I/O, a sync and a zeroing apart (see "Fairness").
  static constexpr uint32_t kThreadsMin = 4;
  static constexpr uint32_t kThreadsMax = 256;
  /// Pools that wait apart from each other; more than these share lanes.
  static constexpr uint32_t kLanes = 32;
  /// Boxed tasks (`post`) that may wait at once. Intrusive tasks are bounded by who owns them.
  static constexpr uint32_t kBoxedTasksMax = 65536;

  /// Starts the threads; `threads` is clamped to kThreadsMin..kThreadsMax.
  explicit ThreadPool(uint32_t threads);
  /// Runs what was posted (delayed tasks at once), then joins.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  uint32_t threads() const { return static_cast<uint32_t>(threads_.size()); }

  /// Queues `work`. `lane` is whose work it is: any stable value, such as the address of the BlockPeer.
  /// False when kBoxedTasksMax wait already (nothing was queued). Any thread.
  bool post(IoClass io_class, const void* lane, std::function<void()> work);
  /// Queues an intrusive task; never refuses, never allocates. The task stays valid until it ran. Any thread.
  void post_task(IoClass io_class, const void* lane, PoolTask* task);
  /// The same, not before `delay_ns` from now.
  void post_task_after(uint64_t delay_ns, IoClass io_class, const void* lane, PoolTask* task);

 private:
  using Clock = std::chrono::steady_clock;
  struct Lane {
    const void* key = nullptr;
    uint32_t running = 0;  // of all classes
    uint32_t waiting = 0;
    std::array<PoolTaskList, kIoClasses> queues;
  };
  struct Delayed {
    Clock::time_point due;
    uint64_t order;  // equal times run in the order they were posted
    IoClass io_class;
    const void* lane;
    PoolTask* task;
    bool operator>(const Delayed& other) const { return due != other.due ? due > other.due : order > other.order; }
  };

  void run();
  Lane& lane_of(const void* key);
  void enqueue(IoClass io_class, const void* lane, PoolTask* task);
  bool class_has_room(uint32_t io_class) const;
  PoolTask* take(uint32_t* io_class, Lane** lane);
  void move_due();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::array<Lane, kLanes> lanes_;
  std::array<uint32_t, kIoClasses> running_{};
  std::array<uint32_t, kIoClasses> waiting_{};
  std::array<uint32_t, kIoClasses> next_lane_{};
  uint32_t next_class_ = 0;
  std::atomic<uint32_t> boxed_{0};
  uint64_t delayed_order_ = 0;
  std::priority_queue<Delayed, std::vector<Delayed>, std::greater<>> delayed_;
  bool stopping_ = false;
  uint32_t limit_ = 0;  // how many threads
  std::vector<std::thread> threads_;
};

}  // namespace atoll_native
