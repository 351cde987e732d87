// How replies stand on the wire: simple, structured, and with extended headers.
#pragma once
#include <cstdint>

#include "nbd/protocol.h"
#include "nbd/validate.h"

namespace atoll_native::nbd {

// The longest reply without data or extents: an error with an offset, extended headers.
inline constexpr uint32_t kSmallReplyBytesMax = kExtendedChunkHeaderBytes + kErrorOffsetPayloadBytes;

inline uint32_t chunk_header_bytes(const Session& session) {
  return session.extended ? kExtendedChunkHeaderBytes : kChunkHeaderBytes;
}

/// What stands before the data of a successful read.
inline uint32_t data_header_bytes(const Session& session) {
  return session.structured ? chunk_header_bytes(session) + kOffsetBytes : kSimpleReplyBytes;
}

inline uint8_t* put_simple(uint8_t* to, uint64_t cookie, uint32_t error) {
  to = store<uint32_t>(to, kMagicSimpleReply);
  to = store<uint32_t>(to, error);
  std::memcpy(to, &cookie, sizeof(cookie));
  return to + sizeof(cookie);
}

/// The header of a chunk. `offset` is the request's: extended headers repeat it.
inline uint8_t* put_chunk(uint8_t* to, const Session& session, uint16_t flags, uint16_t type, uint64_t cookie,
                          uint64_t offset, uint32_t payload_bytes) {
  to = store<uint32_t>(to, session.extended ? kMagicExtendedReply : kMagicStructuredReply);
  to = store<uint16_t>(to, flags);
  to = store<uint16_t>(to, type);
  std::memcpy(to, &cookie, sizeof(cookie));
  to += sizeof(cookie);
  if (!session.extended) return store<uint32_t>(to, payload_bytes);
  to = store<uint64_t>(to, offset);
  return store<uint64_t>(to, payload_bytes);
}

/// The header of the data at [at, at+bytes) of the export, in any of the three forms.
inline uint8_t* put_data_header(uint8_t* to, const Session& session, uint16_t flags, uint64_t cookie, uint64_t offset,
                                uint64_t at, uint32_t bytes) {
  if (!session.structured) return put_simple(to, cookie, 0);
  to = put_chunk(to, session, flags, kReplyOffsetData, cookie, offset, kOffsetBytes + bytes);
  return store<uint64_t>(to, at);
}

inline uint8_t* put_hole(uint8_t* to, const Session& session, uint16_t flags, uint64_t cookie, uint64_t offset,
                         uint64_t at, uint32_t bytes) {
  to = put_chunk(to, session, flags, kReplyOffsetHole, cookie, offset, kHolePayloadBytes);
  to = store<uint64_t>(to, at);
  return store<uint32_t>(to, bytes);
}

/// The whole reply of a request without data: success (`error` 0) or failure. Success is a simple reply wherever the
/// protocol allows one (shorter); failure is a chunk where it can be.
inline uint8_t* put_result(uint8_t* to, const Session& session, uint64_t cookie, uint64_t offset, int error) {
  if (error == 0) {
    if (!session.extended) return put_simple(to, cookie, 0);
    return put_chunk(to, session, kReplyFlagDone, kReplyNone, cookie, offset, 0);
  }
  if (!session.structured) return put_simple(to, cookie, wire_error(error));
  to = put_chunk(to, session, kReplyFlagDone, kReplyError, cookie, offset, kErrorPayloadBytes);
  to = store<uint32_t>(to, wire_error(error));
  return store<uint16_t>(to, 0);  // no text: the number says all there is, and nothing of the client's is ever echoed
}

/// One piece of a read failed; the others stand.
inline uint8_t* put_error_at(uint8_t* to, const Session& session, uint16_t flags, uint64_t cookie, uint64_t offset,
                             uint64_t at, int error) {
  to = put_chunk(to, session, flags, kReplyErrorOffset, cookie, offset, kErrorOffsetPayloadBytes);
  to = store<uint32_t>(to, wire_error(error));
  to = store<uint16_t>(to, 0);
  return store<uint64_t>(to, at);
}

}  // namespace atoll_native::nbd
