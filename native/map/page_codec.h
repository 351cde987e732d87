// Map pages between their form in memory (512 entries of 64 bits) and on disk (docs/format.md, "Map page").
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "segment/layout.gen.h"

namespace atoll_native {

/// What a page's blob says besides its entries.
struct PageHeader {
  uint32_t level = 0;  // 0: leaf
  uint64_t page_id = 0;
  uint64_t base = 0;   // 0: none
  uint64_t owner = 0;  // resource id
  uint32_t generation = 0;
  uint64_t mapped = 0;       // blocks that have a slot below this page
  uint32_t entry_count = 0;  // not empty; encode_page() counts for itself
};

/// The numbers are the addon's (src/xseg/native.ts).
enum class PageError : uint8_t { kNone = 0, kChecksum = 1, kFormat = 2, kVersion = 3, kOtherPage = 4 };

using PageEntries = std::span<const uint64_t, kPageEntries>;
using PageEntriesOut = std::span<uint64_t, kPageEntries>;

/// Writes the blob to `out`, which has kPageBlobMax bytes; returns its length. Bits 48-61 of entries are not kept.
size_t encode_page(const PageHeader& header, PageEntries entries, uint8_t* out);

/// Verifies a blob, which may be anything, and fills header and entries; they are untouched unless it returns kNone.
PageError decode_page(std::span<const uint8_t> blob, uint64_t expected_page_id, PageHeader* header,
                      PageEntriesOut entries);

}  // namespace atoll_native
