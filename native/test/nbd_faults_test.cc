// Transmission when something is wrong: clients that break rules, vanish or do not listen; disks that fail; a server
// that stops.
#include <sys/resource.h>

#include <set>

#include "nbd/transmission.h"
#include "nbd_client.h"

namespace atoll_native::nbd {
namespace {

constexpr uint32_t kMiB = 1u << 20;

const std::vector<Client::Wishes> kWays = {{false, false, {}}, {true, false, {}}, {true, true, {}}};

/// In step: the next request is understood.
void check_in_step(Client& client) {
  CHECK_EQ(client.call(kCmdRead, 0, 512).error, 0u);
  CHECK(client.alive());
}

void bad_magic_ends_the_connection() {
  Fixture fixture;
  for (uint32_t magic : {0u, kMagicSimpleReply, kMagicExtendedRequest, 0xffffffffu}) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", {}));
    Bytes bytes = client.request_bytes(kCmdRead, 1, 0, 512);
    store<uint32_t>(bytes.data(), magic);
    client.send_bytes(bytes);
    CHECK(client.closed());
  }
  Client extended(fixture.path);
  REQUIRE(extended.go("disk", {true, true, {}}));
  Bytes bytes = extended.request_bytes(kCmdRead, 1, 0, 512);
  store<uint32_t>(bytes.data(), kMagicRequest);
  extended.send_bytes(bytes);
  CHECK(extended.closed());
  CHECK(fixture.serves());
}

void unknown_commands_and_flags() {
  Fixture fixture;
  for (const Client::Wishes& way : kWays) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", way));
    for (uint16_t type : {8, 9, 255, 32767, 65535}) {
      CHECK_EQ(client.call(type, 0, 512).error, uint32_t{EINVAL});
    }
    struct Case {
      uint16_t type;
      uint16_t flags;
    };
    for (const Case& one : std::vector<Case>{{kCmdRead, kCmdFlagNoHole},
                                             {kCmdRead, kCmdFlagReqOne},
                                             {kCmdRead, 1 << 6},
                                             {kCmdRead, 0x8000},
                                             {kCmdTrim, kCmdFlagNoHole},
                                             {kCmdTrim, kCmdFlagFastZero},
                                             {kCmdCache, kCmdFlagDf},
                                             {kCmdWriteZeroes, kCmdFlagDf},
                                             {kCmdWriteZeroes, kCmdFlagReqOne}}) {
      CHECK_EQ(client.call(one.type, 0, 512, one.flags).error, uint32_t{EINVAL});
    }
    CHECK_EQ(client.call(kCmdFlush, 0, 0, kCmdFlagDf).error, uint32_t{EINVAL});
    CHECK_EQ(client.call(kCmdRead, 0, 512, kCmdFlagDf).error, way.structured ? 0u : uint32_t{EINVAL});
    CHECK_EQ(client.call(kCmdBlockStatus, 0, 512).error, uint32_t{EINVAL});  // no context selected
    // A write that is refused has its payload skipped.
    const Bytes data(100'000, 0x25);
    for (uint16_t flags : {kCmdFlagNoHole, kCmdFlagDf, kCmdFlagReqOne, kCmdFlagFastZero}) {
      CHECK_EQ(client.call(kCmdWrite, 0, data.size(), flags, &data).error, uint32_t{EINVAL});
    }
    fixture.on_reactor([&] { CHECK(fixture.volume.bytes == Bytes(fixture.volume.bytes.size(), 0)); });
    if (!way.extended) CHECK_EQ(client.call(kCmdRead, 0, 512, kCmdFlagPayloadLen).error, uint32_t{EINVAL});
    check_in_step(client);
  }
}

void payload_flag_of_extended_headers() {
  Fixture fixture;
  Client client(fixture.path);
  REQUIRE(client.go("disk", {true, true, {}}));
  // A write that announces no payload brings none.
  client.request(kCmdWrite, 1, 0, 4096, 0);
  CHECK_EQ(client.reply().error, uint32_t{EINVAL});
  check_in_step(client);
  // Another command that does has it skipped.
  for (uint16_t type : {kCmdRead, kCmdTrim, kCmdFlush, kCmdBlockStatus}) {
    Bytes bytes = client.request_bytes(type, 2, 0, 3000, kCmdFlagPayloadLen);
    bytes.resize(bytes.size() + 3000, 0x25);
    client.send_bytes(bytes);
    CHECK_EQ(client.reply().error, uint32_t{EINVAL});
    check_in_step(client);
  }
  client.request(kCmdRead, 3, 0, uint64_t{1} << 40, kCmdFlagPayloadLen);
  CHECK(client.closed());
}

void ranges() {
  Fixture fixture;
  const uint64_t size = fixture.volume.bytes.size();
  for (const Client::Wishes& way : kWays) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", way));
    struct Range {
      uint64_t offset;
      uint64_t length;
    };
    for (const Range& range : std::vector<Range>{{size, 1},
                                                 {size - 1, 2},
                                                 {size - 511, 512},
                                                 {0, size + 1},
                                                 {UINT64_MAX, 1},
                                                 {UINT64_MAX - 511, 512},
                                                 {uint64_t{1} << 63, 4096},
                                                 {1, 0xffffffff},
                                                 {UINT64_MAX, 0xffffffff}}) {
      CHECK_EQ(client.call(kCmdRead, range.offset, range.length).error, uint32_t{EINVAL});
      CHECK_EQ(client.call(kCmdTrim, range.offset, range.length).error, uint32_t{EINVAL});
      CHECK_EQ(client.call(kCmdCache, range.offset, range.length).error, uint32_t{EINVAL});
      CHECK_EQ(client.call(kCmdWriteZeroes, range.offset, range.length).error, uint32_t{ENOSPC});
      if (range.length > 100'000) continue;
      const Bytes data(range.length, 1);
      CHECK_EQ(client.call(kCmdWrite, range.offset, range.length, 0, &data).error, uint32_t{ENOSPC});
    }
    for (uint16_t type : {kCmdRead, kCmdTrim, kCmdCache, kCmdWriteZeroes, kCmdWrite}) {
      const Bytes nothing;
      CHECK_EQ(client.call(type, 0, 0, 0, type == kCmdWrite ? &nothing : nullptr).error, uint32_t{EINVAL});
    }
    CHECK_EQ(client.call(kCmdFlush, 1, 0).error, uint32_t{EINVAL});
    CHECK_EQ(client.call(kCmdFlush, 0, 1).error, uint32_t{EINVAL});
    CHECK_EQ(client.call(kCmdRead, size - 1, 1).error, 0u);
    check_in_step(client);
  }
}

void payloads_are_bounded() {
  Fixture::Plan plan;
  plan.size = 40 * kMiB;
  Fixture fixture(plan);
  for (const Client::Wishes& way : kWays) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", way));
    CHECK_EQ(client.call(kCmdRead, 0, kPayloadMax + 1).error, uint32_t{EINVAL});
    check_in_step(client);
    // A payload beyond the bound is not even skipped.
    for (uint64_t length : {uint64_t{kPayloadMax} + 1, uint64_t{0xffffffff}}) {
      Client greedy(fixture.path);
      REQUIRE(greedy.go("disk", way));
      greedy.request(kCmdWrite, 1, 0, length, way.extended ? kCmdFlagPayloadLen : 0);
      CHECK(greedy.closed());
    }
  }
  CHECK(fixture.serves());
}

void read_only_exports() {
  Fixture fixture;
  for (const Client::Wishes& way : kWays) {
    Client client(fixture.path);
    REQUIRE(client.go("disk@monday", way));
    CHECK((client.flags & kFlagReadOnly) != 0);
    CHECK((client.flags & (kFlagSendFlush | kFlagSendFua | kFlagSendTrim | kFlagSendWriteZeroes | kFlagSendFastZero)) ==
          0);
    for (uint32_t bytes : {512u, 70'000u, kMiB}) {
      const Bytes data(bytes, 1);
      CHECK_EQ(client.call(kCmdWrite, 0, bytes, 0, &data).error, uint32_t{EPERM});
    }
    CHECK_EQ(client.call(kCmdTrim, 0, 512).error, uint32_t{EPERM});
    CHECK_EQ(client.call(kCmdWriteZeroes, 0, 512).error, uint32_t{EPERM});
    CHECK_EQ(client.call(kCmdFlush, 0, 0).error, uint32_t{EINVAL});  // was not offered, as FUA
    CHECK_EQ(client.call(kCmdRead, 0, 512, kCmdFlagFua).error, uint32_t{EINVAL});
    check_in_step(client);
  }
  fixture.on_reactor([&] { CHECK(fixture.volume.bytes == Bytes(fixture.volume.bytes.size(), 0)); });
}

void errors_keep_their_cause() {
  Fixture fixture;
  const std::vector<std::pair<int, uint32_t>> errors = {
      {EPERM, 1},   {EROFS, 1},  {EACCES, 1},     {EIO, 5},      {ENOMEM, 12},     {EINVAL, 22}, {ENOSPC, 28},
      {EDQUOT, 28}, {EFBIG, 28}, {EOVERFLOW, 75}, {ENOTSUP, 95}, {ESHUTDOWN, 108}, {EBADMSG, 5}, {ETIMEDOUT, 5}};
  for (const Client::Wishes& way : kWays) {
    Client::Wishes wishes = way;
    if (way.structured) wishes.contexts = {"base:allocation"};
    Client client(fixture.path);
    REQUIRE(client.go("disk", wishes));
    const Bytes data(512, 1);
    for (const auto& [error, wire] : errors) {
      fixture.on_reactor([&, error = error] { fixture.sink().fail = [error](const Request&) { return error; }; });
      CHECK_EQ(client.call(kCmdRead, 0, 512).error, wire);
      CHECK_EQ(client.call(kCmdWrite, 0, 512, 0, &data).error, wire);
      CHECK_EQ(client.call(kCmdFlush, 0, 0).error, wire);
      CHECK_EQ(client.call(kCmdTrim, 0, 512).error, wire);
      CHECK_EQ(client.call(kCmdWriteZeroes, 0, 512).error, wire);
      CHECK_EQ(client.call(kCmdCache, 0, 512).error, wire);
      if (way.structured) CHECK_EQ(client.call(kCmdBlockStatus, 0, 512).error, wire);
    }
    fixture.on_reactor([&] { fixture.sink().fail = nullptr; });
    check_in_step(client);
  }
}

// CVE-2022-0485: a copy went on over read errors. Every piece's error reaches the client, wherever in the request it
// is.
void cve_2022_0485_errors_in_the_middle() {
  Fixture fixture;
  const uint64_t bad = 3 * kMiB + 4096;
  fixture.on_reactor([&] {
    std::fill(fixture.volume.bytes.begin(), fixture.volume.bytes.end(), 0x5a);
    fixture.sink().fail = [&](const Request& request) {
      return request.op != Op::kFlush && request.offset <= bad && bad < request.offset + request.length ? EIO : 0;
    };
  });
  for (const Client::Wishes& way : kWays) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", way));
    for (uint16_t flags : {uint16_t{0}, uint16_t{kCmdFlagDf}}) {
      if (flags != 0 && !way.structured) continue;
      for (const auto& [offset, bytes] : std::vector<std::pair<uint64_t, uint64_t>>{{bad, 1},
                                                                                    {3 * kMiB, 64 << 10},
                                                                                    {3 * kMiB, kPieceBytes},
                                                                                    {0, 8 * kMiB},
                                                                                    {2 * kMiB + 5, 2 * kMiB},
                                                                                    {3 * kMiB, 5 * kMiB}}) {
        const Answer answer = client.call(kCmdRead, offset, bytes, flags);
        CHECK_EQ(answer.error, uint32_t{EIO});
        CHECK(client.alive());
        if (way.structured && flags == 0 && bytes == 8 * kMiB) {
          CHECK_EQ(answer.chunks, 8 * kMiB / kPieceBytes - 1);  // all but the bad piece
          CHECK_EQ(answer.data[bad], 0xEE);
          CHECK_EQ(answer.data[bad + kPieceBytes], 0x5a);
        }
      }
    }
    check_in_step(client);
    for (uint64_t bytes : {uint64_t{8 * kMiB}, uint64_t{4 * kMiB}}) {
      const Bytes data(bytes, 0x33);
      CHECK_EQ(client.call(kCmdWrite, 0, bytes, kCmdFlagFua, &data).error, uint32_t{EIO});
      check_in_step(client);
    }
  }
}

void requests_in_flight_are_bounded() {
  Fixture fixture;
  fixture.on_reactor([&] { fixture.sink().hold = true; });
  Client client(fixture.path);
  REQUIRE(client.go("disk", {}));
  constexpr uint32_t kAsked = Transmission::kRequestsInFlightMax * 3;
  Bytes all;  // in one piece, or the client's own socket is full before the server's bound is reached
  for (uint32_t i = 0; i < kAsked; ++i) {
    const Bytes one = client.request_bytes(kCmdRead, i, i * 512, 512);
    all.insert(all.end(), one.begin(), one.end());
  }
  CHECK(client.send_bytes(all));
  CHECK(fixture.soon([&] { return fixture.sink().held() == Transmission::kRequestsInFlightMax; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  fixture.on_reactor([&] { CHECK_EQ(fixture.sink().held(), size_t{Transmission::kRequestsInFlightMax}); });
  std::set<uint64_t> answered;
  while (answered.size() < kAsked) {
    fixture.on_reactor([&] { fixture.sink().answer_held(7); });
    while (client.readable(0)) {
      const ReplyMessage reply = client.reply();
      if (!CHECK(client.alive() && reply.error == 0)) return;
      answered.insert(reply.cookie);
    }
  }
  fixture.on_reactor([&] { CHECK_EQ(fixture.sink().in_flight_max, uint64_t{Transmission::kRequestsInFlightMax}); });
}

/// One client that asks for more and more and takes nothing: its memory stays within bounds, others are served
/// meanwhile, and what it takes in the end is right.
void a_client_that_does_not_listen() {
  for (const Client::Wishes& way : kWays) {
    Fixture::Plan plan;
    plan.size = 16 * kMiB;
    plan.limits.connection_bytes_max = 4 * kMiB;
    Fixture fixture(plan);
    fixture.on_reactor([&] {
      for (size_t i = 0; i < fixture.volume.bytes.size(); ++i)
        fixture.volume.bytes[i] = static_cast<uint8_t>(i / 512 + 1);
    });
    Client client(fixture.path);
    REQUIRE(client.go("disk", way));
    // Far more than sockets hold; the last ones may not even be sent.
    constexpr uint32_t kReads = 40;
    std::thread sender([&] {
      for (uint32_t i = 0; i < kReads; ++i) client.request(kCmdRead, i, 0, 12 * kMiB);
    });
    uint64_t held_max = 0;
    for (int i = 0; i < 30; ++i) {
      for (const ConnectionFacts& facts : fixture.server->connections())
        held_max = std::max(held_max, facts.bytes_held);
      if (i % 10 == 0) CHECK(fixture.serves());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    CHECK(held_max <= plan.limits.connection_bytes_max + 2 * uint64_t{kBufferBytes});
    uint32_t complete = 0;
    std::vector<Answer> answers(kReads);
    for (Answer& answer : answers) answer.data.assign(12 * kMiB, 0xEE);
    while (complete < kReads) {
      const ReplyMessage message = client.reply([](uint64_t) { return 12 * kMiB; });
      if (!CHECK(client.alive() && message.cookie < kReads)) break;
      Answer& answer = answers[message.cookie];
      if (!CHECK(client.add(answer, message, 0))) break;
      if (!message.done()) continue;
      complete++;
      CHECK_EQ(answer.error, 0u);
      CHECK(std::equal(answer.data.begin(), answer.data.end(), fixture.volume.bytes.begin()));
      answer.data = Bytes();
    }
    sender.join();
  }
}

/// DF wants one run of bytes, which the limit does not allow here: EOVERFLOW is the protocol's word for it. Smaller
/// ones go.
void limits_of_unfragmented_reads() {
  Fixture::Plan plan;
  plan.size = 16 * kMiB;
  plan.limits.connection_bytes_max = 2 * kMiB;
  Fixture fixture(plan);
  Client client(fixture.path);
  REQUIRE(client.go("disk", {}));
  CHECK_EQ(client.call(kCmdRead, 0, 65536, kCmdFlagDf).error, 0u);
  CHECK_EQ(client.call(kCmdRead, 0, kMiB, kCmdFlagDf).error, 0u);
  CHECK_EQ(client.call(kCmdRead, 0, 16 * kMiB, kCmdFlagDf).error, uint32_t{EOVERFLOW});
  check_in_step(client);
  CHECK_EQ(client.call(kCmdRead, 0, 16 * kMiB).error, 0u);
  // A simple reply has no word for it; it streams, and an error behind the header can only end the connection.
  Client simple(fixture.path);
  REQUIRE(simple.go("disk", {false, false, {}}));
  CHECK_EQ(simple.call(kCmdRead, 0, 16 * kMiB).error, 0u);
  fixture.on_reactor(
      [&] { fixture.sink().fail = [](const Request& request) { return request.offset >= 15 * kMiB ? EIO : 0; }; });
  CHECK_EQ(simple.call(kCmdRead, 14 * kMiB + kMiB / 2, kMiB).error, uint32_t{EIO});
  simple.request(kCmdRead, 1, 0, 16 * kMiB);
  const ReplyMessage reply = simple.reply([](uint64_t) { return 16 * kMiB; });
  CHECK(!simple.alive());
  CHECK_EQ(reply.error, 0u);
  CHECK(fixture.serves());
}

void vanishing_with_requests_in_flight() {
  for (const Client::Wishes& way : kWays) {
    Fixture fixture;
    fixture.on_reactor([&] { fixture.sink().hold = true; });
    auto client = std::make_unique<Client>(fixture.path);
    REQUIRE(client->go("disk", way));
    const Bytes data(4096, 0x77);
    const Bytes large(300'000, 0x77);
    client->request(kCmdRead, 1, 0, 4096);
    client->write_request(2, 4096, data);
    client->request(kCmdRead, 3, 0, 2 * kMiB);
    CHECK(fixture.soon([&] { return fixture.sink().held() >= 3; }));
    client->write_request(4, 2 * kMiB, large);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    client->hang_up();
    // The handle is in use until the last request has ended, also though nobody waits for it.
    fixture.server->disconnect(1);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    CHECK_EQ(fixture.directory.open_handles(), 1u);
    CHECK_EQ(fixture.server->connections().size(), 1u);
    fixture.on_reactor([&] {
      fixture.sink().hold = false;
      while (fixture.sink().answer_held(5)) {
      }
    });
    CHECK(fixture.soon([&] { return fixture.server->connections().empty(); }));
    CHECK(fixture.soon([&] { return fixture.directory.open_handles() == 0; }));
    fixture.on_reactor([&] { CHECK(std::equal(data.begin(), data.end(), fixture.volume.bytes.begin() + 4096)); });
  }
}

void vanishing_at_every_byte_of_requests() {
  Fixture fixture;
  Bytes all;
  const Client shape;
  auto add = [&](const Bytes& bytes) { all.insert(all.end(), bytes.begin(), bytes.end()); };
  add(shape.request_bytes(kCmdRead, 1, 0, 512));
  add(shape.request_bytes(kCmdWrite, 2, 0, 40));
  add(Bytes(40, 0x25));
  add(shape.request_bytes(kCmdFlush, 3, 0, 0));
  add(shape.request_bytes(kCmdDisc, 4, 0, 0));
  for (size_t cut = 0; cut <= all.size(); ++cut) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", {}));
    client.send_bytes(all.data(), cut);
    if (cut % 2 == 0) client.stop_sending();
  }
  // In the middle of a payload larger than any buffer.
  for (size_t cut : {1u, 70'000u, 300'000u, 900'000u}) {
    Client client(fixture.path);
    REQUIRE(client.go("disk", {}));
    client.send_bytes(client.request_bytes(kCmdWrite, 1, 0, kMiB));
    client.send_bytes(Bytes(cut, 0x25));
    if (cut % 4 == 0) client.stop_sending();
  }
  CHECK(fixture.soon([&] { return fixture.server->connections().empty(); }));
  CHECK(fixture.serves());
}

void good_bye_waits_for_what_is_in_flight() {
  Fixture fixture;
  for (const bool polite : {true, false}) {
    fixture.on_reactor([&] { fixture.sink().hold = true; });
    Client client(fixture.path);
    REQUIRE(client.go("disk", {}));
    const Bytes data(70'000, 0x11);
    CHECK(client.write_request(1, 0, data));
    CHECK(client.request(kCmdRead, 2, kMiB, 2 * kMiB));
    if (polite) CHECK(client.request(kCmdDisc, 3, 0, 0));
    client.stop_sending();
    CHECK(fixture.soon([&] { return fixture.sink().held() > 2; }));
    fixture.on_reactor([&] {
      fixture.sink().hold = false;
      while (fixture.sink().answer_held()) {
      }
    });
    std::set<uint64_t> done;
    while (done.size() < 2) {
      const ReplyMessage reply = client.reply();
      if (!CHECK(client.alive())) break;
      CHECK_EQ(reply.error, 0u);
      if (reply.done()) done.insert(reply.cookie);
    }
    CHECK(client.closed());
  }
}

// CVE-2024-7409: a server that was shut down while clients negotiated crashed.
void cve_2024_7409_stopping_with_clients_in_every_phase() {
  Fixture fixture;
  Client silent(fixture.path);
  Client greeted(fixture.path);
  CHECK(greeted.greet());
  Client idle(fixture.path);
  REQUIRE(idle.go("disk", {}));
  Client busy(fixture.path);
  REQUIRE(busy.go("disk", {}));
  fixture.on_reactor([&] { fixture.sink().hold = true; });
  const Bytes data(4096, 0x44);
  CHECK(busy.write_request(1, 0, data));
  CHECK(fixture.soon([&] { return fixture.sink().held() == 1; }));
  fixture.directory.hold = true;
  Client waiting(fixture.path);
  CHECK(waiting.greet());
  waiting.option(kOptGo, info_bytes("disk"));
  CHECK(fixture.soon([&] { return fixture.directory.held() == 1; }));
  std::thread stopper([&] { CHECK(fixture.server->stop()); });
  // Those who hold nothing are let go at once.
  CHECK(idle.closed());
  uint8_t hello[kServerHelloBytes];
  silent.receive(hello, sizeof(hello));
  CHECK(silent.closed());
  CHECK(greeted.closed());
  CHECK(waiting.closed());
  // Who has a request on its way may ask more, in vain, and gets what it was promised.
  CHECK(busy.request(kCmdRead, 2, 0, 512));
  CHECK(busy.write_request(3, 0, data));
  ReplyMessage reply = busy.reply();
  CHECK_EQ(reply.cookie, uint64_t{2});
  CHECK_EQ(reply.error, uint32_t{ESHUTDOWN});
  reply = busy.reply();
  CHECK_EQ(reply.cookie, uint64_t{3});
  CHECK_EQ(reply.error, uint32_t{ESHUTDOWN});
  fixture.on_reactor([&] { fixture.sink().answer_held(); });
  reply = busy.reply();
  CHECK_EQ(reply.cookie, uint64_t{1});
  CHECK_EQ(reply.error, 0u);
  CHECK(busy.closed());
  stopper.join();
  CHECK_EQ(fixture.directory.answer_held(), 1u);  // for a connection that has gone
  CHECK(fixture.soon([&] { return fixture.directory.open_handles() == 0; }));
  CHECK(!std::filesystem::exists(fixture.path));
}

void forced_disconnect_ends_users_of_the_handle_only() {
  Fixture fixture;
  Client user(fixture.path);
  REQUIRE(user.go("disk", {}));  // handle 1
  Client context(fixture.path);
  REQUIRE(context.go("disk", {true, false, {"atoll:changed-since:monday"}}));  // handles 2 (context) and 3
  Client other(fixture.path);
  REQUIRE(other.go("disk", {}));
  fixture.server->disconnect(1);
  CHECK(user.closed());
  fixture.server->disconnect(2);
  CHECK(context.closed());
  check_in_step(other);
}

void status_of_connections() {
  Fixture fixture;
  Client client(fixture.path);
  REQUIRE(client.go("disk", {}));
  CHECK(fixture.soon([&] {
    const auto all = fixture.server->connections();
    return all.size() == 1 && all[0].name == "disk" && all[0].handle == 1 && all[0].in_flight == 0 &&
           all[0].reactor == 0;
  }));
  fixture.on_reactor([&] { fixture.sink().hold = true; });
  CHECK(client.request(kCmdRead, 1, 0, 512));
  CHECK(fixture.soon([&] {
    const auto all = fixture.server->connections();
    return all.size() == 1 && all[0].in_flight == 1 && all[0].bytes_held == kBufferBytes;
  }));
  fixture.on_reactor([&] {
    fixture.sink().hold = false;
    fixture.sink().answer_held();
  });
  CHECK_EQ(client.reply().error, 0u);
  // An idle connection holds no buffers.
  CHECK(fixture.soon([&] { return fixture.server->connections()[0].bytes_held == 0; }));
}

/// A client that sends garbage beside one that works: the one that works notices nothing.
void one_connection_never_harms_another() {
  Fixture::Plan plan;
  plan.reactors = 2;
  Fixture fixture(plan);
  std::atomic<bool> stop{false};
  std::thread hostile([&] {
    uint32_t random = 7;
    while (!stop.load()) {
      Client client(fixture.path);
      if (!client.go("disk", {})) continue;
      Bytes bytes;
      for (int i = 0; i < 40; ++i) {
        random = random * 1664525 + 1013904223;
        const Bytes one = client.request_bytes(static_cast<uint16_t>(random >> 28), random, random >> 8,
                                               random >> (random >> 27), random >> 24 & 3);
        bytes.insert(bytes.end(), one.begin(), one.end());
      }
      client.send_bytes(bytes);
    }
  });
  std::vector<std::thread> workers;
  for (uint32_t worker = 0; worker < 3; ++worker) {
    workers.emplace_back([&fixture, worker] {
      Client client(fixture.path);
      REQUIRE(client.go("disk", kWays[worker]));
      const uint64_t base = (2 + worker) * 2 * kMiB - 2 * kMiB;
      for (uint32_t i = 0; i < 150; ++i) {
        const Bytes data(1 + i * 997 % 300'000, static_cast<uint8_t>(i * 3 + worker + 1));
        const uint64_t offset = base + 4 * kMiB / 4 + i * 131;
        if (!CHECK_EQ(client.call(kCmdWrite, offset, data.size(), 0, &data).error, 0u)) return;
        // Hostile writes may hit the same bytes; the reply must be whole and well formed.
        if (!CHECK_EQ(client.call(kCmdRead, offset, data.size()).error, 0u)) return;
      }
      CHECK(client.alive());
    });
  }
  for (std::thread& worker : workers) worker.join();
  stop.store(true);
  hostile.join();
}

/// Without descriptors the listener neither spins nor ends; it goes on when there are some again.
void out_of_descriptors() {
  Fixture fixture;
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit before = limit;
  Client client;
  CHECK(client.connect_to(fixture.path));
  REQUIRE(client.go("disk", {}));
  Client late;
  const int highest = dup(client.fd());
  limit.rlim_cur = static_cast<rlim_t>(highest) + 1;  // room for one more: the client's own end
  close(highest);
  setrlimit(RLIMIT_NOFILE, &limit);
  CHECK(late.connect_to(fixture.path));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  check_in_step(client);
  CHECK(!late.readable(0));
  setrlimit(RLIMIT_NOFILE, &before);
  CHECK(late.go("disk", {}));
}

}  // namespace
}  // namespace atoll_native::nbd

int main() {
  using namespace atoll_native::nbd;
  bad_magic_ends_the_connection();
  unknown_commands_and_flags();
  payload_flag_of_extended_headers();
  ranges();
  payloads_are_bounded();
  read_only_exports();
  errors_keep_their_cause();
  cve_2022_0485_errors_in_the_middle();
  requests_in_flight_are_bounded();
  a_client_that_does_not_listen();
  limits_of_unfragmented_reads();
  vanishing_with_requests_in_flight();
  vanishing_at_every_byte_of_requests();
  good_bye_waits_for_what_is_in_flight();
  cve_2024_7409_stopping_with_clients_in_every_phase();
  forced_disconnect_ends_users_of_the_handle_only();
  status_of_connections();
  one_connection_never_harms_another();
  out_of_descriptors();
  return atoll_native::check_summary();
}
