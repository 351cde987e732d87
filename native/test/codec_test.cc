// The map page codec: known bytes, round trips of random pages, each rule a decoder has, and random damage.
#include <array>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "map/crc32c.h"
#include "map/frames.h"
#include "map/page_codec.h"
#include "test/check.h"

namespace atoll_native {
namespace {

using Page = std::array<uint64_t, kPageEntries>;
using Blob = std::vector<uint8_t>;

constexpr size_t kAtLevel = 3, kAtCount = 4, kAtLength = 6, kAtChecksum = 44;

PageHeader header_for(uint64_t id) {
  PageHeader header;
  header.page_id = id;
  return header;
}

Blob encode(const PageHeader& header, const Page& page) {
  Blob blob(kPageBlobMax);
  blob.resize(encode_page(header, page, blob.data()));
  return blob;
}

void seal(Blob* blob) {
  const uint32_t sum =
      crc32c(blob->data() + kPageHeaderBytes, blob->size() - kPageHeaderBytes, crc32c(blob->data(), kAtChecksum));
  std::memcpy(blob->data() + kAtChecksum, &sum, 4);
}

/// A blob of page 1 with this body, right in everything else.
Blob with_body(const std::vector<uint8_t>& body, uint16_t count) {
  Blob blob = encode(header_for(1), Page{});
  blob.insert(blob.end(), body.begin(), body.end());
  const uint16_t length = static_cast<uint16_t>(body.size());
  std::memcpy(blob.data() + kAtCount, &count, 2);
  std::memcpy(blob.data() + kAtLength, &length, 2);
  seal(&blob);
  return blob;
}

PageError decode(const Blob& blob, uint64_t id, PageHeader* header = nullptr, Page* page = nullptr) {
  PageHeader ignored_header;
  Page ignored_page;
  // A copy of exactly the blob's size, so that the address sanitizer sees a read beyond it.
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[blob.size()]);
  if (!blob.empty()) std::memcpy(exact.get(), blob.data(), blob.size());
  return decode_page({exact.get(), blob.size()}, id, header != nullptr ? header : &ignored_header,
                     page != nullptr ? *page : ignored_page);
}

void checksum_is_the_known_one() {
  CHECK_EQ(crc32c("123456789", 9), 0xE3069283u);
  CHECK_EQ(crc32c_table("123456789", 9), 0xE3069283u);
  CHECK_EQ(crc32c("", 0), 0u);
  std::vector<uint8_t> zeroes(32);
  CHECK_EQ(crc32c(zeroes.data(), 32), 0x8A9136AAu);  // RFC 3720, B.4
  std::mt19937_64 random(1);
  std::vector<uint8_t> bytes(4100);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  for (int i = 0; i < 2000; i++) {
    const size_t from = random() % 64, length = random() % 4000, cut = length == 0 ? 0 : random() % length;
    const uint32_t whole = crc32c(bytes.data() + from, length);
    REQUIRE(whole == crc32c_table(bytes.data() + from, length));
    REQUIRE(whole == crc32c(bytes.data() + from + cut, length - cut, crc32c(bytes.data() + from, cut)));
  }
}

void writes_the_documented_bytes() {
  Page page{};
  page[2] = kEntryOwned | kEntryExclusive | 101;
  page[3] = kEntryOwned | kEntryExclusive | 102;
  page[4] = 103;
  page[511] = kEntryOwned | 5;
  PageHeader header;
  header.level = 0;
  header.page_id = 0x1122334455667788;
  header.base = 9;
  header.owner = 10;
  header.generation = 11;
  header.mapped = 4;
  const Blob blob = encode(header, page);
  const uint8_t expected[] = {
      0x41, 0x4D, 1,    0,    4,    0,    12,   0,     // magic, version, level, entries, body length
      0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,  // page id
      9,    0,    0,    0,    0,    0,    0,    0,     // base
      10,   0,    0,    0,    0,    0,    0,    0,     // owner
      11,   0,    0,    0,                             // generation
      4,    0,    0,    0,    0,    0,    0,    0,     // mapped
  };
  CHECK(std::memcmp(blob.data(), expected, sizeof expected) == 0);
  const std::vector<uint8_t> body(blob.begin() + kPageHeaderBytes, blob.end());
  const std::vector<uint8_t> runs = {
      2,    2 * 4 + 3, 0xCA,      1,        // skip 2, two owned and exclusive, 101 - 0: zigzag 202
      0,    1 * 4 + 0, 0,                   // one borrowed, 103 - 103
      0xFA, 3,         1 * 4 + 2, 0xC5, 1,  // skip 506, one owned, 5 - 104 = -99: zigzag 197
  };
  CHECK_EQ(body.size(), 12u);
  CHECK(body == runs);
}

void keeps_extremes() {
  PageHeader header;
  header.level = kPageLevelMax;
  header.page_id = UINT64_MAX;
  header.base = UINT64_MAX - 1;
  header.owner = UINT64_MAX - 2;
  header.generation = UINT32_MAX;
  header.mapped = UINT64_MAX - 3;
  // Smallest and largest value in turn: the longest differences, one run each.
  Page page{};
  for (uint32_t i = 0; i < kPageEntries; i++) {
    page[i] = (i % 2 == 0 ? kEntryValueMask : 1) | (i % 3 == 0 ? kEntryOwned : 0) | (i % 5 == 0 ? kEntryExclusive : 0);
  }
  const Blob blob = encode(header, page);
  CHECK(blob.size() <= kPageBlobMax);
  PageHeader read;
  Page decoded;
  REQUIRE(decode(blob, UINT64_MAX, &read, &decoded) == PageError::kNone);
  CHECK(decoded == page);
  CHECK_EQ(read.level, kPageLevelMax);
  CHECK_EQ(read.base, header.base);
  CHECK_EQ(read.owner, header.owner);
  CHECK_EQ(read.generation, header.generation);
  CHECK_EQ(read.mapped, header.mapped);
  CHECK_EQ(read.entry_count, kPageEntries);
}

void the_last_value_does_not_run_over() {
  // 2^48-1 is followed by bit pattern 2^48, which no entry has: bits 48-61 are not kept, so it is an empty entry.
  Page page{};
  page[0] = kEntryValueMask;
  page[1] = kEntryValueMask + 1;
  Page expected{};
  expected[0] = kEntryValueMask;
  PageHeader header;
  Page decoded;
  REQUIRE(decode(encode(header_for(1), page), 1, &header, &decoded) == PageError::kNone);
  CHECK(decoded == expected);
}

void one_run_is_small() {
  Page page{};
  for (uint32_t i = 0; i < kPageEntries; i++) page[i] = kEntryOwned | (1000 + i);
  CHECK_EQ(encode(header_for(1), page).size(), kPageHeaderBytes + 5);
  CHECK_EQ(encode(header_for(1), Page{}).size(), kPageHeaderBytes);
}

/// A page of some shape: runs, holes, jumps forth and back, changing bits.
Page random_page(std::mt19937_64* random) {
  Page page{};
  const uint64_t density = (*random)() % 100;
  const uint64_t breaks = (*random)() % 100;
  uint64_t value = (*random)() & kEntryValueMask;
  uint64_t bits = 0;
  for (uint64_t& entry : page) {
    if ((*random)() % 100 < breaks) value = (*random)() >> ((*random)() % 64) & kEntryValueMask;
    if ((*random)() % 100 < breaks) bits = (*random)() & (kEntryOwned | kEntryExclusive);
    if (value == 0) value = 1;
    if ((*random)() % 100 < density) entry = bits | value;
    value = value == kEntryValueMask ? 1 : value + 1;
  }
  return page;
}

PageHeader random_header(std::mt19937_64* random) {
  PageHeader header;
  header.level = static_cast<uint32_t>((*random)() % (kPageLevelMax + 1));
  header.page_id = (*random)();
  header.base = (*random)();
  header.owner = (*random)();
  header.generation = static_cast<uint32_t>((*random)());
  header.mapped = (*random)();
  return header;
}

void random_pages_round_trip() {
  std::mt19937_64 random(7);
  for (int i = 0; i < 3000; i++) {
    const Page page = random_page(&random);
    const PageHeader header = random_header(&random);
    const Blob blob = encode(header, page);
    PageHeader read;
    Page decoded;
    REQUIRE(decode(blob, header.page_id, &read, &decoded) == PageError::kNone);
    REQUIRE(decoded == page);
    REQUIRE(read.level == header.level && read.base == header.base && read.owner == header.owner &&
            read.generation == header.generation && read.mapped == header.mapped);
  }
}

void damage_is_found() {
  std::mt19937_64 random(8);
  for (int i = 0; i < 3000; i++) {
    const PageHeader header = random_header(&random);
    const Blob good = encode(header, random_page(&random));
    // One to three bytes: a burst CRC-32C always tells, and never a crash.
    Blob bad = good;
    const size_t changes = 1 + random() % 3;
    for (size_t c = 0; c < changes; c++) bad[random() % bad.size()] ^= static_cast<uint8_t>(1 + random() % 255);
    if (bad != good) REQUIRE(decode(bad, header.page_id) != PageError::kNone);
    Blob cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(random() % good.size()));
    REQUIRE(decode(cut, header.page_id) != PageError::kNone);
    Blob longer = good;
    longer.push_back(0);
    REQUIRE(decode(longer, header.page_id) == PageError::kFormat);
  }
}

/// With a right checksum, any body is either refused or decodes to a page that encodes and decodes again to itself.
void any_body_is_handled() {
  std::mt19937_64 random(9);
  uint32_t accepted = 0;
  for (int i = 0; i < 30'000; i++) {
    std::vector<uint8_t> body(random() % 24);
    for (uint8_t& byte : body) byte = static_cast<uint8_t>(random() >> (random() % 8));
    for (uint16_t count : {0, 1, 2, 3, 4, 5, 6, 7, 8}) {
      Page page;
      PageHeader header;
      if (decode(with_body(body, count), 1, &header, &page) != PageError::kNone) continue;
      accepted++;
      Page again;
      REQUIRE(decode(encode(header, page), 1, &header, &again) == PageError::kNone);
      REQUIRE(again == page);
    }
  }
  CHECK(accepted > 100);
}

void each_rule_is_kept() {
  const Blob good = with_body({0, 4, 2}, 1);  // one borrowed entry of value 1
  REQUIRE(decode(good, 1) == PageError::kNone);
  const auto changed = [&](const std::function<void(Blob*)>& change) {
    Blob blob = good;
    change(&blob);
    return blob;
  };
  CHECK(decode({}, 1) == PageError::kFormat);
  CHECK(decode(Blob(good.begin(), good.begin() + kPageHeaderBytes - 1), 1) == PageError::kFormat);
  CHECK(decode(changed([](Blob* b) { (*b)[0] ^= 1; }), 1) == PageError::kFormat);
  CHECK(decode(changed([](Blob* b) { (*b)[2] = 2; }), 1) == PageError::kVersion);
  CHECK(decode(changed([](Blob* b) { (*b)[kAtLength] = 2; }), 1) == PageError::kFormat);
  CHECK(decode(changed([](Blob* b) { (*b)[kAtChecksum] ^= 1; }), 1) == PageError::kChecksum);
  CHECK(decode(changed([](Blob* b) { (*b)[20] ^= 1; }), 1) == PageError::kChecksum);
  CHECK(decode(good, 2) == PageError::kOtherPage);
  const auto level = [&](uint32_t value) {
    return changed([&](Blob* b) {
      (*b)[kAtLevel] = static_cast<uint8_t>(value);
      seal(b);
    });
  };
  CHECK(decode(level(kPageLevelMax), 1) == PageError::kNone);
  CHECK(decode(level(kPageLevelMax + 1), 1) == PageError::kFormat);

  // Bodies. 0x80 0x10 is 2048 = length 512; 0xFF 0x03 is 511.
  CHECK(decode(with_body({0, 0x80, 0x10, 2}, 512), 1) == PageError::kNone);
  CHECK(decode(with_body({0, 0x84, 0x10, 2}, 513), 1) == PageError::kFormat);  // 513 entries
  CHECK(decode(with_body({1, 0x80, 0x10, 2}, 512), 1) == PageError::kFormat);  // one beyond the page
  CHECK(decode(with_body({0xFF, 3, 4, 2}, 1), 1) == PageError::kNone);         // the last entry
  CHECK(decode(with_body({0x80, 4, 4, 2}, 1), 1) == PageError::kFormat);       // skip 512, then one
  CHECK(decode(with_body({0x81, 4, 4, 2}, 1), 1) == PageError::kFormat);       // skip beyond the page
  CHECK(decode(with_body({0, 0, 2}, 0), 1) == PageError::kFormat);             // a run of nothing
  CHECK(decode(with_body({0, 4, 0}, 1), 1) == PageError::kFormat);             // value 0
  CHECK(decode(with_body({0, 4, 1}, 1), 1) == PageError::kFormat);             // value -1
  CHECK(decode(with_body({0, 4, 2}, 2), 1) == PageError::kFormat);             // says two, holds one
  CHECK(decode(with_body({0, 4, 2}, 0), 1) == PageError::kFormat);             // says none, holds one
  CHECK(decode(with_body({0, 4}, 1), 1) == PageError::kFormat);                // ends inside a run
  CHECK(decode(with_body({0, 4, 2, 0}, 1), 1) == PageError::kFormat);          // trailing byte
  CHECK(decode(with_body({0, 4, 0x82}, 1), 1) == PageError::kFormat);          // ends inside a varint
  // 2^48-1 is zigzag 2^49-2: FE FF FF FF FF FF 7F.
  const std::vector<uint8_t> top = {0, 4, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F};
  CHECK(decode(with_body(top, 1), 1) == PageError::kNone);
  std::vector<uint8_t> two = top;
  two[1] = 8;
  CHECK(decode(with_body(two, 2), 1) == PageError::kFormat);  // the second value is 2^48
  const std::vector<uint8_t> beyond = {0, 4, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1};
  CHECK(decode(with_body(beyond, 1), 1) == PageError::kFormat);  // 2^48
  const std::vector<uint8_t> long_varint = {0, 4, 0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0};
  CHECK(decode(with_body(long_varint, 1), 1) == PageError::kFormat);  // nine bytes
}

void refused_pages_change_nothing() {
  Page page;
  page.fill(77);
  PageHeader header = header_for(5);
  Blob bad = with_body({0, 4, 2, 0, 4, 0, 0, 0, 0}, 3);  // two good runs, then a bad one
  CHECK(decode(bad, 1, &header, &page) == PageError::kFormat);
  CHECK_EQ(page[0], 77u);
  CHECK_EQ(header.page_id, 5u);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  checksum_is_the_known_one();
  writes_the_documented_bytes();
  keeps_extremes();
  the_last_value_does_not_run_over();
  one_run_is_small();
  random_pages_round_trip();
  damage_is_found();
  any_body_is_handled();
  each_rule_is_kept();
  refused_pages_change_nothing();
  return check_summary();
}
