// A bounded queue of 64-byte records in the segment, with one producer and one consumer thread. Each end is an object
// of its own that lives with its thread and remembers where the other end was, so that a batch touches the other's
// cache line once. Putting wakes nobody: ring/doorbell.h does, once per batch.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>

#include "segment/layout.gen.h"
#include "segment/step.h"

namespace atoll_native {

/// The ring as it lies in the segment. Zeroed memory is an empty ring. Positions count records for ever (modulo 2^32).
struct RingMemory {
  alignas(64) std::atomic<uint32_t> head;  // consumer: records taken
  alignas(64) std::atomic<uint32_t> tail;  // producer: records put
  alignas(64) uint8_t records[size_t{kRingRecords} * kRecordBytes];
};
static_assert((kRingRecords & (kRingRecords - 1)) == 0, "positions wrap by mask");
static_assert(sizeof(RingMemory) % 64 == 0);

template <typename Record>
class RingProducer {
  static_assert(sizeof(Record) == kRecordBytes && std::is_trivially_copyable_v<Record>);

 public:
  explicit RingProducer(void* memory)
      : ring_(static_cast<RingMemory*>(memory)),
        head_(ring_->head.load(std::memory_order_acquire)),
        tail_(ring_->tail.load(std::memory_order_relaxed)) {}

  /// Free places, at least: the consumer may have made more since.
  uint32_t room() {
    if (tail_ - head_ == kRingRecords) refresh();
    return kRingRecords - (tail_ - head_);
  }
  /// Puts as many of `records` as fit, in order; returns how many. They are visible to the consumer on return.
  uint32_t put(std::span<const Record> records) {
    if (records.size() > kRingRecords - (tail_ - head_)) refresh();
    const uint32_t count = static_cast<uint32_t>(std::min<size_t>(records.size(), kRingRecords - (tail_ - head_)));
    for (uint32_t i = 0; i < count; i++) {
      std::memcpy(ring_->records + size_t{(tail_ + i) & (kRingRecords - 1)} * kRecordBytes, &records[i], kRecordBytes);
    }
    tail_ += count;
    ATOLL_STEP();
    // Release: the records are written before the consumer sees that they are there.
    if (count != 0) ring_->tail.store(tail_, std::memory_order_release);
    return count;
  }
  /// Puts one record; false when the ring is full.
  bool put(const Record& record) { return put(std::span<const Record>(&record, 1)) == 1; }

 private:
  // Acquire: the consumer has copied the records out before we write over them.
  void refresh() { head_ = ring_->head.load(std::memory_order_acquire); }

  RingMemory* ring_;
  uint32_t head_;  // as last seen
  uint32_t tail_;
};

template <typename Record>
class RingConsumer {
  static_assert(sizeof(Record) == kRecordBytes && std::is_trivially_copyable_v<Record>);

 public:
  explicit RingConsumer(void* memory)
      : ring_(static_cast<RingMemory*>(memory)),
        head_(ring_->head.load(std::memory_order_relaxed)),
        tail_(ring_->tail.load(std::memory_order_acquire)) {}

  /// Looks at the producer's end; false when there is something to take.
  bool empty() {
    if (head_ == tail_) refresh();
    return head_ == tail_;
  }
  /// Takes up to `max` records into `out` (max * kRecordBytes bytes, any alignment); returns how many.
  uint32_t take(void* out, uint32_t max) {
    if (tail_ - head_ < max) refresh();
    const uint32_t count = std::min(max, tail_ - head_);
    for (uint32_t i = 0; i < count; i++) {
      std::memcpy(static_cast<uint8_t*>(out) + size_t{i} * kRecordBytes,
                  ring_->records + size_t{(head_ + i) & (kRingRecords - 1)} * kRecordBytes, kRecordBytes);
    }
    head_ += count;
    ATOLL_STEP();
    // Release: the copies are done before the producer may write there again.
    if (count != 0) ring_->head.store(head_, std::memory_order_release);
    return count;
  }
  uint32_t take(std::span<Record> out) { return take(out.data(), static_cast<uint32_t>(out.size())); }

 private:
  void refresh() { tail_ = ring_->tail.load(std::memory_order_acquire); }

  RingMemory* ring_;
  uint32_t head_;
  uint32_t tail_;  // as last seen
};

}  // namespace atoll_native
