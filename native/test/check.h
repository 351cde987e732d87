// The test programs' few macros. Each program has a main() that calls its tests and returns check_summary(). A failed
// check is printed and counted; the test goes on, for what follows often says why.
#pragma once
#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace atoll_native {

inline std::atomic<int> checks_passed{0};  // threads check too
inline std::atomic<int> checks_failed{0};

[[gnu::noinline]] inline bool check_that(bool holds, const char* what, const char* file, int line) {
  if (holds) {
    checks_passed.fetch_add(1, std::memory_order_relaxed);
  } else {
    checks_failed.fetch_add(1, std::memory_order_relaxed);
    std::printf("%s:%d: failed: %s\n", file, line, what);
  }
  return holds;
}

template <typename A, typename B>
[[gnu::noinline]] bool check_equal(const A& a, const B& b, const char* what, const char* file, int line) {
  const bool holds = a == b;
  if (!check_that(holds, what, file, line)) {
    if constexpr (requires {
                    static_cast<long long>(a);
                    static_cast<long long>(b);
                  }) {
      std::printf("  %lld and %lld\n", static_cast<long long>(a), static_cast<long long>(b));
    }
  }
  return holds;
}

/// For what a busy machine may spoil, and a mistake always does: whether `holds` is true in one of several tries.
template <typename Holds>
bool in_some_try(const Holds& holds, int tries = 8) {
  for (int i = 0; i < tries; i++) {
    if (holds()) return true;
  }
  return false;
}

/// The last line of a test program, and its exit code.
inline int check_summary() {
  std::printf("%d passed, %d failed\n", checks_passed.load(), checks_failed.load());
  return checks_failed.load() == 0 ? 0 : 1;
}

}  // namespace atoll_native

#define CHECK(condition) ::atoll_native::check_that(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(a, b) ::atoll_native::check_equal((a), (b), #a " == " #b, __FILE__, __LINE__)
/// Ends the program when what follows makes no sense without it.
#define REQUIRE(condition)                        \
  do {                                            \
    if (!CHECK(condition)) {                      \
      std::exit(::atoll_native::check_summary()); \
    }                                             \
  } while (0)
