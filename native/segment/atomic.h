// Access to plain fields of the segment that several threads (or processes) touch. The structs of layout.gen.h stay
// plain because TypeScript reads the same bytes; the ordering is said at each use.
#pragma once
#include <atomic>

namespace atoll_native {

template <typename T>
T load_relaxed(const T& field) {
  return std::atomic_ref<T>(const_cast<T&>(field)).load(std::memory_order_relaxed);
}

template <typename T>
T load_acquire(const T& field) {
  return std::atomic_ref<T>(const_cast<T&>(field)).load(std::memory_order_acquire);
}

template <typename T>
void store_relaxed(T& field, T value) {
  std::atomic_ref<T>(field).store(value, std::memory_order_relaxed);
}

template <typename T>
void store_release(T& field, T value) {
  std::atomic_ref<T>(field).store(value, std::memory_order_release);
}

/// A full fence: no load after it is done before a store before it is seen. TSan does not know fences, so there it is a
/// read-modify-write on the stack: the same barrier on the machine, and no order that TSan would take for
/// synchronisation.
inline void full_fence() {
#if defined(__SANITIZE_THREAD__)
  std::atomic<int> here{0};
  here.fetch_add(1, std::memory_order_seq_cst);
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
  std::atomic<int> here{0};
  here.fetch_add(1, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace atoll_native
