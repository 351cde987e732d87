// Fuzz target: map pages as they might come back from a damaged or hostile store. Input: the body of a blob, behind one
// byte that says whether the header is made right for it (so that the fuzzer gets past the checksum).
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "map/crc32c.h"
#include "map/page_codec.h"

namespace {

using namespace atoll_native;
using Page = std::array<uint64_t, kPageEntries>;

constexpr uint64_t kPageId = 1;
constexpr size_t kAtLength = 6, kAtChecksum = 44;

void must(bool holds) {
  if (!holds) std::abort();
}

/// The first kPageHeaderBytes of `blob` keep what the input says, but for what must be right.
void make_right(std::vector<uint8_t>* blob) {
  const uint8_t start[] = {0x41, 0x4D, 1};
  std::memcpy(blob->data(), start, sizeof start);
  const uint16_t length = static_cast<uint16_t>(blob->size() - kPageHeaderBytes);
  std::memcpy(blob->data() + kAtLength, &length, 2);
  const uint64_t id = kPageId;
  std::memcpy(blob->data() + 8, &id, 8);
  const uint32_t sum =
      crc32c(blob->data() + kPageHeaderBytes, blob->size() - kPageHeaderBytes, crc32c(blob->data(), kAtChecksum));
  std::memcpy(blob->data() + kAtChecksum, &sum, 4);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::vector<uint8_t> blob(data + 1, data + size);
  if ((data[0] & 1) != 0 && blob.size() >= kPageHeaderBytes && blob.size() <= kPageBlobMax) make_right(&blob);
  PageHeader header;
  Page page{};
  if (decode_page(blob, kPageId, &header, page) != PageError::kNone) return 0;
  std::vector<uint8_t> again(kPageBlobMax);
  again.resize(encode_page(header, page, again.data()));
  PageHeader header_again;
  Page page_again{};
  must(decode_page(again, kPageId, &header_again, page_again) == PageError::kNone);
  must(page_again == page && header_again.entry_count == header.entry_count && header_again.mapped == header.mapped);
  return 0;
}
