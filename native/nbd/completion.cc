// The way out of a request: what the sink answered becomes a reply.
#include <algorithm>
#include <cassert>

#include "io/zero.h"
#include "nbd/transmission.h"

namespace atoll_native::nbd {

void Transmission::done(Request* request) {
  Record* record = static_cast<Record*>(request->owner);
  record->owner->complete(record);
}

void Transmission::complete(Record* record) {
  submitted_--;
  if (record->pinned != nullptr) {
    input_.unpin(record->pinned);
    record->pinned = nullptr;
  }
  if (record->kind == Kind::kPiece) {
    piece_done(record);
  } else if (state_ == State::kDead) {
    release(record);
  } else if (record->type != kCmdBlockStatus || status_answered(record)) {
    deliver(record);
  }
  if (running_) return;
  if (state_ == State::kDead) {
    if (in_flight_ == 0) host_.wake();  // the last one: it can be forgotten
  } else if (!wake_asked_) {
    wake_asked_ = true;
    host_.wake();
  }
}

/// Emits the reply now, or when there is room.
void Transmission::deliver(Record* record) {
  const bool has_room = record->region.buffer != nullptr;
  if (!streaming_ && (held_ == nullptr || has_room) && emit(record)) return;
  record->next = nullptr;
  if (held_ == nullptr) {
    held_ = record;
  } else {
    held_last_->next = record;
  }
  held_last_ = record;
}

void Transmission::emit_held() {
  if (gathering_ != nullptr && state_ != State::kDead) emit_gathered();
  // Those that have room already pass those that wait for some: what they give back may be what is waited for.
  Record** link = &held_;
  Record* kept = nullptr;
  bool room = true;
  while (*link != nullptr && !streaming_ && output_.runs_free() != 0) {
    Record* record = *link;
    Record* next = record->next;
    const bool has_room = record->region.buffer != nullptr;
    if ((room || has_room) && emit(record)) {
      *link = next;
      continue;
    }
    room = room && has_room;
    kept = record;
    link = &record->next;
  }
  if (*link == nullptr) held_last_ = kept;
}

bool Transmission::emit(Record* record) {
  if (output_.runs_free() == 0) return false;
  if (record->kind == Kind::kPiece) return emit_read_piece(record);
  const int error = record->error != 0 ? record->error : record->request.error;
  if (record->region.buffer != nullptr) {
    if (error != 0) {
      uint8_t* end = put_result(record->region.at, session_, record->cookie, record->offset, error);
      output_.commit(record->region, static_cast<uint32_t>(end - record->region.at));
    } else if (record->type == kCmdRead) {
      emit_data(record, record->offset, static_cast<uint32_t>(record->length), kReplyFlagDone);
    } else {
      output_.commit(record->region, record->used);
    }
  } else {
    Output::Region region;
    if (!output_.reserve(kSmallReplyBytesMax, 0, 1, &region)) return false;
    uint8_t* end = put_result(region.at, session_, record->cookie, record->offset, error);
    output_.commit(region, static_cast<uint32_t>(end - region.at));
  }
  give(record);
  return true;
}

/// The data of [at, at+bytes), which was read into the record's region behind room for its header.
void Transmission::emit_data(Record* record, uint64_t at, uint32_t bytes, uint16_t done_flag) {
  const bool holes = session_.structured && (record->flags & kCmdFlagDf) == 0 && bytes >= kHoleReadMin;
  if (holes && emit_with_holes(record, at, bytes, done_flag)) return;
  put_data_header(record->region.at, session_, done_flag, record->cookie, record->offset, at, bytes);
  output_.commit(record->region, data_header_bytes(session_) + bytes);
}

/// Tells whole blocks of zeroes instead of sending them. False, with nothing sent, when there are none.
bool Transmission::emit_with_holes(Record* record, uint64_t at, uint32_t bytes, uint16_t done_flag) {
  const uint32_t lead = data_header_bytes(session_);
  const uint32_t block = std::clamp(session_.block_size, kPageBytes, kPieceBytes);
  const uint8_t* data = record->region.at + lead;
  auto block_end = [&](uint32_t from) {
    return static_cast<uint32_t>(std::min<uint64_t>(bytes, ((at + from) / block + 1) * block - at));
  };
  auto hole_at = [&](uint32_t from, uint32_t end) {
    return (end - from == block || end - from == bytes) && is_zero(data + from, end - from);
  };
  // Runs of the reply that this may take: a hole and the data behind it are one.
  if (output_.runs_free() < bytes / block / 2 + 2) return false;

  uint32_t run = 0;  // [run, from) is data, not sent yet
  uint32_t from = 0;
  uint32_t header_at = 0;  // where in the region the run's first header stands
  bool any = false;
  while (from < bytes) {
    uint32_t end = block_end(from);
    if (!hole_at(from, end)) {
      from = end;
      continue;
    }
    while (end < bytes && hole_at(end, block_end(end))) end = block_end(end);
    any = true;
    if (run != from) {
      uint8_t* header = record->region.at + run;  // the header ends where the data begins
      put_data_header(header, session_, 0, record->cookie, record->offset, at + run, from - run);
      output_.commit_part(record->region, header_at, lead + from - header_at);
    }
    // The hole's own bytes make room for its chunk and the header of the data behind it.
    const uint32_t hole_bytes = chunk_header_bytes(session_) + kHolePayloadBytes;
    static_assert(kExtendedChunkHeaderBytes + kHolePayloadBytes + kExtendedChunkHeaderBytes + kOffsetBytes <
                  kPageBytes);
    header_at = end < bytes ? end - hole_bytes : lead + from;
    put_hole(record->region.at + header_at, session_, end == bytes ? done_flag : 0, record->cookie, record->offset,
             at + from, end - from);
    if (end == bytes) output_.commit_part(record->region, header_at, hole_bytes);
    run = from = end;
  }
  if (!any) return false;
  if (run != bytes) {
    put_data_header(record->region.at + run, session_, done_flag, record->cookie, record->offset, at + run,
                    bytes - run);
    output_.commit_part(record->region, header_at, lead + bytes - header_at);
  }
  output_.release(record->region);
  return true;
}

/// Asks for the extents of the record's next context.
void Transmission::ask_status(Record* record) {
  const uint32_t head = chunk_header_bytes(session_) + (session_.extended ? kStatusExtHeaderBytes : kStatusHeaderBytes);
  uintptr_t at = reinterpret_cast<uintptr_t>(record->region.at + record->used + head);
  at = (at + alignof(Extent) - 1) & ~(uintptr_t{alignof(Extent)} - 1);
  record->request.extents = reinterpret_cast<Extent*>(at);
  submit(record, Op::kStatus, record->offset, record->length, nullptr);
}

/// Turns extents into a chunk. True when the reply is complete, or failed.
bool Transmission::status_answered(Record* record) {
  const Request& request = record->request;
  if (request.error != 0) return true;
  uint8_t* chunk = record->region.at + record->used;
  const uint32_t head = chunk_header_bytes(session_) + (session_.extended ? kStatusExtHeaderBytes : kStatusHeaderBytes);
  uint8_t* to = chunk + head;
  uint64_t left = record->length;
  uint32_t count = 0;
  auto put = [&](uint64_t length, uint32_t flags) {
    to = session_.extended ? store<uint64_t>(store<uint64_t>(to, length), flags)
                           : store<uint32_t>(store<uint32_t>(to, static_cast<uint32_t>(length)), flags);
    count++;
    left -= length;
  };
  // Neighbours with equal flags become one; nothing beyond what was asked is told; what nobody knows is data.
  Extent pending = {0, 0, 0};
  for (uint32_t i = 0; i < std::min(request.extent_count, request.extent_max); ++i) {
    Extent extent = request.extents[i];
    extent.length = std::min(extent.length, left - pending.length);
    if (extent.length == 0) continue;
    if (pending.length != 0 && extent.flags != pending.flags) {
      put(pending.length, pending.flags);
      pending.length = 0;
    }
    pending.flags = extent.flags;
    pending.length += extent.length;
  }
  if (pending.length != 0) put(pending.length, pending.flags);
  if (count == 0) put(left, 0);

  record->context++;
  const bool last = record->context == contexts_.size();
  const uint32_t id = contexts_[record->context - 1].id;
  const uint32_t payload = static_cast<uint32_t>(to - chunk) - chunk_header_bytes(session_);
  uint8_t* body =
      put_chunk(chunk, session_, last ? kReplyFlagDone : 0,
                session_.extended ? kReplyBlockStatusExt : kReplyBlockStatus, record->cookie, record->offset, payload);
  body = store<uint32_t>(body, id);
  if (session_.extended) store<uint32_t>(body, count);
  record->used = static_cast<uint32_t>(to - record->region.at);
  if (last) return true;
  ask_status(record);
  return false;
}

/// Gives back all that a record holds, with nothing said to the client.
void Transmission::release(Record* record) {
  if (record->region.buffer != nullptr) output_.abandon(record->region);
  give(record);
}

}  // namespace atoll_native::nbd
