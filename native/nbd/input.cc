#include "nbd/input.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace atoll_native::nbd {

void Input::clear() {
  if (buffer_ != nullptr) account_.give(buffer_);
  buffer_ = nullptr;
}

void Input::unpin(Buffer* buffer) {
  if (--buffer->references != 0 || buffer == buffer_) return;
  if (!buffer->shared) own_held_ = false;
  account_.give(buffer);
}

void Input::release_when_empty() {
  if (buffer_ == nullptr || buffer_->begin != buffer_->end || buffer_->references != 0) return;
  if (!buffer_->shared) own_held_ = false;
  account_.give(buffer_);
  buffer_ = nullptr;
}

bool Input::make_room(uint32_t phase) {
  if (buffer_ != nullptr && buffer_->references == 0) {
    // Nobody else looks at it: what is left moves to the front, where the cache is warm. It is less than a piece and
    // mostly nothing.
    uint32_t left = buffer_->end - buffer_->begin;
    if (buffer_->begin != phase && left != 0) std::memmove(buffer_->data + phase, buffer_->data + buffer_->begin, left);
    buffer_->begin = phase;
    buffer_->end = phase + left;
    return buffer_->end < kBufferBytes;
  }
  if (buffer_ != nullptr && kBufferBytes - buffer_->end >= kRoomBytesMin) return true;
  Buffer* fresh = own_held_ ? account_.take_shared() : account_.take_own();
  if (fresh == nullptr) return buffer_ != nullptr && buffer_->end < kBufferBytes;
  if (!fresh->shared) own_held_ = true;
  fresh->begin = fresh->end = phase;
  if (buffer_ != nullptr) {  // pinned: its last unpin() gives it back
    uint32_t left = buffer_->end - buffer_->begin;
    std::memcpy(fresh->data + phase, buffer_->data + buffer_->begin, left);
    fresh->end += left;
    buffer_->end = buffer_->begin;
  }
  buffer_ = fresh;
  return true;
}

int Input::receive(int fd, uint32_t phase, bool* drained) {
  if (!make_room(phase)) return -ENOBUFS;
  uint32_t room = std::min(kBufferBytes - buffer_->end, kReceiveBytesMax);
  ssize_t got = recv(fd, buffer_->data + buffer_->end, room, MSG_DONTWAIT);
  if (got < 0) {
    *drained = true;
    return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
  }
  *drained = static_cast<uint32_t>(got) < room;
  buffer_->end += static_cast<uint32_t>(got);
  return static_cast<int>(got);
}

}  // namespace atoll_native::nbd
