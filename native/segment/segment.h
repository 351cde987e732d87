// The shared memory of one daemon: a memfd that holds the volume records, the map pages in memory, the leaf hash, the
// rings and the counters. Threads share one mapping; another process maps the same memfd with open(). Everything in it
// is addressed by number, never by pointer. The memory of the frames is what the cache limit counts; all else is
// sparse, that is, costs memory only where it was touched.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "segment/layout.gen.h"

namespace atoll_native {

/// Writes of one volume that one reactor has admitted and not yet completed, by parity of the generation they were
/// admitted under. Written by that reactor only, read by the mapper when it waits for a generation to drain.
struct alignas(64) InflightCounters {
  std::atomic<uint32_t> count[2];
};
static_assert(sizeof(InflightCounters) == 64);

class Segment {
 public:
  /// What the size and all offsets follow from.
  struct Geometry {
    uint32_t reactors = 1;
    uint32_t frames = 2;
  };
  /// Frame number + 2 has 22 bits in a hash entry.
  static constexpr uint32_t kFramesMax = (1u << 22) - 2;
  static constexpr uint32_t kDirtyWords = kFilesMax / 64;           // u64 words of dirty_files()
  static constexpr uint32_t kDirtySummaryWords = kDirtyWords / 64;  // u64 words of dirty_summary()
  /// The leaf hash stays at most a quarter full of resident leaves, so that probes stay short.
  static constexpr uint32_t kHashEntriesPerFrame = 4;

  /// Makes a new segment. Null and `*error` = errno on failure.
  static std::unique_ptr<Segment> create(const Geometry& geometry, int* error);
  /// Maps the segment behind `fd` (which stays the caller's). Null and `*error` on failure: EPROTO when it is not a
  /// segment of this version, or its geometry does not add up, or it could shrink under us.
  static std::unique_ptr<Segment> open(int fd, int* error);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  int fd() const { return fd_; }
  uint8_t* base() const { return base_; }
  size_t bytes() const { return bytes_; }
  uint32_t reactors() const { return geometry_.reactors; }
  uint32_t frames() const { return geometry_.frames; }
  uint32_t hash_capacity() const { return hash_capacity_; }
  uint64_t hash_seed() const { return header().hash_seed; }

  SegmentHeader& header() const { return *reinterpret_cast<SegmentHeader*>(base_); }
  VolumeRecord& volume(uint32_t handle) const { return volumes_[handle]; }
  InflightCounters& inflight(uint32_t volume, uint32_t reactor) const {
    return inflight_[size_t{volume} * kReactorsMax + reactor];
  }
  /// One bit per pool file that the volume wrote since its last sync: kDirtyWords words.
  std::atomic<uint64_t>* dirty_files(uint32_t volume) const { return dirty_files_ + size_t{volume} * kDirtyWords; }
  /// One bit per word of dirty_files() that may be non-zero: kDirtySummaryWords words. Set after the bit it stands for.
  std::atomic<uint64_t>* dirty_summary(uint32_t volume) const {
    return dirty_summary_ + size_t{volume} * kDirtySummaryWords;
  }

  FrameMeta& frame_meta(uint32_t frame) const { return frame_meta_[frame]; }
  /// stampVolume (low half) and stampGeneration (high half) as the one word that they are read and written as.
  std::atomic<uint64_t>& frame_stamp(uint32_t frame) const {
    return *reinterpret_cast<std::atomic<uint64_t>*>(base_ + frame_meta_offset_ + size_t{frame} * sizeof(FrameMeta));
  }
  static constexpr uint64_t stamp_of(uint32_t volume, uint32_t generation) {
    return uint64_t{generation} << 32 | volume;
  }
  /// The kPageEntries entries of a map page in memory.
  std::atomic<uint64_t>* frame(uint32_t frame) const { return frames_ + size_t{frame} * kPageEntries; }
  /// Gives the memory of a frame that nobody uses back; it is all zeroes then. 0 or -errno.
  int drop_frame(uint32_t frame) const;
  /// The leaf hash: hash_capacity() words (map/leaf_hash.h).
  std::atomic<uint64_t>* hash() const { return hash_; }

  /// Ring memory (ring/ring.h): RequestRecord to the mapper, ReplyRecord back, and everybody's misc ring to the mapper.
  void* request_ring(uint32_t reactor) const { return ring(2 * reactor); }
  void* reply_ring(uint32_t reactor) const { return ring(2 * reactor + 1); }
  void* misc_ring() const { return ring(2 * geometry_.reactors); }

  /// kScratchExtents extents: where the mapper puts the answer of OP_STATUS.
  ExtentRecord* scratch(uint32_t reactor, uint32_t slot) const {
    return scratch_ + (size_t{reactor} * kScratchSlots + slot) * kScratchExtents;
  }

 private:
  Segment() = default;
  int map(int fd, const Geometry& geometry);
  void* ring(uint32_t index) const;

  int fd_ = -1;
  uint8_t* base_ = nullptr;
  size_t bytes_ = 0;
  Geometry geometry_;
  uint32_t hash_capacity_ = 0;
  size_t frame_meta_offset_ = 0;
  uint8_t* rings_ = nullptr;
  VolumeRecord* volumes_ = nullptr;
  InflightCounters* inflight_ = nullptr;
  std::atomic<uint64_t>* dirty_files_ = nullptr;
  std::atomic<uint64_t>* dirty_summary_ = nullptr;
  FrameMeta* frame_meta_ = nullptr;
  std::atomic<uint64_t>* frames_ = nullptr;
  std::atomic<uint64_t>* hash_ = nullptr;
  ExtentRecord* scratch_ = nullptr;
};

static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(std::atomic<uint64_t>) == 8);
static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);

}  // namespace atoll_native
