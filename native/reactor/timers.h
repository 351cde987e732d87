// Timers of one reactor: a heap by due time. Few and seldom (time limits of negotiations, retries), so cancelling looks
// through all of them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace atoll_native {

class Timers {
 public:
  static constexpr uint64_t kNever = UINT64_MAX;

  uint64_t add(uint64_t due_ns, std::function<void()> task) {
    const uint64_t id = ++last_id_;
    heap_.push_back({std::max(due_ns, running_ns_ + 1), id, std::move(task)});
    std::push_heap(heap_.begin(), heap_.end(), later);
    return id;
  }
  void cancel(uint64_t id) {
    const auto found = std::find_if(heap_.begin(), heap_.end(), [id](const Timer& t) { return t.id == id; });
    if (found == heap_.end()) return;
    heap_.erase(found);
    std::make_heap(heap_.begin(), heap_.end(), later);
  }
  uint64_t next_due_ns() const { return heap_.empty() ? kNever : heap_.front().due_ns; }
  /// Runs what is due; tasks may add and cancel. What they add runs at the next call at the earliest.
  bool run(uint64_t now_ns) {
    running_ns_ = now_ns;
    bool ran = false;
    while (!heap_.empty() && heap_.front().due_ns <= now_ns) {
      std::pop_heap(heap_.begin(), heap_.end(), later);
      const std::function<void()> task = std::move(heap_.back().task);
      heap_.pop_back();
      task();
      ran = true;
    }
    return ran;
  }

 private:
  struct Timer {
    uint64_t due_ns;
    uint64_t id;
    std::function<void()> task;
  };
  static bool later(const Timer& a, const Timer& b) { return a.due_ns != b.due_ns ? a.due_ns > b.due_ns : a.id > b.id; }

  std::vector<Timer> heap_;
  uint64_t last_id_ = 0;
  uint64_t running_ns_ = 0;  // of the last run()
};

}  // namespace atoll_native
