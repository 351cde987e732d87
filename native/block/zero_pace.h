// How much of a pool is zeroed by one call, and whether now. A file system holds the file's lock while it punches a
// hole, and writers into the file wait for that. How long depends on what is below: with `discard` and without a
// journal ext4 waits for the disk inside (half a millisecond an extent, and a hundred times that behind a sync that
// fills the disk's queue); elsewhere a mebibyte takes microseconds, and small pieces would only cost calls.
#pragma once
#include <algorithm>
#include <cstdint>

namespace atoll_native {

/// The size of a call, from how long the last ones took. Of one job, one thread.
class ZeroPace {
 public:
  /// No block is smaller than a page; a piece smaller than most blocks would only make more extents.
  static constexpr uint64_t kBytesMin = 64 << 10;
  static constexpr uint64_t kBytesMax = 16 << 20;
  static constexpr uint64_t kBytesFirst = 1 << 20;
  /// A call that took longer is followed by one of half its size, one that took less than a quarter of it by twice it.
  static constexpr uint64_t kLongNs = 1'000'000;
  /// Half the size has to take less than this share of the time, in percent: a disk that needs milliseconds for
  /// whatever it discards would only do it more often.
  static constexpr uint64_t kWorthPercent = 75;

  uint64_t bytes() const { return bytes_; }
  /// @param ns of a call with so many bytes
  void took(uint64_t ns) {
    if (ns > kLongNs) {
      if (larger_ns_ != 0 && ns * 100 >= larger_ns_ * kWorthPercent) least_ = bytes_ * 2;
      const uint64_t next = std::max(least_, bytes_ / 2);
      larger_ns_ = next < bytes_ ? ns : 0;
      bytes_ = next;
    } else if (ns < kLongNs / 4) {
      larger_ns_ = 0;
      bytes_ = std::min(kBytesMax, bytes_ * 2);
    }
  }

 private:
  uint64_t bytes_ = kBytesFirst;
  uint64_t least_ = kBytesMin;  // smaller ones were not worth it
  uint64_t larger_ns_ = 0;      // what twice the size took; 0: the last call was not of that size
};

/// Puts a piece off while a long sync is under way, up to a limit: syncs may follow each other for ever. Of one job.
class ZeroWait {
 public:
  /// Shorter syncs do not fill a disk's queue.
  static constexpr uint64_t kSyncNsMin = 5'000'000;
  /// Of a job in all.
  static constexpr uint64_t kWaitNsMax = 500'000'000;

  /// @param sync_ns how long a sync has been under way
  bool wants(uint64_t sync_ns) const { return sync_ns >= kSyncNsMin && waited_ns_ < kWaitNsMax; }
  void waited(uint64_t ns) { waited_ns_ += ns; }

 private:
  uint64_t waited_ns_ = 0;
};

}  // namespace atoll_native
