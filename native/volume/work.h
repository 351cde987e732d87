// One thing that a request waits for: an asynchronous block operation, a fault at the mapper, or a sync. A fixed table
// per reactor; the index is the ticket on the rings.
#pragma once
#include <cstdint>

#include "block/block.h"
#include "seal/blake3.h"
#include "segment/layout.gen.h"
#include "volume/request.h"
#include "volume/syncer.h"

namespace atoll_native {

class VolumePeer;

enum class Step : uint8_t {
  kFree,
  kRead,          // block I/O: a read of mapped blocks
  kWriteInPlace,  // block I/O: a write of blocks that are ours alone; admission is held
  kLoad,          // mapper: leaves become resident
  kMapWrite,      // mapper: a place for [cursor, piece_end)
  kWaitBuffer,    // granted: a block buffer is needed
  kPutOff,        // granted: the turn's share of moving is spent
  kCopyRead,      // block I/O: granted, what the write does not cover is being read
  kMove,          // block I/O: granted, the data is being written to its new slot
  kAnswered,      // mapper: OP_DONE is on its way
  kUnmap,         // mapper
  kFlush,         // mapper
  kStatus,        // mapper
  kHash,          // mapper: what slot_old should hash to
  kCheckLoad,     // mapper: the leaf of a block that is to be checked becomes resident again
  kCheckBuffer,   // to be checked: a block buffer is needed
  kCheckPutOff,   // to be checked: the turn's share of moving is spent
  kCheckRead,     // block I/O: the whole block, to be checked
  kRotten,        // mapper: it did not hold what it should
  kSync,          // VolumeSyncer
};

struct Work {
  BlockIo io;
  VolumeSyncer::Waiter waiter;
  VolumePeer* peer = nullptr;
  Request* request = nullptr;
  Work* next = nullptr;  // free list, queue, or list of I/O in flight
  Work* prev = nullptr;  // list of I/O in flight
  uint64_t epoch = 0;    // of the loop turn in which the I/O's slots were looked up
  uint32_t ticket = 0;
  uint32_t volume = 0;
  Step step = Step::kFree;
  uint8_t scratch = 0;      // status: scratch slot
  uint32_t generation = 0;  // admission held under it
  uint32_t retries = 0;     // grants that led nowhere
  uint64_t cursor = 0;      // bytes of the volume that are this work's to write: [cursor, end)
  uint64_t end = 0;
  uint64_t piece_end = 0;  // [cursor, piece_end) is what the mapper was asked for
  // ---- of a grant
  uint32_t grant = 0;
  uint32_t grant_flags = 0;
  uint64_t slot_new = 0;
  uint64_t slot_old = 0;
  uint64_t granted = 0;  // bytes of the volume
  uint64_t moved = 0;    // of these
  uint8_t* buffer = nullptr;
  // ---- of a check (verify.cc)
  bool copying = false;     // what is checked is what a granted block is copied from; else a part of a read
  bool hashed = false;      // slot_old is in the index, and this is its hash
  uint32_t mismatches = 0;  // times the bytes were others
  BlockHash hash = {};
};

/// Singly linked, first in, first out, through `next`.
template <typename Item>
class Queue {
 public:
  bool empty() const { return head_ == nullptr; }
  Item* front() const { return head_; }
  void push(Item* item) {
    item->next = nullptr;
    (head_ == nullptr ? head_ : tail_->next) = item;
    tail_ = item;
  }
  Item* pop() {
    Item* const item = head_;
    if (item != nullptr) head_ = item->next;
    return item;
  }
  /// Takes over all of `other`.
  void append(Queue* other) {
    if (other->head_ == nullptr) return;
    (head_ == nullptr ? head_ : tail_->next) = other->head_;
    tail_ = other->tail_;
    other->head_ = nullptr;
  }

 private:
  Item* head_ = nullptr;
  Item* tail_ = nullptr;
};

}  // namespace atoll_native
