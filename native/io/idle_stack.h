// What is free and kept for who comes next: the last that came back goes out first, so those at the bottom are the ones
// that nobody needs.
#pragma once
#include <algorithm>
#include <cstdint>

namespace atoll_native {

/// Of T with a `T* next`. Owns nothing: who uses it says how one is released. One thread.
template <class T>
class IdleStack {
 public:
  /// nullptr when there is none.
  T* pop() {
    T* const top = top_;
    if (top == nullptr) return nullptr;
    top_ = top->next;
    count_--;
    unneeded_ = std::min(unneeded_, count_);
    return top;
  }
  void push(T* item) {
    item->next = top_;
    top_ = item;
    count_++;
  }
  uint32_t count() const { return count_; }

  /// Called now and then: those that were free ever since the last time are released.
  template <class Release>
  void release_unneeded(Release release) {
    for (uint32_t i = unneeded_; i > 0; i--) release(pop());
    unneeded_ = count_;
  }

 private:
  T* top_ = nullptr;
  uint32_t count_ = 0;
  uint32_t unneeded_ = 0;  // the fewest that were free at once since then
};

}  // namespace atoll_native
