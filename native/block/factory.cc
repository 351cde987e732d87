#include "block/factory.h"

#include <bit>
#include <cerrno>
#include <utility>

#include "block/delay_layer.h"
#include "block/error_layer.h"
#include "block/local_peer.h"
#include "block/log_layer.h"
#include "block/memory_peer.h"
#include "block/null_peer.h"

namespace atoll_native {

namespace {

/// A file spans at least a page, so that blocks (4 KiB and more) never cross a border.
constexpr uint64_t kFileSpanMin = 4096;

std::shared_ptr<BlockPeer> make_driver(const PoolSpec& spec, std::string* message, int* error_number) {
  if (!std::has_single_bit(spec.file_span) || spec.file_span < kFileSpanMin) {
    *message = "a pool file's span is a power of two, 4 KiB or more";
    *error_number = EINVAL;
    return nullptr;
  }
  switch (spec.driver) {
    case PoolSpec::Driver::kNull:
      return std::make_shared<NullPeer>(spec);
    case PoolSpec::Driver::kMemory:
      return MemoryPeer::open(spec, message, error_number);
    case PoolSpec::Driver::kLocal:
      return LocalPeer::open(spec, message, error_number);
  }
  return nullptr;
}

std::shared_ptr<BlockPeer> stack(std::shared_ptr<BlockPeer> below, const FaultSpec& fault, std::string* message,
                                 int* error_number) {
  switch (fault.kind) {
    case FaultSpec::Kind::kError:
      if (fault.error_number <= 0) {
        *message = "an error layer needs the errno that it returns";
        *error_number = EINVAL;
        return nullptr;
      }
      return std::make_shared<ErrorLayer>(std::move(below), fault);
    case FaultSpec::Kind::kDelay:
      return std::make_shared<DelayLayer>(std::move(below), fault);
    case FaultSpec::Kind::kLog:
      return LogLayer::open(std::move(below), fault, message, error_number);
  }
  return nullptr;
}

}  // namespace

std::shared_ptr<BlockPeer> make_block_peer(const PoolSpec& spec, std::string* message, int* error_number) {
  std::shared_ptr<BlockPeer> peer = make_driver(spec, message, error_number);
  for (const FaultSpec& fault : spec.faults) {
    if (peer == nullptr) break;
    peer = stack(std::move(peer), fault, message, error_number);
  }
  return peer;
}

}  // namespace atoll_native
