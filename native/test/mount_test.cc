// A mount as the kernel sees it: data, growing, what goes wrong, what is never answered, and what is hostile.
#include "test/mount_fixture.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <future>
#include <thread>

#include "io/clock.h"

namespace atoll_native::fuse {
namespace {

constexpr uint64_t kNode = MountFixture::kNode;
constexpr uint64_t kSize = MountFixture::kSize;

void what_is_written_is_read() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  const std::vector<uint8_t> bytes = pattern(100'000, 1);
  const Reply written = f.kernel->write(kNode, fh, 4096, bytes);
  CHECK_EQ(written.error, 0);
  CHECK_EQ(written.as<fuse_write_out>().size, 100'000u);
  CHECK(f.kernel->read(kNode, fh, 4096, 100'000).body == bytes);
  CHECK(f.bench.read(MountFixture::kHandle, 4096, bytes.size()) == bytes);
  // as far as it goes
  CHECK_EQ(f.kernel->read(kNode, fh, kSize - 512, 4096).body.size(), 512u);
  CHECK_EQ(f.kernel->read(kNode, fh, kSize, 4096).body.size(), 0u);
  CHECK_EQ(f.kernel->read(kNode, fh, kSize - 512, UINT32_MAX).body.size(), 512u);
  fuse_fsync_in sync = {};
  sync.fh = fh;
  CHECK_EQ(f.kernel->call(FUSE_FSYNC, kNode, sync).error, 0);
}

void many_requests_are_each_answered() {
  MountFixture f(2);
  const uint64_t fh = f.kernel->open(kNode);
  const std::vector<uint8_t> bytes = pattern(kSize, 2);
  CHECK_EQ(f.bench.write(MountFixture::kHandle, 0, bytes), 0);
  for (int round = 0; round < 20; round++) {
    std::vector<std::pair<uint64_t, uint64_t>> sent;
    for (uint64_t i = 0; i < 16; i++) {
      fuse_read_in in = {};
      in.fh = fh;
      in.offset = (i * 37 + static_cast<uint64_t>(round)) % 200 * 4096;
      in.size = 4096;
      sent.emplace_back(f.kernel->send(FUSE_READ, kNode, in), in.offset);
    }
    for (const auto& [unique, offset] : sent) {
      const Reply reply = f.kernel->reply(unique);
      CHECK(std::equal(reply.body.begin(), reply.body.end(), bytes.begin() + static_cast<ptrdiff_t>(offset),
                       bytes.begin() + static_cast<ptrdiff_t>(offset + 4096)));
    }
  }
}

/// Who asks for more than one request holds: the kernel sends its parts at once, and the other seat takes part.
void large_requests_are_shared_and_right() {
  MountFixture f(2);
  const uint64_t fh = f.kernel->open(kNode);
  const std::vector<uint8_t> bytes = pattern(kSize, 9);
  CHECK_EQ(f.bench.write(MountFixture::kHandle, 0, bytes), 0);
  constexpr uint32_t kPart = Seat::kLargeBytes;
  for (uint64_t round = 0; round < 50; round++) {
    fuse_read_in in = {};
    in.fh = fh;
    in.size = kPart;
    const uint64_t first = in.offset = round * 4096;
    const uint64_t one = f.kernel->send(FUSE_READ, kNode, in);
    in.offset += kPart;
    const uint64_t two = f.kernel->send(FUSE_READ, kNode, in);
    std::vector<uint8_t> got = f.kernel->reply(one).body;
    const std::vector<uint8_t> rest = f.kernel->reply(two).body;
    got.insert(got.end(), rest.begin(), rest.end());
    CHECK(std::equal(got.begin(), got.end(), bytes.begin() + static_cast<ptrdiff_t>(first),
                     bytes.begin() + static_cast<ptrdiff_t>(first + 2 * kPart)));
  }
}

void a_write_beyond_the_end_asks_for_room() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  // refused
  uint64_t unique = f.kernel->send_write(kNode, fh, kSize, pattern(1000, 3));
  Question question = f.names.next();
  CHECK(question.ask == Ask::kGrow);
  CHECK_EQ(question.a, kSize + 1024);  // whole sectors
  CHECK(f.kernel->silent());
  Answer answer;
  answer.error = ENOSPC;
  f.mount->answer(question.token, answer);
  CHECK_EQ(f.kernel->reply(unique).error, ENOSPC);
  // said to be there, and not: somebody made it shorter, once too often and as often as may be
  unique = f.kernel->send_write(kNode, fh, kSize, pattern(1000, 3));
  for (int asked = 0; asked < Call::kAsksMax; asked++) f.mount->answer(f.names.next().token, {});
  CHECK_EQ(f.kernel->reply(unique).error, ENOSPC);
  CHECK_EQ(f.names.count(Ask::kGrow), 1u + Call::kAsksMax);
  const std::vector<uint8_t> bytes = pattern(512, 4);
  unique = f.kernel->send_write(kNode, fh, kSize, bytes);
  for (int asked = 1; asked < Call::kAsksMax; asked++) f.mount->answer(f.names.next().token, {});
  question = f.names.next();
  f.bench.mapper->resize(MountFixture::kHandle, kSize + 512);
  f.mount->answer(question.token, {});
  CHECK_EQ(f.kernel->reply(unique).error, 0);
  CHECK(f.kernel->read(kNode, fh, kSize, 512).body == bytes);
  // an answer that comes twice, or to nobody
  f.mount->answer(question.token, {});
  f.mount->answer(4'000'000, {});
  CHECK(f.kernel->silent());
}

/// A write inside the file waits for the mapper, and the file ends before it when its turn comes.
void a_write_goes_on_when_the_file_is_made_shorter() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  const auto overtaken = [&f, fh](const std::vector<uint8_t>& bytes, uint32_t write_flags, uint64_t offset) {
    std::atomic<bool> held{false}, shorter{false};
    std::thread mapper([&] {
      f.bench.mapper->control([&] {
        held.store(true);
        while (!shorter.load()) std::this_thread::yield();
      });
    });
    while (!held.load()) std::this_thread::yield();
    const uint64_t before = f.bench.reactor().stats().requests;
    const uint64_t unique = f.kernel->send_write(kNode, fh, offset, bytes, write_flags);
    while (f.bench.reactor().stats().requests == before) std::this_thread::yield();
    f.bench.mapper->slots_max.store(0);
    f.bench.mapper->resize(MountFixture::kHandle, 65536);
    shorter.store(true);
    mapper.join();
    return unique;
  };
  const std::vector<uint8_t> bytes = pattern(4096, 7);
  uint64_t unique = overtaken(bytes, 0, 65536);
  const Question grow = f.names.next();
  CHECK(grow.ask == Ask::kGrow);
  CHECK_EQ(grow.a, 65536u + 4096);
  f.bench.mapper->slots_max.store(UINT64_MAX);
  f.bench.mapper->resize(MountFixture::kHandle, kSize);
  f.mount->answer(grow.token, {});
  CHECK_EQ(f.kernel->reply(unique).error, 0);
  CHECK(f.kernel->read(kNode, fh, 65536, 4096).body == bytes);
  // What the page cache has is not worth a longer file.
  unique = overtaken(bytes, FUSE_WRITE_CACHE, 3 * 65536);
  CHECK_EQ(f.kernel->reply(unique).error, 0);
  CHECK_EQ(f.names.count(Ask::kGrow), 1u);
}

void a_full_pool_is_not_a_shorter_file() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  f.bench.mapper->slots_max.store(0);
  CHECK_EQ(f.kernel->write(kNode, fh, 0, pattern(4096, 1)).error, ENOSPC);
  CHECK_EQ(f.names.count(Ask::kGrow), 0u);
}

void numbers_that_no_file_has_are_refused() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  CHECK_EQ(f.kernel->write(kNode, fh, UINT64_MAX - 10, pattern(100, 1)).error, EFBIG);
  CHECK_EQ(f.kernel->write(kNode, fh, uint64_t{1} << 63, pattern(100, 1)).error, EFBIG);
  CHECK_EQ(f.kernel->read(kNode, fh, UINT64_MAX - 10, 100).error, EFBIG);
  fuse_fallocate_in zero = {};
  zero.fh = fh;
  zero.offset = 0;
  zero.length = UINT64_MAX;
  zero.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  CHECK_EQ(f.kernel->call(FUSE_FALLOCATE, kNode, zero).error, EFBIG);
  zero.length = 4096;
  zero.mode = FALLOC_FL_COLLAPSE_RANGE;
  CHECK_EQ(f.kernel->call(FUSE_FALLOCATE, kNode, zero).error, EOPNOTSUPP);
  fuse_lseek_in seek = {};
  seek.fh = fh;
  seek.whence = SEEK_DATA;
  seek.offset = kSize;
  CHECK_EQ(f.kernel->call(FUSE_LSEEK, kNode, seek).error, ENXIO);
  seek.offset = UINT64_MAX;
  CHECK_EQ(f.kernel->call(FUSE_LSEEK, kNode, seek).error, ENXIO);
  CHECK_EQ(f.names.count(Ask::kGrow), 0u);
}

void holes_are_found() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  CHECK_EQ(f.kernel->write(kNode, fh, 3 * 65536 + 5, pattern(100, 1)).error, 0);
  fuse_lseek_in seek = {};
  seek.fh = fh;
  seek.whence = SEEK_DATA;
  CHECK_EQ(f.kernel->call(FUSE_LSEEK, kNode, seek).as<fuse_lseek_out>().offset, 3u * 65536);
  seek.offset = 3 * 65536 + 10;
  seek.whence = SEEK_HOLE;
  CHECK_EQ(f.kernel->call(FUSE_LSEEK, kNode, seek).as<fuse_lseek_out>().offset, 4u * 65536);
  seek.whence = SEEK_DATA;
  seek.offset = 4 * 65536;
  CHECK_EQ(f.kernel->call(FUSE_LSEEK, kNode, seek).error, ENXIO);
}

void what_is_interrupted_or_forgotten_has_no_answer() {
  MountFixture f;
  const uint64_t lookup = f.kernel->send(FUSE_LOOKUP, 1, "name", 5);
  const Question question = f.names.next();
  CHECK(question.name == "name");
  f.kernel->send(FUSE_INTERRUPT, 0, fuse_interrupt_in{.unique = lookup});
  f.kernel->send(FUSE_INTERRUPT, 0, fuse_interrupt_in{.unique = 123456789});
  f.kernel->send(FUSE_FORGET, kNode, fuse_forget_in{.nlookup = UINT64_MAX});
  struct {
    fuse_batch_forget_in head = {.count = 2, .dummy = 0};
    fuse_forget_one one[2] = {{kNode, 1}, {999, 7}};
  } batch;
  f.kernel->send(FUSE_BATCH_FORGET, 0, batch);
  CHECK(f.kernel->silent());
  // what was interrupted is answered when it is done
  Answer answer;
  answer.node.ino = kNode;
  f.mount->answer(question.token, answer);
  CHECK_EQ(f.kernel->reply(lookup).as<fuse_entry_out>().nodeid, kNode);
}

void names_that_are_no_text_are_nobodys() {
  MountFixture f;
  for (const char* name : {"\xff", "a\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "ok\xc3"}) {
    CHECK_EQ(f.kernel->call(FUSE_LOOKUP, 1, std::string(name)).error, ENOENT);
    CHECK_EQ(f.kernel->call(FUSE_UNLINK, 1, std::string(name)).error, ENOENT);
  }
  CHECK_EQ(f.names.count(Ask::kLookup), 0u);
  f.kernel->send(FUSE_LOOKUP, 1, "\xc3\xbc\xf0\x9f\x92\xbe", 7);
  CHECK(f.names.next().name == "\xc3\xbc\xf0\x9f\x92\xbe");
}

/// What a folder is called changes only in ways that the kernel is told of; whose bytes change is asked again soon.
void folders_are_believed_for_longer() {
  MountFixture f;
  f.names.rule = [](const Question& question) {
    Answer answer;
    answer.node.ino = question.ask == Ask::kLookup ? 100 : question.ino;
    answer.node.mode = question.name == "file" || question.ino == kNode ? S_IFREG | 0600 : S_IFDIR | 0700;
    return std::optional(std::move(answer));
  };
  const auto entry = f.kernel->call(FUSE_LOOKUP, 1, std::string("folder")).as<fuse_entry_out>();
  CHECK_EQ(entry.entry_valid, 10u);
  CHECK_EQ(entry.attr_valid, 10u);
  const auto file = f.kernel->call(FUSE_LOOKUP, 1, std::string("file")).as<fuse_entry_out>();
  CHECK_EQ(file.entry_valid, 1u);
  CHECK_EQ(file.attr_valid, 1u);
  CHECK_EQ(f.kernel->call(FUSE_GETATTR, 12, fuse_getattr_in{}).as<fuse_attr_out>().attr_valid, 10u);
  CHECK_EQ(f.kernel->call(FUSE_GETATTR, kNode, fuse_getattr_in{}).as<fuse_attr_out>().attr_valid, 1u);
}

void what_nobody_knows_is_refused() {
  MountFixture f;
  CHECK_EQ(f.kernel->reply(f.kernel->send(4242, 1, "", 0)).error, ENOSYS);
  fuse_getxattr_in attribute = {};
  attribute.size = 100;
  CHECK_EQ(f.kernel->call(FUSE_GETXATTR, kNode, attribute).error, ENOSYS);
  CHECK_EQ(f.kernel->call(FUSE_RMDIR, 1, std::string("d")).error, EPERM);
}

void a_node_that_was_taken_away_answers_errors() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  CHECK_EQ(f.mount->revoke(kNode), 0u);
  CHECK_EQ(f.kernel->read(kNode, fh, 0, 4096).error, EIO);
  CHECK_EQ(f.kernel->write(kNode, fh, 0, pattern(512, 1)).error, EIO);
  fuse_fsync_in sync = {};
  sync.fh = fh;
  CHECK_EQ(f.kernel->call(FUSE_FSYNC, kNode, sync).error, EIO);
  CHECK_EQ(f.mount->revoke(999), 0u);
}

void stopping_waits_for_nobody() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  const uint64_t lookup = f.kernel->send(FUSE_LOOKUP, 1, "name", 5);
  f.names.next();
  const uint64_t write = f.kernel->send_write(kNode, fh, kSize, pattern(512, 1));
  const Question grow = f.names.next();
  const uint64_t began = monotonic_ms();
  f.mount->stop();
  CHECK(monotonic_ms() - began < Mount::kStopMs);
  CHECK_EQ(f.kernel->reply(lookup).error, ENOTCONN);
  CHECK_EQ(f.kernel->reply(write).error, ENOTCONN);
  f.mount->answer(grow.token, {});
  CHECK(f.kernel->silent());
  f.mount->stop();
}

/// Else the pages it is for stay locked until the connection is aborted, and whoever wants them waits in the kernel.
void what_was_taken_is_answered_while_it_stops() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  const std::vector<uint8_t> bytes = pattern(4096, 3);
  CHECK_EQ(f.bench.write(MountFixture::kHandle, 0, bytes), 0);
  f.bench.mapper->evict_all();
  std::promise<void> reached;
  std::promise<void> go_on;
  f.bench.mapper->control([&] {
    f.bench.mapper->before = [&, held = false](const RequestRecord& request) mutable {
      if (request.op != kOpLoad || std::exchange(held, true)) return;
      reached.set_value();
      go_on.get_future().wait();
    };
  });
  fuse_read_in in = {};
  in.fh = fh;
  in.size = 4096;
  const uint64_t read = f.kernel->send(FUSE_READ, kNode, in);
  reached.get_future().wait();
  std::thread stopping([&] { f.mount->stop(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // it waits for the read by then
  go_on.set_value();
  CHECK(f.kernel->reply(read).body == bytes);
  stopping.join();
}

void a_look_for_holes_ends_though_the_node_is_taken_away() {
  MountFixture f;
  const uint64_t fh = f.kernel->open(kNode);
  CHECK_EQ(f.bench.write(MountFixture::kHandle, 0, pattern(kSize, 4)), 0);
  std::atomic<uint32_t> on_its_way = 0;
  f.bench.mapper->control([&] {
    f.bench.mapper->status_bytes_max = kSize / 4;
    f.bench.mapper->before = [&](const RequestRecord& request) {
      if (request.op == kOpStatus) on_its_way = f.mount->revoke(kNode);
    };
  });
  fuse_lseek_in seek = {};
  seek.fh = fh;
  seek.whence = SEEK_HOLE;
  CHECK_EQ(f.kernel->call(FUSE_LSEEK, kNode, seek).as<fuse_lseek_out>().offset, kSize);
  CHECK_EQ(on_its_way.load(), 1u);
  CHECK_EQ(f.kernel->read(kNode, fh, 0, 4096).error, EIO);
}

// ---- lists

Listing listing_of(uint64_t first, int count) {
  Listing list;
  for (int i = 0; i < count; i++) {
    Node node;
    node.ino = first + 8 * static_cast<uint64_t>(i);
    node.mode = S_IFREG | 0400;
    list.nodes.push_back(node);
    list.names.push_back("s" + std::to_string(node.ino));
  }
  list.made_ms = monotonic_ms();
  return list;
}

/// Names in an answer to READDIRPLUS, "." and ".." too; `*last`: where it goes on.
std::vector<std::string> names_in(const Reply& reply, uint64_t* last) {
  std::vector<std::string> found;
  for (size_t at = 0; at + sizeof(fuse_direntplus) <= reply.body.size();) {
    fuse_direntplus entry;
    std::memcpy(&entry, reply.body.data() + at, FUSE_NAME_OFFSET_DIRENTPLUS);
    found.emplace_back(reinterpret_cast<const char*>(reply.body.data()) + at + FUSE_NAME_OFFSET_DIRENTPLUS,
                       entry.dirent.namelen);
    *last = entry.dirent.off;
    at += static_cast<size_t>(FUSE_DIRENTPLUS_SIZE(&entry));
  }
  return found;
}

std::vector<std::string> walk(FakeKernel& kernel, uint64_t folder, uint32_t bytes) {
  const uint64_t fh = kernel.call(FUSE_OPENDIR, folder, fuse_open_in{}).as<fuse_open_out>().fh;
  std::vector<std::string> all;
  fuse_read_in in = {};
  in.fh = fh;
  in.size = bytes;
  for (int i = 0; i < 100; i++) {
    const Reply reply = kernel.call(FUSE_READDIRPLUS, folder, in);
    CHECK_EQ(reply.error, 0);
    if (reply.body.empty()) break;
    for (std::string& name : names_in(reply, &in.offset)) all.push_back(std::move(name));
  }
  fuse_release_in release = {};
  release.fh = fh;
  CHECK_EQ(kernel.call(FUSE_RELEASEDIR, folder, release).error, 0);
  return all;
}

void a_folder_is_listed_in_pieces() {
  MountFixture f;
  // two pages of the control side, in answers of a few names each
  f.names.rule = [](const Question& question) {
    Answer answer;
    answer.list = question.a == 0 ? listing_of(8, 20) : listing_of(question.a + 8, 5);
    answer.end = question.a != 0;
    return std::optional(std::move(answer));
  };
  const std::vector<std::string> all = walk(*f.kernel, 12, 1000);
  CHECK_EQ(all.size(), 27u);
  CHECK(all[0] == "." && all[1] == ".." && all[2] == "s8" && all[26] == "s200");
  CHECK_EQ(f.names.count(Ask::kList), 2u);
}

void what_comes_ahead_is_not_asked_for() {
  MountFixture f;
  f.names.rule = [](const Question& question) {
    Answer answer;
    answer.list = listing_of(question.ino * 1000, 3);
    answer.end = true;
    answer.ahead.emplace_back(question.ino + 8, listing_of((question.ino + 8) * 1000, 4));
    answer.ahead.emplace_back(question.ino + 16, listing_of((question.ino + 16) * 1000, 0));
    return std::optional(std::move(answer));
  };
  CHECK_EQ(walk(*f.kernel, 12, 4096).size(), 5u);
  CHECK_EQ(walk(*f.kernel, 20, 4096).size(), 6u);
  CHECK_EQ(walk(*f.kernel, 28, 4096).size(), 2u);
  CHECK_EQ(f.names.count(Ask::kList), 1u);
  // once for each
  CHECK_EQ(walk(*f.kernel, 20, 4096).size(), 5u);
  CHECK_EQ(f.names.count(Ask::kList), 2u);
  // until something changes, here or elsewhere
  f.mount->tell(12, 0, "name");
  walk(*f.kernel, 28, 4096);
  CHECK_EQ(f.names.count(Ask::kList), 3u);
  f.names.rule = [](const Question&) { return std::optional(Answer{}); };
  CHECK_EQ(f.kernel->call(FUSE_UNLINK, 12, std::string("s")).error, 0);
  walk(*f.kernel, 36, 4096);
  CHECK_EQ(f.names.count(Ask::kList), 4u);
}

void what_came_ahead_grows_old() {
  Ahead ahead(1000);
  std::vector<std::pair<uint64_t, Listing>> listings;
  listings.emplace_back(1, listing_of(8, 2));
  listings.emplace_back(2, listing_of(8, 2));
  const uint64_t now = listings[0].second.made_ms;
  ahead.put(std::move(listings));
  CHECK(ahead.take(1, now + 999).has_value());
  CHECK(!ahead.take(2, listing_of(8, 1).made_ms + 1000).has_value());
  CHECK(!ahead.take(3, now).has_value());
}

}  // namespace
}  // namespace atoll_native::fuse

int main() {
  using namespace atoll_native::fuse;
  what_is_written_is_read();
  many_requests_are_each_answered();
  large_requests_are_shared_and_right();
  a_write_beyond_the_end_asks_for_room();
  a_write_goes_on_when_the_file_is_made_shorter();
  a_full_pool_is_not_a_shorter_file();
  numbers_that_no_file_has_are_refused();
  holes_are_found();
  what_is_interrupted_or_forgotten_has_no_answer();
  names_that_are_no_text_are_nobodys();
  folders_are_believed_for_longer();
  what_nobody_knows_is_refused();
  a_node_that_was_taken_away_answers_errors();
  stopping_waits_for_nobody();
  what_was_taken_is_answered_while_it_stops();
  a_look_for_holes_ends_though_the_node_is_taken_away();
  a_folder_is_listed_in_pieces();
  what_comes_ahead_is_not_asked_for();
  what_came_ahead_grows_old();
  return atoll_native::check_summary();
}
