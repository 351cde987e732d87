// What frontends (NBD, FUSE) ask of the volume peer. One record per client request, owned by the frontend,
// reused without allocation. Everything below was checked by the frontend: range, flags, read-only, size.
#pragma once
#include <cstdint>

#include "block/file_range.h"

namespace atoll_native {

enum class Op : uint8_t { kRead, kWrite, kFlush, kTrim, kWriteZeroes, kCache, kStatus };

enum RequestFlags : uint16_t {
  kFua = 1,         // durable before it is answered (write, trim, zeroes)
  kNoHole = 2,      // write zeroes: keep or get slots
  kFastZero = 4,    // write zeroes: ENOTSUP unless it needs no data I/O
  kReqOne = 8,      // status: at most one extent
  kFromMount = 16,  // write, trim, zeroes: through a mount, which knows of it
};

struct Extent {
  uint64_t length;  // bytes
  uint32_t flags;   // EXTENT_*
  uint32_t reserved;
};

struct Request {
  // ---- set by the frontend
  Op op;
  uint16_t flags = 0;
  uint32_t volume = 0;               // handle of an open volume or snapshot
  uint64_t offset = 0;               // bytes
  uint64_t length = 0;               // bytes; read/write <= kPayloadMax, others up to the volume's size
  uint8_t* buffer = nullptr;         // read: filled; write: source. Stays valid until done.
  Extent* extents = nullptr;         // status: filled
  uint32_t extent_max = 0;           // status: room in `extents`, <= SCRATCH_EXTENTS
  uint32_t context = UINT32_MAX;     // status: UINT32_MAX base allocation, else the snapshot handle to compare with
  void (*done)(Request*) = nullptr;  // called once, on the reactor the request was submitted on
  void* owner = nullptr;             // the frontend's
  // ---- set by the volume peer before done()
  int error = 0;  // errno or 0
  uint32_t extent_count = 0;
  // ---- the volume peer's own state while the request is on its way
  Request* next = nullptr;  // in one of the peer's queues
  uint64_t cursor = 0;      // first byte that is neither served nor being served
  uint32_t pending = 0;     // works on their way, and one while the request itself has more to start
  uint32_t retries = 0;     // turns that brought nothing
  uint32_t since_us = 0;    // the turn it came in, modulo 2^32
  uint8_t stage = 0;
  uint8_t wait = 0;
};

/// Where a frontend sends requests. The volume peer of a reactor is one; tests and fuzzers have others.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  /// Takes one request. `done` may run before this returns. Never blocks, never fails: errors come through done().
  virtual void submit(Request* request) = 0;
  /// Where the bytes from `offset` of a volume lie in a file, to be sent from there (sendfile) within this turn, and
  /// what of `*length` lies together: `*length` is made less. False: submit a read.
  virtual bool lend(uint32_t, uint64_t, uint64_t*, FileRange*) { return false; }
  /// A read of so many bytes is answered with what is lent: for the statistics.
  virtual void lent(uint32_t, uint64_t) {}
};

}  // namespace atoll_native
