// Reads of cached data, sent from the page cache: no byte of them is copied here.
//
// The header is committed like any other; behind it stands where the data is in the export. What that means on disk is
// looked up when the socket takes it, within one turn, each time: until then blocks may move, and nobody waits for a
// client that takes its time. What can no longer be sent from there (a leaf or a page was evicted meanwhile) is read
// into memory once; if that fails the header has promised too much, and the connection ends.
//
// Whoever writes to the range before the client took the reply may be seen in it, as in any read that is not answered
// yet. What the pages hold must be nobody else's, ever, also in a socket that nobody reads: only of a sink that
// lends_for_long(). Pools do not: a hole punched into a part of a large folio zeroes its pages where they are (decision
// 4).
#include <sys/sendfile.h>

#include <cassert>
#include <cerrno>
#include <new>

#include "nbd/transmission.h"

namespace atoll_native::nbd {

/// Whether all of it could be sent now.
bool Transmission::can_lend(uint64_t offset, uint32_t bytes) {
  if (bytes < kLendMin || !sink_.lends_for_long()) return false;
  FileRange range;
  for (uint64_t left = bytes; left != 0;) {
    uint64_t length = left;
    if (!sink_.lend(session_.volume, offset, &length, &range)) return false;
    offset += length;
    left -= length;
  }
  return true;
}

/// A chunk (or simple reply) of lent data. False: no room for its header.
bool Transmission::emit_lent(const Incoming& in, uint64_t at, uint32_t bytes, uint16_t done_flag) {
  const uint32_t lead = data_header_bytes(session_);
  Output::Region region;
  if (output_.runs_free() < 2 || !output_.reserve(lead, 0, 1, &region)) return false;
  put_data_header(region.at, session_, done_flag, in.cookie, in.offset, at, bytes);
  output_.commit(region, lead);
  output_.commit_lent(at, bytes);
  sink_.lent(session_.volume, bytes);
  turn_requests_++;
  turn_bytes_ += bytes;
  return true;
}

int64_t Transmission::send_lent(uint64_t offset, uint32_t bytes) {
  uint64_t length = bytes;
  FileRange range;
  if (rest_state_ == Rest::kNone && sink_.lend(session_.volume, offset, &length, &range)) {
    off_t at = static_cast<off_t>(range.offset);
    // SIGPIPE, which this cannot be told to leave out, is blocked on reactors and ignored by Node.
    const ssize_t n = sendfile(fd_, range.fd, &at, length);
    if (n > 0) return n;
    if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == EPIPE || errno == ECONNRESET)) return -errno;
    // Anything else is the file's: reading it finds out.
  }
  if (rest_state_ == Rest::kNone) ask_rest(offset, bytes);
  switch (rest_state_) {
    case Rest::kAsked:
      return -EINPROGRESS;
    case Rest::kHere:
      rest_state_ = Rest::kNone;
      output_.provide(std::move(rest_));
      return 0;
    default:
      return -EIO;
  }
}

void Transmission::ask_rest(uint64_t offset, uint32_t bytes) {
  assert(bytes <= kPieceBytes);
  rest_.reset(new (std::nothrow) uint8_t[bytes]);
  if (rest_ == nullptr) {
    rest_state_ = Rest::kFailed;
    return;
  }
  rest_state_ = Rest::kAsked;
  rest_record_ = {};
  rest_record_.owner = this;
  rest_record_.kind = Kind::kRest;
  in_flight_++;
  submit(&rest_record_, Op::kRead, offset, bytes, rest_.get());
}

void Transmission::rest_ended(int error) {
  in_flight_--;
  rest_state_ = error == 0 ? Rest::kHere : Rest::kFailed;
}

}  // namespace atoll_native::nbd
