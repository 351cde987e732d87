#include "segment/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

#include "ring/epoch.h"
#include "ring/ring.h"
#include "segment/atomic.h"

namespace atoll_native {
namespace {

constexpr size_t kSectionAlignment = 4096;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;

constexpr size_t aligned(size_t bytes) { return (bytes + kSectionAlignment - 1) & ~(kSectionAlignment - 1); }

constexpr size_t kRingStride = aligned(sizeof(RingMemory));
constexpr size_t kDirtyFilesBytes = size_t{kVolumesMax} * Segment::kDirtyWords * 8;
constexpr size_t kDirtySummaryBytes = size_t{kVolumesMax} * Segment::kDirtySummaryWords * 8;

/// The header of a segment with this geometry: both what create() writes and what open() insists on.
SegmentHeader header_of(const Segment::Geometry& geometry) {
  SegmentHeader header;
  header.magic = kSegmentMagic;
  header.version = kSegmentVersion;
  header.reactor_count = geometry.reactors;
  header.frame_count = geometry.frames;
  header.hash_capacity = std::bit_ceil(geometry.frames * Segment::kHashEntriesPerFrame);
  size_t at = aligned(sizeof(SegmentHeader));
  const auto section = [&at](size_t bytes) {
    const size_t offset = at;
    at += aligned(bytes);
    return offset;
  };
  header.volumes_offset = section(sizeof(VolumeRecord) * kVolumesMax);
  header.inflight_offset = section(sizeof(InflightCounters) * kVolumesMax * kReactorsMax);
  header.dirty_files_offset = section(kDirtyFilesBytes + kDirtySummaryBytes);
  header.frame_meta_offset = section(sizeof(FrameMeta) * geometry.frames);
  header.frames_offset = section(size_t{kFrameBytes} * geometry.frames);
  header.hash_offset = section(size_t{header.hash_capacity} * 8);
  header.rings_offset = section(kRingStride * (2 * geometry.reactors + 1));
  header.scratch_offset = section(sizeof(ExtentRecord) * geometry.reactors * kScratchSlots * kScratchExtents);
  header.total_bytes = at;
  return header;
}

bool geometry_valid(const Segment::Geometry& geometry) {
  // Frame 0 is the shared empty page, so one frame would hold nothing.
  return geometry.reactors >= 1 && geometry.reactors <= kReactorsMax && geometry.frames >= 2 &&
         geometry.frames <= Segment::kFramesMax;
}

/// True when `found` names the sections of `expected`.
bool same_layout(const SegmentHeader& found, const SegmentHeader& expected) {
  return found.magic == expected.magic && found.version == expected.version &&
         found.reactor_count == expected.reactor_count && found.frame_count == expected.frame_count &&
         found.hash_capacity == expected.hash_capacity && found.total_bytes == expected.total_bytes &&
         found.volumes_offset == expected.volumes_offset && found.inflight_offset == expected.inflight_offset &&
         found.dirty_files_offset == expected.dirty_files_offset &&
         found.frame_meta_offset == expected.frame_meta_offset && found.frames_offset == expected.frames_offset &&
         found.hash_offset == expected.hash_offset && found.rings_offset == expected.rings_offset &&
         found.scratch_offset == expected.scratch_offset;
}

}  // namespace

std::unique_ptr<Segment> Segment::create(const Geometry& geometry, int* error) {
  if (!geometry_valid(geometry)) {
    *error = EINVAL;
    return nullptr;
  }
  const int fd = memfd_create("atoll-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) {
    *error = errno;
    return nullptr;
  }
  const SegmentHeader header = header_of(geometry);
  // Sealed, so that no holder of the descriptor can pull the memory from under the others (SIGBUS).
  if (ftruncate(fd, static_cast<off_t>(header.total_bytes)) != 0 || fcntl(fd, F_ADD_SEALS, kSeals) != 0) {
    *error = errno;
    close(fd);
    return nullptr;
  }
  std::unique_ptr<Segment> segment(new Segment);
  *error = segment->map(fd, geometry);
  if (*error != 0) {
    close(fd);
    return nullptr;
  }
  segment->header() = header;
  for (uint32_t r = 0; r < geometry.reactors; r++) segment->header().reactor_epoch[r].value = Epochs::kIdle;
  if (getrandom(&segment->header().hash_seed, sizeof(uint64_t), 0) != sizeof(uint64_t)) {
    *error = errno;
    return nullptr;
  }
  // Epoch 0 would be taken for "safe" by a caller that never advanced.
  segment->header().global_epoch = 1;
  for (uint32_t f = 0; f < geometry.frames; f++) {
    segment->frame_stamp(f).store(stamp_of(kStampNone, 0), std::memory_order_relaxed);
  }
  return segment;
}

std::unique_ptr<Segment> Segment::open(int fd, int* error) {
  struct stat status;
  if (fstat(fd, &status) != 0) {
    *error = errno;
    return nullptr;
  }
  *error = EPROTO;
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return nullptr;
  SegmentHeader found;
  if (pread(fd, &found, sizeof found, 0) != static_cast<ssize_t>(sizeof found)) return nullptr;
  const Geometry geometry{found.reactor_count, found.frame_count};
  if (!geometry_valid(geometry) || !same_layout(found, header_of(geometry))) return nullptr;
  if (static_cast<uint64_t>(status.st_size) != found.total_bytes) return nullptr;
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0) {
    *error = errno;
    return nullptr;
  }
  std::unique_ptr<Segment> segment(new Segment);
  *error = segment->map(own, geometry);
  if (*error != 0) {
    close(own);
    return nullptr;
  }
  return segment;
}

int Segment::map(int fd, const Geometry& geometry) {
  const SegmentHeader header = header_of(geometry);
  void* memory = mmap(nullptr, header.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return errno;
  fd_ = fd;
  base_ = static_cast<uint8_t*>(memory);
  bytes_ = header.total_bytes;
  geometry_ = geometry;
  hash_capacity_ = header.hash_capacity;
  frame_meta_offset_ = header.frame_meta_offset;
  rings_ = base_ + header.rings_offset;
  volumes_ = reinterpret_cast<VolumeRecord*>(base_ + header.volumes_offset);
  inflight_ = reinterpret_cast<InflightCounters*>(base_ + header.inflight_offset);
  dirty_files_ = reinterpret_cast<std::atomic<uint64_t>*>(base_ + header.dirty_files_offset);
  dirty_summary_ = reinterpret_cast<std::atomic<uint64_t>*>(base_ + header.dirty_files_offset + kDirtyFilesBytes);
  frame_meta_ = reinterpret_cast<FrameMeta*>(base_ + header.frame_meta_offset);
  frames_ = reinterpret_cast<std::atomic<uint64_t>*>(base_ + header.frames_offset);
  hash_ = reinterpret_cast<std::atomic<uint64_t>*>(base_ + header.hash_offset);
  scratch_ = reinterpret_cast<ExtentRecord*>(base_ + header.scratch_offset);
  return 0;
}

void* Segment::ring(uint32_t index) const { return rings_ + kRingStride * index; }

int Segment::drop_frame(uint32_t frame) const {
  const off_t at = reinterpret_cast<const uint8_t*>(this->frame(frame)) - base_;
  return fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, kFrameBytes) == 0 ? 0 : -errno;
}

Segment::~Segment() {
  if (base_ != nullptr) munmap(base_, bytes_);
  if (fd_ >= 0) close(fd_);
}

}  // namespace atoll_native
