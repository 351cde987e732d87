// The segment: geometry, sections that do not touch, mapping by another process, and refusing what is not a segment.
#include "segment/segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "map/frames.h"
#include "map/generation.h"
#include "map/leaf_hash.h"
#include "ring/epoch.h"
#include "ring/ring.h"
#include "test/check.h"

namespace atoll_native {
namespace {

std::unique_ptr<Segment> make(uint32_t reactors, uint32_t frames) {
  int error = 0;
  std::unique_ptr<Segment> segment = Segment::create({reactors, frames}, &error);
  REQUIRE(segment != nullptr);
  return segment;
}

void refuses_bad_geometry() {
  const Segment::Geometry bad[] = {{0, 16}, {kReactorsMax + 1, 16}, {1, 0}, {1, 1}, {1, Segment::kFramesMax + 1}};
  for (const Segment::Geometry& geometry : bad) {
    int error = 0;
    CHECK(Segment::create(geometry, &error) == nullptr);
    CHECK_EQ(error, EINVAL);
  }
  int error = 0;
  CHECK(Segment::create({kReactorsMax, Segment::kFramesMax}, &error) != nullptr);  // sparse: costs nothing
}

void starts_empty() {
  const auto segment = make(2, 100);
  CHECK_EQ(segment->header().magic, kSegmentMagic);
  CHECK_EQ(segment->hash_capacity(), 512u);
  CHECK_EQ(segment->header().total_bytes, segment->bytes());
  CHECK_EQ(segment->volume(0).state, kVolumeFree);
  CHECK_EQ(segment->volume(kVolumesMax - 1).state, kVolumeFree);
  CHECK_EQ(Epochs(*segment).safe(), 1u);  // all reactors idle
  CHECK_EQ(segment->frame_stamp(99).load(), Segment::stamp_of(kStampNone, 0));
  uint64_t sum = 0;
  for (uint32_t i = 0; i < kPageEntries; i++) sum |= segment->frame(kFrameEmpty)[i].load();
  CHECK_EQ(sum, 0u);
}

struct Section {
  const char* name;
  const void* first;
  size_t bytes;
};

void sections_do_not_touch() {
  const auto segment = make(3, 100);
  const std::vector<Section> sections = {
      {"header", &segment->header(), sizeof(SegmentHeader)},
      {"volumes", &segment->volume(0), sizeof(VolumeRecord) * kVolumesMax},
      {"inflight", &segment->inflight(0, 0), sizeof(InflightCounters) * kVolumesMax * kReactorsMax},
      {"dirty files", segment->dirty_files(0), size_t{kVolumesMax} * kFilesMax / 8},
      {"dirty summary", segment->dirty_summary(0), size_t{kVolumesMax} * Segment::kDirtySummaryWords * 8},
      {"frame meta", &segment->frame_meta(0), sizeof(FrameMeta) * 100},
      {"frames", segment->frame(0), size_t{kFrameBytes} * 100},
      {"hash", segment->hash(), size_t{segment->hash_capacity()} * 8},
      {"request ring 0", segment->request_ring(0), sizeof(RingMemory)},
      {"reply ring 0", segment->reply_ring(0), sizeof(RingMemory)},
      {"request ring 2", segment->request_ring(2), sizeof(RingMemory)},
      {"reply ring 2", segment->reply_ring(2), sizeof(RingMemory)},
      {"misc ring", segment->misc_ring(), sizeof(RingMemory)},
      {"scratch", segment->scratch(0, 0), sizeof(ExtentRecord) * 3 * kScratchSlots * kScratchExtents},
  };
  const uint8_t* end = segment->base();
  for (const Section& section : sections) {
    const uint8_t* first = static_cast<const uint8_t*>(section.first);
    if (!CHECK(first >= end)) std::printf("  %s overlaps what is before it\n", section.name);
    CHECK_EQ((first - segment->base()) % 64, 0);
    end = first + section.bytes;
  }
  CHECK(end <= segment->base() + segment->bytes());
  CHECK_EQ(reinterpret_cast<uintptr_t>(segment->frame(1)) % kFrameBytes, 0u);
  // The last of each array is inside its section.
  CHECK(&segment->inflight(kVolumesMax - 1, kReactorsMax - 1) < static_cast<void*>(segment->dirty_files(0)));
  CHECK(segment->scratch(2, kScratchSlots - 1) + kScratchExtents <=
        static_cast<void*>(segment->base() + segment->bytes()));
}

void is_sparse() {
  const auto segment = make(16, 65536);
  CHECK(segment->bytes() > 300u << 20);
  struct stat status;
  REQUIRE(fstat(segment->fd(), &status) == 0);
  // Stamps of 65536 frames are 4 MiB; nothing else was touched but the header.
  CHECK(status.st_blocks * 512 < 6 << 20);
}

void cannot_shrink() {
  const auto segment = make(1, 16);
  CHECK(ftruncate(segment->fd(), 4096) != 0 && errno == EPERM);
  CHECK(ftruncate(segment->fd(), static_cast<off_t>(segment->bytes() * 2)) != 0 && errno == EPERM);
}

/// A child maps the segment by descriptor, takes a request from a ring, and answers on another.
void another_process_maps_it() {
  const auto segment = make(1, 16);
  RingProducer<RequestRecord> requests(segment->request_ring(0));
  RequestRecord request;
  request.op = kOpLoad;
  request.ticket = 77;
  CHECK(requests.put(request));
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    int error = 0;
    const std::unique_ptr<Segment> mine = Segment::open(segment->fd(), &error);
    if (mine == nullptr || mine->base() == segment->base()) _exit(1);
    RingConsumer<RequestRecord> inbox(mine->request_ring(0));
    RequestRecord got;
    if (inbox.take(&got, 1) != 1 || got.ticket != 77) _exit(2);
    Frames(*mine).publish(3, 5, kEntryExclusive | 9);
    LeafHash hash(*mine);
    if (!hash.insert(1, 2, 3)) _exit(3);
    ReplyRecord reply;
    reply.ticket = got.ticket;
    if (!RingProducer<ReplyRecord>(mine->reply_ring(0)).put(reply)) _exit(4);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 0);
  RingConsumer<ReplyRecord> replies(segment->reply_ring(0));
  ReplyRecord reply;
  CHECK_EQ(replies.take(&reply, 1), 1u);
  CHECK_EQ(reply.ticket, 77u);
  CHECK_EQ(LeafHash(*segment).find(1, 2), 3u);
  CHECK_EQ(segment->frame(3)[5].load(), kEntryExclusive | 9);
}

void expect_refused(int fd, int expected) {
  int error = 0;
  CHECK(Segment::open(fd, &error) == nullptr);
  CHECK_EQ(error, expected);
}

void refuses_what_is_no_segment() {
  const auto segment = make(2, 16);
  SegmentHeader& header = segment->header();
  const SegmentHeader good = header;
  const auto spoiled = [&](auto change) {
    change();
    expect_refused(segment->fd(), EPROTO);
    header = good;
  };
  spoiled([&] { header.magic++; });
  spoiled([&] { header.version++; });
  spoiled([&] { header.reactor_count = 0; });
  spoiled([&] { header.reactor_count = 3; });
  spoiled([&] { header.frame_count = UINT32_MAX; });
  spoiled([&] { header.frame_count = 17; });
  spoiled([&] { header.hash_capacity *= 2; });
  spoiled([&] { header.total_bytes += 4096; });
  spoiled([&] { header.volumes_offset += 4096; });
  spoiled([&] { header.inflight_offset += 4096; });
  spoiled([&] { header.dirty_files_offset += 4096; });
  spoiled([&] { header.frame_meta_offset += 4096; });
  spoiled([&] { header.frames_offset = UINT64_MAX; });
  spoiled([&] { header.hash_offset = 0; });
  spoiled([&] { header.rings_offset += 64; });
  spoiled([&] { header.scratch_offset -= 64; });
  int error = 0;
  CHECK(Segment::open(segment->fd(), &error) != nullptr);
}

void refuses_files_of_other_kinds() {
  const auto segment = make(1, 16);
  expect_refused(-1, EBADF);
  // Right bytes, but it could be shrunk under us.
  const int loose = memfd_create("loose", MFD_CLOEXEC);
  REQUIRE(loose >= 0 && ftruncate(loose, static_cast<off_t>(segment->bytes())) == 0);
  REQUIRE(pwrite(loose, &segment->header(), sizeof(SegmentHeader), 0) == sizeof(SegmentHeader));
  expect_refused(loose, EPROTO);
  close(loose);
  // Sealed, but shorter than its header says.
  const int shorter = memfd_create("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(shorter >= 0 && ftruncate(shorter, 1 << 20) == 0 && fcntl(shorter, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  REQUIRE(pwrite(shorter, &segment->header(), sizeof(SegmentHeader), 0) == sizeof(SegmentHeader));
  expect_refused(shorter, EPROTO);
  close(shorter);
}

void frames_change_as_told() {
  const auto segment = make(1, 16);
  Frames frames(*segment);
  CHECK(!frames.writable(kFrameEmpty));
  CHECK(frames.writable(15));
  CHECK(!frames.writable(16));
  frames.publish_run(1, 510, 2, 1000, kEntryOwned | kEntryExclusive);
  CHECK_EQ(segment->frame(1)[509].load(), 0u);
  CHECK_EQ(segment->frame(1)[510].load(), kEntryOwned | kEntryExclusive | 1001);
  CHECK_EQ(segment->frame(1)[511].load(), kEntryOwned | kEntryExclusive | 1002);
  CHECK_EQ(segment->frame(2)[0].load(), 0u);
  frames.copy_shared(1, 2);
  CHECK_EQ(segment->frame(2)[510].load(), 1001u);
  CHECK_EQ(segment->frame(1)[510].load(), kEntryOwned | kEntryExclusive | 1001);
  frames.clear_run(2, 510, 1);
  CHECK_EQ(segment->frame(2)[510].load(), 0u);
  CHECK_EQ(segment->frame(2)[511].load(), 1002u);
  frames.clear(1);
  CHECK_EQ(segment->frame(1)[511].load(), 0u);
  frames.stamp(2, 7, 0xfedcba98);
  CHECK_EQ(segment->frame_meta(2).stamp_volume, 7u);
  CHECK_EQ(segment->frame_meta(2).stamp_generation, 0xfedcba98u);
  CHECK_EQ(segment->frame_stamp(2).load(), Segment::stamp_of(7, 0xfedcba98));
}

uint64_t memory_of(const Segment& segment) {
  struct stat facts;
  REQUIRE(fstat(segment.fd(), &facts) == 0);
  return uint64_t(facts.st_blocks) * 512;
}

void a_frame_gives_its_memory_back() {
  const auto segment = make(1, 16);
  for (uint32_t frame = 1; frame < 16; frame++) {
    for (uint32_t i = 0; i < kPageEntries; i++) segment->frame(frame)[i].store(frame);
  }
  const uint64_t before = memory_of(*segment);
  for (const uint32_t frame : {5u, 15u}) CHECK_EQ(segment->drop_frame(frame), 0);
  CHECK_EQ(before - memory_of(*segment), 2 * kFrameBytes);
  for (uint32_t frame = 1; frame < 16; frame++) {
    const uint64_t expected = frame == 5 || frame == 15 ? 0 : frame;
    for (const uint32_t i : {0u, kPageEntries - 1}) CHECK_EQ(segment->frame(frame)[i].load(), expected);
  }
  Frames(*segment).publish(5, 7, 1001);
  CHECK_EQ(segment->frame(5)[7].load(), 1001u);
}

void generations_drain_by_parity() {
  const auto segment = make(2, 16);
  CHECK(writers_drained(*segment, 5));
  segment->inflight(5, 1).count[0].fetch_add(1);  // a write under generation 0
  CHECK_EQ(advance_generation(*segment, 5), 1u);
  CHECK(!writers_drained(*segment, 5));
  segment->inflight(5, 0).count[1].fetch_add(1);  // a write under generation 1 holds nobody up
  segment->inflight(5, 1).count[0].fetch_sub(1);
  CHECK(writers_drained(*segment, 5));
  CHECK_EQ(advance_generation(*segment, 5), 2u);
  CHECK(!writers_drained(*segment, 5));
  CHECK(writers_drained(*segment, 4));  // another volume's
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  refuses_bad_geometry();
  starts_empty();
  sections_do_not_touch();
  is_sparse();
  cannot_shrink();
  another_process_maps_it();
  refuses_what_is_no_segment();
  refuses_files_of_other_kinds();
  frames_change_as_told();
  a_frame_gives_its_memory_back();
  generations_drain_by_parity();
  return check_summary();
}
