/**
 * Numbers of the NBD protocol that a client needs (doc/proto.md of NetworkBlockDevice/nbd), in one table.
 */

export const NBD_MAGIC = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

/** handshake: both sides */
export const FLAG_FIXED_NEWSTYLE = 1;
export const FLAG_NO_ZEROES = 2;

export const OPTION = { abort: 2, go: 7, structuredReply: 8, setMetaContext: 10 } as const;

export const REPLY = { ack: 1, info: 3, metaContext: 4 } as const;
export const REPLY_ERROR = 2 ** 31;
export const REPLY_ERROR_TEXT: Readonly<Record<number, string>> = {
  [REPLY_ERROR + 1]: 'the option is unknown to the server',
  [REPLY_ERROR + 2]: 'the server does not allow it',
  [REPLY_ERROR + 3]: 'the option was malformed',
  [REPLY_ERROR + 5]: 'the server wants TLS',
  [REPLY_ERROR + 6]: 'there is no such export',
  [REPLY_ERROR + 7]: 'the server is shutting down',
};
export const REPLY_ERROR_UNKNOWN = REPLY_ERROR + 6;
export const REPLY_ERROR_SHUTDOWN = REPLY_ERROR + 7;

export const INFO = { export: 0, blockSize: 3 } as const;

export const EXPORT_FLAG = { readOnly: 2, flush: 4, trim: 32, writeZeroes: 64, df: 128 } as const;

export const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3, writeZeroes: 6, blockStatus: 7 } as const;
export const COMMAND_FLAG_FUA = 1;

export const CHUNK = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 32769,
  errorOffset: 32770,
} as const;
export const CHUNK_FLAG_DONE = 1;
export const CHUNK_ERROR_BIT = 32768;

export const STATE_HOLE = 1;
export const STATE_ZERO = 2;

/** protocol errno → what it is called; the protocol's numbers are Linux's for these */
export const ERRNO_NAME: Readonly<Record<number, string>> = {
  1: 'EPERM',
  5: 'EIO',
  12: 'ENOMEM',
  22: 'EINVAL',
  28: 'ENOSPC',
  75: 'EOVERFLOW',
  95: 'ENOTSUP',
  108: 'ESHUTDOWN',
};

/** largest payload when the server names none (doc/proto.md, "Block size constraints") */
export const PAYLOAD_DEFAULT = 32 << 20;
/** a string in a reply is at most this long */
export const STRING_MAX = 4096;
/** option replies that answer one option: a bound, since a server could go on for ever */
export const OPTION_REPLIES_MAX = 64;
/** longest option reply we read */
export const OPTION_REPLY_BYTES_MAX = 65536;
