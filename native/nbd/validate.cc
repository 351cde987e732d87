#include "nbd/validate.h"

namespace atoll_native::nbd {
namespace {

bool writes(uint16_t type) { return type == kCmdWrite || type == kCmdTrim || type == kCmdWriteZeroes; }

/// Flags that may stand on a command. FUA is valid on every command once it was offered ("existing clients are known to
/// set this bit on other commands"); it is offered on writable exports only.
uint16_t flags_allowed(const Session& session, uint16_t type) {
  uint16_t allowed = session.read_only ? 0 : kCmdFlagFua;
  switch (type) {
    case kCmdRead:
      if (session.structured) allowed |= kCmdFlagDf;
      break;
    case kCmdWrite:
      if (session.extended) allowed |= kCmdFlagPayloadLen;
      break;
    case kCmdWriteZeroes:
      allowed |= kCmdFlagNoHole | kCmdFlagFastZero;
      break;
    case kCmdBlockStatus:
      allowed |= kCmdFlagReqOne;
      break;
    default:
      break;
  }
  return allowed;
}

}  // namespace

uint16_t transmission_flags(const Session& session) {
  uint16_t flags = kFlagHasFlags | kFlagSendCache | kFlagCanMultiConn;
  if (session.structured) flags |= kFlagSendDf;
  if (session.read_only) return flags | kFlagReadOnly;
  return flags | kFlagSendFlush | kFlagSendFua | kFlagSendTrim | kFlagSendWriteZeroes | kFlagSendFastZero;
}

int validate(const Session& session, const Incoming& in) {
  switch (in.type) {
    case kCmdRead:
    case kCmdCache:
      break;
    case kCmdWrite:
    case kCmdTrim:
    case kCmdWriteZeroes:
      if (session.read_only) return EPERM;
      break;
    case kCmdFlush:
      // Not offered on read-only exports. Both numbers are reserved and MUST be zero.
      if (session.read_only || in.offset != 0 || in.length != 0) return EINVAL;
      break;
    case kCmdBlockStatus:
      if (session.context_count == 0) return EINVAL;
      break;
    default:
      return EINVAL;
  }
  if ((in.flags & ~flags_allowed(session, in.type)) != 0) return EINVAL;
  // With extended headers a write says that it brings a payload.
  if (session.extended && in.type == kCmdWrite && !has_payload(session, in)) return EINVAL;
  if (in.type == kCmdFlush) return 0;
  if (in.length == 0) return EINVAL;  // the protocol leaves it open; as nbdkit does
  if (in.offset > session.size || in.length > session.size - in.offset) {
    return writes(in.type) && in.type != kCmdTrim ? ENOSPC : EINVAL;
  }
  if (in.type == kCmdRead && in.length > kPayloadMax) return EINVAL;
  return 0;
}

}  // namespace atoll_native::nbd
