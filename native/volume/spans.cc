// What lies where: the map as a reactor sees it.
//
// A frame found in the leaf hash, and a slot found in the frame, stay what they are until the epoch of this loop turn
// has passed; so they are used within the turn, or by I/O that is in the list of I/O in flight.
#include <algorithm>

#include "block/block.h"
#include "core.h"
#include "segment/atomic.h"
#include "segment/step.h"
#include "volume/volume_peer.h"

namespace atoll_native {
namespace {

uint64_t value_of(uint64_t entry) { return entry & kEntryValueMask; }

/// The same for who reads: what must not be read is no slot's value and follows none. 0: zeroes.
uint64_t readable_of(uint64_t entry) {
  const uint64_t value = entry & (kEntryValueMask | kEntryBad);
  return value == kEntryZeroes ? 0 : value;
}

uint64_t leaf_of(uint64_t block) { return block >> kPageEntriesShift; }

/// First byte of the leaf after the one that holds block `block`.
uint64_t leaf_end(uint64_t block, uint32_t shift) { return (leaf_of(block) + 1) << (kPageEntriesShift + shift); }

/// Bytes from `address` to the end of its pool file.
uint64_t file_room(const BlockPeer& pool, uint64_t address) {
  const uint64_t span = pool.file_span();
  return span - (address & (span - 1));
}

}  // namespace

/// Tells the mapper's clock hand that the page is in use. Looking first keeps the line shared.
void VolumePeer::touch(uint32_t frame) {
  FrameMeta& meta = segment_.frame_meta(frame);
  if (load_relaxed(meta.referenced) == 0) store_relaxed(meta.referenced, 1u);
}

VolumePeer::Span VolumePeer::read_span(const Target& target, uint64_t cursor, uint64_t end) {
  const uint64_t block = cursor >> target.shift;
  const uint32_t frame = hash_.find(target.volume, leaf_of(block));
  if (frame == LeafHash::kNone) return {Place::kMissing, 0, 0};
  ATOLL_STEP();
  touch(frame);
  const std::atomic<uint64_t>* const entries = segment_.frame(frame);
  const uint64_t inside = cursor & target.block_mask();
  const uint64_t most = std::min(end - cursor, kIoBytesMax);
  uint32_t index = block & (kPageEntries - 1);
  uint64_t length = target.block_bytes() - inside;
  // Acquire: whoever sees the entry may read the slot that it names.
  const uint64_t first = readable_of(entries[index].load(std::memory_order_acquire));
  if ((first & kEntryBad) != 0) return {Place::kBad, std::min(length, most), 0};
  uint64_t expected = first;
  while (length < most && ++index < kPageEntries) {
    if (first != 0) expected++;
    if (readable_of(entries[index].load(std::memory_order_acquire)) != expected) break;
    length += target.block_bytes();
  }
  length = std::min(length, most);
  ATOLL_STEP();  // before the slot is read
  if (first == 0) return {Place::kZero, length, 0};
  const uint64_t address = ((first - 1) << target.shift) + inside;
  return {Place::kData, std::min(length, file_room(*target.pool, address)), address};
}

/// kInPlace: a run that may be written in place by who is admitted under `generation`; kFault: one piece for the
/// mapper, which is a part of one block or a run of whole ones.
VolumePeer::Span VolumePeer::write_span(const Target& target, uint64_t cursor, uint64_t end, uint32_t generation) {
  const uint64_t block = cursor >> target.shift;
  const uint64_t inside = cursor & target.block_mask();
  const uint64_t to_block_end = target.block_bytes() - inside;
  const uint32_t frame = hash_.find(target.volume, leaf_of(block));
  const std::atomic<uint64_t>* entries = nullptr;
  if (frame != LeafHash::kNone) {
    touch(frame);
    // The stamp and the entry are both asked: the stamp falls with the snapshot, the entry's bit with what else makes a
    // slot unwritable (borrowed, in the index of sealed blocks).
    const bool ours =
        segment_.frame_stamp(frame).load(std::memory_order_acquire) == Segment::stamp_of(target.volume, generation);
    ATOLL_STEP();
    if (ours) entries = segment_.frame(frame);
  }
  uint32_t index = block & (kPageEntries - 1);
  const auto writable = [entries](uint32_t i) -> uint64_t {
    const uint64_t entry = entries == nullptr ? 0 : entries[i].load(std::memory_order_acquire);
    return (entry & kEntryExclusive) != 0 ? value_of(entry) : 0;
  };
  const uint64_t first = writable(index);
  if (first != 0) {
    const uint64_t most = std::min(end - cursor, kIoBytesMax);
    uint64_t length = to_block_end;
    for (uint64_t value = first + 1; length < most && ++index < kPageEntries && writable(index) == value; value++) {
      length += target.block_bytes();
    }
    const uint64_t address = ((first - 1) << target.shift) + inside;
    ATOLL_STEP();  // before the slot is written
    return {Place::kInPlace, std::min({length, most, file_room(*target.pool, address)}), address};
  }
  if (to_block_end > end - cursor || inside != 0) return {Place::kFault, std::min(to_block_end, end - cursor), 0};
  const uint64_t whole_end = std::min(end & ~target.block_mask(), leaf_end(block, target.shift));
  uint64_t length = target.block_bytes();
  while (cursor + length < whole_end && writable(++index) == 0) length += target.block_bytes();
  return {Place::kFault, length, 0};
}

/// One operation lies in one file.
void VolumePeer::mark_written(const Target& target, uint64_t address) {
  ATOLL_STEP();
  dirty_.mark(target.volume, target.pool->file_of(address));
}

/// Asks for the leaves from `cursor` on that are not resident: one record for as many as follow each other.
void VolumePeer::send_load(Work* work, const Target& target, uint64_t cursor, uint64_t end, uint64_t* loaded_end) {
  const uint64_t block = cursor >> target.shift;
  uint64_t leaf = leaf_of(block) + 1;
  const uint64_t last = leaf_of((end - 1) >> target.shift);
  for (uint32_t n = 1; n < kLoadLeavesMax && leaf <= last && hash_.find(target.volume, leaf) == LeafHash::kNone; n++) {
    leaf++;
  }
  *loaded_end = std::min(end, leaf << (kPageEntriesShift + target.shift));
  RequestRecord record;
  record.op = kOpLoad;
  record.block = block;
  record.count = ((*loaded_end - 1) >> target.shift) - block + 1;
  send(work, Step::kLoad, &record);
}

/// A drive that cannot look further until the leaves are there.
VolumePeer::Progress VolumePeer::load_and_park(Request* request, const Target& target, uint64_t cursor, uint64_t end) {
  if (++request->retries > kRetriesMax) {
    fail(request, EIO);
    return Progress::kFinished;
  }
  Work* const work = take_work(request);
  if (work == nullptr) return Progress::kWaiting;
  uint64_t loaded_end = 0;
  send_load(work, target, cursor, end, &loaded_end);
  return park(request);
}

}  // namespace atoll_native
