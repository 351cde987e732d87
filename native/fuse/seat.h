// A mount's part on one reactor: takes requests from the kernel, serves those for data, and gives the rest to libfuse,
// whose callbacks (names.cc) ask the control side.
//
// Reads and writes do not pass through libfuse: its request would be an allocation and a lock on a way that has
// neither. They are parsed where they lie, go to the volume peer, and are answered from the same buffer:
//   receive -> drive -> VolumePeer::submit -> done -> reply
// A request that has to wait for the control side (a write beyond the end, a copy that is not whole) is driven again
// when it has answered.
//
// One seat of a mount, its host, takes requests always. The others would be woken by requests that the host, polling,
// has taken already, and have a core from whoever waits for the answer. They take part while the host is never done.
//
// Everything runs on the reactor's thread.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "fuse/libfuse.h"
#include "fuse/open_file.h"
#include "fuse/reply_pipe.h"
#include "reactor/reactor.h"
#include "volume/request.h"

struct fuse_in_header;

namespace atoll_native::fuse {

class Mount;
class Seat;

/// A request of the kernel for data, with the buffer that it came in and is answered from.
struct Call {
  // Largest read or write. The kernel could put 1 MiB into one request; an answer that long finds no pipe to go
  // through.
  static constexpr uint32_t kDataBytesMax = 512u << 10;
  // In front of the data: the request's headers end where it begins, so that it is aligned for O_DIRECT.
  static constexpr uint32_t kHeadBytes = 4096;
  // Extents of one look for data or a hole.
  static constexpr uint32_t kExtentsMax = 128;
  // Whoever makes the file shorter at the same time may be faster so often; then there is no room.
  static constexpr uint8_t kAsksMax = 16;

  enum class Kind : uint8_t { kRead, kWrite, kSync, kZero, kSeek };

  uint8_t* data() { return buffer + kHeadBytes; }

  Request request{.op = Op::kRead};
  Seat* seat = nullptr;
  Call* next = nullptr;
  uint8_t* buffer = nullptr;
  std::shared_ptr<OpenNode> node;  // while it is on its way
  uint64_t unique = 0;             // read, write: the kernel's name for the request
  fuse_req_t libfuse = nullptr;    // the others
  Kind kind = Kind::kRead;
  bool cached = false;  // a write of the page cache: it does not make the file longer
  uint8_t asks = 0;     // for the size that it needs, and writes that found it gone again
  bool grows = false;   // zeroing makes the file longer
  int whence = 0;       // seek
  uint64_t offset = 0;
  uint64_t length = 0;
  Extent extents[kExtentsMax];
};

class Seat final : public EventHandler {
 public:
  // Requests taken before others on the reactor have their turn.
  static constexpr uint32_t kBatch = 16;
  // Requests for data on their way; the kernel keeps what is beyond. Each may hold a buffer of 512 KiB.
  static constexpr uint32_t kCallsMax = 256;
  // The host found something whenever it looked for so long: the others take part.
  static constexpr uint64_t kBusyNs = 1'000'000;
  // A program that asks for more than a request holds is answered by several cores, if requests are as large as this.
  static constexpr uint32_t kLargeBytes = 128u << 10;
  // A seat that takes part and found nothing for so long leaves.
  static constexpr uint64_t kVainNs = 1'000'000;
  // Buffers beyond these give their memory back when they are free.
  static constexpr uint32_t kWarmCalls = 16;

  Seat(Mount& mount, Reactor& reactor, RequestSink& sink, bool host)
      : mount_(mount), reactor_(reactor), sink_(sink), host_(host) {}
  ~Seat() override;
  Seat(const Seat&) = delete;
  Seat& operator=(const Seat&) = delete;

  int start(int fd);
  /// Any thread.
  bool takes_part() const { return takes_; }
  /// Takes requests until there are none for it.
  void take_part();
  /// No more requests are taken. Those that were are answered.
  void stop();
  /// The descriptor is about to be closed: what is not answered yet is not any more.
  void forget();
  /// Nothing is on its way to the volume peer.
  bool quiet() const { return calls_out_ == 0; }

  void on_events(uint32_t events) override;
  bool poll() override;

  /// The seat whose request libfuse dispatches now, on this thread.
  static Seat* current();
  Reactor& reactor() { return reactor_; }

  // ---- from libfuse's callbacks
  void sync(fuse_req_t req, OpenFile* file);
  void zero(fuse_req_t req, OpenFile* file, int mode, uint64_t offset, uint64_t length);
  void seek(fuse_req_t req, OpenFile* file, uint64_t offset, int whence);
  /// Goes on with a call that waited for the control side.
  void answered(Call* call, int error);

 private:
  int watch();
  void unwatch();
  bool receive_batch();
  bool receive();
  Call* take();
  void give(Call* call);
  bool begin_read(Call* call);
  bool begin_write(Call* call);
  void begin(Call* call, Call::Kind kind, fuse_req_t req, OpenFile* file);
  void drive(Call* call);
  void submit(Call* call, Op op, uint32_t volume, uint64_t offset, uint64_t length);
  static void done(Request* request);
  void ended(Call* call);
  bool sought(Call* call);
  void fail(Call* call, int error);
  void refuse(uint64_t unique, int error);
  void reply_error(Call* call, int error);
  void finish(Call* call, const void* data, uint32_t bytes);
  bool finish_lent(Call* call, uint32_t volume, uint64_t bytes);
  uint64_t size_of(uint32_t handle) const;

  Mount& mount_;
  Reactor& reactor_;
  RequestSink& sink_;
  const bool host_;
  int fd_ = -1;
  bool stopped_ = false;
  std::atomic<bool> takes_ = false;  // requests
  bool watching_ = false;            // it does, and has room for one
  uint64_t empty_ns_ = 0;            // host: when it last found nothing
  uint32_t large_ = 0;               // found since it began to look
  uint64_t found_ns_ = 0;            // others: when they last found something
  std::vector<std::unique_ptr<Call>> all_;
  Call* free_ = nullptr;
  Call* spare_ = nullptr;  // the one that the next request is read into
  uint32_t free_count_ = 0;
  uint32_t calls_out_ = 0;
  ReplyPipe pipe_;
};

}  // namespace atoll_native::fuse
