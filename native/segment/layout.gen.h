// Written by scripts/gen-layout.mjs from native/segment/layout.json. Do not edit.
// clang-format off
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace atoll_native {

inline constexpr uint32_t kSegmentMagic = 1096043852u;  // 'LLTA' little endian
inline constexpr uint32_t kSegmentVersion = 1u;  // layout version of the shared segment (not of anything on disk)
inline constexpr uint32_t kPageEntries = 512u;  // entries of a map page; 9 bits of block number per level
inline constexpr uint32_t kPageEntriesShift = 9u;  // log2 of PAGE_ENTRIES
inline constexpr uint32_t kFrameBytes = 4096u;  // a map page in memory: PAGE_ENTRIES entries of 8 bytes
inline constexpr uint32_t kPageHeaderBytes = 48u;  // of a map page's blob (docs/format.md)
inline constexpr uint32_t kPageBlobMax = 6192u;  // header and PAGE_ENTRIES runs of at most 12 bytes
inline constexpr uint32_t kPageLevelMax = 5u;  // a leaf is 0; six levels of 9 bits are more than the 2^53 that JavaScript counts exactly
inline constexpr uint32_t kVolumesMax = 4096u;  // open volumes and snapshots at once; bounded by the 12 bits of a hash entry
inline constexpr uint32_t kReactorsMax = 16u;  // native event loops; more than one machine's worth of cores pays
inline constexpr uint32_t kFilesMax = 65536u;  // files of one pool: one dirty bit each per volume (8 KiB)
inline constexpr uint32_t kRingRecords = 4096u;  // records of one ring; a power of two
inline constexpr uint32_t kRecordBytes = 64u;  // one cache line
inline constexpr uint32_t kScratchSlots = 8u;  // block status answers in flight per reactor
inline constexpr uint32_t kScratchExtents = 4096u;  // extents of one block status answer
inline constexpr uint32_t kPoolsMax = 256u;  // open pools of one daemon
inline constexpr uint32_t kFrameEmpty = 0u;  // the frame that is all zero for ever: a leaf that is known to be empty
inline constexpr uint32_t kStampNone = 4294967295u;  // stampVolume of a page that nobody may write in place
inline constexpr uint64_t kSlotNone = 281474976710655ull;  // 2^48-1: no slot
inline constexpr uint32_t kOpLoad = 1u;  // request: make the leaves of [block, block+count) resident
inline constexpr uint32_t kOpMapWrite = 2u;  // request: a place for a write that the map cannot serve in place
inline constexpr uint32_t kOpDone = 3u;  // request: the data of a grant is in its slot (or failed): publish it
inline constexpr uint32_t kOpUnmap = 4u;  // request: unmap whole blocks [block, block+count)
inline constexpr uint32_t kOpFlush = 5u;  // request: make everything acknowledged on the volume durable, map included
inline constexpr uint32_t kOpStatus = 6u;  // request: extents of [offset, offset+length) into a scratch slot
inline constexpr uint32_t kOpHash = 7u;  // request: what the bytes of slot `block` hash to; reply: count 1 and the hash at REPLY_HASH, or count 0 when the slot is not in the index
inline constexpr uint32_t kOpRotten = 8u;  // request: the bytes of slot `block` do not hash to that; reply: EIO, or 0 when there is something else to read by now
inline constexpr uint32_t kReplyHash = 32u;  // OP_HASH: where in the reply the 32 bytes of the hash begin, in place of the slots
inline constexpr uint32_t kOpWake = 16u;  // misc: a control message waits
inline constexpr uint32_t kOpSyncDone = 17u;  // misc: a data sync asked for by the mapper has ended
inline constexpr uint32_t kOpZeroDone = 18u;  // misc: a zeroing of slots asked for by the mapper has ended
inline constexpr uint32_t kFlagFull = 1u;  // OP_MAP_WRITE: every block of the run is covered whole
inline constexpr uint32_t kFlagAllocate = 2u;  // OP_UNMAP: blocks read as zeroes but keep or get a slot (NBD NO_HOLE)
inline constexpr uint32_t kFlagChangedSince = 4u;  // OP_STATUS: context is changed-since snapshot `grant` instead of base:allocation
inline constexpr uint32_t kGrantInPlace = 1u;  // reply: the block is writable in place by now; try the fast path again
inline constexpr uint32_t kGrantZeroRest = 2u;  // reply: the new slot may hold old bytes; zero what neither write nor copy covers
inline constexpr uint32_t kExtentHole = 1u;  // NBD_STATE_HOLE
inline constexpr uint32_t kExtentZero = 2u;  // NBD_STATE_ZERO
inline constexpr uint32_t kExtentChanged = 1u;  // atoll:changed-since: bytes may differ
inline constexpr uint32_t kVolumeFree = 0u;  // volume record state
inline constexpr uint32_t kVolumeOpen = 1u;  // volume record state
inline constexpr uint32_t kVolumeReadOnly = 1u;  // volume record flag
inline constexpr uint32_t kVolumeVerify = 2u;  // volume record flag: blocks are compared with their hash before their bytes are returned or copied

// a map entry, 64 bits: bits 0-47 slot+1 (leaf) or page id (inner), 0 = empty, 2^48-1 in a leaf = zeroes that were folded away: no slot, reads as empty; bit 61 BAD: in memory only, the slot does not hold what it should and reads of it answer EIO; bit 62 OWNED: this page holds the reference; bit 63 EXCLUSIVE: a leaf's slot may be written in place while the frame's stamp is the volume's
// a leaf hash entry, 64 bits, 0 = empty, 1 = deleted: bits 0-21 frame+2, bits 22-51 leaf number (block >> 9), bits 52-63 volume handle

/// One value that has `Stride` bytes to itself, so that threads that write neighbours do not share a cache line.
template <typename T, size_t Stride>
struct Strided {
  T value = 0;
  uint8_t reserved[Stride - sizeof(T)] = {};
};

// Fields that several threads touch are accessed through std::atomic_ref (segment/atomic.h); the structs stay plain,
// because other processes and TypeScript read the same bytes.

struct alignas(8) SegmentHeader {
  uint32_t magic = 0;
  uint32_t version = 0;
  uint32_t reactor_count = 0;
  uint32_t frame_count = 0;
  uint32_t hash_capacity = 0;  // entries of the leaf hash; a power of two
  uint8_t reserved0[4] = {};
  uint64_t total_bytes = 0;
  uint64_t volumes_offset = 0;
  uint64_t inflight_offset = 0;
  uint64_t dirty_files_offset = 0;
  uint64_t frame_meta_offset = 0;
  uint64_t frames_offset = 0;
  uint64_t hash_offset = 0;
  uint64_t rings_offset = 0;
  uint64_t scratch_offset = 0;
  uint64_t hash_seed = 0;  // of the leaf hash; another one in each life of the daemon
  uint8_t reserved1[24] = {};
  uint64_t global_epoch = 0;  // advanced by the mapper only
  uint8_t reserved2[56] = {};
  Strided<uint64_t, 64> reactor_epoch[16] = {};  // oldest epoch a reactor may still use; 2^64-1 when it is idle
  uint32_t mapper_asleep = 0;  // doorbell: 1 while the mapper sleeps on this word (futex)
  uint8_t reserved3[60] = {};
  Strided<uint32_t, 64> reactor_asleep[16] = {};  // doorbell: 1 while a reactor sleeps in epoll (its eventfd is beside)
  uint8_t reserved4[1792] = {};
};
static_assert(offsetof(SegmentHeader, magic) == 0);
static_assert(offsetof(SegmentHeader, version) == 4);
static_assert(offsetof(SegmentHeader, reactor_count) == 8);
static_assert(offsetof(SegmentHeader, frame_count) == 12);
static_assert(offsetof(SegmentHeader, hash_capacity) == 16);
static_assert(offsetof(SegmentHeader, total_bytes) == 24);
static_assert(offsetof(SegmentHeader, volumes_offset) == 32);
static_assert(offsetof(SegmentHeader, inflight_offset) == 40);
static_assert(offsetof(SegmentHeader, dirty_files_offset) == 48);
static_assert(offsetof(SegmentHeader, frame_meta_offset) == 56);
static_assert(offsetof(SegmentHeader, frames_offset) == 64);
static_assert(offsetof(SegmentHeader, hash_offset) == 72);
static_assert(offsetof(SegmentHeader, rings_offset) == 80);
static_assert(offsetof(SegmentHeader, scratch_offset) == 88);
static_assert(offsetof(SegmentHeader, hash_seed) == 96);
static_assert(offsetof(SegmentHeader, global_epoch) == 128);
static_assert(offsetof(SegmentHeader, reactor_epoch) == 192);
static_assert(offsetof(SegmentHeader, mapper_asleep) == 1216);
static_assert(offsetof(SegmentHeader, reactor_asleep) == 1280);
static_assert(sizeof(SegmentHeader) == 4096 && std::is_trivially_copyable_v<SegmentHeader>);

struct alignas(8) VolumeRecord {
  uint32_t state = 0;
  uint32_t flags = 0;
  uint32_t generation = 0;  // advanced by snapshot; a frame is writable only while its stamp equals it
  uint32_t block_shift = 0;
  uint64_t size = 0;  // bytes
  uint32_t pool = 0;  // block peer handle
  uint32_t map_dirty = 0;  // advanced by the mapper before a reply that published a map change
  uint32_t map_durable = 0;  // value of mapDirty that is durable; equal means a flush needs no map commit
  uint32_t failed = 0;  // errno that writes and flushes get; 0 when well
  uint8_t reserved0[24] = {};
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t read_bytes = 0;
  uint64_t write_bytes = 0;
  uint64_t faults = 0;
  uint64_t changes = 0;  // writes, trims and zeroings
  uint64_t mount_changes = 0;  // of these: through mounts
  uint8_t reserved1[136] = {};
};
static_assert(offsetof(VolumeRecord, state) == 0);
static_assert(offsetof(VolumeRecord, flags) == 4);
static_assert(offsetof(VolumeRecord, generation) == 8);
static_assert(offsetof(VolumeRecord, block_shift) == 12);
static_assert(offsetof(VolumeRecord, size) == 16);
static_assert(offsetof(VolumeRecord, pool) == 24);
static_assert(offsetof(VolumeRecord, map_dirty) == 28);
static_assert(offsetof(VolumeRecord, map_durable) == 32);
static_assert(offsetof(VolumeRecord, failed) == 36);
static_assert(offsetof(VolumeRecord, reads) == 64);
static_assert(offsetof(VolumeRecord, writes) == 72);
static_assert(offsetof(VolumeRecord, read_bytes) == 80);
static_assert(offsetof(VolumeRecord, write_bytes) == 88);
static_assert(offsetof(VolumeRecord, faults) == 96);
static_assert(offsetof(VolumeRecord, changes) == 104);
static_assert(offsetof(VolumeRecord, mount_changes) == 112);
static_assert(sizeof(VolumeRecord) == 256 && std::is_trivially_copyable_v<VolumeRecord>);

struct alignas(8) FrameMeta {
  uint32_t stamp_volume = 0;  // volume handle that may write this page in place; 0xffffffff none
  uint32_t stamp_generation = 0;  // valid with stampVolume; both are read as one u64
  uint32_t referenced = 0;  // set by reactors on use, cleared by the mapper's clock hand
  uint8_t reserved0[52] = {};
};
static_assert(offsetof(FrameMeta, stamp_volume) == 0);
static_assert(offsetof(FrameMeta, stamp_generation) == 4);
static_assert(offsetof(FrameMeta, referenced) == 8);
static_assert(sizeof(FrameMeta) == 64 && std::is_trivially_copyable_v<FrameMeta>);

/// layout.json "Request"
struct alignas(8) RequestRecord {
  uint32_t op = 0;
  uint32_t volume = 0;
  uint32_t reactor = 0;
  uint32_t flags = 0;
  uint32_t ticket = 0;  // the sender's name for the request
  uint32_t grant = 0;  // OP_DONE: grant of the reply
  uint64_t block = 0;
  uint64_t count = 0;
  uint64_t offset = 0;  // OP_MAP_WRITE partial: first byte inside the block; OP_STATUS: byte offset
  uint64_t length = 0;  // OP_MAP_WRITE partial: bytes; OP_STATUS: bytes; OP_UNMAP: bytes of the last block, which the volume's end cut when this was asked; 0: all of it
  uint32_t error = 0;  // OP_DONE, OP_*_DONE: errno or 0
  uint32_t arg = 0;  // OP_STATUS: scratch slot | max extents << 8 (context volume in grant)
};
static_assert(offsetof(RequestRecord, op) == 0);
static_assert(offsetof(RequestRecord, volume) == 4);
static_assert(offsetof(RequestRecord, reactor) == 8);
static_assert(offsetof(RequestRecord, flags) == 12);
static_assert(offsetof(RequestRecord, ticket) == 16);
static_assert(offsetof(RequestRecord, grant) == 20);
static_assert(offsetof(RequestRecord, block) == 24);
static_assert(offsetof(RequestRecord, count) == 32);
static_assert(offsetof(RequestRecord, offset) == 40);
static_assert(offsetof(RequestRecord, length) == 48);
static_assert(offsetof(RequestRecord, error) == 56);
static_assert(offsetof(RequestRecord, arg) == 60);
static_assert(sizeof(RequestRecord) == 64 && std::is_trivially_copyable_v<RequestRecord>);

/// layout.json "Reply"
struct alignas(8) ReplyRecord {
  uint32_t op = 0;
  uint32_t volume = 0;
  uint32_t reactor = 0;
  uint32_t flags = 0;
  uint32_t ticket = 0;
  uint32_t grant = 0;
  uint32_t error = 0;  // errno or 0
  uint32_t count = 0;  // blocks granted; extents written; OP_UNMAP: 1 when the volume has grown beyond the cut and the last block was left as it is
  uint64_t slot_new = 0;  // first of `count` contiguous slots
  uint64_t slot_old = 0;  // copy what the write does not cover from here; SLOT_NONE: nothing to copy
  uint8_t reserved0[16] = {};
};
static_assert(offsetof(ReplyRecord, op) == 0);
static_assert(offsetof(ReplyRecord, volume) == 4);
static_assert(offsetof(ReplyRecord, reactor) == 8);
static_assert(offsetof(ReplyRecord, flags) == 12);
static_assert(offsetof(ReplyRecord, ticket) == 16);
static_assert(offsetof(ReplyRecord, grant) == 20);
static_assert(offsetof(ReplyRecord, error) == 24);
static_assert(offsetof(ReplyRecord, count) == 28);
static_assert(offsetof(ReplyRecord, slot_new) == 32);
static_assert(offsetof(ReplyRecord, slot_old) == 40);
static_assert(sizeof(ReplyRecord) == 64 && std::is_trivially_copyable_v<ReplyRecord>);

/// layout.json "Extent"
struct alignas(8) ExtentRecord {
  uint64_t length = 0;  // bytes
  uint32_t flags = 0;
  uint8_t reserved0[4] = {};
};
static_assert(offsetof(ExtentRecord, length) == 0);
static_assert(offsetof(ExtentRecord, flags) == 8);
static_assert(sizeof(ExtentRecord) == 16 && std::is_trivially_copyable_v<ExtentRecord>);

}  // namespace atoll_native
