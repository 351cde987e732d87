// The one place where a transmission request is checked, completely and before any work. Nothing below checks again.
#pragma once
#include <cstdint>

#include "nbd/protocol.h"

namespace atoll_native::nbd {

/// What was agreed on with this client about this export; fixed once transmission begins.
struct Session {
  uint64_t size = 0;  // bytes
  uint32_t volume = 0;
  uint32_t block_size = 65536;  // bytes, a power of two
  bool read_only = false;
  bool structured = false;  // also set when extended
  bool extended = false;    // 64-bit headers
  uint32_t context_count = 0;
};

/// A request as it came.
struct Incoming {
  uint16_t flags;
  uint16_t type;
  uint64_t cookie;  // as on the wire: it is only ever copied back
  uint64_t offset;
  uint64_t length;
};

/// Transmission flags that are true for the session.
uint16_t transmission_flags(const Session& session);

/// Whether bytes of payload follow the header, valid or not. With extended headers a flag says it, else the command.
inline bool has_payload(const Session& session, const Incoming& in) {
  return session.extended ? (in.flags & kCmdFlagPayloadLen) != 0 : in.type == kCmdWrite;
}

/// 0, or the errno to answer. kCmdDisc is not asked about: it has no answer.
int validate(const Session& session, const Incoming& in);

}  // namespace atoll_native::nbd
