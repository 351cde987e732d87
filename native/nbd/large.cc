// Requests larger than a piece, or larger than what has come of them. No memory of their size is ever needed.
//
// A write is served while it arrives, cut at block borders so that no block is written twice. A read with structured
// replies becomes one chunk per piece. A read whose data must leave as one run (simple replies, DF) is gathered: its
// pieces wait in buffers until the last is there, so that an error can still be told. Where the limits on memory do not
// allow that, DF gets EOVERFLOW, which the protocol has for it; a simple reply begins to leave, and an error behind
// that ends the connection.
#include <algorithm>
#include <cassert>

#include "nbd/transmission.h"

namespace atoll_native::nbd {

void Transmission::begin_large(Record* large) {
  feeding_ = large;
  if (gathers(*large)) gathering_ = large;
}

/// Submits pieces of the large request in turn; kGoOn when the last was submitted.
Transmission::Parsed Transmission::feed() {
  Record* large = feeding_;
  while (feeding_ == large) {
    if (turn_over()) return Parsed::kTurnOver;
    if (output_.pending_bytes() >= Output::kSendBytes) {
      flush();
      emit_held();
      if (state_ == State::kDead) return Parsed::kEnded;
      if (output_.pending_bytes() >= kOutputPendingMax) return Parsed::kStalled;
    }
    Parsed parsed = large->type == kCmdWrite ? feed_write(large)
                    : gathers(*large)        ? feed_gathered(large)
                                             : feed_read(large);
    if (parsed != Parsed::kGoOn) return parsed;
  }
  return Parsed::kGoOn;
}

void Transmission::submit_piece(Record* large, Record* piece, Op op, uint32_t bytes, uint8_t* buffer) {
  piece->large = large;
  piece->next_offset = large->next_offset;
  piece->length = bytes;
  large->outstanding++;
  large->next_offset += bytes;
  if (large->next_offset == large->offset + large->length) {
    large->fed = true;  // before submitting: the last piece may be answered in there
    feeding_ = nullptr;
  }
  turn_requests_++;
  turn_bytes_ += bytes;
  submit(piece, op, piece->next_offset, bytes, buffer);
}

Transmission::Parsed Transmission::feed_write(Record* large) {
  const uint64_t left = large->offset + large->length - large->next_offset;
  if (large->error != 0) {  // the rest would be written for nothing
    skip_ = left;
    large->fed = true;
    feeding_ = nullptr;
    if (large->outstanding == 0) large_answered(large);
    return Parsed::kGoOn;
  }
  uint64_t bytes = std::min<uint64_t>(input_.size(), left);
  if (bytes < left) {
    const uint64_t border = std::clamp(session_.block_size, kPageBytes, kPieceBytes);
    const uint64_t end = (large->next_offset + bytes) & ~(border - 1);
    if (end < large->next_offset + kWholeWriteMax) return Parsed::kNeedBytes;
    bytes = end - large->next_offset;
  }
  if (in_flight_ == kRequestsInFlightMax) return Parsed::kStalled;
  Record* piece = take({large->flags, large->type, large->cookie, large->offset, large->length}, Kind::kPiece);
  piece->flags &= ~kCmdFlagFua;  // one flush after the last piece instead of a sync for each
  piece->pinned = input_.pin();
  uint8_t* payload = input_.data();
  input_.consume(static_cast<uint32_t>(bytes));
  submit_piece(large, piece, Op::kWrite, static_cast<uint32_t>(bytes), payload);
  return Parsed::kGoOn;
}

Transmission::Parsed Transmission::feed_read(Record* large) {
  const uint64_t left = large->offset + large->length - large->next_offset;
  const uint32_t bytes =
      static_cast<uint32_t>(std::min<uint64_t>(left, kPieceBytes - large->next_offset % kPieceBytes));
  const uint32_t lead = data_header_bytes(session_);
  // The piece may become an error, which can be longer than a few bytes.
  const uint32_t room = std::max(lead + bytes, kSmallReplyBytesMax);
  Output::Region region;
  if (in_flight_ == kRequestsInFlightMax || !output_.reserve(room, lead, kPageBytes, &region)) return Parsed::kStalled;
  Record* piece = take({large->flags, large->type, large->cookie, large->offset, large->length}, Kind::kPiece);
  piece->region = region;
  submit_piece(large, piece, Op::kRead, bytes, region.at + lead);
  return Parsed::kGoOn;
}

Transmission::Parsed Transmission::feed_gathered(Record* large) {
  const uint64_t left = large->offset + large->length - large->next_offset;
  const uint32_t bytes =
      static_cast<uint32_t>(std::min<uint64_t>(left, kPieceBytes - large->next_offset % kPieceBytes));
  const uint32_t lead = large->next_offset == large->offset ? data_header_bytes(session_) : 0;
  Output::Region region;
  if (in_flight_ == kRequestsInFlightMax || !output_.reserve(lead + bytes, lead, kPageBytes, &region)) {
    if (submitted_ != 0 || output_.pending_bytes() != 0) return Parsed::kStalled;
    // Nothing will give room back but this request itself; replies may even be held for want of what it holds.
    if (gathered_ == nullptr) return Parsed::kStalled;
    if (session_.structured) {
      end_gathered(EOVERFLOW);
      return Parsed::kGoOn;
    }
    streaming_ = true;
    emit_gathered();
    return Parsed::kStalled;
  }
  Record* piece = take({large->flags, large->type, large->cookie, large->offset, large->length}, Kind::kPiece);
  piece->region = region;
  if (gathered_ == nullptr) {
    gathered_ = piece;
  } else {
    gathered_last_->next = piece;
  }
  gathered_last_ = piece;
  submit_piece(large, piece, Op::kRead, bytes, region.at + lead);
  return Parsed::kGoOn;
}

void Transmission::piece_done(Record* piece) {
  Record* large = piece->large;
  const int error = piece->request.error;
  if (state_ == State::kDead) {
    release(piece);
    if (--large->outstanding == 0 && large->fed) give(large);
    return;
  }
  if (large->error == 0) large->error = error;
  if (large->type == kCmdWrite) {
    give(piece);
    if (--large->outstanding == 0 && large->fed) large_answered(large);
  } else if (gathers(*large)) {
    piece->complete = true;
    large->outstanding--;
    emit_gathered();
  } else {
    deliver(piece);
  }
}

/// One chunk of a large read. The last to leave says that it is the last.
bool Transmission::emit_read_piece(Record* piece) {
  Record* large = piece->large;
  const uint16_t done_flag = large->fed && large->outstanding == 1 ? kReplyFlagDone : 0;
  if (piece->request.error == 0) {
    emit_data(piece, piece->next_offset, static_cast<uint32_t>(piece->length), done_flag);
  } else {
    uint8_t* end = put_error_at(piece->region.at, session_, done_flag, piece->cookie, piece->offset, piece->next_offset,
                                piece->request.error);
    output_.commit(piece->region, static_cast<uint32_t>(end - piece->region.at));
  }
  give(piece);
  if (--large->outstanding == 0 && large->fed) give(large);
  return true;
}

/// All pieces of a write were answered.
void Transmission::large_answered(Record* large) {
  large->kind = Kind::kSingle;
  large->request.error = 0;
  if (large->error == 0 && (large->flags & kCmdFlagFua) != 0) {
    submit(large, Op::kFlush, 0, 0, nullptr);
  } else {
    deliver(large);
  }
}

/// Sends what can be sent of the gathered read.
void Transmission::emit_gathered() {
  Record* large = gathering_;
  if (!streaming_) {
    if (!large->fed || large->outstanding != 0) return;
    if (large->error != 0) {
      end_gathered(large->error);
      return;
    }
    streaming_ = true;
  }
  while (gathered_ != nullptr && gathered_->complete && output_.runs_free() != 0) {
    Record* piece = gathered_;
    if (piece->request.error != 0) {
      die();  // the header promised data that is not there
      return;
    }
    uint32_t lead = 0;
    if (piece->next_offset == large->offset) {
      lead = data_header_bytes(session_);
      put_data_header(piece->region.at, session_, kReplyFlagDone, large->cookie, large->offset, large->offset,
                      static_cast<uint32_t>(large->length));
    }
    output_.commit(piece->region, lead + static_cast<uint32_t>(piece->length));
    gathered_ = piece->next;
    give(piece);
  }
  if (gathered_ != nullptr || !large->fed) return;
  streaming_ = false;
  gathering_ = nullptr;
  give(large);
}

/// The gathered read fails as a whole: nothing of it has left, and none of its pieces is on its way.
void Transmission::end_gathered(int error) {
  Record* large = gathering_;
  assert(!streaming_ && large->outstanding == 0);
  while (gathered_ != nullptr) {
    Record* piece = gathered_;
    gathered_ = piece->next;
    release(piece);
  }
  gathering_ = nullptr;
  if (feeding_ == large) feeding_ = nullptr;
  large->kind = Kind::kSingle;
  large->error = error;
  deliver(large);
}

/// What die() has to do for large requests. Pieces in the sink end through piece_done().
void Transmission::die_large() {
  Record* large = gathering_;
  gathering_ = nullptr;
  streaming_ = false;
  for (Record* piece = gathered_; piece != nullptr;) {
    Record* next = piece->next;
    if (piece->complete) release(piece);  // not counted as outstanding any more
    piece = next;
  }
  gathered_ = gathered_last_ = nullptr;
  const bool feeding = feeding_ != nullptr && feeding_ != large;
  Record* ends[] = {large, feeding ? feeding_ : nullptr};
  feeding_ = nullptr;
  for (Record* record : ends) {
    if (record == nullptr) continue;
    record->fed = true;
    if (record->outstanding == 0) give(record);
  }
}

}  // namespace atoll_native::nbd
