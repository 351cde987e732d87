// The constants of the NBD protocol (doc/proto.md of the NBD project), in one table, and how numbers stand on the wire.
// Names are the protocol's own, in our spelling: NBD_CMD_FLAG_FUA is kCmdFlagFua.
#pragma once
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace atoll_native::nbd {

// ---- magic numbers
inline constexpr uint64_t kMagicServer = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr uint64_t kMagicOption = 0x49484156454F5054;  // "IHAVEOPT"
inline constexpr uint64_t kMagicOptionReply = 0x0003e889045565a9;
inline constexpr uint32_t kMagicRequest = 0x25609513;
inline constexpr uint32_t kMagicSimpleReply = 0x67446698;
inline constexpr uint32_t kMagicStructuredReply = 0x668e33ef;
inline constexpr uint32_t kMagicExtendedRequest = 0x21e41c71;
inline constexpr uint32_t kMagicExtendedReply = 0x6e8a278c;

// ---- handshake flags (server) and client flags
enum HandshakeFlags : uint16_t { kFlagFixedNewstyle = 1 << 0, kFlagNoZeroes = 1 << 1 };
inline constexpr uint32_t kClientFlagsKnown = kFlagFixedNewstyle | kFlagNoZeroes;

// ---- options
enum Option : uint32_t {
  kOptExportName = 1,
  kOptAbort = 2,
  kOptList = 3,
  kOptPeekExport = 4,  // withdrawn from the protocol
  kOptStartTls = 5,
  kOptInfo = 6,
  kOptGo = 7,
  kOptStructuredReply = 8,
  kOptListMetaContext = 9,
  kOptSetMetaContext = 10,
  kOptExtendedHeaders = 11,
};

// ---- option replies
enum OptionReply : uint32_t {
  kRepAck = 1,
  kRepServer = 2,
  kRepInfo = 3,
  kRepMetaContext = 4,
  kRepErrUnsup = 0x80000001,
  kRepErrPolicy = 0x80000002,
  kRepErrInvalid = 0x80000003,
  kRepErrPlatform = 0x80000004,
  kRepErrTlsReqd = 0x80000005,
  kRepErrUnknown = 0x80000006,
  kRepErrShutdown = 0x80000007,
  kRepErrBlockSizeReqd = 0x80000008,
  kRepErrTooBig = 0x80000009,
  kRepErrExtHeaderReqd = 0x8000000a,
};

enum Info : uint16_t { kInfoExport = 0, kInfoName = 1, kInfoDescription = 2, kInfoBlockSize = 3 };

// ---- transmission flags
enum TransmissionFlags : uint16_t {
  kFlagHasFlags = 1 << 0,
  kFlagReadOnly = 1 << 1,
  kFlagSendFlush = 1 << 2,
  kFlagSendFua = 1 << 3,
  kFlagRotational = 1 << 4,
  kFlagSendTrim = 1 << 5,
  kFlagSendWriteZeroes = 1 << 6,
  kFlagSendDf = 1 << 7,
  kFlagCanMultiConn = 1 << 8,
  kFlagSendResize = 1 << 9,
  kFlagSendCache = 1 << 10,
  kFlagSendFastZero = 1 << 11,
};

// ---- commands
enum Command : uint16_t {
  kCmdRead = 0,
  kCmdWrite = 1,
  kCmdDisc = 2,
  kCmdFlush = 3,
  kCmdTrim = 4,
  kCmdCache = 5,
  kCmdWriteZeroes = 6,
  kCmdBlockStatus = 7,
};

enum CommandFlags : uint16_t {
  kCmdFlagFua = 1 << 0,
  kCmdFlagNoHole = 1 << 1,
  kCmdFlagDf = 1 << 2,
  kCmdFlagReqOne = 1 << 3,
  kCmdFlagFastZero = 1 << 4,
  kCmdFlagPayloadLen = 1 << 5,  // extended headers only
};

// ---- structured reply chunks
enum ReplyType : uint16_t {
  kReplyNone = 0,
  kReplyOffsetData = 1,
  kReplyOffsetHole = 2,
  kReplyBlockStatus = 5,
  kReplyBlockStatusExt = 6,
  kReplyError = 0x8001,
  kReplyErrorOffset = 0x8002,
};
inline constexpr uint16_t kReplyFlagDone = 1 << 0;

// ---- sizes on the wire, bytes
inline constexpr uint32_t kNameBytesMax = 4096;  // "MUST be no longer than 4096 bytes": every string of the protocol
inline constexpr uint32_t kServerHelloBytes = 8 + 8 + 2;
inline constexpr uint32_t kClientFlagsBytes = 4;
inline constexpr uint32_t kOptionHeaderBytes = 8 + 4 + 4;
inline constexpr uint32_t kExportNameZeroBytes = 124;
inline constexpr uint32_t kRequestBytes = 4 + 2 + 2 + 8 + 8 + 4;
inline constexpr uint32_t kExtendedRequestBytes = 4 + 2 + 2 + 8 + 8 + 8;
inline constexpr uint32_t kSimpleReplyBytes = 4 + 4 + 8;
inline constexpr uint32_t kChunkHeaderBytes = 4 + 2 + 2 + 8 + 4;
inline constexpr uint32_t kExtendedChunkHeaderBytes = 4 + 2 + 2 + 8 + 8 + 8;
inline constexpr uint32_t kOffsetBytes = 8;            // before the data of an OFFSET_DATA chunk
inline constexpr uint32_t kHolePayloadBytes = 8 + 4;   // OFFSET_HOLE
inline constexpr uint32_t kErrorPayloadBytes = 4 + 2;  // ERROR without a text
inline constexpr uint32_t kErrorOffsetPayloadBytes = 4 + 2 + 8;
inline constexpr uint32_t kStatusHeaderBytes = 4;  // context id before the extents
inline constexpr uint32_t kStatusExtHeaderBytes = 4 + 4;
inline constexpr uint32_t kStatusExtentBytes = 4 + 4;
inline constexpr uint32_t kStatusExtExtentBytes = 8 + 8;

// The largest data of one read or write. The protocol lets every client use this much without asking.
inline constexpr uint32_t kPayloadMax = 32u << 20;

static_assert(kServerHelloBytes == 18 && kOptionHeaderBytes == 16 && kRequestBytes == 28 &&
              kExtendedRequestBytes == 32);
static_assert(kSimpleReplyBytes == 16 && kChunkHeaderBytes == 20 && kExtendedChunkHeaderBytes == 32);
static_assert(kRepErrTooBig == (1u << 31) + 9 && kReplyError == (1u << 15) + 1);
// The errors that travel are numbers of the protocol; they are also Linux's, so that no table is needed on the way out.
static_assert(EPERM == 1 && EIO == 5 && ENOMEM == 12 && EINVAL == 22 && ENOSPC == 28 && EOVERFLOW == 75 &&
              ENOTSUP == 95 && ESHUTDOWN == 108);

/// Big endian, as everything on this wire. The pointer may be unaligned.
template <typename T>
inline T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  if constexpr (std::endian::native == std::endian::little) {
    if constexpr (sizeof(T) == 2) value = static_cast<T>(__builtin_bswap16(value));
    if constexpr (sizeof(T) == 4) value = static_cast<T>(__builtin_bswap32(value));
    if constexpr (sizeof(T) == 8) value = static_cast<T>(__builtin_bswap64(value));
  }
  return value;
}

/// Puts `value` big endian and returns the place behind it.
template <typename T>
inline uint8_t* store(uint8_t* to, T value) {
  if constexpr (std::endian::native == std::endian::little) {
    if constexpr (sizeof(T) == 2) value = static_cast<T>(__builtin_bswap16(value));
    if constexpr (sizeof(T) == 4) value = static_cast<T>(__builtin_bswap32(value));
    if constexpr (sizeof(T) == 8) value = static_cast<T>(__builtin_bswap64(value));
  }
  std::memcpy(to, &value, sizeof(T));
  return to + sizeof(T);
}

/// An errno as the protocol allows it in a reply. Never 0 for an error.
inline uint32_t wire_error(int error) {
  switch (error) {
    case EPERM:
    case EIO:
    case ENOMEM:
    case EINVAL:
    case ENOSPC:
    case EOVERFLOW:
    case ENOTSUP:
    case ESHUTDOWN:
      return static_cast<uint32_t>(error);
    case EROFS:
    case EACCES:
      return EPERM;
    case EDQUOT:
    case EFBIG:
      return ENOSPC;
    default:
      return EIO;  // what a disk says when it has no better word; the cause is logged where it arose
  }
}

}  // namespace atoll_native::nbd
