// Makes the block peer of a pool from its description: the driver, with its fault layers stacked on it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "block/block.h"

namespace atoll_native {

/// A layer that breaks or shows things; mirrors FaultSpec of src/xseg/native.ts.
struct FaultSpec {
  enum class Kind : uint8_t { kError, kDelay, kLog };
  Kind kind = Kind::kError;
  /// Operations it touches. None of the four set: all.
  bool read = false;
  bool write = false;
  bool sync = false;
  bool zero = false;
  int error_number = 5;   // error: errno returned (EIO)
  uint64_t after = 0;     // error: operations let through first
  uint64_t times = 0;     // error: operations that fail once begun; 0 = for ever
  uint32_t delay_ms = 0;  // delay
  std::string path;       // log: file that lines are appended to
};

/// Mirrors PoolSpec of src/xseg/native.ts.
struct PoolSpec {
  enum class Driver : uint8_t { kLocal, kMemory, kNull };
  enum class Kind : uint8_t { kDirectory, kFile, kDevice };
  Driver driver = Driver::kLocal;
  Kind kind = Kind::kDirectory;
  std::string path;
  uint64_t data_offset = 0;     // file, device: bytes at the start that are not slot space
  uint64_t file_span = 0;       // bytes of slot space per file; a power of two
  uint64_t capacity_bytes = 0;  // declared size; 0: as much as the file system or device has
  bool direct = false;
  bool preallocate = false;
  std::vector<FaultSpec> faults;  // outermost last
};

/// Null on failure: `*error_number` is a positive errno (EBUSY: another daemon holds the pool), `*message` says what to
/// do.
std::shared_ptr<BlockPeer> make_block_peer(const PoolSpec& spec, std::string* message, int* error_number);

}  // namespace atoll_native
