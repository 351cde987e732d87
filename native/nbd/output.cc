#include "nbd/output.h"

#include <sys/socket.h>

#include <cassert>
#include <cerrno>

namespace atoll_native::nbd {

void Output::clear() {
  drop();
  if (buffer_ != nullptr) account_.give(buffer_);
  buffer_ = nullptr;
}

void Output::dereference(Buffer* buffer) {
  if (--buffer->references != 0) return;
  if (buffer == buffer_) {
    buffer->end = 0;  // again from the front, which is in the cache
    return;
  }
  if (!buffer->shared) own_held_ = false;
  account_.give(buffer);
}

void Output::release_when_empty() {
  if (buffer_ == nullptr || buffer_->references != 0) return;
  if (!buffer_->shared) own_held_ = false;
  account_.give(buffer_);
  buffer_ = nullptr;
}

bool Output::next_buffer() {
  Buffer* fresh = own_held_ ? account_.take_shared() : account_.take_own();
  if (fresh == nullptr) return false;
  if (!fresh->shared) own_held_ = true;
  buffer_ = fresh;  // the old one, if any, is referenced: its last reference gives it back
  return true;
}

bool Output::reserve(uint32_t bytes, uint32_t lead, uint32_t alignment, Region* region) {
  assert(bytes <= kBufferBytes - alignment);
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (buffer_ != nullptr) {
      uint32_t at = ((buffer_->end + lead + alignment - 1) & ~(alignment - 1)) - lead;
      if (at + bytes <= kBufferBytes) {
        *region = {buffer_, buffer_->data + at, bytes};
        buffer_->end = at + bytes;
        buffer_->references++;
        return true;
      }
    }
    if (!next_buffer()) return false;
  }
  return false;
}

void Output::commit_part(const Region& region, uint32_t from, uint32_t bytes) {
  assert(from + bytes <= region.bytes && bytes != 0);
  pending_bytes_ += bytes;
  uint8_t* at = region.at + from;
  if (head_ != tail_) {
    Run& last = run(tail_ - 1);
    if (last.buffer == region.buffer && last.at + last.bytes == at) {
      last.bytes += bytes;
      return;
    }
  }
  assert(runs() < kRunsMax);
  run(tail_++) = {at, bytes, region.buffer};
  region.buffer->references++;
}

void Output::commit(const Region& region, uint32_t used) {
  // What was not needed goes back when nothing was reserved behind it.
  if (region.at + region.bytes == region.buffer->data + region.buffer->end) {
    region.buffer->end -= region.bytes - used;
  }
  commit_part(region, 0, used);
  dereference(region.buffer);
}

void Output::abandon(const Region& region) {
  if (region.at + region.bytes == region.buffer->data + region.buffer->end) region.buffer->end -= region.bytes;
  dereference(region.buffer);
}

void Output::sent(uint64_t bytes) {
  pending_bytes_ -= bytes;
  sent_bytes_ += bytes;
  while (bytes != 0) {
    Run& first = run(head_);
    if (bytes < first.bytes) {
      first.at += bytes;
      first.bytes -= static_cast<uint32_t>(bytes);
      return;
    }
    bytes -= first.bytes;
    head_++;
    dereference(first.buffer);
  }
}

/// Sends as many runs as fit in one call. Bytes, or -errno.
int64_t Output::send_runs(int fd) {
  iovec vectors[kSendRunsMax];
  uint32_t count = 0;
  for (; count < kSendRunsMax && count < runs(); ++count) {
    vectors[count] = {run(head_ + count).at, run(head_ + count).bytes};
  }
  msghdr message = {};
  message.msg_iov = vectors;
  message.msg_iovlen = count;
  const ssize_t n = count == 1 ? ::send(fd, vectors[0].iov_base, vectors[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
                               : sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n >= 0) return n;
  return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

int Output::send(int fd) {
  while (head_ != tail_) {
    const int64_t n = send_runs(fd);
    if (n == -EINTR) continue;
    if (n < 0) return static_cast<int>(n);
    sent(static_cast<uint64_t>(n));
  }
  return 0;
}

void Output::drop() {
  if (pending_bytes_ != 0) sent(pending_bytes_);
}

}  // namespace atoll_native::nbd
