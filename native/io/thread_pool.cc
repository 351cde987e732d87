#include "io/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <new>
#include <utility>

namespace atoll_native {

namespace {

/// A std::function in the form of an intrusive task; deletes itself when it ran.
struct BoxedTask : PoolTask {
  std::function<void()> work;
  std::atomic<uint32_t>* count = nullptr;
};

void run_boxed(PoolTask* task) {
  std::unique_ptr<BoxedTask> boxed(static_cast<BoxedTask*>(task));
  boxed->count->fetch_sub(1, std::memory_order_relaxed);
  boxed->work();
}

}  // namespace

ThreadPool::ThreadPool(uint32_t threads) {
  limit_ = std::clamp(threads, kThreadsMin, kThreadsMax);
  threads_.reserve(limit_);
  for (uint32_t i = 0; i < limit_; i++) {
    threads_.emplace_back([this] { run(); });
    pthread_setname_np(threads_.back().native_handle(), "atoll-io");
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool ThreadPool::post(IoClass io_class, const void* lane, std::function<void()> work) {
  if (boxed_.fetch_add(1, std::memory_order_relaxed) >= kBoxedTasksMax) {
    boxed_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  auto* boxed = new BoxedTask;
  boxed->run = run_boxed;
  boxed->work = std::move(work);
  boxed->count = &boxed_;
  post_task(io_class, lane, boxed);
  return true;
}

void ThreadPool::post_task(IoClass io_class, const void* lane, PoolTask* task) {
  {
    std::lock_guard lock(mutex_);
    enqueue(io_class, lane, task);
  }
  wake_.notify_one();
}

void ThreadPool::post_task_after(uint64_t delay_ns, IoClass io_class, const void* lane, PoolTask* task) {
  {
    std::lock_guard lock(mutex_);
    delayed_.push({Clock::now() + std::chrono::nanoseconds(delay_ns), delayed_order_++, io_class, lane, task});
  }
  // A sleeper may wait for a later time, or for none.
  wake_.notify_one();
}

ThreadPool::Lane& ThreadPool::lane_of(const void* key) {
  Lane* free_lane = nullptr;
  for (Lane& lane : lanes_) {
    if (lane.key == key && lane.key != nullptr) return lane;
    if (free_lane == nullptr && lane.running == 0 && lane.waiting == 0) free_lane = &lane;
  }
  if (free_lane != nullptr) {
    free_lane->key = key;
    return *free_lane;
  }
  // More pools than lanes are busy: two of them take turns as one.
  return lanes_[std::hash<const void*>{}(key) % kLanes];
}

void ThreadPool::enqueue(IoClass io_class, const void* lane_key, PoolTask* task) {
  Lane& lane = lane_of(lane_key);
  const auto c = static_cast<uint32_t>(io_class);
  lane.queues[c].push(task);
  lane.waiting++;
  waiting_[c]++;
}

bool ThreadPool::class_has_room(uint32_t io_class) const {
  constexpr auto kSync = static_cast<uint32_t>(IoClass::kSync);
  constexpr auto kZero = static_cast<uint32_t>(IoClass::kZero);
  if (io_class != kSync && io_class != kZero) return true;
  if (io_class == kZero && running_[kZero] >= limit_ / 4) return false;
  return running_[kSync] + running_[kZero] < limit_ / 2;
}

PoolTask* ThreadPool::take(uint32_t* io_class, Lane** lane) {
  const uint32_t lane_threads_max = limit_ - 1;
  for (uint32_t i = 0; i < kIoClasses; i++) {
    const uint32_t c = (next_class_ + i) % kIoClasses;
    if (waiting_[c] == 0 || !class_has_room(c)) continue;
    for (uint32_t j = 0; j < kLanes; j++) {
      const uint32_t l = (next_lane_[c] + j) % kLanes;
      Lane& candidate = lanes_[l];
      if (candidate.queues[c].empty() || candidate.running >= lane_threads_max) continue;
      next_class_ = (c + 1) % kIoClasses;
      next_lane_[c] = (l + 1) % kLanes;
      candidate.waiting--;
      candidate.running++;
      waiting_[c]--;
      running_[c]++;
      *io_class = c;
      *lane = &candidate;
      return candidate.queues[c].pop();
    }
  }
  return nullptr;
}

void ThreadPool::move_due() {
  if (delayed_.empty()) return;
  const Clock::time_point now = Clock::now();
  while (!delayed_.empty() && (stopping_ || delayed_.top().due <= now)) {
    const Delayed delayed = delayed_.top();
    delayed_.pop();
    enqueue(delayed.io_class, delayed.lane, delayed.task);
  }
}

void ThreadPool::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    move_due();
    uint32_t c = 0;
    Lane* lane = nullptr;
    PoolTask* task = take(&c, &lane);
    if (task != nullptr) {
      // What this thread leaves behind may be ready for another: a thread that ends frees a place in its class, but may
      // itself go on with work of another class. Waking in a chain keeps every ready task with somebody.
      const bool more = waiting_[0] + waiting_[1] + waiting_[2] > 0;
      lock.unlock();
      if (more) wake_.notify_one();
      task->run(task);
      lock.lock();
      lane->running--;
      running_[c]--;
      continue;
    }
    // Nothing is ready. What waits for room in its class or lane is taken by the thread that makes the room, also at
    // the end.
    if (stopping_) return;
    if (delayed_.empty()) {
      wake_.wait(lock);
    } else {
      // A copy: the wait looks at it again when it ends, and by then the queue may have moved.
      const auto due = delayed_.top().due;
      wake_.wait_until(lock, due);
    }
  }
}

}  // namespace atoll_native
