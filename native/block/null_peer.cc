#include "block/null_peer.h"

#include <cstring>

#include "io/async_io.h"

namespace atoll_native {

int NullPeer::read_now(uint64_t, uint8_t* buffer, uint32_t length) {
  memset(buffer, 0, length);
  return 0;
}

int NullPeer::write_now(uint64_t, const uint8_t*, uint32_t) { return 0; }

void NullPeer::submit(BlockIo* io, AsyncIo& async) {
  if (io->op == BlockOp::kRead) memset(io->buffer, 0, io->length);
  async.complete(io, 0);
}

}  // namespace atoll_native
