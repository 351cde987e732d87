// Option haggling: for each rule a client that keeps it and one that breaks it; and the holes that other servers had
// here.
#include "nbd/negotiation.h"

#include <chrono>

#include "nbd_client.h"

namespace atoll_native::nbd {
namespace {

Bytes bytes_of(const std::string& text) { return Bytes(text.begin(), text.end()); }

void greeting_and_client_flags() {
  Fixture fixture;
  for (uint32_t flags : {4u, 0x80000000u, 0xffffffffu}) {
    Client client(fixture.path);
    CHECK(client.greet(flags));
    CHECK(client.closed());  // unknown flags MUST end the connection
  }
  // Without FIXED_NEWSTYLE only the old option is there.
  Client plain(fixture.path);
  CHECK(plain.greet(0));
  plain.option(kOptList);
  CHECK(plain.closed());
  CHECK(fixture.serves());
}

void export_name() {
  Fixture fixture;
  for (uint32_t flags : {0u, 1u, 2u, 3u}) {
    Client client(fixture.path);
    CHECK(client.greet(flags));
    client.option(kOptExportName, bytes_of("disk"));
    CHECK_EQ(client.number<uint64_t>(), uint64_t{8u << 20});
    const uint16_t expected = kFlagHasFlags | kFlagSendFlush | kFlagSendFua | kFlagSendTrim | kFlagSendWriteZeroes |
                              kFlagCanMultiConn | kFlagSendCache | kFlagSendFastZero;
    CHECK_EQ(client.number<uint16_t>(), expected);  // no DF: no structured replies
    if ((flags & kFlagNoZeroes) == 0) {
      Bytes zeroes(kExportNameZeroBytes, 1);
      CHECK(client.receive(zeroes.data(), zeroes.size()));
      CHECK(zeroes == Bytes(kExportNameZeroBytes, 0));
    }
    CHECK_EQ(client.call(kCmdRead, 0, 512).error, 0u);
  }
  Client read_only(fixture.path);
  CHECK(read_only.greet());
  read_only.option(kOptExportName, bytes_of("disk@monday"));
  read_only.number<uint64_t>();
  CHECK_EQ(read_only.number<uint16_t>(), uint16_t{kFlagHasFlags | kFlagReadOnly | kFlagCanMultiConn | kFlagSendCache});
}

// CVE-2013-7441: an unknown export, or a client that goes while negotiating, ended the whole server.
void cve_2013_7441_unknown_export_ends_only_the_connection() {
  Fixture fixture;
  for (int i = 0; i < 3; ++i) {
    Client client(fixture.path);
    CHECK(client.greet());
    client.option(kOptExportName, bytes_of("no such disk"));
    CHECK(client.closed());  // this option has no error reply
  }
  CHECK(fixture.serves());
}

void abort_is_acknowledged() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  CHECK_EQ(client.ask(kOptAbort).type, uint32_t{kRepAck});
  CHECK(client.closed());
}

void list() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  CHECK_EQ(client.ask(kOptList, {1}).type, uint32_t{kRepErrInvalid});
  std::vector<OptionReplyMessage> all;
  CHECK_EQ(client.ask(kOptList, {}, &all).type, uint32_t{kRepAck});
  CHECK_EQ(all.size(), 2u);
  if (all.size() == 2) {
    CHECK_EQ(all[0].type, uint32_t{kRepServer});
    CHECK_EQ(load<uint32_t>(all[0].data.data()), 4u);
    CHECK(all[0].text().substr(4) == "diska disk");
    CHECK(all[1].text().substr(4) == "disk@monday");
  }
  CHECK_EQ(client.ask(kOptAbort).type, uint32_t{kRepAck});
}

void unsupported_options_leave_the_stream_in_step() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  for (uint32_t option : {uint32_t{kOptPeekExport}, uint32_t{kOptStartTls}, 12u, 0u, 99u, 0xffffffffu}) {
    CHECK_EQ(client.ask(option).type, uint32_t{kRepErrUnsup});
    OptionReplyMessage reply = client.ask(option, Bytes(5000, 'x'));
    CHECK_EQ(reply.type, uint32_t{kRepErrUnsup});
    CHECK_EQ(reply.option, option);
  }
  CHECK(client.go_on("disk"));
}

void info_items() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  for (uint32_t option : {uint32_t{kOptInfo}, uint32_t{kOptGo}}) {
    std::vector<OptionReplyMessage> all;
    // Unknown items are passed over; twice the same is told once.
    CHECK_EQ(client.ask(option, info_bytes("disk", {3, 1, 2, 0, 77, 3}), &all).type, uint32_t{kRepAck});
    CHECK_EQ(all.size(), 4u);
    if (all.size() != 4) return;
    CHECK(all[0].data.size() == 12 && load<uint16_t>(all[0].data.data()) == kInfoExport);
    CHECK_EQ(load<uint64_t>(all[0].data.data() + 2), uint64_t{8u << 20});
    CHECK(all[1].data.size() == 14 && load<uint16_t>(all[1].data.data()) == kInfoBlockSize);
    CHECK_EQ(load<uint32_t>(all[1].data.data() + 2), 1u);
    CHECK_EQ(load<uint32_t>(all[1].data.data() + 6), 65536u);
    CHECK_EQ(load<uint32_t>(all[1].data.data() + 10), 32u << 20);
    CHECK(all[2].text().substr(2) == "disk" && load<uint16_t>(all[2].data.data()) == kInfoName);
    CHECK(all[3].text().substr(2) == "a disk" && load<uint16_t>(all[3].data.data()) == kInfoDescription);
  }
  CHECK_EQ(fixture.directory.opens(), 1u);  // the export asked about is the one that is used
  CHECK_EQ(client.call(kCmdRead, 0, 1).error, 0u);
}

void info_of_one_then_go_to_another() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  CHECK_EQ(client.ask(kOptInfo, info_bytes("disk")).type, uint32_t{kRepAck});
  CHECK_EQ(fixture.directory.open_handles(), 1u);
  CHECK_EQ(client.ask(kOptInfo, info_bytes("nothing")).type, uint32_t{kRepErrUnknown});
  CHECK(client.go_on("disk@monday"));
  CHECK_EQ(fixture.directory.open_handles(), 1u);
  CHECK((client.flags & kFlagReadOnly) != 0);
}

void malformed_info() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  const Bytes good = info_bytes("disk", {0, 1});
  for (size_t cut = 0; cut < good.size(); ++cut) {
    CHECK_EQ(client.ask(kOptGo, Bytes(good.begin(), good.begin() + static_cast<long>(cut))).type,
             uint32_t{kRepErrInvalid});
  }
  Bytes longer = good;
  longer.push_back(0);
  CHECK_EQ(client.ask(kOptGo, longer).type, uint32_t{kRepErrInvalid});
  Bytes more_items = info_bytes("disk");
  more_items[more_items.size() - 1] = 200;
  CHECK_EQ(client.ask(kOptInfo, more_items).type, uint32_t{kRepErrInvalid});
  CHECK_EQ(fixture.directory.opens(), 0u);
  CHECK(client.go_on("disk"));
}

// CVE-2022-26495: a name length of 2^32-1 became a buffer of none.
void cve_2022_26495_name_length_overflow() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  for (uint32_t option :
       {uint32_t{kOptInfo}, uint32_t{kOptGo}, uint32_t{kOptSetMetaContext}, uint32_t{kOptListMetaContext}}) {
    client.ask(kOptStructuredReply);
    for (uint32_t length : {0xffffffffu, 0xfffffffeu, 0xfffffffcu, 0x80000000u, 11u}) {
      Bytes data;
      put<uint32_t>(data, length);
      put_text(data, "disk");
      put<uint32_t>(data, 0);
      CHECK_EQ(client.ask(option, data).type, uint32_t{kRepErrInvalid});
    }
  }
  CHECK(client.go_on("disk"));
}

// CVE-2022-26496, CVE-2017-15118: long names overran buffers. The bound is the protocol's; beyond it, an error in step.
void cve_2022_26496_cve_2017_15118_long_names() {
  Fixture fixture;
  const std::string longest(kNameBytesMax, 'n');
  fixture.directory.exports[longest] = {4096, 4096, false, "", {}};
  Client client(fixture.path);
  CHECK(client.greet());
  CHECK_EQ(client.ask(kOptStructuredReply).type, uint32_t{kRepAck});
  for (uint32_t option : {uint32_t{kOptInfo}, uint32_t{kOptGo}}) {
    CHECK_EQ(client.ask(option, info_bytes(longest + "n")).type, uint32_t{kRepErrInvalid});
    CHECK_EQ(client.ask(option, info_bytes(std::string(60'000, 'n'))).type, uint32_t{kRepErrInvalid});
  }
  CHECK_EQ(client.ask(kOptSetMetaContext, context_bytes(longest + "n", {"base:allocation"})).type,
           uint32_t{kRepErrInvalid});
  CHECK_EQ(client.ask(kOptSetMetaContext, context_bytes("disk", {"base:" + longest})).type, uint32_t{kRepErrInvalid});
  CHECK_EQ(client.ask(kOptInfo, info_bytes(longest)).type, uint32_t{kRepAck});
  CHECK(client.go_on("disk"));
  Client old(fixture.path);
  CHECK(old.greet());
  old.option(kOptExportName, bytes_of(longest + "n"));
  CHECK(old.closed());
}

// CVE-2017-15119: options of up to 4 GiB were read to their end.
void cve_2017_15119_option_length_is_bounded() {
  Fixture fixture;
  for (uint32_t length : {Negotiation::kOptionBytesMax + 1, 0x7fffffffu, 0xffffffffu}) {
    Client client(fixture.path);
    CHECK(client.greet());
    Bytes header;
    put<uint64_t>(header, kMagicOption);
    put<uint32_t>(header, kOptList);
    put<uint32_t>(header, length);
    client.send_bytes(header);
    CHECK_EQ(client.option_reply().type, uint32_t{kRepErrTooBig});
    CHECK(client.closed());
  }
  Client client(fixture.path);
  CHECK(client.greet());
  CHECK_EQ(client.ask(77, Bytes(Negotiation::kOptionBytesMax, 0)).type, uint32_t{kRepErrUnsup});
  CHECK(client.go_on("disk"));
}

// CVE-2020-10761: an error text that repeated a long name broke the server's own bound.
void cve_2020_10761_error_texts_are_bounded() {
  Fixture fixture;
  fixture.directory.open_message = "no export called " + std::string(kNameBytesMax, 'x');
  Client client(fixture.path);
  CHECK(client.greet());
  OptionReplyMessage reply = client.ask(kOptGo, info_bytes(std::string(kNameBytesMax, 'x')));
  CHECK_EQ(reply.type, uint32_t{kRepErrUnknown});
  CHECK_EQ(reply.data.size(), size_t{Negotiation::kTextBytesMax});
  // Cutting does not leave half a character.
  fixture.directory.open_message = std::string(Negotiation::kTextBytesMax - 1, 'x') + "\xc3\xa9";
  reply = client.ask(kOptGo, info_bytes("y"));
  CHECK_EQ(reply.data.size(), size_t{Negotiation::kTextBytesMax - 1});
  CHECK(client.go_on("disk"));
}

void names_are_text() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  using namespace std::string_literals;
  for (const std::string& name :
       {"\xff"s, "a\0b"s, "\xc0\x80"s, "\xed\xa0\x80"s, "\xf4\x90\x80\x80"s, "\xe2\x82"s, "\x80"s}) {
    CHECK_EQ(client.ask(kOptGo, info_bytes(name)).type, uint32_t{kRepErrInvalid});
  }
  CHECK_EQ(fixture.directory.opens(), 0u);
  CHECK_EQ(client.ask(kOptGo, info_bytes("\xf0\x9f\x92\xbe é")).type, uint32_t{kRepErrUnknown});
}

/// A whole negotiation, and one request.
Bytes conversation() {
  Bytes all;
  put<uint32_t>(all, kFlagFixedNewstyle | kFlagNoZeroes);
  for (const Bytes& option :
       {option_bytes(kOptStructuredReply, {}), option_bytes(kOptList, {}),
        option_bytes(kOptSetMetaContext, context_bytes("disk", {"base:allocation", "atoll:changed-since:monday"})),
        option_bytes(kOptInfo, info_bytes("disk@monday", {1})), option_bytes(kOptGo, info_bytes("disk", {3}))}) {
    all.insert(all.end(), option.begin(), option.end());
  }
  Bytes read = Client().request_bytes(kCmdRead, 7, 0, 1);
  all.insert(all.end(), read.begin(), read.end());
  return all;
}

/// Whether the reply to conversation()'s request comes.
bool talks_to_the_end(Client& client) {
  uint8_t hello[kServerHelloBytes];
  if (!client.receive(hello, sizeof(hello))) return false;
  for (uint32_t acks = 0; acks < 5 && client.alive();) {
    OptionReplyMessage reply = client.option_reply();
    if ((reply.type & 0x80000000) != 0) return false;
    if (reply.type == kRepAck) acks++;
  }
  ReplyMessage read = client.reply();
  return client.alive() && read.cookie == load<uint64_t>(reinterpret_cast<const uint8_t*>("\0\0\0\0\0\0\0\7")) &&
         read.error == 0;
}

// CVE-2017-7539, CVE-2017-9524: a client that sends odd pieces, or vanishes at any point, crashed the server.
void cve_2017_7539_any_cut_of_the_stream() {
  Fixture fixture;
  const Bytes all = conversation();
  Client slow(fixture.path);
  for (uint8_t byte : all) CHECK(slow.send_bytes(&byte, 1));
  CHECK(talks_to_the_end(slow));
  Client quick(fixture.path);  // all at once, though a client should wait for replies
  CHECK(quick.send_bytes(all));
  CHECK(talks_to_the_end(quick));
}

void cve_2017_9524_vanishing_at_every_byte() {
  Fixture fixture;
  const Bytes all = conversation();
  for (size_t cut = 0; cut <= all.size(); ++cut) {
    Client client(fixture.path);
    client.send_bytes(all.data(), cut);
    if (cut % 3 == 0) client.stop_sending();
    client.hang_up();
  }
  CHECK(fixture.serves());
  CHECK(fixture.soon([&] { return fixture.server->connections().empty(); }));
}

// CVE-2019-14850: the backend was opened before anybody had said anything.
void cve_2019_14850_nothing_is_opened_before_a_whole_valid_request() {
  Fixture fixture;
  const Bytes go = option_bytes(kOptGo, info_bytes("disk"));
  Client client(fixture.path);
  CHECK(client.greet());
  client.send_bytes(go.data(), go.size() - 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK_EQ(fixture.directory.opens(), 0u);
  client.send_bytes(go.data() + go.size() - 1, 1);
  CHECK(fixture.soon([&] { return fixture.directory.opens() == 1; }));
}

// CVE-2019-14851: the fix of the former asserted when options came in an unusual order.
void cve_2019_14851_any_order_of_options() {
  Fixture fixture;
  const std::vector<Bytes> options = {
      option_bytes(kOptStructuredReply, {}),
      option_bytes(kOptExtendedHeaders, {}),
      option_bytes(kOptSetMetaContext, context_bytes("disk", {"base:allocation"})),
      option_bytes(kOptSetMetaContext, context_bytes("nothing", {"base:allocation"})),
      option_bytes(kOptListMetaContext, context_bytes("disk", {})),
      option_bytes(kOptInfo, info_bytes("disk")),
      option_bytes(kOptInfo, info_bytes("nothing")),
      option_bytes(kOptStartTls, {}),
      option_bytes(kOptList, {}),
  };
  uint32_t random = 12345;
  for (int round = 0; round < 200; ++round) {
    Client client(fixture.path);
    CHECK(client.greet());
    for (int i = 0; i < 8; ++i) {
      random = random * 1664525 + 1013904223;
      client.send_bytes(options[(random >> 16) % options.size()]);
      for (;;) {
        OptionReplyMessage reply = client.option_reply();
        if (!CHECK(client.alive())) return;
        if (reply.type == kRepAck || (reply.type & 0x80000000) != 0) break;
      }
    }
    CHECK(client.go_on("disk"));
  }
}

// CVE-2021-3716: what was said before STARTTLS kept its effect after it. Here TLS is refused, and refusing changes
// nothing.
void cve_2021_3716_starttls_is_refused() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  CHECK_EQ(client.ask(kOptStructuredReply).type, uint32_t{kRepAck});
  CHECK_EQ(client.ask(kOptStartTls).type, uint32_t{kRepErrUnsup});
  CHECK(client.go_on("disk"));
  CHECK((client.flags & kFlagSendDf) != 0);
}

void the_whole_negotiation_has_a_time_limit() {
  Fixture::Plan plan;
  plan.limits.negotiation_ms = 150;
  Fixture fixture(plan);
  Client silent(fixture.path);
  CHECK(silent.greet());
  CHECK(silent.closed());
  // One that keeps talking is no better.
  Client chatty(fixture.path);
  CHECK(chatty.greet());
  const auto start = std::chrono::steady_clock::now();
  const Bytes option = option_bytes(99, {});
  size_t at = 0;
  while (chatty.send_bytes(&option[at % option.size()], 1) && at < 1000) {
    at++;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const auto took = std::chrono::steady_clock::now() - start;
  CHECK(took >= std::chrono::milliseconds(100) && took < std::chrono::milliseconds(4000));
  // One that is through has all the time in the world.
  Client client(fixture.path);
  CHECK(client.go("disk", {}));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  CHECK_EQ(client.call(kCmdRead, 0, 512).error, 0u);
}

void connections_are_limited() {
  Fixture::Plan plan;
  plan.limits.connections_max = 3;
  plan.reactors = 2;
  Fixture fixture(plan);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<Client>(fixture.path));
    CHECK(clients.back()->go("disk", {}));
  }
  Client one_more(fixture.path);
  CHECK(one_more.closed());
  CHECK_EQ(clients[0]->call(kCmdRead, 0, 512).error, 0u);
  clients.pop_back();
  CHECK(fixture.soon([&] { return fixture.server->connections().size() == 2; }));
  CHECK(fixture.serves());
}

void options_are_limited() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  uint32_t answered = 0;
  while (client.alive() && answered <= Negotiation::kOptionsMax) {
    client.ask(99);
    if (client.alive()) answered++;
  }
  CHECK_EQ(answered, uint32_t{Negotiation::kOptionsMax});
}

void vanishing_while_an_answer_is_awaited() {
  Fixture fixture;
  fixture.directory.hold = true;
  for (uint32_t what : {uint32_t{kOptGo}, uint32_t{kOptInfo}, uint32_t{kOptExportName}, uint32_t{kOptList},
                        uint32_t{kOptSetMetaContext}}) {
    Client client(fixture.path);
    CHECK(client.greet());
    client.ask(kOptStructuredReply);
    const Bytes data = what == kOptList             ? Bytes()
                       : what == kOptExportName     ? bytes_of("disk")
                       : what == kOptSetMetaContext ? context_bytes("disk", {"atoll:changed-since:monday"})
                                                    : info_bytes("disk");
    client.option(what, data);
    CHECK(fixture.soon([&] { return fixture.directory.held() == 1; }));
    client.hang_up();
    CHECK(fixture.soon([&] { return fixture.server->connections().empty(); }));
    CHECK_EQ(fixture.directory.answer_held(), 1u);
    CHECK(fixture.soon([&] { return fixture.directory.open_handles() == 0; }));
  }
  fixture.directory.hold = false;
  CHECK(fixture.serves());
}

void nothing_is_read_while_an_answer_is_awaited() {
  Fixture fixture;
  fixture.directory.hold = true;
  Client client(fixture.path);
  CHECK(client.greet());
  client.option(kOptList);
  client.option(kOptList);
  CHECK(fixture.soon([&] { return fixture.directory.held() == 1; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  CHECK_EQ(fixture.directory.held(), 1u);
  fixture.directory.answer_held();
  CHECK(fixture.soon([&] { return fixture.directory.held() == 1; }));
  fixture.directory.answer_held();
  fixture.directory.hold = false;
  for (int i = 0; i < 6; ++i) client.option_reply();  // twice two exports and an ACK
  CHECK(client.go_on("disk"));
}

std::vector<std::string> names_of(const std::vector<OptionReplyMessage>& replies) {
  std::vector<std::string> names;
  for (const OptionReplyMessage& reply : replies) {
    CHECK_EQ(reply.type, uint32_t{kRepMetaContext});
    names.push_back(reply.text().substr(4));
  }
  return names;
}

void meta_contexts() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  using Names = std::vector<std::string>;
  const Names all = {"base:allocation", "atoll:changed-since:monday", "atoll:changed-since:tuesday"};
  auto ask = [&](uint32_t option, const std::string& name, const Names& queries, uint32_t expected) {
    std::vector<OptionReplyMessage> replies;
    CHECK_EQ(client.ask(option, context_bytes(name, queries), &replies).type, expected);
    return names_of(replies);
  };
  ask(kOptListMetaContext, "disk", {}, kRepErrInvalid);  // structured replies come first
  ask(kOptSetMetaContext, "disk", {"base:allocation"}, kRepErrInvalid);
  CHECK_EQ(client.ask(kOptStructuredReply, {1}).type, uint32_t{kRepErrInvalid});
  CHECK_EQ(client.ask(kOptStructuredReply).type, uint32_t{kRepAck});
  CHECK(ask(kOptListMetaContext, "disk", {}, kRepAck) == all);
  CHECK(ask(kOptListMetaContext, "disk", {"base:"}, kRepAck) == Names{all[0]});
  CHECK(ask(kOptListMetaContext, "disk", {"atoll:"}, kRepAck) == (Names{all[1], all[2]}));
  CHECK(ask(kOptListMetaContext, "disk", {"qemu:", "base:allocation", "base:allocation"}, kRepAck) == Names{all[0]});
  CHECK(ask(kOptListMetaContext, "nothing", {}, kRepErrUnknown).empty());
  CHECK(ask(kOptSetMetaContext, "disk", {"base:"}, kRepAck).empty());
  CHECK(ask(kOptSetMetaContext, "disk", {"x-other:thing"}, kRepAck).empty());
  CHECK(ask(kOptSetMetaContext, "disk", {}, kRepAck).empty());
  ask(kOptSetMetaContext, "disk", {"nonamespace"}, kRepErrInvalid);
  CHECK_EQ(fixture.directory.open_handles(), 0u);
  CHECK(ask(kOptSetMetaContext, "disk", {"base:allocation", all[1], all[2]}, kRepAck) == all);
  CHECK_EQ(fixture.directory.open_handles(), 2u);
  // The next selection replaces the former, even one that fails.
  CHECK(ask(kOptSetMetaContext, "disk", {all[2]}, kRepAck) == Names{all[2]});
  CHECK_EQ(fixture.directory.open_handles(), 1u);
  ask(kOptSetMetaContext, "nothing", {"base:allocation"}, kRepErrUnknown);
  CHECK_EQ(fixture.directory.open_handles(), 0u);
  CHECK(ask(kOptSetMetaContext, "disk", {"base:allocation", all[1]}, kRepAck).size() == 2);
  // Other ids for other contexts, and the selection of one export is none of another's.
  CHECK(client.go_on("disk@monday"));
  CHECK_EQ(client.call(kCmdBlockStatus, 0, 512).error, uint32_t{EINVAL});
}

void malformed_meta_contexts() {
  Fixture fixture;
  Client client(fixture.path);
  CHECK(client.greet());
  CHECK_EQ(client.ask(kOptStructuredReply).type, uint32_t{kRepAck});
  const Bytes good = context_bytes("disk", {"base:allocation", "atoll:"});
  for (size_t cut = 0; cut < good.size(); ++cut) {
    const Bytes data(good.begin(), good.begin() + static_cast<long>(cut));
    CHECK_EQ(client.ask(cut % 2 == 0 ? kOptSetMetaContext : kOptListMetaContext, data).type, uint32_t{kRepErrInvalid});
  }
  Bytes longer = good;
  longer.push_back(0);
  CHECK_EQ(client.ask(kOptSetMetaContext, longer).type, uint32_t{kRepErrInvalid});
  for (uint32_t count : {0xffffffffu, Negotiation::kQueriesMax + 1}) {
    Bytes data;
    put<uint32_t>(data, 4);
    put_text(data, "disk");
    put<uint32_t>(data, count);
    CHECK_EQ(client.ask(kOptSetMetaContext, data).type, uint32_t{kRepErrTooBig});
  }
  CHECK(client.go_on("disk"));
}

void addresses() {
  Fixture fixture;
  std::string bound, message;
  for (const char* bad : {"", "unix:", "tcp:", "tcp:127.0.0.1", "tcp:127.0.0.1:", "tcp:127.0.0.1:99999",
                          "tcp:127.0.0.1:1x", "tcp:0.0.0.0:10809", "tcp:192.0.2.1:10809", "tcp:localhost:10809",
                          "tcp:[::]:10809", "udp:127.0.0.1:1", "tcp::10809"}) {
    message.clear();
    CHECK(fixture.server->listen(bad, 0600, &bound, &message) < 0);
    CHECK(!message.empty());
  }
  CHECK_EQ(fixture.server->listen("unix:/" + std::string(200, 'x'), 0600, &bound, &message), -ENAMETOOLONG);
  CHECK_EQ(fixture.server->listen("unix:" + fixture.path, 0600, &bound, &message), -EADDRINUSE);
  const int tcp = fixture.server->listen("tcp:127.0.0.1:0", 0600, &bound, &message);
  CHECK(tcp > 0);
  CHECK(bound.starts_with("tcp:127.0.0.1:") && bound != "tcp:127.0.0.1:0");
  CHECK(fixture.server->close_listener(tcp));
  CHECK(!fixture.server->close_listener(tcp));
}

void unix_sockets_are_private_and_stale_ones_are_replaced() {
  Fixture fixture;
  const std::string path = fixture.path + "2";
  // What a process that died leaves: bound, and nobody listens.
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int stale = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(bind(stale, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  close(stale);
  std::string bound, message;
  const int id = fixture.server->listen("unix:" + path, 0640, &bound, &message);
  CHECK(id > 0);
  CHECK((std::filesystem::status(path).permissions() & std::filesystem::perms::all) == std::filesystem::perms(0640));
  CHECK((std::filesystem::status(fixture.path).permissions() & std::filesystem::perms::all) ==
        std::filesystem::perms(0600));
  Client client(path);
  CHECK(client.go("disk", {}));
  CHECK(fixture.server->close_listener(id));
  CHECK(!std::filesystem::exists(path));
  CHECK_EQ(client.call(kCmdRead, 0, 512).error, 0u);  // connections outlive their listener
  // A file that is no socket is nobody's to remove.
  std::FILE* file = std::fopen(path.c_str(), "w");
  std::fclose(file);
  CHECK_EQ(fixture.server->listen("unix:" + path, 0600, &bound, &message), -EEXIST);
  CHECK(std::filesystem::exists(path));
}

}  // namespace
}  // namespace atoll_native::nbd

int main() {
  using namespace atoll_native::nbd;
  greeting_and_client_flags();
  export_name();
  cve_2013_7441_unknown_export_ends_only_the_connection();
  abort_is_acknowledged();
  list();
  unsupported_options_leave_the_stream_in_step();
  info_items();
  info_of_one_then_go_to_another();
  malformed_info();
  cve_2022_26495_name_length_overflow();
  cve_2022_26496_cve_2017_15118_long_names();
  cve_2017_15119_option_length_is_bounded();
  cve_2020_10761_error_texts_are_bounded();
  names_are_text();
  cve_2017_7539_any_cut_of_the_stream();
  cve_2017_9524_vanishing_at_every_byte();
  cve_2019_14850_nothing_is_opened_before_a_whole_valid_request();
  cve_2019_14851_any_order_of_options();
  cve_2021_3716_starttls_is_refused();
  the_whole_negotiation_has_a_time_limit();
  connections_are_limited();
  options_are_limited();
  vanishing_while_an_answer_is_awaited();
  nothing_is_read_while_an_answer_is_awaited();
  meta_contexts();
  malformed_meta_contexts();
  addresses();
  unix_sockets_are_private_and_stale_ones_are_replaced();
  return atoll_native::check_summary();
}
