#include "nbd/transmission.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cassert>
#include <new>
#include <type_traits>

namespace atoll_native::nbd {

Transmission::Transmission(int fd, Input& input, Output& output, RequestSink& sink, Host& host, const Session& session,
                           std::vector<StatusContext> contexts)
    : fd_(fd),
      input_(input),
      output_(output),
      sink_(sink),
      host_(host),
      session_(session),
      contexts_(std::move(contexts)),
      records_(static_cast<Record*>(records_memory().take())) {
  static_assert(std::is_trivially_destructible_v<Record>);  // its pages just go
}

Transmission::~Transmission() { records_memory().give(records_); }

OwnPages& Transmission::records_memory() {
  // never destroyed: when the process exits, reactors may still close connections
  static OwnPages& memory = *new OwnPages(kRequestsInFlightMax * sizeof(Record));
  return memory;
}

void Transmission::run(bool readable) {
  running_ = true;
  wake_asked_ = false;
  output_blocked_ = false;
  turn_bytes_ = 0;
  turn_requests_ = 0;
  want_input_ = false;
  while (state_ != State::kDead) {
    uint64_t sent_before = output_.sent_bytes();
    Parsed parsed = parse();
    emit_held();
    flush();
    if (state_ == State::kDead) break;
    if (parsed == Parsed::kStalled) {
      if (output_.sent_bytes() != sent_before) continue;  // room came back
      // Something that will call again must be on its way, or memory is at its end.
      if (submitted_ == 0 && output_.pending_bytes() == 0) die();
      break;
    }
    if (parsed == Parsed::kTurnOver) {
      wake_asked_ = true;
      host_.wake();
      break;
    }
    if (parsed == Parsed::kEnded) break;
    want_input_ = true;
    if (!readable || !receive(&readable)) break;
  }
  if (state_ != State::kDead) {
    input_.release_when_empty();
    output_.release_when_empty();
  }
  running_ = false;
}

bool Transmission::poll() {
  if (!want_input_ || state_ == State::kDead) return false;
  bool more = true;
  if (!receive(&more)) {
    input_.release_when_empty();
    return state_ != State::kOpen;
  }
  run(more);
  return true;
}

/// True when bytes came. `*more`: the socket may have more of them.
bool Transmission::receive(bool* more) {
  bool drained = false;
  int got = input_.receive(fd_, phase(), &drained);
  *more = !drained;
  if (got > 0) return true;
  if (got == -EAGAIN) return false;
  want_input_ = false;
  if (got == -ENOBUFS && submitted_ != 0) return false;  // a pinned request's end makes room, and wakes us
  if (got == 0 && (feeding_ == nullptr || feeding_->type != kCmdWrite)) {
    state_ = State::kEnding;  // what is on its way is still answered: the client may only have stopped asking
  } else {
    die();
  }
  return false;
}

uint32_t Transmission::phase() const {
  if (feeding_ != nullptr && feeding_->type == kCmdWrite) return feeding_->next_offset & (kPageBytes - 1);
  // A request that comes alone has its payload at the start of a page.
  return kPageBytes - (session_.extended ? kExtendedRequestBytes : kRequestBytes);
}

uint32_t Transmission::events() const {
  if (state_ == State::kDead) return 0;
  return (want_input_ && state_ != State::kEnding ? uint32_t{EPOLLIN} : 0u) |
         (output_blocked_ ? uint32_t{EPOLLOUT} : 0u);
}

bool Transmission::finished() const {
  if (in_flight_ != 0) return false;
  return state_ == State::kDead || (state_ != State::kOpen && output_.pending_bytes() == 0);
}

void Transmission::shut_down() {
  if (state_ == State::kOpen) state_ = State::kShuttingDown;
}

void Transmission::die() {
  if (state_ == State::kDead) return;
  state_ = State::kDead;
  output_.drop();
  while (held_ != nullptr) {
    Record* record = held_;
    held_ = record->next;
    if (record->kind == Kind::kPiece) {
      piece_done(record);
    } else {
      release(record);
    }
  }
  die_large();
}

void Transmission::flush() {
  if (output_.pending_bytes() == 0 || output_blocked_ || state_ == State::kDead) return;
  int result = output_.send(fd_);
  output_blocked_ = result == -EAGAIN;
  if (result != 0 && !output_blocked_) die();
}

Transmission::Parsed Transmission::parse() {
  const uint32_t header_bytes = session_.extended ? kExtendedRequestBytes : kRequestBytes;
  for (;;) {
    if (output_.pending_bytes() >= output_.send_bytes()) {
      flush();
      emit_held();
    }
    if (state_ == State::kDead) return Parsed::kEnded;
    // Replies that found no room come before new requests; of a reply that is leaving in pieces only the rest does.
    if (streaming_ ? feeding_ == nullptr : held_ != nullptr) return Parsed::kStalled;
    Parsed parsed = Parsed::kGoOn;
    if (feeding_ != nullptr) {
      parsed = feed();
    } else if (skip_ != 0) {
      uint32_t bytes = static_cast<uint32_t>(std::min<uint64_t>(skip_, input_.size()));
      if (bytes != 0) input_.consume(bytes);
      skip_ -= bytes;
      if (skip_ != 0) parsed = Parsed::kNeedBytes;
    } else if (state_ == State::kEnding) {
      return Parsed::kEnded;
    } else if (turn_over()) {
      return Parsed::kTurnOver;
    } else if (input_.size() < header_bytes) {
      return Parsed::kNeedBytes;
    } else {
      const uint8_t* at = input_.data();
      if (load<uint32_t>(at) != (session_.extended ? kMagicExtendedRequest : kMagicRequest)) {
        state_ = State::kEnding;  // out of step: nothing that follows can be trusted
        return Parsed::kEnded;
      }
      Incoming in;
      in.flags = load<uint16_t>(at + 4);
      in.type = load<uint16_t>(at + 6);
      std::memcpy(&in.cookie, at + 8, sizeof(in.cookie));
      in.offset = load<uint64_t>(at + 16);
      in.length = session_.extended ? load<uint64_t>(at + 24) : load<uint32_t>(at + 24);
      parsed = begin(in, header_bytes);
    }
    if (parsed != Parsed::kGoOn) return parsed;
  }
}

Transmission::Parsed Transmission::begin(const Incoming& in, uint32_t header_bytes) {
  if (in.type == kCmdDisc || (has_payload(session_, in) && in.length > kPayloadMax)) {
    // A good bye; or a payload that is too much even to skip: the protocol allows to hang up.
    state_ = State::kEnding;
    return Parsed::kEnded;
  }
  if (output_.pending_bytes() >= kOutputPendingMax) return Parsed::kStalled;
  int error = state_ == State::kShuttingDown ? ESHUTDOWN : validate(session_, in);
  if (error != 0) return refuse(in, header_bytes, error);
  if (in_flight_ == kRequestsInFlightMax) return Parsed::kStalled;
  switch (in.type) {
    case kCmdRead:
      return begin_read(in, header_bytes);
    case kCmdWrite:
      return begin_write(in, header_bytes);
    case kCmdBlockStatus:
      return begin_status(in, header_bytes);
    default:
      return begin_plain(in, header_bytes);
  }
}

Transmission::Parsed Transmission::refuse(const Incoming& in, uint32_t header_bytes, int error) {
  Output::Region region;
  if (output_.runs_free() == 0 || !output_.reserve(kSmallReplyBytesMax, 0, 1, &region)) return Parsed::kStalled;
  uint8_t* end = put_result(region.at, session_, in.cookie, in.offset, error);
  output_.commit(region, static_cast<uint32_t>(end - region.at));
  input_.consume(header_bytes);
  if (has_payload(session_, in)) skip_ = in.length;
  turn_requests_++;
  return Parsed::kGoOn;
}

Transmission::Record* Transmission::take(const Incoming& in, Kind kind) {
  Record* record = free_;
  if (record != nullptr) {
    free_ = record->next;
  } else {
    assert(records_used_ < kRequestsInFlightMax);
    record = new (&records_[records_used_++]) Record;
  }
  in_flight_++;
  record->owner = this;
  record->kind = kind;
  record->fed = false;
  record->complete = false;
  record->type = in.type;
  record->flags = in.flags;
  record->error = 0;
  record->cookie = in.cookie;
  record->offset = in.offset;
  record->length = in.length;
  record->next_offset = in.offset;
  record->outstanding = 0;
  record->context = 0;
  record->used = 0;
  record->pinned = nullptr;
  record->region = {};
  record->large = nullptr;
  record->next = nullptr;
  return record;
}

void Transmission::give(Record* record) {
  in_flight_--;
  record->next = free_;
  free_ = record;
}

void Transmission::submit(Record* record, Op op, uint64_t offset, uint64_t length, uint8_t* buffer) {
  uint16_t flags = 0;
  if (op != Op::kRead && op != Op::kFlush && op != Op::kCache) {
    if ((record->flags & kCmdFlagFua) != 0) flags |= kFua;
    if ((record->flags & kCmdFlagNoHole) != 0) flags |= kNoHole;
    if ((record->flags & kCmdFlagFastZero) != 0) flags |= kFastZero;
    if ((record->flags & kCmdFlagReqOne) != 0) flags |= kReqOne;
  }
  Extent* extents = record->request.extents;
  uint32_t extent_max = record->request.extent_max;
  record->request = Request{.op = op,
                            .flags = flags,
                            .volume = session_.volume,
                            .offset = offset,
                            .length = length,
                            .buffer = buffer,
                            .done = &Transmission::done,
                            .owner = record};
  if (op == Op::kStatus) {
    record->request.extents = extents;
    record->request.extent_max = extent_max;
    record->request.context = contexts_[record->context].handle;
  }
  submitted_++;
  sink_.submit(&record->request);
}

Transmission::Parsed Transmission::begin_read(const Incoming& in, uint32_t header_bytes) {
  if (in.length > kPieceBytes) {
    Record* large = take(in, Kind::kLarge);
    if (gathers(*large) && gathering_ != nullptr) {  // one at a time: its memory is what the limits are made for
      give(large);
      return Parsed::kStalled;
    }
    input_.consume(header_bytes);
    begin_large(large);
    return Parsed::kGoOn;
  }
  uint32_t length = static_cast<uint32_t>(in.length);
  uint32_t lead = data_header_bytes(session_);
  Output::Region region;
  if (!output_.reserve(lead + length, lead, length >= kAlignedReadMin ? kPageBytes : 1, &region))
    return Parsed::kStalled;
  input_.consume(header_bytes);
  Record* record = take(in, Kind::kSingle);
  record->region = region;
  turn_requests_++;
  turn_bytes_ += length;
  submit(record, Op::kRead, in.offset, length, region.at + lead);
  return Parsed::kGoOn;
}

Transmission::Parsed Transmission::begin_write(const Incoming& in, uint32_t header_bytes) {
  uint32_t length = static_cast<uint32_t>(in.length);
  if (input_.size() - header_bytes < length) {
    if (length <= kWholeWriteMax) return Parsed::kNeedBytes;
    input_.consume(header_bytes);
    begin_large(take(in, Kind::kLarge));
    return Parsed::kGoOn;
  }
  Record* record = take(in, Kind::kSingle);
  uint8_t* payload = input_.data() + header_bytes;
  record->pinned = input_.pin();
  input_.consume(header_bytes + length);
  turn_requests_++;
  turn_bytes_ += length;
  submit(record, Op::kWrite, in.offset, length, payload);
  return Parsed::kGoOn;
}

Transmission::Parsed Transmission::begin_plain(const Incoming& in, uint32_t header_bytes) {
  static constexpr Op kOps[] = {Op::kRead, Op::kWrite, Op::kRead, Op::kFlush, Op::kTrim, Op::kCache, Op::kWriteZeroes};
  static_assert(sizeof(kOps) / sizeof(kOps[0]) == kCmdWriteZeroes + 1);
  input_.consume(header_bytes);
  Record* record = take(in, Kind::kSingle);
  turn_requests_++;
  submit(record, kOps[in.type], in.offset, in.length, nullptr);
  return Parsed::kGoOn;
}

Transmission::Parsed Transmission::begin_status(const Incoming& in, uint32_t header_bytes) {
  const bool one = (in.flags & kCmdFlagReqOne) != 0;
  const uint32_t contexts = static_cast<uint32_t>(contexts_.size());
  const uint32_t extents = one ? 1 : kStatusExtentsMax / contexts;
  // Every context's extents are read behind the reply so far and turned into reply in place.
  const uint32_t bytes = contexts * (kExtendedChunkHeaderBytes + kStatusExtHeaderBytes + alignof(Extent) +
                                     extents * static_cast<uint32_t>(sizeof(Extent)));
  Output::Region region;
  if (!output_.reserve(bytes, 0, alignof(Extent), &region)) return Parsed::kStalled;
  input_.consume(header_bytes);
  Record* record = take(in, Kind::kSingle);
  record->region = region;
  record->request.extent_max = extents;
  turn_requests_++;
  ask_status(record);
  return Parsed::kGoOn;
}

}  // namespace atoll_native::nbd
