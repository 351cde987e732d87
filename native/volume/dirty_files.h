// Which files of its pool a volume wrote since its last data sync: one bit per file in the segment, and one bit per
// word of those, so that a sync looks at 16 words and not at 1024.
//
// When to mark: after the data write has completed and before anybody is told (done(), OP_DONE, leaving admission).
//   Before the write would be wrong: a sync could take the bit, sync the file, and only then would the bytes arrive;
//   the next sync would not know of them. After done() would be wrong: the client may flush at once, and the sync would
//   not see the bit.
// A sync that starts after the answer therefore finds the bit, or a sync that took the bit after the write had
// completed is still running, and who asks for a sync while one runs waits for the next one (volume/syncer.h).
//
// Looking before setting keeps the words shared between reactors' caches. A bit found set may be taken by a sync right
// after; that sync then starts its fdatasync after our write had completed: the fence keeps the look behind the write.
// The summary must be looked at in any case: who set the word's bit may not have got to the summary yet.
#pragma once
#include <bit>
#include <cstdint>
#include <vector>

#include "segment/atomic.h"
#include "segment/segment.h"
#include "segment/step.h"

namespace atoll_native {

class DirtyFiles {
 public:
  explicit DirtyFiles(const Segment& segment) : segment_(&segment) {}

  /// Any thread. `file` < kFilesMax.
  void mark(uint32_t volume, uint32_t file) const {
    const uint32_t word = file / 64;
    full_fence();
    ATOLL_STEP();
    set(segment_->dirty_files(volume)[word], file % 64);
    ATOLL_STEP();
    set(segment_->dirty_summary(volume)[word / 64], word % 64);
  }
  /// True when no bit is set. Acquire: a bit that was set before the caller heard of the write is seen.
  bool none(uint32_t volume) const {
    for (uint32_t s = 0; s < Segment::kDirtySummaryWords; s++) {
      if (segment_->dirty_summary(volume)[s].load(std::memory_order_acquire) != 0) return false;
    }
    return true;
  }
  /// How many files are marked; counting ends at `max`.
  uint32_t count(uint32_t volume, uint32_t max) const {
    uint32_t found = 0;
    for (uint32_t s = 0; s < Segment::kDirtySummaryWords; s++) {
      uint64_t words = segment_->dirty_summary(volume)[s].load(std::memory_order_acquire);
      for (; words != 0 && found < max; words &= words - 1) {
        const uint32_t word = s * 64 + static_cast<uint32_t>(std::countr_zero(words));
        found +=
            static_cast<uint32_t>(std::popcount(segment_->dirty_files(volume)[word].load(std::memory_order_relaxed)));
      }
    }
    return found;
  }
  /// Takes all bits and appends the files to `files`. The summary goes first: a bit whose summary is set after that is
  /// found by the next sync.
  void take(uint32_t volume, std::vector<uint32_t>* files) const {
    for (uint32_t s = 0; s < Segment::kDirtySummaryWords; s++) {
      std::atomic<uint64_t>& summary = segment_->dirty_summary(volume)[s];
      if (summary.load(std::memory_order_acquire) == 0) continue;
      uint64_t words = summary.exchange(0, std::memory_order_seq_cst);
      for (; words != 0; words &= words - 1) {
        ATOLL_STEP();
        const uint32_t word = s * 64 + static_cast<uint32_t>(std::countr_zero(words));
        uint64_t bits = segment_->dirty_files(volume)[word].exchange(0, std::memory_order_seq_cst);
        for (; bits != 0; bits &= bits - 1) files->push_back(word * 64 + static_cast<uint32_t>(std::countr_zero(bits)));
      }
    }
  }

 private:
  static void set(std::atomic<uint64_t>& word, uint32_t bit) {
    const uint64_t mask = uint64_t{1} << bit;
    if ((word.load(std::memory_order_relaxed) & mask) != 0) return;
    ATOLL_STEP();
    word.fetch_or(mask, std::memory_order_seq_cst);
  }

  const Segment* segment_;
};

}  // namespace atoll_native
