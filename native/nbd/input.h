// What came in from a client and was not used yet: one contiguous run of bytes in a buffer.
#pragma once
#include <cstdint>

#include "nbd/buffer_pool.h"

namespace atoll_native::nbd {

class Input {
 public:
  // Asked of the socket at once; more would push what was just received out of the second-level cache.
  static constexpr uint32_t kReceiveBytesMax = 256u << 10;
  // Less room than this behind the bytes that are in use, and the rest moves to another buffer.
  static constexpr uint32_t kRoomBytesMin = 64u << 10;

  explicit Input(BufferAccount& account) : account_(account) {}
  ~Input() { clear(); }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  const uint8_t* data() const { return buffer_ == nullptr ? nullptr : buffer_->data + buffer_->begin; }
  uint8_t* data() { return buffer_ == nullptr ? nullptr : buffer_->data + buffer_->begin; }
  uint32_t size() const { return buffer_ == nullptr ? 0 : buffer_->end - buffer_->begin; }
  void consume(uint32_t bytes) { buffer_->begin += bytes; }

  /// Receives what there is, without waiting. Bytes; 0 at the end of the stream; -EAGAIN nothing there; -ENOBUFS no
  /// room until a pinned request is done; else -errno. `*drained`: the socket had no more.
  /// @param phase where in a page the next byte should lie, so that large payloads are aligned as their place on disk
  /// is
  int receive(int fd, uint32_t phase, bool* drained);

  /// The current bytes stay where they are until unpin().
  Buffer* pin() {
    buffer_->references++;
    return buffer_;
  }
  void unpin(Buffer* buffer);
  /// Gives the buffer back when nothing is in it: an idle connection holds none.
  void release_when_empty();
  /// Gives all back; nothing is pinned.
  void clear();

 private:
  bool make_room(uint32_t phase);

  BufferAccount& account_;
  Buffer* buffer_ = nullptr;
  bool own_held_ = false;
};

}  // namespace atoll_native::nbd
