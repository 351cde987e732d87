// A volume in memory as a RequestSink: for tests, fuzzing and measuring of what stands above one. Knows which blocks
// were written, can answer later and in another order, and can fail.
#pragma once
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "segment/layout.gen.h"
#include "volume/request.h"

namespace atoll_native {

/// The bytes; several sinks (one per reactor) may share them.
struct MemoryVolume {
  MemoryVolume(uint64_t size, uint32_t block_bytes)
      : bytes(size), mapped((size + block_bytes - 1) / block_bytes), block(block_bytes) {}
  std::vector<uint8_t> bytes;
  std::vector<uint8_t> mapped;  // per block: was written
  uint32_t block;
  std::mutex mutex;  // for tests with several threads; taken per request when `locked`
  bool locked = false;
};

class MemorySink final : public RequestSink {
 public:
  explicit MemorySink(MemoryVolume& volume) : volume_(volume) {}

  // ---- what a test may ask for
  bool hold = false;                            // requests wait for answer_held()
  std::function<int(const Request&)> fail;      // errno for a request, 0: serve it
  std::function<bool(Request&)> serve_instead;  // true when it did: for volumes larger than memory, and odd answers
  std::function<void(const Request&)> observe;  // sees every request as it is submitted
  std::function<void()> held_one;               // called when a request was held: to answer it later

  // ---- what happened
  uint64_t submitted = 0;
  uint64_t flushes = 0;
  uint64_t in_flight = 0;
  uint64_t in_flight_max = 0;

  void submit(Request* request) override {
    submitted++;
    in_flight++;
    in_flight_max = std::max(in_flight_max, in_flight);
    if (observe) observe(*request);
    if (!hold) {
      answer(request);
      return;
    }
    held_.push_back(request);
    if (held_one) held_one();
  }

  size_t held() const { return held_.size(); }
  /// Answers the held request at `index` (any, wraps around). False when there is none.
  bool answer_held(size_t index = 0) {
    if (held_.empty()) return false;
    index %= held_.size();
    Request* request = held_[index];
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(index));
    answer(request);
    return true;
  }

 private:
  void answer(Request* request) {
    request->error = fail ? fail(*request) : 0;
    if (request->error == 0 && !(serve_instead && serve_instead(*request))) {
      if (volume_.locked) {
        std::lock_guard lock(volume_.mutex);
        serve(request);
      } else {
        serve(request);
      }
    }
    in_flight--;
    request->done(request);
  }

  void serve(Request* request) {
    if (request->op != Op::kFlush &&
        (request->offset > volume_.bytes.size() || request->length > volume_.bytes.size() - request->offset)) {
      std::abort();  // the frontend must have checked
    }
    uint8_t* at = volume_.bytes.data() + request->offset;
    const uint64_t end = request->offset + request->length;
    switch (request->op) {
      case Op::kRead:
        std::memcpy(request->buffer, at, request->length);
        break;
      case Op::kWrite:
        std::memcpy(at, request->buffer, request->length);
        mark(request->offset, end, 1);
        break;
      case Op::kTrim:
      case Op::kWriteZeroes:
        std::memset(at, 0, request->length);
        if ((request->flags & kNoHole) != 0) {
          mark(request->offset, end, 1);
        } else {
          mark((request->offset + volume_.block - 1) / volume_.block * volume_.block,
               end / volume_.block * volume_.block, 0);
        }
        break;
      case Op::kFlush:
        flushes++;
        break;
      case Op::kCache:
        break;
      case Op::kStatus:
        status(request, end);
        break;
    }
  }

  void mark(uint64_t from, uint64_t end, uint8_t value) {
    if (from >= end) return;
    const uint64_t last = (end + volume_.block - 1) / volume_.block;
    for (uint64_t block = from / volume_.block; block < last; ++block) volume_.mapped[block] = value;
  }

  void status(Request* request, uint64_t end) {
    uint64_t at = request->offset;
    uint32_t count = 0;
    while (at < end && count < request->extent_max) {
      const uint8_t mapped = volume_.mapped[at / volume_.block];
      uint64_t next = at;
      while (next < end && volume_.mapped[next / volume_.block] == mapped)
        next = (next / volume_.block + 1) * volume_.block;
      next = std::min(next, end);
      uint32_t flags = mapped ? 0 : kExtentHole | kExtentZero;
      if (request->context != UINT32_MAX) flags = mapped ? kExtentChanged : 0;
      request->extents[count++] = {next - at, flags, 0};
      at = next;
    }
    request->extent_count = count;
  }

  MemoryVolume& volume_;
  std::deque<Request*> held_;
};

}  // namespace atoll_native
