// Writes into the page cache: all of the bytes, in pieces that small writes later do not pay for.
#include "io/full_io.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <vector>

#include "test/check.h"

namespace atoll_native {
namespace {

/// Writing system calls of this thread until now; -1 where the kernel does not count them.
long written_calls() {
  FILE* const file = std::fopen("/proc/thread-self/io", "r");
  if (file == nullptr) return -1;
  long count = -1;
  char line[100];
  while (std::fgets(line, sizeof line, file) != nullptr) std::sscanf(line, "syscw: %ld", &count);
  std::fclose(file);
  return count;
}

void pieces_end_at_multiples_of_the_most() {
  constexpr uint64_t kMost = kCachedWriteMax;
  struct Case {
    uint64_t offset, length;
    long calls;
  };
  const Case cases[] = {
      {0, 0, 0},         {0, 1, 1},     {0, kMost, 1},           {0, kMost + 1, 2},     {kMost - 1, 1, 1},
      {kMost - 1, 2, 2}, {5, kMost, 2}, {kMost, 16 * kMost, 16}, {3, 3 * kMost - 3, 3},
  };
  const int fd = memfd_create("written", MFD_CLOEXEC);
  REQUIRE(fd >= 0);
  for (const Case& one : cases) {
    CHECK_EQ(ftruncate(fd, 0), 0);
    std::vector<uint8_t> bytes(one.length);
    for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(i * 7 + i / 4096);
    const long before = written_calls();
    CHECK_EQ(write_cached(fd, bytes.data(), bytes.size(), one.offset), 0);
    if (before >= 0) CHECK_EQ(written_calls() - before, one.calls);
    std::vector<uint8_t> found(bytes.size());
    CHECK_EQ(read_full(fd, found.data(), found.size(), one.offset), 0);
    CHECK(found == bytes);
  }
  close(fd);
}

void an_error_is_that_of_the_piece() {
  const int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(fd >= 0);
  CHECK_EQ(ftruncate(fd, kCachedWriteMax), 0);
  CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
  const std::vector<uint8_t> bytes(2 * kCachedWriteMax, 9);
  CHECK_EQ(write_cached(fd, bytes.data(), bytes.size(), 0), -EPERM);
  std::vector<uint8_t> found(kCachedWriteMax);
  CHECK_EQ(read_full(fd, found.data(), found.size(), 0), 0);
  CHECK(found == std::vector<uint8_t>(kCachedWriteMax, 9));
  close(fd);
}

}  // namespace
}  // namespace atoll_native

int main() {
  atoll_native::pieces_end_at_multiples_of_the_most();
  atoll_native::an_error_is_that_of_the_piece();
  return atoll_native::check_summary();
}
