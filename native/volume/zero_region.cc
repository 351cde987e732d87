#include "volume/zero_region.h"

#include <sys/mman.h>

namespace atoll_native {

const uint8_t* zero_region() {
  // Private and anonymous: every page read is the kernel's one page of zeroes. Kept until the process ends.
  static const uint8_t* const region = [] {
    void* memory = mmap(nullptr, kZeroRegionBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<const uint8_t*>(memory);
  }();
  return region;
}

}  // namespace atoll_native
