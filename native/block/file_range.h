// Where bytes lie in an open file: for frontends that send them from there, without a copy.
#pragma once
#include <cstdint>

namespace atoll_native {

struct FileRange {
  int fd = -1;
  uint64_t offset = 0;  // bytes
};

}  // namespace atoll_native
