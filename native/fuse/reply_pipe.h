// Answers to large reads, from the page cache: header and pages go through a pipe to /dev/fuse, and the kernel copies
// them once, to who asked. One per seat.
//   begin(header) -> add(range)... -> flush(); at any failure drop(), after which the pipe is as new.
#pragma once
#include <cstddef>
#include <cstdint>

#include "block/file_range.h"

namespace atoll_native::fuse {

class ReplyPipe {
 public:
  /// From here on it was measured to be faster than a copy (docs/fuse.md).
  static constexpr uint32_t kBytesMin = 128u << 10;
  /// Of one answer: 512 KiB that begin and end inside of pages, and the header. The kernel makes it a power of two, and
  /// has 256 at most for who has not CAP_SYS_RESOURCE (fs.pipe-max-size).
  static constexpr uint32_t kPagesMax = 128 + 2;

  ReplyPipe() = default;
  ~ReplyPipe() { drop(); }
  ReplyPipe(const ReplyPipe&) = delete;
  ReplyPipe& operator=(const ReplyPipe&) = delete;

  /// Whether an answer of so many bytes of data can be one.
  bool fits(uint64_t bytes);
  /// False: nothing is in the pipe.
  bool begin(const void* header, size_t bytes);
  /// Puts in what lies in the page cache. False: it does not any more, and nothing is in the pipe.
  bool add(FileRange range, uint64_t length);
  /// All of it in one answer. False: the other end did not take it, which nobody waits for any more then.
  bool flush(int fd);
  /// What is in it goes.
  void drop();

 private:
  bool open();

  int read_end_ = -1;
  int write_end_ = -1;
  uint32_t pages_ = 0;   // that it takes
  uint64_t filled_ = 0;  // bytes in it
  bool refused_ = false;
};

}  // namespace atoll_native::fuse
