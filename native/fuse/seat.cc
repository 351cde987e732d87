#include "fuse/seat.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fuse/mount.h"
#include "segment/atomic.h"

namespace atoll_native::fuse {
namespace {

constexpr size_t kBufferBytes = Call::kHeadBytes + Call::kDataBytesMax;
// The largest request: what a write has in front of its data, and the data.
constexpr size_t kWriteHead = sizeof(fuse_in_header) + sizeof(fuse_write_in);
constexpr size_t kRequestBytesMax = kWriteHead + Call::kDataBytesMax;
// Disks have sizes in sectors.
constexpr uint64_t kSectorBytes = 512;
// Behind the largest file that anybody could ask for.
constexpr uint64_t kOffsetMax = uint64_t{1} << 62;

thread_local Seat* dispatching = nullptr;

uint8_t* request_of(Call* call) { return call->data() - kWriteHead; }

}  // namespace

Seat* Seat::current() { return dispatching; }

Seat::~Seat() {
  for (const auto& call : all_) munmap(call->buffer, kBufferBytes);
}

int Seat::start(int fd) {
  fd_ = fd;
  if (!host_) return 0;
  takes_ = true;
  // stop() takes it back, also after a failure
  reactor_.connection_count_changed(1);
  return watch();
}

void Seat::stop() {
  if (host_ && !stopped_ && fd_ >= 0) reactor_.connection_count_changed(-1);
  stopped_ = true;
  takes_ = false;
  unwatch();
}

void Seat::forget() { fd_ = -1; }

void Seat::take_part() {
  if (fd_ < 0 || takes_ || stopped_) return;
  takes_ = true;
  found_ns_ = reactor_.now_ns();
  // When it cannot, the host does it alone.
  if (watch() != 0) takes_ = false;
}

int Seat::watch() {
  // One of the reactors is woken, not all.
  const int error = reactor_.add(fd_, EPOLLIN | EPOLLEXCLUSIVE, this);
  watching_ = error == 0;
  return error;
}

void Seat::unwatch() {
  if (watching_) reactor_.remove(fd_, this);
  watching_ = false;
}

void Seat::on_events(uint32_t) { receive_batch(); }

bool Seat::poll() { return receive_batch(); }

bool Seat::receive_batch() {
  uint32_t count = 0;
  large_ = 0;
  while (count < kBatch && receive()) count++;
  const uint64_t now = reactor_.now_ns();
  if (host_) {
    if (count < kBatch) empty_ns_ = now;
    if (large_ > 1 || now - empty_ns_ > kBusyNs) {
      empty_ns_ = now;
      mount_.share();
    }
  } else if (count != 0) {
    found_ns_ = now;
  } else if (now - found_ns_ > kVainNs) {
    takes_ = false;
    unwatch();
  }
  return count != 0;
}

// -------------------------------------------------------------------------------------------------------- requests

Call* Seat::take() {
  if (free_ != nullptr) {
    free_count_--;
    return std::exchange(free_, free_->next);
  }
  if (all_.size() >= kCallsMax) return nullptr;
  void* const memory = mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  all_.push_back(std::make_unique<Call>());
  Call* const call = all_.back().get();
  call->seat = this;
  call->buffer = static_cast<uint8_t*>(memory);
  return call;
}

void Seat::give(Call* call) {
  call->node.reset();
  call->libfuse = nullptr;
  if (free_count_ >= kWarmCalls) madvise(call->buffer, kBufferBytes, MADV_DONTNEED);
  call->next = free_;
  free_ = call;
  free_count_++;
  // fewer than that when memory ran out
  if (takes_ && !watching_ && free_count_ >= std::min<size_t>(all_.size(), kCallsMax / 4)) watch();
}

/// Takes one request. False: there is none, or no room for it.
bool Seat::receive() {
  if (fd_ < 0 || stopped_) return false;
  if (spare_ == nullptr) spare_ = take();
  // What libfuse parses needs a second one.
  const bool second = free_ != nullptr || all_.size() < kCallsMax;
  if (spare_ == nullptr || !second) {
    // The kernel keeps what is next until calls have ended.
    unwatch();
    return false;
  }
  uint8_t* const at = request_of(spare_);
  const ssize_t got = read(fd_, at, kRequestBytesMax);
  if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) {
    // ENOENT: the request was taken back while it was read.
    if (got < 0 && (errno == ENOENT || errno == EINTR)) return true;
    if (got < 0 && errno == ENODEV) {
      stop();
      mount_.disconnected();
    }
    return false;
  }
  const auto* const in = reinterpret_cast<const fuse_in_header*>(at);
  switch (in->opcode) {
    case FUSE_READ:
      if (begin_read(spare_)) spare_ = nullptr;
      return true;
    case FUSE_WRITE:
      if (begin_write(spare_)) spare_ = nullptr;
      return true;
    case FUSE_INTERRUPT:
      // Nothing here can be interrupted; whoever is killed goes when it is answered.
      return true;
    default: {
      // Its callbacks keep nothing of the buffer.
      fuse_buf whole = {};
      whole.mem = at;
      whole.size = static_cast<size_t>(got);
      dispatching = this;
      fuse_session_process_buf(mount_.session(), &whole);
      dispatching = nullptr;
      return true;
    }
  }
}

uint64_t Seat::size_of(uint32_t handle) const { return load_relaxed(mount_.segment().volume(handle).size); }

/// True when the call has left the seat's hands, with its buffer; false when it is ended already.
bool Seat::begin_read(Call* call) {
  const auto* const head = reinterpret_cast<const fuse_in_header*>(request_of(call));
  const auto* const in = reinterpret_cast<const fuse_read_in*>(head + 1);
  OpenFile* const file = reinterpret_cast<OpenFile*>(in->fh);
  call->unique = head->unique;
  call->offset = in->offset;
  call->length = std::min(in->size, Call::kDataBytesMax);
  if (call->length >= kLargeBytes) large_++;
  begin(call, Call::Kind::kRead, nullptr, file);
  return true;
}

bool Seat::begin_write(Call* call) {
  const auto* const head = reinterpret_cast<const fuse_in_header*>(request_of(call));
  const auto* const in = reinterpret_cast<const fuse_write_in*>(head + 1);
  OpenFile* const file = reinterpret_cast<OpenFile*>(in->fh);
  call->unique = head->unique;
  call->offset = in->offset;
  call->length = std::min(in->size, Call::kDataBytesMax);
  call->cached = (in->write_flags & FUSE_WRITE_CACHE) != 0;
  if (call->length >= kLargeBytes) large_++;
  begin(call, Call::Kind::kWrite, nullptr, file);
  return true;
}

void Seat::sync(fuse_req_t req, OpenFile* file) {
  Call* const call = take();
  if (call == nullptr) {
    fuse_reply_err(req, ENOMEM);
    return;
  }
  call->offset = call->length = 0;
  begin(call, Call::Kind::kSync, req, file);
}

void Seat::zero(fuse_req_t req, OpenFile* file, int mode, uint64_t offset, uint64_t length) {
  const bool punches = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  const bool zeroes = (mode & ~FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE;
  if (!punches && !zeroes) {
    fuse_reply_err(req, EOPNOTSUPP);
    return;
  }
  Call* const call = take();
  if (call == nullptr) {
    fuse_reply_err(req, ENOMEM);
    return;
  }
  call->offset = offset;
  call->length = length;
  call->grows = zeroes && (mode & FALLOC_FL_KEEP_SIZE) == 0;
  begin(call, Call::Kind::kZero, req, file);
}

void Seat::seek(fuse_req_t req, OpenFile* file, uint64_t offset, int whence) {
  Call* const call = take();
  if (call == nullptr) {
    fuse_reply_err(req, ENOMEM);
    return;
  }
  call->offset = offset;
  call->length = 0;
  call->whence = whence;
  begin(call, Call::Kind::kSeek, req, file);
}

void Seat::begin(Call* call, Call::Kind kind, fuse_req_t req, OpenFile* file) {
  calls_out_++;
  call->kind = kind;
  call->libfuse = req;
  call->asks = 0;
  call->node = file->node;
  // revoke() stores the handle and then looks here: one of the two sees the other.
  call->node->in_flight.fetch_add(1, std::memory_order_seq_cst);
  const bool changes = kind == Call::Kind::kWrite || kind == Call::Kind::kZero;
  if (changes && file->read_only) return fail(call, EROFS);
  if (call->offset > kOffsetMax || call->length > kOffsetMax) return fail(call, EFBIG);
  drive(call);
}

/// Does what a call is for, or asks the control side for what it needs first.
void Seat::drive(Call* call) {
  OpenNode& node = *call->node;
  if (node.filling.load(std::memory_order_acquire)) {
    mount_.ask({.ask = Ask::kSettle, .ino = node.ino}, call);
    return;
  }
  const uint32_t handle = node.handle.load(std::memory_order_seq_cst);
  if (handle == OpenNode::kRevoked) return fail(call, EIO);
  const uint64_t size = size_of(handle);
  const uint64_t end = call->offset + call->length;
  const bool grows =
      (call->kind == Call::Kind::kWrite && !call->cached) || (call->kind == Call::Kind::kZero && call->grows);
  if (grows && end > size && call->length != 0) {
    // Again where somebody makes it shorter meanwhile: two programs that write and truncate a file both succeed.
    if (call->asks == Call::kAsksMax) return fail(call, ENOSPC);
    call->asks++;
    mount_.ask({.ask = Ask::kGrow, .ino = node.ino, .a = (end + kSectorBytes - 1) / kSectorBytes * kSectorBytes}, call);
    return;
  }
  const uint64_t inside = call->offset >= size ? 0 : std::min(call->length, size - call->offset);
  switch (call->kind) {
    case Call::Kind::kRead:
      if (inside == 0) return finish(call, nullptr, 0);
      if (finish_lent(call, handle, inside)) return;
      submit(call, Op::kRead, handle, call->offset, inside);
      break;
    case Call::Kind::kWrite:
      // What the page cache has beyond the end is nobody's any more.
      if (inside == 0) return ended(call);
      submit(call, Op::kWrite, handle, call->offset, inside);
      break;
    case Call::Kind::kSync:
      submit(call, Op::kFlush, handle, 0, 0);
      break;
    case Call::Kind::kZero:
      if (inside == 0) return ended(call);
      submit(call, Op::kWriteZeroes, handle, call->offset, inside);
      break;
    case Call::Kind::kSeek:
      if (call->offset >= size) return fail(call, ENXIO);
      submit(call, Op::kStatus, handle, call->offset, size - call->offset);
      break;
  }
}

void Seat::answered(Call* call, int error) {
  if (error != 0) return fail(call, error);
  drive(call);
}

void Seat::submit(Call* call, Op op, uint32_t volume, uint64_t offset, uint64_t length) {
  call->request = Request{.op = op,
                          .flags = kFromMount,
                          .volume = volume,
                          .offset = offset,
                          .length = length,
                          .buffer = call->data(),
                          .extents = call->extents,
                          .extent_max = Call::kExtentsMax,
                          .done = &Seat::done,
                          .owner = call};
  sink_.submit(&call->request);
}

void Seat::done(Request* request) {
  Call* const call = static_cast<Call*>(request->owner);
  Seat& seat = *call->seat;
  if (request->error != 0) {
    // It became shorter meanwhile.
    if (call->kind == Call::Kind::kRead && request->error == EINVAL) return seat.finish(call, nullptr, 0);
    const bool changes = call->kind == Call::Kind::kWrite || call->kind == Call::Kind::kZero;
    const bool shorter = request->offset + request->length > seat.size_of(request->volume);
    if (changes && shorter && request->error == ENOSPC && call->asks < Call::kAsksMax) {
      call->asks++;
      return seat.drive(call);
    }
    return seat.fail(call, request->error == ESHUTDOWN ? EIO : request->error);
  }
  if (call->kind == Call::Kind::kSeek && !seat.sought(call)) return;
  seat.ended(call);
}

/// False: it goes on behind what is known now.
bool Seat::sought(Call* call) {
  const bool for_data = call->whence == SEEK_DATA;
  const uint64_t size = size_of(call->request.volume);
  uint64_t at = call->request.offset;
  for (uint32_t i = 0; i < call->request.extent_count && at < size; i++) {
    const bool data = (call->extents[i].flags & kExtentZero) == 0;
    if (data == for_data) {
      call->offset = at;
      return true;
    }
    at += call->extents[i].length;
  }
  if (at < size && call->request.extent_count != 0) {
    // The same volume, though the node may have been revoked meanwhile: it stays open while this is on its way.
    submit(call, Op::kStatus, call->request.volume, at, size - at);
    return false;
  }
  if (for_data) {
    fail(call, ENXIO);
    return false;
  }
  call->offset = size;
  return true;
}

// --------------------------------------------------------------------------------------------------------- replies

void Seat::fail(Call* call, int error) {
  if (call->libfuse != nullptr) {
    reply_error(call, error);
  } else {
    refuse(call->unique, error);
  }
  call->node->in_flight.fetch_sub(1, std::memory_order_release);
  calls_out_--;
  give(call);
}

/// To what libfuse parsed. It has a descriptor of its own, which is no more to be used than ours.
void Seat::reply_error(Call* call, int error) {
  if (fd_ >= 0) {
    fuse_reply_err(call->libfuse, error);
  } else {
    fuse_reply_none(call->libfuse);
  }
}

/// The answer to a read or write that cannot be done. What cannot be delivered has nobody who waits for it.
void Seat::refuse(uint64_t unique, int error) {
  const fuse_out_header out = {.len = sizeof out, .error = -error, .unique = unique};
  [[maybe_unused]] const ssize_t sent = write(fd_, &out, sizeof out);
}

/// It was done.
void Seat::ended(Call* call) {
  switch (call->kind) {
    case Call::Kind::kRead:
      return finish(call, call->data(), static_cast<uint32_t>(call->request.length));
    case Call::Kind::kWrite: {
      mount_.wrote(*call->node);
      const fuse_write_out out = {.size = static_cast<uint32_t>(call->length), .padding = 0};
      return finish(call, &out, sizeof out);
    }
    case Call::Kind::kSeek:
      if (fd_ >= 0) {
        fuse_reply_lseek(call->libfuse, static_cast<off_t>(call->offset));
      } else {
        fuse_reply_none(call->libfuse);
      }
      break;
    case Call::Kind::kZero:
      mount_.wrote(*call->node);
      reply_error(call, 0);
      break;
    case Call::Kind::kSync:
      reply_error(call, 0);
      break;
  }
  call->node->in_flight.fetch_sub(1, std::memory_order_release);
  calls_out_--;
  give(call);
}

/// The answer to a read or write.
void Seat::finish(Call* call, const void* data, uint32_t bytes) {
  fuse_out_header out = {.len = static_cast<uint32_t>(sizeof out + bytes), .error = 0, .unique = call->unique};
  iovec parts[2] = {{&out, sizeof out}, {const_cast<void*>(data), bytes}};
  // Before the kernel hears of it: who closes the file next finds nothing on its way.
  call->node->in_flight.fetch_sub(1, std::memory_order_release);
  // The kernel takes it, or has nobody who waits, or had no memory; only the last one wants another answer.
  if (writev(fd_, parts, bytes == 0 ? 1 : 2) < 0) refuse(call->unique, EIO);
  calls_out_--;
  give(call);
}

/// The answer to a large read whose bytes are all in the page cache. False: it has to be read.
bool Seat::finish_lent(Call* call, uint32_t volume, uint64_t bytes) {
  if (!pipe_.fits(bytes)) return false;
  const fuse_out_header out = {.len = static_cast<uint32_t>(sizeof out + bytes), .error = 0, .unique = call->unique};
  if (!pipe_.begin(&out, sizeof out)) return false;
  for (uint64_t done = 0; done < bytes;) {
    uint64_t length = bytes - done;
    FileRange range;
    if (!sink_.lend(volume, call->offset + done, &length, &range)) {
      pipe_.drop();
      return false;
    }
    if (!pipe_.add(range, length)) return false;
    done += length;
  }
  sink_.lent(volume, bytes);
  call->node->in_flight.fetch_sub(1, std::memory_order_release);
  if (!pipe_.flush(fd_)) refuse(call->unique, EIO);
  calls_out_--;
  give(call);
  return true;
}

}  // namespace atoll_native::fuse
