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

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
inline constexpr bool kThreadSanitizer = __has_feature(thread_sanitizer);
#else
inline constexpr bool kThreadSanitizer = false;
#endif

/// A full fence: no load after it is done before a store before it is seen. TSan does not know fences, so there it is a
/// read-modify-write on the stack: the same barrier on the machine, and no order that TSan would take for
/// synchronisation.
inline void full_fence() {
#if defined(__SANITIZE_THREAD__)  // gcc refuses the other branch even where it is not taken
  std::atomic<int> here{0};
  here.fetch_add(1, std::memory_order_seq_cst);
#else
  if constexpr (kThreadSanitizer) {
    std::atomic<int> here{0};
    here.fetch_add(1, std::memory_order_seq_cst);
  } else {
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
#endif
}

}  // namespace atoll_native
