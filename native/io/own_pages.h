// Memory in pages of its own, for objects of many pages that come and go and are used in part. Given back it leaves no
// hole among what stays (the C library's heap only shrinks at its end), and pages that nobody touched take no memory.
#pragma once
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>

namespace atoll_native {

/// Of one size. Thread safe.
class OwnPages {
 public:
  /// Kept for who comes next: mapping and unmapping costs some ten page faults, and an interrupt of every core.
  static constexpr uint32_t kIdleMax = 16;

  explicit OwnPages(size_t bytes) : bytes_(bytes) {}
  ~OwnPages() {
    while (idle_count_ > 0) unmap(idle_[--idle_count_]);
  }
  OwnPages(const OwnPages&) = delete;
  OwnPages& operator=(const OwnPages&) = delete;

  /// With whatever was in it. Aborts when there is none left, as every allocation here.
  void* take() {
    {
      std::lock_guard lock(mutex_);
      if (idle_count_ > 0) {
        void* const at = idle_[--idle_count_];
        ASAN_UNPOISON_MEMORY_REGION(at, bytes_);
        return at;
      }
    }
    void* const at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) abort();
    return at;
  }
  void give(void* at) {
    {
      std::lock_guard lock(mutex_);
      if (idle_count_ < kIdleMax) {
        ASAN_POISON_MEMORY_REGION(at, bytes_);
        idle_[idle_count_++] = at;
        return;
      }
    }
    unmap(at);
  }

 private:
  void unmap(void* at) {
    ASAN_UNPOISON_MEMORY_REGION(at, bytes_);
    munmap(at, bytes_);
  }

  const size_t bytes_;
  std::mutex mutex_;
  uint32_t idle_count_ = 0;
  std::array<void*, kIdleMax> idle_;
};

}  // namespace atoll_native
