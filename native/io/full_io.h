// Blocking reads and writes that do all of it.
#pragma once
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace atoll_native {

/// Reads all of `length`; what is beyond the end of the file is zeroes. 0 or -errno.
inline int read_full(int fd, uint8_t* buffer, uint64_t length, uint64_t offset) {
  while (length > 0) {
    const iovec vec = {buffer, length};
    const ssize_t got = preadv(fd, &vec, 1, static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      return -errno;
    }
    if (got == 0) {
      memset(buffer, 0, length);
      return 0;
    }
    buffer += got;
    offset += static_cast<uint64_t>(got);
    length -= static_cast<uint64_t>(got);
  }
  return 0;
}

/// Writes all of `length`; `rw_flags` are RWF_*. 0 or -errno.
inline int write_full(int fd, const uint8_t* buffer, uint64_t length, uint64_t offset, uint32_t rw_flags = 0) {
  while (length > 0) {
    const iovec vec = {const_cast<uint8_t*>(buffer), length};
    const ssize_t put = pwritev2(fd, &vec, 1, static_cast<off_t>(offset), static_cast<int>(rw_flags));
    if (put < 0) {
      if (errno == EINTR) continue;
      return -errno;
    }
    if (put == 0) return -EIO;  // takes nothing and says nothing
    buffer += put;
    offset += static_cast<uint64_t>(put);
    length -= static_cast<uint64_t>(put);
  }
  return 0;
}

/// The page cache has new bytes in pages as large as the write that brought them, and a small write later goes through
/// all 4 KiB parts of its page (ext4, Linux 6.18: random 4 KiB writes took 15.8 us each in pages of 1 MiB, 6 in ones of
/// 256 KiB, 3.9 in ones of 64 KiB). Large free pages are also those that a hypervisor has taken back
/// (docs/benchmarks.md).
constexpr uint64_t kCachedWriteMax = 64u << 10;

/// As write_full, into the page cache, in pieces that end at multiples of kCachedWriteMax.
inline int write_cached(int fd, const uint8_t* buffer, uint64_t length, uint64_t offset) {
  while (length > 0) {
    const uint64_t piece = std::min(length, kCachedWriteMax - offset % kCachedWriteMax);
    if (const int result = write_full(fd, buffer, piece, offset); result != 0) return result;
    buffer += piece;
    offset += piece;
    length -= piece;
  }
  return 0;
}

}  // namespace atoll_native
