// A piece of work for the thread pool that its owner keeps: queueing it allocates nothing.
#pragma once

namespace atoll_native {

struct PoolTask {
  PoolTask* next = nullptr;
  void (*run)(PoolTask*) = nullptr;
};

/// First in, first out; intrusive; not thread safe.
class PoolTaskList {
 public:
  bool empty() const { return head_ == nullptr; }
  void push(PoolTask* task) {
    task->next = nullptr;
    if (head_ == nullptr) {
      head_ = task;
    } else {
      tail_->next = task;
    }
    tail_ = task;
  }
  PoolTask* pop() {
    PoolTask* task = head_;
    if (task != nullptr) head_ = task->next;
    return task;
  }

 private:
  PoolTask* head_ = nullptr;
  PoolTask* tail_ = nullptr;
};

}  // namespace atoll_native
