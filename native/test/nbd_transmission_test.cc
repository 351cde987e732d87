// Requests and replies: what clients get, for every form of reply and size of request.
#include "nbd/transmission.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <string_view>

#include "nbd_client.h"

namespace atoll_native::nbd {
namespace {

constexpr uint32_t kKiB = 1024;
constexpr uint32_t kMiB = 1024 * kKiB;

/// A small generator that is the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  uint32_t below(uint32_t bound) { return next() % bound; }
  Bytes bytes(size_t count) {
    Bytes bytes(count);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(next() >> 8 | 1);
    return bytes;
  }

 private:
  uint64_t state_;
};

/// The three ways of talking.
const std::vector<Client::Wishes> kWays = {{false, false, {}}, {true, false, {}}, {true, true, {}}};

Bytes slice(const Bytes& from, size_t offset, size_t bytes) {
  return Bytes(from.begin() + static_cast<long>(offset), from.begin() + static_cast<long>(offset + bytes));
}

void reads_and_writes_of_all_sizes() {
  Fixture::Plan plan;
  plan.size = 40 * kMiB;
  Fixture fixture(plan);
  Random random(1);
  Bytes shadow(plan.size, 0);
  for (const Client::Wishes& way : kWays) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", way));
    for (uint32_t bytes : {1u, 511u, 512u, 4096u, 4097u, 65536u, 65537u, kPieceBytes - 1, kPieceBytes, kPieceBytes + 1,
                           300'000u, kMiB, 3 * kMiB + 17, kPayloadMax}) {
      for (uint64_t offset : {uint64_t{0}, uint64_t{513}, plan.size - bytes}) {
        if (offset + bytes > plan.size) continue;
        const Bytes data = random.bytes(bytes);
        CHECK_EQ(client.call(kCmdWrite, offset, bytes, 0, &data).error, 0u);
        std::copy(data.begin(), data.end(), shadow.begin() + static_cast<long>(offset));
        const Answer answer = client.call(kCmdRead, offset, bytes);
        CHECK_EQ(answer.error, 0u);
        CHECK(answer.data == data);
        if (way.structured) {
          const Answer whole = client.call(kCmdRead, offset, bytes, kCmdFlagDf);
          CHECK_EQ(whole.chunks, 1u);
          CHECK(whole.data == data);
        }
      }
    }
  }
  CHECK(fixture.volume.bytes == shadow);
}

struct Pending {
  uint16_t type;
  uint64_t offset;
  uint64_t length;
  Answer answer;
  Bytes expected;
};

/// Many requests in flight on disjoint pieces, answered by the sink in any order; every reply and the volume are
/// compared.
void random_requests(uint64_t seed, const Client::Wishes& way, bool asynchronous) {
  constexpr uint32_t kLanes = 16;
  constexpr uint32_t kLaneBytes = 1 * kMiB;
  Fixture::Plan plan;
  plan.size = kLanes * kLaneBytes;
  plan.block = 4096u << (seed % 5);
  Fixture fixture(plan);
  auto order = std::make_shared<Random>(seed + 99);
  SimpleReactor& reactor = *fixture.reactors[0];
  MemorySink& sink = fixture.sink();
  bool* asked = new bool(false);
  // The sink answers a few of what it holds, last or first, some turns later.
  std::function<void()> answer_some = [&sink, &reactor, asked, order, &answer_some] {
    *asked = false;
    for (uint32_t i = order->below(4); i-- != 0;) sink.answer_held(order->next());
    if (sink.held() != 0 && !*asked) {
      *asked = true;
      reactor.post(answer_some);
    }
  };
  fixture.on_reactor([&] {
    sink.hold = asynchronous;
    sink.held_one = [&reactor, asked, &answer_some] {
      if (*asked) return;
      *asked = true;
      reactor.post(answer_some);
    };
  });
  Client client(fixture.path);
  REQUIRE(client.go("disk", way));
  Random random(seed);
  Bytes shadow(plan.size, 0);
  std::map<uint64_t, Pending> pending;
  uint64_t next_cookie = 1;
  auto receive_one = [&] {
    const ReplyMessage message = client.reply([&](uint64_t cookie) {
      auto found = pending.find(cookie);
      return found == pending.end() || found->second.type != kCmdRead ? 0 : found->second.length;
    });
    auto found = pending.find(message.cookie);
    if (!client.alive() || found == pending.end() || !client.add(found->second.answer, message, found->second.offset)) {
      CHECK(!"reply breaks the protocol");
      return false;
    }
    if (message.done()) {
      CHECK_EQ(found->second.answer.error, 0u);
      if (found->second.type == kCmdRead) CHECK(found->second.answer.data == found->second.expected);
      pending.erase(found);
    }
    return true;
  };
  for (int i = 0; i < 400; ++i) {
    // One request at a time on each lane, so that it is known what a read must give.
    const uint32_t lane = random.below(kLanes);
    bool busy = pending.size() >= 12;
    for (const auto& [cookie, one] : pending) busy |= one.offset / kLaneBytes == lane;
    if (busy) {
      if (!receive_one()) return;
      continue;
    }
    const uint32_t sizes[] = {1 + random.below(600), 4096, 1 + random.below(70'000), 1 + random.below(600'000),
                              kLaneBytes};
    const uint64_t length = sizes[random.below(5)];
    uint64_t offset = uint64_t{lane} * kLaneBytes + random.below(static_cast<uint32_t>(kLaneBytes - length + 1));
    if (random.below(2) == 0) offset &= ~uint64_t{4095};
    Pending one = {kCmdRead, offset, length, {}, {}};
    auto at = shadow.begin() + static_cast<long>(offset);
    switch (random.below(6)) {
      case 0:
      case 1: {
        one.type = kCmdWrite;
        Bytes data = random.bytes(length);
        if (random.below(3) == 0) std::fill(data.begin(), data.begin() + static_cast<long>(length / 2), 0);
        std::copy(data.begin(), data.end(), at);
        CHECK(client.write_request(next_cookie, offset, data, random.below(2) == 0 ? kCmdFlagFua : 0, receive_one));
        break;
      }
      case 2:
        one.type = random.below(2) == 0 ? kCmdTrim : kCmdWriteZeroes;
        std::fill(at, at + static_cast<long>(length), 0);
        CHECK(client.request(one.type, next_cookie, offset, length, random.below(2) == 0 ? kCmdFlagFua : 0));
        break;
      case 3:
        one.type = random.below(2) == 0 ? kCmdFlush : kCmdCache;
        if (one.type == kCmdFlush) one.length = one.offset = 0;
        CHECK(client.request(one.type, next_cookie, one.offset, one.length));
        break;
      default:
        one.expected = slice(shadow, offset, length);
        one.answer.data.assign(length, 0xEE);
        CHECK(client.request(kCmdRead, next_cookie, offset, length,
                             way.structured && random.below(3) == 0 ? kCmdFlagDf : 0));
        break;
    }
    pending[next_cookie++] = std::move(one);
  }
  while (!pending.empty()) {
    if (!receive_one()) return;
  }
  fixture.on_reactor([&] { CHECK(fixture.volume.bytes == shadow); });
  fixture.on_reactor([&] {
    sink.hold = false;
    sink.held_one = nullptr;
  });
  delete asked;
}

/// The last piece of a large read may be so short that its error is longer than it would have been.
void errors_of_short_pieces() {
  Fixture fixture;
  fixture.on_reactor([&] { fixture.sink().fail = [](const Request& one) { return one.length <= 5 ? EIO : 0; }; });
  for (const bool extended : {false, true}) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", {true, extended, {}}));
    for (uint32_t tail = 1; tail <= 5; ++tail) {
      CHECK_EQ(client.call(kCmdRead, 0, kPieceBytes + tail).error, uint32_t{EIO});
      CHECK_EQ(client.call(kCmdRead, kPieceBytes - tail, kPieceBytes + tail).error, uint32_t{EIO});
    }
    CHECK_EQ(client.call(kCmdRead, 0, kPieceBytes + 6).error, 0u);
  }
}

void requests_cut_anywhere() {
  Fixture fixture;
  Client client(fixture.path);
  REQUIRE(client.go("disk", {}));
  Random random(5);
  const Bytes data = random.bytes(300);
  Bytes bytes = client.request_bytes(kCmdWrite, 1, 1000, data.size());
  bytes.insert(bytes.end(), data.begin(), data.end());
  const Bytes read = client.request_bytes(kCmdRead, 2, 1000, data.size());
  bytes.insert(bytes.end(), read.begin(), read.end());
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    client.send_bytes(bytes.data(), cut);
    if (cut % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
    client.send_bytes(bytes.data() + cut, bytes.size() - cut);
    CHECK_EQ(client.reply().cookie, uint64_t{1});
    const ReplyMessage reply = client.reply();
    if (!CHECK(reply.payload.size() == data.size() + 8 &&
               std::equal(data.begin(), data.end(), reply.payload.begin() + 8)))
      return;
  }
}

void large_writes_in_small_steps() {
  Fixture::Plan plan;
  plan.size = 4 * kMiB;
  Fixture fixture(plan);
  Client client(fixture.path);
  REQUIRE(client.go("disk", {}));
  std::vector<std::pair<uint64_t, uint64_t>> pieces;
  fixture.on_reactor([&] {
    fixture.sink().observe = [&](const Request& request) {
      if (request.op == Op::kWrite) pieces.emplace_back(request.offset, request.length);
    };
  });
  Random random(6);
  const Bytes data = random.bytes(2 * kMiB + 100);
  const uint64_t offset = 70'000;
  client.send_bytes(client.request_bytes(kCmdWrite, 9, offset, data.size(), kCmdFlagFua));
  for (size_t at = 0; at < data.size();) {
    const size_t step = std::min<size_t>(data.size() - at, 1 + random.below(50'000));
    CHECK(client.send_bytes(data.data() + at, step));
    at += step;
    if (random.below(4) == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
  }
  CHECK_EQ(client.reply().error, 0u);
  fixture.on_reactor([&] {
    CHECK(slice(fixture.volume.bytes, offset, data.size()) == data);
    CHECK_EQ(fixture.sink().flushes, 1u);  // FUA on a write in pieces
    CHECK(pieces.size() > 1);
    uint64_t at = offset;
    for (const auto& [from, bytes] : pieces) {  // in order, without gaps, and no block in two pieces
      CHECK_EQ(from, at);
      at += bytes;
      if (at != offset + data.size()) CHECK_EQ(at % plan.block, 0u);
    }
    CHECK_EQ(at, offset + data.size());
  });
}

void flags_reach_the_sink() {
  Fixture fixture;
  Client client(fixture.path);
  REQUIRE(client.go("disk", {true, false, {"base:allocation"}}));
  std::vector<std::pair<Op, uint16_t>> seen;
  fixture.on_reactor(
      [&] { fixture.sink().observe = [&](const Request& request) { seen.emplace_back(request.op, request.flags); }; });
  const Bytes data(512, 1);
  client.call(kCmdWrite, 0, 512, kCmdFlagFua, &data);
  client.call(kCmdWrite, 0, 512, 0, &data);
  client.call(kCmdTrim, 0, 512, kCmdFlagFua);
  client.call(kCmdWriteZeroes, 0, 512, kCmdFlagFua | kCmdFlagNoHole);
  client.call(kCmdWriteZeroes, 0, 512, kCmdFlagFastZero);
  client.call(kCmdRead, 0, 512, kCmdFlagFua);  // allowed everywhere, means nothing here
  client.call(kCmdFlush, 0, 0, kCmdFlagFua);
  client.call(kCmdCache, 0, 512);
  client.call(kCmdBlockStatus, 0, 512, kCmdFlagReqOne);
  const std::vector<std::pair<Op, uint16_t>> expected = {{Op::kWrite, kFua},
                                                         {Op::kWrite, 0},
                                                         {Op::kTrim, kFua},
                                                         {Op::kWriteZeroes, kFua | kNoHole},
                                                         {Op::kWriteZeroes, kFastZero},
                                                         {Op::kRead, 0},
                                                         {Op::kFlush, 0},
                                                         {Op::kCache, 0},
                                                         {Op::kStatus, kReqOne}};
  fixture.on_reactor([&] { CHECK(seen == expected); });
}

void holes_are_told_not_sent() {
  Fixture::Plan plan;
  plan.size = 8 * kMiB;
  Fixture fixture(plan);
  Random random(8);
  auto fill = [&](uint64_t offset, size_t bytes) {
    const Bytes data = random.bytes(bytes);
    std::copy(data.begin(), data.end(), fixture.volume.bytes.begin() + static_cast<long>(offset));
  };
  fixture.on_reactor([&] {
    fill(1 * kMiB + 65536, 65536);      // data between holes
    fill(2 * kMiB, 100);                // data at the start of a block
    fill(2 * kMiB + 3 * 65536 - 1, 1);  // and at the end of one
    fill(3 * kMiB, kMiB);
  });
  for (const bool extended : {false, true}) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", {true, extended, {}}));
    auto read = [&](uint64_t offset, uint64_t bytes, uint16_t flags, uint64_t holes) {
      const Answer answer = client.call(kCmdRead, offset, bytes, flags);
      CHECK_EQ(answer.error, 0u);
      CHECK_EQ(answer.holes, holes);
      CHECK(answer.data == slice(fixture.volume.bytes, offset, bytes));
    };
    read(0, kMiB, 0, kMiB);
    read(0, kMiB, kCmdFlagDf, 0);
    read(0, 65536, 0, 65536);
    read(100, 65536, 0, 0);              // no whole block in it
    read(100, 3 * 65536, 0, 2 * 65536);  // only the whole ones
    read(0, 4096, 0, 0);                 // too small to look
    read(1 * kMiB, 3 * 65536, 0, 2 * 65536);
    read(1 * kMiB, kMiB, 0, kMiB - 65536);
    read(1 * kMiB + 4096, 2 * 65536, 0, 0);
    read(2 * kMiB, 4 * 65536, 0, 2 * 65536);
    read(3 * kMiB, kMiB, 0, 0);
    read(kMiB / 2, 3 * kMiB, 0, 2 * kMiB + kMiB / 2 - 3 * 65536);
  }
  Client simple(fixture.path);
  REQUIRE(simple.go("disk", {false, false, {}}));
  CHECK(simple.call(kCmdRead, 0, kMiB).data == Bytes(kMiB, 0));
}

void block_status() {
  Fixture fixture;
  for (const bool extended : {false, true}) {
    Client client(fixture.path);
    REQUIRE(client.go(
        "disk", {true, extended, {"base:allocation", "atoll:changed-since:tuesday", "atoll:changed-since:monday"}}));
    const Bytes data(65536, 7);
    CHECK_EQ(client.call(kCmdWrite, 65536, 65536, 0, &data).error, 0u);
    using Extents = std::vector<std::pair<uint64_t, uint64_t>>;
    Answer answer = client.call(kCmdBlockStatus, 0, 8 * kMiB);
    CHECK_EQ(answer.contexts.size(), 3u);
    if (answer.contexts.size() != 3) return;
    CHECK(answer.contexts[0].extents == (Extents{{65536, 3}, {65536, 0}, {8 * kMiB - 2 * 65536, 3}}));
    CHECK(answer.contexts[1].extents == (Extents{{65536, 0}, {65536, 1}, {8 * kMiB - 2 * 65536, 0}}));
    CHECK(answer.contexts[2].extents == answer.contexts[1].extents);
    CHECK(answer.contexts[0].id != answer.contexts[1].id && answer.contexts[1].id != answer.contexts[2].id);
    answer = client.call(kCmdBlockStatus, 1, 100'000, kCmdFlagReqOne);
    CHECK(answer.contexts.size() == 3 && answer.contexts[0].extents == (Extents{{65535, 3}}));
    answer = client.call(kCmdBlockStatus, 8 * kMiB - 1, 1);
    CHECK(answer.contexts.size() == 3 && answer.contexts[0].extents == (Extents{{1, 3}}));
  }
}

// CVE-2025-47711: a status over the largest range was one off. CVE-2025-47712: 2^32-1 rounded up became 0. And answers
// of the layer below that are longer, shorter, empty or split differently than asked.
void cve_2025_47711_cve_2025_47712_largest_lengths() {
  Fixture fixture;
  const uint64_t size = uint64_t{1} << 50;
  fixture.directory.exports["wide"] = {size, 65536, false, "", {}};
  std::vector<std::pair<uint64_t, uint64_t>> asked;
  std::vector<Extent> answer;
  fixture.on_reactor([&] {
    fixture.sink().serve_instead = [&](Request& request) {
      asked.emplace_back(request.offset, request.length);
      if (request.op == Op::kStatus) {
        request.extent_count = static_cast<uint32_t>(std::min<size_t>(answer.size(), request.extent_max));
        std::copy(answer.begin(), answer.begin() + request.extent_count, request.extents);
      }
      return true;
    };
  });
  using Extents = std::vector<std::pair<uint64_t, uint64_t>>;
  for (const bool extended : {false, true}) {
    Client client(fixture.path);
    REQUIRE(client.go("wide", {true, extended, {"base:allocation"}}));
    auto status = [&](uint64_t offset, uint64_t length, const std::vector<Extent>& below, uint16_t flags,
                      const Extents& expected) {
      fixture.on_reactor([&] { answer = below; });
      const Answer got = client.call(kCmdBlockStatus, offset, length, flags);
      CHECK_EQ(got.error, 0u);
      CHECK(got.contexts.size() == 1 && got.contexts[0].extents == expected);
    };
    const uint64_t most = extended ? size : 0xffffffffu;
    status(0, most, {{size, 3, 0}}, 0, {{most, 3}});
    status(size - 0xffffffffu, 0xffffffffu, {{0xffffffffu, 0, 0}}, 0, {{0xffffffffu, 0}});
    status(0, 0xffff0000u, {{0xffff0000u, 3, 0}}, kCmdFlagReqOne, {{0xffff0000u, 3}});
    status(0, 0xffffffffu, {{0xfffffffeu, 3, 0}, {1, 0, 0}, {5, 3, 0}}, 0, {{0xfffffffeu, 3}, {1, 0}});
    status(0, 4096, {{1, 0, 0}, {2, 0, 0}, {3, 3, 0}}, 0, {{3, 0}, {3, 3}});  // less than asked is allowed
    status(0, 4096, {{0, 0, 0}, {4096, 3, 0}}, 0, {{4096, 3}});
    status(0, 4096, {}, 0, {{4096, 0}});  // what nobody knows is data
    status(size - 1, 1, {{UINT64_MAX, 3, 0}}, 0, {{1, 3}});
    for (uint16_t command : {uint16_t{kCmdTrim}, uint16_t{kCmdWriteZeroes}, uint16_t{kCmdCache}}) {
      for (uint64_t length : {uint64_t{0xffffffffu}, uint64_t{0xffff0000u}, most}) {
        fixture.on_reactor([&] { asked.clear(); });
        CHECK_EQ(client.call(command, size - length, length).error, 0u);
        fixture.on_reactor([&] {
          CHECK(asked == (std::vector<std::pair<uint64_t, uint64_t>>{{size - length, length}}));
        });
      }
      CHECK(client.call(command, size - 0xfffffffeu, 0xffffffffu).error != 0);
      CHECK(client.call(command, uint64_t{0} - 1, 0xffffffffu).error != 0);
    }
  }
}

/// Under TSan one takes half a minute; the short run has fewer of them there, each with all ways.
uint64_t seeds() {
  constexpr uint64_t kAll = 6;
#if defined(__SANITIZE_THREAD__)
  const char* const is_long = std::getenv("ATOLL_TEST_LONG");
  return is_long != nullptr && std::string_view(is_long) == "1" ? kAll : 2;
#else
  return kAll;
#endif
}

}  // namespace
}  // namespace atoll_native::nbd

int main() {
  using namespace atoll_native::nbd;
  reads_and_writes_of_all_sizes();
  for (uint64_t seed = 1; seed <= seeds(); ++seed) {
    for (const Client::Wishes& way : kWays) {
      random_requests(seed, way, false);
      random_requests(seed, way, true);
    }
  }
  errors_of_short_pieces();
  requests_cut_anywhere();
  large_writes_in_small_steps();
  flags_reach_the_sink();
  holes_are_told_not_sent();
  block_status();
  cve_2025_47711_cve_2025_47712_largest_lengths();
  return atoll_native::check_summary();
}
