#include "map/page_codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "map/crc32c.h"
#include "map/frames.h"

namespace atoll_native {
namespace {

constexpr uint16_t kMagic = 0x4D41;
constexpr uint8_t kVersion = 1;
constexpr size_t kVarintMax = 8;  // bytes: 56 bits hold a zigzag difference of two 48-bit values
constexpr size_t kRunMax = 12;    // bytes

// Where the header's fields are.
constexpr size_t kAtMagic = 0, kAtVersion = 2, kAtLevel = 3, kAtEntryCount = 4, kAtBodyLength = 6, kAtPageId = 8,
                 kAtBase = 16, kAtOwner = 24, kAtGeneration = 32, kAtMapped = 36, kAtChecksum = 44;
static_assert(kAtChecksum + 4 == kPageHeaderBytes);
static_assert(kPageBlobMax == kPageHeaderBytes + kPageEntries * kRunMax);
static_assert(std::endian::native == std::endian::little, "the format is little endian");

template <typename T>
T load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
void store(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

uint8_t* put_varint(uint8_t* to, uint64_t value) {
  while (value >= 0x80) {
    *to++ = static_cast<uint8_t>(value | 0x80);
    value >>= 7;
  }
  *to++ = static_cast<uint8_t>(value);
  return to;
}

/// Moves `*from` behind the varint; false when it does not end before `end` or is too long.
bool get_varint(const uint8_t** from, const uint8_t* end, uint64_t* value) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kVarintMax && *from != end; i++) {
    const uint8_t byte = *(*from)++;
    sum |= uint64_t{byte & 0x7fu} << (7 * i);
    if ((byte & 0x80) == 0) {
      *value = sum;
      return true;
    }
  }
  return false;
}

uint64_t zigzag(int64_t value) { return static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63); }
int64_t unzigzag(uint64_t value) { return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1); }

uint32_t checksum_of(const uint8_t* blob, size_t length) {
  return crc32c(blob + kPageHeaderBytes, length - kPageHeaderBytes, crc32c(blob, kAtChecksum));
}

/// How many entries from `index` on are one run.
uint32_t run_length(PageEntries entries, uint32_t index) {
  constexpr uint64_t kKept = kEntryValueMask | kEntryOwned | kEntryExclusive;
  const uint64_t first = entries[index] & kKept;
  // A run ends where a value would leave its 48 bits: the next entry's number is then another's, or 0.
  const uint64_t room = kEntryValueMask - (first & kEntryValueMask) + 1;
  const uint32_t limit = static_cast<uint32_t>(std::min<uint64_t>(kPageEntries - index, room));
  uint32_t length = 1;
  while (length < limit && (entries[index + length] & kKept) == first + length) length++;
  return length;
}

/// Reads all runs of a body into `entries`, which are zero; false when they break a rule.
bool decode_runs(std::span<const uint8_t> body, PageEntriesOut entries, uint32_t* count) {
  const uint8_t* at = body.data();
  const uint8_t* const end = at + body.size();
  uint32_t index = 0;
  int64_t expected = 0;
  *count = 0;
  while (at != end) {
    uint64_t skip, packed, difference;
    if (!get_varint(&at, end, &skip) || !get_varint(&at, end, &packed) || !get_varint(&at, end, &difference)) {
      return false;
    }
    const uint64_t length = packed >> 2;
    if (skip > kPageEntries - index || length == 0 || length > kPageEntries - index - skip) return false;
    const int64_t value = expected + unzigzag(difference);  // both below 2^56: no overflow
    const int64_t value_max = static_cast<int64_t>(kEntryValueMask);
    if (value < 1 || value > value_max - static_cast<int64_t>(length - 1)) return false;
    const uint64_t bits = ((packed & 2) != 0 ? kEntryOwned : 0) | ((packed & 1) != 0 ? kEntryExclusive : 0);
    index += static_cast<uint32_t>(skip);
    for (uint64_t i = 0; i < length; i++) entries[index++] = bits | (static_cast<uint64_t>(value) + i);
    *count += static_cast<uint32_t>(length);
    expected = value + static_cast<int64_t>(length);
  }
  return true;
}

}  // namespace

size_t encode_page(const PageHeader& header, PageEntries entries, uint8_t* out) {
  uint8_t* at = out + kPageHeaderBytes;
  int64_t expected = 0;
  uint32_t skip = 0;
  uint32_t count = 0;
  for (uint32_t i = 0; i < kPageEntries;) {
    const uint64_t value = entries[i] & kEntryValueMask;
    if (value == 0) {
      skip++;
      i++;
      continue;
    }
    const uint32_t length = run_length(entries, i);
    const uint32_t bits = ((entries[i] & kEntryOwned) != 0 ? 2u : 0u) | ((entries[i] & kEntryExclusive) != 0 ? 1u : 0u);
    at = put_varint(at, skip);
    at = put_varint(at, length * 4 + bits);
    at = put_varint(at, zigzag(static_cast<int64_t>(value) - expected));
    expected = static_cast<int64_t>(value) + length;
    count += length;
    skip = 0;
    i += length;
  }
  const size_t bytes = static_cast<size_t>(at - out);
  store<uint16_t>(out + kAtMagic, kMagic);
  out[kAtVersion] = kVersion;
  out[kAtLevel] = static_cast<uint8_t>(header.level);
  store<uint16_t>(out + kAtEntryCount, static_cast<uint16_t>(count));
  store<uint16_t>(out + kAtBodyLength, static_cast<uint16_t>(bytes - kPageHeaderBytes));
  store<uint64_t>(out + kAtPageId, header.page_id);
  store<uint64_t>(out + kAtBase, header.base);
  store<uint64_t>(out + kAtOwner, header.owner);
  store<uint32_t>(out + kAtGeneration, header.generation);
  store<uint64_t>(out + kAtMapped, header.mapped);
  store<uint32_t>(out + kAtChecksum, checksum_of(out, bytes));
  return bytes;
}

PageError decode_page(std::span<const uint8_t> blob, uint64_t expected_page_id, PageHeader* header,
                      PageEntriesOut entries) {
  const uint8_t* const at = blob.data();
  if (blob.size() < kPageHeaderBytes || load<uint16_t>(at + kAtMagic) != kMagic) return PageError::kFormat;
  if (at[kAtVersion] != kVersion) return PageError::kVersion;
  if (blob.size() != kPageHeaderBytes + size_t{load<uint16_t>(at + kAtBodyLength)} || blob.size() > kPageBlobMax) {
    return PageError::kFormat;
  }
  if (load<uint32_t>(at + kAtChecksum) != checksum_of(at, blob.size())) return PageError::kChecksum;
  if (load<uint64_t>(at + kAtPageId) != expected_page_id) return PageError::kOtherPage;
  if (at[kAtLevel] > kPageLevelMax) return PageError::kFormat;

  std::array<uint64_t, kPageEntries> decoded{};
  uint32_t count = 0;
  if (!decode_runs(blob.subspan(kPageHeaderBytes), decoded, &count)) return PageError::kFormat;
  if (count != load<uint16_t>(at + kAtEntryCount)) return PageError::kFormat;
  header->level = at[kAtLevel];
  header->page_id = expected_page_id;
  header->base = load<uint64_t>(at + kAtBase);
  header->owner = load<uint64_t>(at + kAtOwner);
  header->generation = load<uint32_t>(at + kAtGeneration);
  header->mapped = load<uint64_t>(at + kAtMapped);
  header->entry_count = count;
  std::copy(decoded.begin(), decoded.end(), entries.begin());
  return PageError::kNone;
}

}  // namespace atoll_native
