// Blocking reads and writes that do all of it.
#pragma once
#include <sys/uio.h>

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

}  // namespace atoll_native
