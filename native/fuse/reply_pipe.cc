#include "fuse/reply_pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace atoll_native::fuse {
namespace {

uint64_t page_bytes() {
  static const auto bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

bool ReplyPipe::open() {
  if (read_end_ >= 0) return true;
  if (refused_) return false;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    refused_ = true;
    return false;
  }
  read_end_ = ends[0];
  write_end_ = ends[1];
  const auto wanted = static_cast<int>(kPagesMax * page_bytes());
  int size = fcntl(write_end_, F_SETPIPE_SZ, wanted);
  // its user has too many: as it is
  if (size < 0) size = fcntl(write_end_, F_GETPIPE_SZ);
  pages_ = size < 0 ? 0 : static_cast<uint32_t>(static_cast<uint64_t>(size) / page_bytes());
  return true;
}

void ReplyPipe::drop() {
  if (read_end_ >= 0) close(read_end_);
  if (write_end_ >= 0) close(write_end_);
  read_end_ = write_end_ = -1;
  filled_ = 0;
}

bool ReplyPipe::fits(uint64_t bytes) {
  // A range that begins inside of a page has one more.
  return bytes >= kBytesMin && open() && bytes / page_bytes() + 2 <= pages_;
}

bool ReplyPipe::begin(const void* header, size_t bytes) {
  if (!open()) return false;
  const ssize_t put = write(write_end_, header, bytes);
  if (put != static_cast<ssize_t>(bytes)) {
    drop();
    return false;
  }
  filled_ = bytes;
  return true;
}

bool ReplyPipe::add(FileRange range, uint64_t length) {
  auto offset = static_cast<off_t>(range.offset);
  while (length > 0) {
    const ssize_t put = splice(range.fd, &offset, write_end_, nullptr, length, SPLICE_F_NONBLOCK);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      drop();
      return false;
    }
    filled_ += static_cast<uint64_t>(put);
    length -= static_cast<uint64_t>(put);
  }
  return true;
}

bool ReplyPipe::flush(int fd) {
  // Not SPLICE_F_MOVE: the pages stay the pool's.
  ssize_t sent;
  do {
    sent = splice(read_end_, nullptr, fd, nullptr, filled_, 0);
  } while (sent < 0 && errno == EINTR);
  const bool whole = sent == static_cast<ssize_t>(filled_);
  if (!whole) drop();
  filled_ = 0;
  return whole;
}

}  // namespace atoll_native::fuse
