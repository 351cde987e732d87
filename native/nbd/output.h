// What waits to be sent to a client: replies and data, in buffers of the pool, as a list of runs. Space is reserved
// before the data is read into it, so that a reply leaves with its header in one send and without a copy.
#pragma once
#include <sys/uio.h>

#include <array>
#include <cstdint>

#include "nbd/buffer_pool.h"

namespace atoll_native::nbd {

class Output {
 public:
  // Runs that may wait. A power of two.
  static constexpr uint32_t kRunsMax = 1024;
  // Runs given to the kernel at once.
  static constexpr uint32_t kSendRunsMax = 64;
  // No more than this is collected before it is sent: it is still in the second-level cache then.
  static constexpr uint32_t kSendBytes = 256u << 10;
  // And to a client that is alone on the reactor, less: it works on the first replies while we are at the next ones, on
  // a core of its own. With several clients the larger batches are worth more.
  static constexpr uint32_t kSendBytesAlone = 32u << 10;

  void serve_alone(bool alone) { send_bytes_ = alone ? kSendBytesAlone : kSendBytes; }
  uint32_t send_bytes() const { return send_bytes_; }

  /// Reserved space; holds a reference on its buffer until commit() or abandon().
  struct Region {
    Buffer* buffer = nullptr;
    uint8_t* at = nullptr;
    uint32_t bytes = 0;
  };

  explicit Output(BufferAccount& account) : account_(account) {}
  ~Output() { clear(); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  /// Space for `bytes` in one piece, its byte `lead` at a multiple of `alignment` (a power of two, 1: anywhere).
  /// False when there is no room until something was sent or given back.
  bool reserve(uint32_t bytes, uint32_t lead, uint32_t alignment, Region* region);
  /// Sends the first `used` bytes of the region, after all that was committed before.
  void commit(const Region& region, uint32_t used);
  /// Sends [from, from+bytes) of the region; the region stays reserved. For replies made of several runs.
  void commit_part(const Region& region, uint32_t from, uint32_t bytes);
  void abandon(const Region& region);
  /// After commit_part(): nothing more comes from the region.
  void release(const Region& region) { dereference(region.buffer); }

  /// Sends as much as the socket takes. 0 all sent, -EAGAIN the rest waits for EPOLLOUT, else -errno.
  int send(int fd);
  /// Drops all that waits: the client is gone. Reserved regions stay.
  void drop();

  uint64_t pending_bytes() const { return pending_bytes_; }
  uint64_t sent_bytes() const { return sent_bytes_; }  // ever
  uint32_t runs() const { return tail_ - head_; }
  uint32_t runs_free() const { return kRunsMax - runs(); }
  void release_when_empty();
  /// Gives all back; no region is reserved.
  void clear();

 private:
  uint32_t send_bytes_ = kSendBytes;
  struct Run {
    uint8_t* at;
    uint32_t bytes;
    Buffer* buffer;
  };

  bool next_buffer();
  int64_t send_runs(int fd);
  void dereference(Buffer* buffer);
  void sent(uint64_t bytes);
  Run& run(uint32_t index) { return runs_[index & (kRunsMax - 1)]; }

  BufferAccount& account_;
  Buffer* buffer_ = nullptr;  // where the next reservation goes
  bool own_held_ = false;
  uint32_t head_ = 0;
  uint32_t tail_ = 0;
  uint64_t pending_bytes_ = 0;
  uint64_t sent_bytes_ = 0;
  std::array<Run, kRunsMax> runs_;
};

}  // namespace atoll_native::nbd
