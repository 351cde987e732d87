// Answers from the page cache: what comes out of the pipe, and that a failure leaves nothing in it.
#include "fuse/reply_pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"

namespace atoll_native::fuse {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kFileBytes = 600u << 10;

/// A file with bytes that tell where they lie, and a pipe in the place of /dev/fuse.
struct Fixture {
  Fixture() {
    char path[] = "/tmp/atoll-reply-pipe-XXXXXX";
    file = mkstemp(path);
    unlink(path);
    for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(i / 251 + i);
    CHECK_EQ(write(file, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    from = ends[0];
    to = ends[1];
    CHECK(fcntl(to, F_SETPIPE_SZ, 1 << 20) > 0);
  }
  ~Fixture() {
    close(file);
    close(from);
    close(to);
  }
  std::string received() {
    std::string all(2 * kFileBytes, '\0');
    size_t got = 0;
    for (ssize_t n; (n = read(from, all.data() + got, all.size() - got)) > 0;) got += static_cast<size_t>(n);
    all.resize(got);
    return all;
  }
  std::string part(size_t at, size_t length) const {
    return {reinterpret_cast<const char*>(bytes.data()) + at, length};
  }
  int file = -1;
  int from = -1;
  int to = -1;
  std::vector<uint8_t> bytes = std::vector<uint8_t>(kFileBytes);
};

void header_and_ranges_come_in_order() {
  Fixture fixture;
  ReplyPipe pipe;
  for (int again = 0; again < 3; again++) {
    CHECK(pipe.begin("header", 6));
    CHECK(pipe.add({fixture.file, 300 * kPage / 4}, 40 * kPage));  // begins inside of a page
    CHECK(pipe.add({fixture.file, 0}, 1000));
    CHECK(pipe.flush(fixture.to));
    CHECK(fixture.received() == "header" + fixture.part(300 * kPage / 4, 40 * kPage) + fixture.part(0, 1000));
  }
}

void what_is_not_there_leaves_nothing() {
  Fixture fixture;
  ReplyPipe pipe;
  CHECK(pipe.begin("header", 6));
  CHECK(!pipe.add({fixture.file, kFileBytes - kPage}, 2 * kPage));  // beyond the end
  CHECK(pipe.begin("second", 6));
  CHECK(pipe.add({fixture.file, kPage}, kPage));
  pipe.drop();
  CHECK(pipe.begin("third", 5));
  CHECK(pipe.add({fixture.file, kPage}, kPage));
  CHECK(pipe.flush(fixture.to));
  CHECK(fixture.received() == "third" + fixture.part(kPage, kPage));
}

void an_end_that_takes_nothing() {
  Fixture fixture;
  ReplyPipe pipe;
  CHECK(pipe.begin("lost", 4));
  CHECK(!pipe.flush(fixture.from));  // cannot be written to
  CHECK(pipe.begin("next", 4));
  CHECK(pipe.flush(fixture.to));
  CHECK(fixture.received() == "next");
}

void sizes_that_fit() {
  ReplyPipe pipe;
  CHECK(!pipe.fits(ReplyPipe::kBytesMin - 1));
  CHECK(pipe.fits(ReplyPipe::kBytesMin));
  CHECK(pipe.fits(1000u << 10));  // everybody's
  CHECK(!pipe.fits(16u << 20));
}

}  // namespace
}  // namespace atoll_native::fuse

int main() {
  using namespace atoll_native::fuse;
  header_and_ranges_come_in_order();
  what_is_not_there_leaves_nothing();
  an_end_that_takes_nothing();
  sizes_that_fit();
  return atoll_native::check_summary();
}
