// The thread pool: everything runs once, long syncs and a hanging pool leave threads to others, delays hold.
#include "io/thread_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "test/check.h"

namespace atoll_native {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kStuck{20000};

/// Opens once; those who wait pass.
class Gate {
 public:
  void open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    wake_.notify_all();
  }
  bool pass() {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, kStuck, [&] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool open_ = false;
};

/// Counts up to a target.
class Count {
 public:
  void up() {
    std::lock_guard lock(mutex_);
    value_++;
    wake_.notify_all();
  }
  bool reaches(int target, milliseconds within = kStuck) {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, within, [&] { return value_ >= target; });
  }
  int value() {
    std::lock_guard lock(mutex_);
    return value_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  int value_ = 0;
};

const int kLaneA = 0, kLaneB = 0, kLaneC = 0;

void everything_runs_once() {
  constexpr int kTasks = 20000;
  std::vector<std::atomic<int>> runs(kTasks);
  {
    ThreadPool pool(4);
    for (int i = 0; i < kTasks; i++) {
      const auto io_class = static_cast<IoClass>(i % kIoClasses);
      CHECK(pool.post(io_class, i % 2 == 0 ? &kLaneA : &kLaneB, [&runs, i] { runs[i]++; }));
    }
  }  // the destructor runs what waits
  int wrong = 0;
  for (auto& count : runs) wrong += count != 1;
  CHECK_EQ(wrong, 0);
}

void at_least_the_minimum_of_threads() {
  ThreadPool pool(1);
  CHECK_EQ(pool.threads(), ThreadPool::kThreadsMin);
}

void long_syncs_leave_half_for_others() {
  Gate gate;
  Count syncs_running, syncs_done, io_done;
  ThreadPool pool(4);
  for (int i = 0; i < 12; i++) {
    // Many lanes, so that what holds them back is the class.
    pool.post(IoClass::kSync, reinterpret_cast<const void*>(static_cast<uintptr_t>(i + 1)), [&] {
      syncs_running.up();
      gate.pass();
      syncs_done.up();
    });
  }
  REQUIRE(syncs_running.reaches(2));
  for (int i = 0; i < 100; i++) pool.post(IoClass::kIo, &kLaneB, [&] { io_done.up(); });
  CHECK(io_done.reaches(100));
  CHECK_EQ(syncs_running.value(), 2);
  gate.open();
  CHECK(syncs_done.reaches(12));  // the rest follows as places come free
}

void zeroing_leaves_room_for_syncs() {
  Gate gate;
  Count zeroing, synced;
  ThreadPool pool(4);
  for (int i = 0; i < 8; i++) {
    pool.post(IoClass::kZero, &kLaneA, [&] {
      zeroing.up();
      gate.pass();
    });
  }
  REQUIRE(zeroing.reaches(1));
  for (int i = 0; i < 10; i++) pool.post(IoClass::kSync, &kLaneA, [&] { synced.up(); });
  CHECK(synced.reaches(10));
  CHECK_EQ(zeroing.value(), 1);
  gate.open();
  CHECK(zeroing.reaches(8));
}

void a_hanging_lane_leaves_a_thread() {
  Gate gate;
  Count hanging, done;
  ThreadPool pool(4);
  for (int i = 0; i < 20; i++) {
    pool.post(IoClass::kIo, &kLaneA, [&] {
      hanging.up();
      gate.pass();
    });
  }
  REQUIRE(hanging.reaches(3));
  for (int i = 0; i < 20; i++) pool.post(IoClass::kIo, &kLaneB, [&] { done.up(); });
  for (int i = 0; i < 20; i++) pool.post(IoClass::kSync, &kLaneC, [&] { done.up(); });
  CHECK(done.reaches(40));
  CHECK_EQ(hanging.value(), 3);
  gate.open();
  CHECK(hanging.reaches(20));
}

void lanes_take_turns() {
  // Two lanes, enough for all threads, have queued a thousand tasks each before a third queues one: it must not
  // wait for all of them, so theirs wait for it half-way. No scheduler's whim changes that.
  ThreadPool pool(4);
  Gate gate, turn;
  Count started, ran, waited_for;
  for (int i = 0; i < 4; i++) {
    pool.post(IoClass::kIo, reinterpret_cast<const void*>(static_cast<uintptr_t>(i + 100)), [&] {
      started.up();
      gate.pass();
    });
  }
  REQUIRE(started.reaches(4));  // all threads are busy while the queues fill
  for (int i = 0; i < 1000; i++) {
    for (const int* lane : {&kLaneA, &kLaneC}) {
      pool.post(IoClass::kIo, lane, [&, i] {
        if (i >= 500 && !turn.pass()) waited_for.up();
        ran.up();
      });
    }
  }
  pool.post(IoClass::kIo, &kLaneB, [&] { turn.open(); });
  gate.open();
  CHECK(ran.reaches(2000));
  CHECK_EQ(waited_for.value(), 0);
}

void more_lanes_than_places_still_run() {
  Count done;
  ThreadPool pool(4);
  constexpr int kPools = 3 * ThreadPool::kLanes;
  Gate gate;
  for (int i = 0; i < kPools; i++) {
    pool.post(IoClass::kIo, reinterpret_cast<const void*>(static_cast<uintptr_t>(i + 1)), [&] {
      gate.pass();
      done.up();
    });
  }
  gate.open();
  CHECK(done.reaches(kPools));
}

struct DelayedTask : PoolTask {
  Count* count = nullptr;
  std::chrono::steady_clock::time_point ran;
};

void delays_hold_and_are_in_order() {
  Count count;
  DelayedTask late, soon;
  const auto start = std::chrono::steady_clock::now();
  auto run = [](PoolTask* task) {
    auto* delayed = static_cast<DelayedTask*>(task);
    delayed->ran = std::chrono::steady_clock::now();
    delayed->count->up();
  };
  late.run = soon.run = run;
  late.count = soon.count = &count;
  ThreadPool pool(4);
  pool.post_task_after(60'000'000, IoClass::kIo, &kLaneA, &late);
  pool.post_task_after(20'000'000, IoClass::kIo, &kLaneA, &soon);
  REQUIRE(count.reaches(2));
  CHECK(soon.ran - start >= milliseconds(20));
  CHECK(late.ran - start >= milliseconds(60));
  CHECK(soon.ran < late.ran);
}

void stopping_runs_delayed_tasks_at_once() {
  Count count;
  DelayedTask task;
  task.count = &count;
  task.run = [](PoolTask* ran) { static_cast<DelayedTask*>(ran)->count->up(); };
  const auto start = std::chrono::steady_clock::now();
  {
    ThreadPool pool(4);
    pool.post_task_after(3'600'000'000'000, IoClass::kIo, &kLaneA, &task);
  }
  CHECK_EQ(count.value(), 1);
  CHECK(std::chrono::steady_clock::now() - start < kStuck);
}

void boxed_tasks_are_bounded() {
  Gate gate;
  ThreadPool pool(4);
  Count running;
  for (int i = 0; i < 4; i++) {
    pool.post(IoClass::kIo, reinterpret_cast<const void*>(static_cast<uintptr_t>(i + 1)), [&] {
      running.up();
      gate.pass();
    });
  }
  REQUIRE(running.reaches(4));
  uint32_t taken = 0;
  while (taken <= ThreadPool::kBoxedTasksMax && pool.post(IoClass::kIo, &kLaneA, [] {})) taken++;
  CHECK_EQ(taken, ThreadPool::kBoxedTasksMax);
  gate.open();
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  everything_runs_once();
  at_least_the_minimum_of_threads();
  long_syncs_leave_half_for_others();
  zeroing_leaves_room_for_syncs();
  a_hanging_lane_leaves_a_thread();
  lanes_take_turns();
  more_lanes_than_places_still_run();
  delays_hold_and_are_in_order();
  stopping_runs_delayed_tasks_at_once();
  boxed_tasks_are_bounded();
  return check_summary();
}
