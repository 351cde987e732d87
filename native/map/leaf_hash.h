// Which frame holds a volume's leaf: open addressing over one 64-bit word per entry in the segment. The mapper is the
// only writer; reactors read without locks. A reader may miss an entry while it moves (that costs a map fault), but
// never finds a wrong one: key and frame are one word, and a frame is reused only after the epoch of its removal has
// passed.
//
// Linear probing, at most kProbeMax entries. A removed entry becomes a tombstone (1), or empty when nothing follows it.
#pragma once
#include <atomic>
#include <bit>
#include <cstdint>

#include "segment/segment.h"
#include "segment/step.h"

namespace atoll_native {

class LeafHash {
 public:
  /// Longest probe: 16 cache lines. At half load the longest cluster of a million-entry table stays well below it.
  static constexpr uint32_t kProbeMax = 128;
  static constexpr uint32_t kFrameBits = 22;
  static constexpr uint32_t kLeafBits = 30;
  static constexpr uint64_t kLeafMax = (uint64_t{1} << kLeafBits) - 1;
  static constexpr uint32_t kNone = UINT32_MAX;
  /// Tombstones beyond capacity / this make an insert rebuild the table.
  static constexpr uint32_t kTombstoneShare = 4;

  explicit LeafHash(const Segment& segment)
      : entries_(segment.hash()),
        capacity_(segment.hash_capacity()),
        mask_(capacity_ - 1),
        shift_(64 - static_cast<uint32_t>(std::countr_zero(capacity_))),
        seed_(segment.hash_seed()) {}

  // ---- any thread
  /// The frame of the leaf, or kNone when it is not resident (as far as a reader can tell). kFrameEmpty: known to be
  /// empty.
  uint32_t find(uint32_t volume, uint64_t leaf) const {
    const uint64_t key = key_of(volume, leaf);
    uint32_t at = home_of(key);
    for (uint32_t i = 0; i < kProbeMax; i++, at = (at + 1) & mask_) {
      // Acquire: who sees the entry sees the page that was written before it was inserted.
      const uint64_t entry = entries_[at].load(std::memory_order_acquire);
      ATOLL_STEP();
      if (entry == kEmpty) return kNone;
      if (entry >> kFrameBits == key && entry != kTombstone) return frame_of(entry);
    }
    return kNone;
  }

  // ---- the mapper. `leaf` <= kLeafMax, `volume` < kVolumesMax, `frame` < Segment::kFramesMax
  /// Inserts, or points an existing entry at another frame. False when there is no room for it: the caller removes
  /// others.
  [[nodiscard]] bool insert(uint32_t volume, uint64_t leaf, uint32_t frame);
  /// True when it was there.
  bool remove(uint32_t volume, uint64_t leaf);
  uint32_t live() const { return live_; }
  /// Entries that fit: beyond half full, probes get long.
  uint32_t live_max() const { return capacity_ / 2; }
  uint32_t tombstones() const { return tombstones_; }
  uint32_t capacity() const { return capacity_; }

 private:
  static constexpr uint64_t kEmpty = 0;
  static constexpr uint64_t kTombstone = 1;
  static constexpr uint64_t kFrameBias = 2;  // keeps frame 0 of leaf 0 of volume 0 apart from the two above
  static constexpr uint32_t kNoPlace = UINT32_MAX;

  static uint64_t key_of(uint32_t volume, uint64_t leaf) { return uint64_t{volume} << kLeafBits | leaf; }
  static uint32_t frame_of(uint64_t entry) {
    return static_cast<uint32_t>((entry & ((uint64_t{1} << kFrameBits) - 1)) - kFrameBias);
  }
  /// Another one in each life of the segment: whoever reads leaves as he likes cannot choose those that meet in one
  /// place.
  uint32_t home_of(uint64_t key) const {
    uint64_t x = (key ^ seed_) * 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 32) * 0xD6E8FEB86659FD93ull;
    return static_cast<uint32_t>((x ^ x >> 32) * 0x9E3779B97F4A7C15ull >> shift_);
  }
  /// Index of the entry with this key.
  uint32_t locate(uint64_t key) const;
  /// Index of the first empty or deleted entry that a probe for the key meets.
  uint32_t free_place(uint64_t key) const;
  void rebuild();

  std::atomic<uint64_t>* entries_;
  uint32_t capacity_;
  uint32_t mask_;
  uint32_t shift_;
  uint64_t seed_;
  uint32_t live_ = 0;
  uint32_t tombstones_ = 0;
};

static_assert(kVolumesMax <= 1u << (64 - LeafHash::kFrameBits - LeafHash::kLeafBits));

}  // namespace atoll_native
