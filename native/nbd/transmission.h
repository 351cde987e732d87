// The transmission phase of one connection: requests in, replies out. The hot path of the frontend.
//
// One call of run() receives what there is, checks and submits every complete request in it, and sends the replies of
// all that finished meanwhile with one call. Nothing is allocated and no lock is taken per request: a Record from a
// fixed table carries each one, its payload lies in the input buffer (pinned while the request is on its way), its data
// is read into the output buffer right behind its header.
//
// Requests larger than a piece are served in pieces (`large.cc`): writes while they arrive, cut at block borders; reads
// as several chunks, or, where the protocol wants one run of bytes, gathered first so that an error can still be told.
//
// Backpressure: without a free Record, room for a reply, or with much that the client has not taken, nothing more is
// parsed or received until replies drain.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "io/own_pages.h"
#include "nbd/input.h"
#include "nbd/output.h"
#include "nbd/reply.h"
#include "nbd/validate.h"
#include "volume/request.h"

namespace atoll_native::nbd {

/// A metadata context the client selected.
struct StatusContext {
  uint32_t id;      // the client's name for it
  uint32_t handle;  // Request::context
};

class Transmission final {
 public:
  // Requests (and pieces of large ones) on their way. Twice what any client known keeps in flight.
  static constexpr uint32_t kRequestsInFlightMax = 256;
  // Bytes the client did not take yet, beyond which no request is begun.
  static constexpr uint64_t kOutputPendingMax = 1u << 20;
  // Bytes moved and requests served in one turn before the reactor's other connections have theirs.
  static constexpr uint64_t kTurnBytesMax = 4u << 20;
  static constexpr uint32_t kTurnRequestsMax = 1024;
  // A write up to this size is waited for; a larger one is served while it arrives, in pieces of at least this size.
  static constexpr uint32_t kWholeWriteMax = 64u << 10;
  // A read at least this large is looked through for zeroes when holes can be told: sending costs more than looking.
  static constexpr uint32_t kHoleReadMin = 32u << 10;
  // Reads at least this large lie in memory as on disk, for pools with O_DIRECT and for faster copies.
  static constexpr uint32_t kAlignedReadMin = 16u << 10;
  static constexpr uint32_t kPageBytes = 4096;
  // Extents of one answer, all contexts together.
  static constexpr uint32_t kStatusExtentsMax = 4096;
  static constexpr uint32_t kContextsMax = 8;

  class Host {
   public:
    virtual ~Host() = default;
    /// Call run() once this turn of the reactor has brought all its completions; when dead(): nothing is on its way any
    /// more.
    virtual void wake() = 0;
  };

  Transmission(int fd, Input& input, Output& output, RequestSink& sink, Host& host, const Session& session,
               std::vector<StatusContext> contexts);
  ~Transmission();
  Transmission(const Transmission&) = delete;
  Transmission& operator=(const Transmission&) = delete;

  /// Does all that can be done now. `readable`: the socket may have bytes.
  void run(bool readable);
  /// Busy poll: true when something came.
  bool poll();

  /// The EPOLL* events to wait for.
  uint32_t events() const;
  /// Nothing is on its way and nothing will come: close and forget.
  bool finished() const;
  bool dead() const { return state_ == State::kDead; }
  /// Still takes bytes from the socket, or will once there is room.
  bool open() const { return state_ == State::kOpen; }
  bool reading() const { return want_input_; }
  /// Requests from now on get ESHUTDOWN; those on their way are answered; then it is finished.
  void shut_down();
  /// The socket is of no use any more. Requests on their way end by themselves.
  void die();

  uint32_t in_flight() const { return in_flight_; }
  const Session& session() const { return session_; }

 private:
  enum class State : uint8_t { kOpen, kShuttingDown, kEnding, kDead };
  /// Why no more is parsed: bytes are missing; room or a Record is; this turn did its share; nothing more will come.
  enum class Parsed : uint8_t { kGoOn, kNeedBytes, kStalled, kTurnOver, kEnded };
  enum class Kind : uint8_t { kSingle, kLarge, kPiece };

  struct Record {
    Request request;
    Transmission* owner;
    Kind kind;
    bool fed;        // large: the last piece was submitted
    bool complete;   // piece of a gathered read: its data is there
    uint16_t type;   // kCmd*
    uint16_t flags;  // kCmdFlag*
    int error;       // large: the first piece's that failed
    uint64_t cookie;
    uint64_t offset;  // as asked
    uint64_t length;
    uint64_t next_offset;   // large: of the next piece; remaining = offset + length - next_offset
    uint32_t outstanding;   // large: pieces not answered
    uint32_t context;       // status: index of the context being asked
    uint32_t used;          // status: bytes of the region that are reply
    Buffer* pinned;         // write: where the payload is
    Output::Region region;  // read, status: where the reply is
    Record* large;          // piece: whose
    Record* next;           // free, held, or next piece of a gathered read
  };

  static OwnPages& records_memory();
  static void done(Request* request);

  // transmission.cc: the way in
  Parsed parse();
  Parsed begin(const Incoming& in, uint32_t header_bytes);
  Parsed refuse(const Incoming& in, uint32_t header_bytes, int error);
  Parsed begin_read(const Incoming& in, uint32_t header_bytes);
  Parsed begin_write(const Incoming& in, uint32_t header_bytes);
  Parsed begin_plain(const Incoming& in, uint32_t header_bytes);
  Parsed begin_status(const Incoming& in, uint32_t header_bytes);
  Record* take(const Incoming& in, Kind kind);
  void give(Record* record);
  void submit(Record* record, Op op, uint64_t offset, uint64_t length, uint8_t* buffer);
  bool receive(bool* more);
  void flush();
  uint32_t phase() const;
  bool turn_over() const { return turn_bytes_ >= kTurnBytesMax || turn_requests_ >= kTurnRequestsMax; }

  // completion.cc: the way out
  void complete(Record* record);
  void deliver(Record* record);
  bool emit(Record* record);
  void emit_data(Record* record, uint64_t at, uint32_t bytes, uint16_t done_flag);
  bool emit_with_holes(Record* record, uint64_t at, uint32_t bytes, uint16_t done_flag);
  void emit_held();
  void ask_status(Record* record);
  bool status_answered(Record* record);
  void release(Record* record);

  // large.cc: requests in pieces
  void begin_large(Record* large);
  Parsed feed();
  Parsed feed_write(Record* large);
  Parsed feed_read(Record* large);
  Parsed feed_gathered(Record* large);
  void submit_piece(Record* large, Record* piece, Op op, uint32_t bytes, uint8_t* buffer);
  void emit_gathered();
  void end_gathered(int error);
  void piece_done(Record* piece);
  bool emit_read_piece(Record* piece);
  void large_answered(Record* large);
  void die_large();
  bool gathers(const Record& large) const {
    return large.type == kCmdRead && (!session_.structured || (large.flags & kCmdFlagDf) != 0);
  }

  const int fd_;
  Input& input_;
  Output& output_;
  RequestSink& sink_;
  Host& host_;
  const Session session_;
  const std::vector<StatusContext> contexts_;

  State state_ = State::kOpen;
  bool running_ = false;
  bool wake_asked_ = false;
  bool want_input_ = true;
  bool output_blocked_ = false;
  uint32_t in_flight_ = 0;  // records in use
  uint32_t submitted_ = 0;  // requests in the sink
  uint64_t skip_ = 0;       // payload bytes of a refused request that are still to come
  uint64_t turn_bytes_ = 0;
  uint32_t turn_requests_ = 0;

  Record* feeding_ = nullptr;    // the large request whose pieces are being submitted; parsing waits for it
  Record* gathering_ = nullptr;  // the large read whose pieces are kept until they can leave as one run of bytes
  Record* gathered_ = nullptr;   // its pieces that did not leave yet, in order
  Record* gathered_last_ = nullptr;
  bool streaming_ = false;  // its header has left: nothing else may be sent before its end

  Record* held_ = nullptr;  // finished, but there was no room for the reply; in order
  Record* held_last_ = nullptr;
  Record* free_ = nullptr;
  uint32_t records_used_ = 0;  // records below this were used once; those from here on are not constructed
  Record* const records_;
};

}  // namespace atoll_native::nbd
