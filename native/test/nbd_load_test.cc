// The whole native core under NBD clients: real server, volume peers, block peers and rings, on real sockets, with the
// test mapper in TypeScript's place. Clients keep many requests on their way (reads, writes, trims, zeroes, flushes,
// status) and compare every byte; others hang up in the middle; snapshots are taken, read twice and dropped, their
// readers cut off, leaves evicted. Meant for the sanitizer builds, where a finding ends the program.
//
//   NBD_LOAD_SEED=7 NBD_LOAD_SECONDS=600 nbd_load_test          ATOLL_LONG=1: two minutes
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "nbd/server.h"
#include "test/block_fixture.h"
#include "test/nbd_client.h"
#include "test/volume_directory.h"
#include "test/volume_fixture.h"

namespace atoll_native {
namespace {

using nbd::Answer;
using nbd::Bytes;
using nbd::Client;
using SteadyClock = std::chrono::steady_clock;

constexpr uint32_t kBlockShift = 12;
constexpr uint64_t kUnit = 512;
constexpr uint64_t kRegionBytes = 2u << 20;  // of one client
constexpr uint32_t kRegionsPerVolume = 4;    // the last is the rude client's
constexpr uint64_t kVolumeBytes = kRegionBytes * kRegionsPerVolume;
constexpr uint32_t kVolumes = 2;
constexpr uint32_t kBatchMax = 16;  // requests of one client on their way
constexpr uint64_t kSmallMax = 16 << 10;
constexpr uint64_t kLargeMax = 256 << 10;  // past 32 KiB reads may be sent from the pool's file
constexpr uint32_t kRounds = 30;           // batches of one client in one run
constexpr uint32_t kReconnectEvery = 7;
constexpr uint32_t kSnapshotFirst = 100;  // handle
constexpr uint64_t kReadBytes = 256 << 10;
constexpr uint32_t kFiles = 128;  // of the pool in a folder
constexpr uint32_t kLongSeconds = 120;

uint64_t seed = 0;

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr || *text == 0 ? otherwise : std::strtoull(text, nullptr, 10);
}

/// One daemon's worth of native things.
struct World {
  World(uint32_t frames, const PoolSpec& spec)
      : bench(2, frames, 20), memory(spec.driver == PoolSpec::Driver::kMemory) {
    bench.mapper->shift_of_all = kBlockShift;
    const uint32_t handle = bench.open(spec);
    pool = bench.core->pool(handle);
    for (uint32_t v = 1; v <= kVolumes; v++) {
      bench.mapper->open_volume(v, kVolumeBytes, kBlockShift, handle);
      directory.add(name_of(v), facts(v, false));
    }
    std::vector<nbd::Server::Seat> seats;
    for (uint32_t i = 0; i < 2; i++) seats.push_back({&bench.reactor(i), &bench.reactor(i).volumes()});
    nbd::Limits limits;
    limits.negotiation_ms = 60'000;  // sanitizers on a machine that has other work
    server = std::make_unique<nbd::Server>(seats, directory, limits);
    path = folder.file("nbd.sock");
    std::string bound, message;
    REQUIRE(server->listen("unix:" + path, 0600, &bound, &message) > 0);
  }
  ~World() { CHECK(server->stop()); }
  static std::string name_of(uint32_t volume) { return "v" + std::to_string(volume); }
  static nbd::OpenAnswer facts(uint32_t handle, bool read_only) {
    nbd::OpenAnswer answer;
    answer.handle = handle;
    answer.size = kVolumeBytes;
    answer.block_size = 1u << kBlockShift;
    answer.read_only = read_only;
    return answer;
  }

  TempFolder folder;
  nbd::VolumeDirectory directory;
  std::unique_ptr<nbd::Server> server;  // its reactors' threads end before it goes
  Bench bench;
  std::string path;
  BlockPeer* pool;
  const bool memory;
};

uint8_t constant_byte(uint64_t at) { return static_cast<uint8_t>(at / kUnit * 7 + 3); }

/// A client of its own region.
class Reader {
 public:
  Reader(World& world, uint32_t volume, uint32_t region, uint64_t own_seed)
      : world_(world), volume_(volume), start_(region * kRegionBytes), random_(own_seed), shadow_(kRegionBytes) {}

  void run() {
    for (uint32_t round = 0; round < kRounds && fine_; round++) {
      if (round % kReconnectEvery == 0) connect();
      if (fine_) batch();
    }
    for (uint64_t at = 0; at < kRegionBytes && fine_; at += kReadBytes) {
      const Answer answer = client_->call(nbd::kCmdRead, start_ + at, kReadBytes);
      CHECK_EQ(answer.error, 0u);
      fine_ = CHECK(std::memcmp(answer.data.data(), shadow_.data() + at, kReadBytes) == 0);
    }
    if (client_ != nullptr) client_->request(nbd::kCmdDisc, 0, 0, 0);
  }

 private:
  struct Ask {
    nbd::Command type;
    uint16_t flags;
    uint64_t from;
    uint64_t length;
    Bytes data;
    Answer answer;
  };

  void connect() {
    if (client_ != nullptr && random_() % 2 == 0) client_->request(nbd::kCmdDisc, 0, 0, 0);
    client_ = std::make_unique<Client>(world_.path);
    Client::Wishes wishes;
    wishes.structured = random_() % 4 != 0;
    wishes.extended = wishes.structured && random_() % 2 == 0;
    structured_ = wishes.structured;
    if (structured_) wishes.contexts = {"base:allocation"};
    fine_ = CHECK(client_->go(World::name_of(volume_), wishes));
  }

  bool conflicts(const std::vector<Ask>& asks, const Ask& with) const {
    for (const Ask& one : asks) {
      const bool changes = one.type != nbd::kCmdRead || with.type != nbd::kCmdRead;
      if (changes && with.from < one.from + one.length && one.from < with.from + with.length) return true;
    }
    return false;
  }

  Ask make() {
    Ask ask = {};
    const uint64_t most = random_() % 8 == 0 ? kLargeMax : kSmallMax;
    ask.from = random_() % (kRegionBytes / kUnit) * kUnit;
    ask.length = std::min((random_() % (most / kUnit) + 1) * kUnit, kRegionBytes - ask.from);
    const uint32_t dice = static_cast<uint32_t>(random_() % 100);
    ask.type = dice < 45   ? nbd::kCmdRead
               : dice < 80 ? nbd::kCmdWrite
               : dice < 87 ? nbd::kCmdTrim
               : dice < 94 ? nbd::kCmdWriteZeroes
               : dice < 97 ? nbd::kCmdFlush
               : dice < 98 ? nbd::kCmdCache
                           : nbd::kCmdBlockStatus;
    if (ask.type == nbd::kCmdBlockStatus && !structured_) ask.type = nbd::kCmdRead;
    const bool changes = dice >= 45 && dice < 94;
    if (changes && random_() % 16 == 0) ask.flags |= nbd::kCmdFlagFua;
    if (ask.type == nbd::kCmdWriteZeroes && random_() % 4 == 0) ask.flags |= nbd::kCmdFlagNoHole;
    if (ask.type == nbd::kCmdFlush) ask.from = ask.length = 0;
    return ask;
  }

  void batch() {
    std::vector<Ask> asks;
    const uint32_t wanted = 1 + static_cast<uint32_t>(random_() % kBatchMax);
    for (uint32_t i = 0; i < wanted; i++) {
      Ask ask = make();
      if (conflicts(asks, ask)) continue;
      if (ask.type == nbd::kCmdWrite) {
        ask.data.resize(ask.length);
        const uint8_t base = static_cast<uint8_t>(random_() % 250 + 1);
        for (uint64_t b = 0; b < ask.length; b++) ask.data[b] = static_cast<uint8_t>(base + b % 5);
        std::memcpy(shadow_.data() + ask.from, ask.data.data(), ask.length);
      } else if (ask.type == nbd::kCmdTrim || ask.type == nbd::kCmdWriteZeroes) {
        std::memset(shadow_.data() + ask.from, 0, ask.length);
      }
      asks.push_back(std::move(ask));
    }
    // Cookie: place in the batch.
    for (size_t i = 0; i < asks.size(); i++) {
      Ask& ask = asks[i];
      const uint64_t offset = ask.length == 0 ? 0 : start_ + ask.from;
      if (ask.type == nbd::kCmdWrite) {
        fine_ = client_->write_request(i, offset, ask.data, ask.flags) && fine_;
      } else {
        fine_ = client_->request(ask.type, i, offset, ask.length, ask.flags) && fine_;
      }
      if (ask.type == nbd::kCmdRead) ask.answer.data.assign(ask.length, 0xEE);
    }
    CHECK(fine_);
    for (size_t left = asks.size(); left != 0 && fine_;) {
      const nbd::ReplyMessage message = client_->reply([&](uint64_t cookie) {
        return cookie < asks.size() && asks[cookie].type == nbd::kCmdRead ? asks[cookie].length : 0;
      });
      fine_ = CHECK(client_->alive()) && CHECK(message.cookie < asks.size());
      if (!fine_) return;
      Ask& ask = asks[message.cookie];
      fine_ = CHECK(client_->add(ask.answer, message, ask.length == 0 ? 0 : start_ + ask.from));
      if (message.done()) left--;
    }
    for (const Ask& ask : asks) {
      if (!fine_) return;
      fine_ = CHECK_EQ(ask.answer.error, 0u);
      if (ask.type == nbd::kCmdRead && fine_)
        fine_ = CHECK(std::memcmp(ask.answer.data.data(), shadow_.data() + ask.from, ask.length) == 0);
    }
  }

  World& world_;
  const uint32_t volume_;
  const uint64_t start_;
  std::mt19937_64 random_;
  std::vector<uint8_t> shadow_;
  std::unique_ptr<Client> client_;
  bool structured_ = false;
  bool fine_ = true;
};

/// Fills its region once, then asks for reads, writes the same bytes again, and hangs up without waiting. What it
/// leaves behind and what it asks for next may overlap: the kernel does not mind, memory that TSan watches does, so
/// there it only reads.
class Rude {
 public:
  Rude(World& world, uint32_t volume, uint64_t own_seed)
      : world_(world), volume_(volume), random_(own_seed), bytes_(kRegionBytes) {
    for (uint64_t at = 0; at < kRegionBytes; at++) bytes_[at] = constant_byte(at);
    Client client(world_.path);
    CHECK(client.go(World::name_of(volume_), {}));
    for (uint64_t at = 0; at < kRegionBytes; at += kReadBytes) {
      const Bytes part = part_of(at, kReadBytes);
      CHECK_EQ(client.call(nbd::kCmdWrite, kStart + at, kReadBytes, 0, &part).error, 0u);
    }
  }
  void run(const std::atomic<bool>& over) {
    while (!over.load()) {
      Client client(world_.path);
      Client::Wishes wishes;
      wishes.structured = random_() % 2 == 0;
      if (random_() % 8 == 0) continue;  // hangs up before it said anything
      CHECK(client.go(World::name_of(volume_), wishes));
      for (uint32_t i = 0, count = static_cast<uint32_t>(random_() % 24); i < count; i++) {
        const uint64_t at = random_() % (kRegionBytes / kUnit) * kUnit;
        const uint64_t length = std::min((random_() % (kLargeMax / 2 / kUnit) + 1) * kUnit, kRegionBytes - at);
        if (world_.memory || random_() % 2 == 0) {
          client.request(nbd::kCmdRead, i, kStart + at, length);
        } else {
          client.write_request(i, kStart + at, part_of(at, length));
        }
      }
      hang_ups++;
    }
  }
  static constexpr uint64_t kStart = (kRegionsPerVolume - 1) * kRegionBytes;
  uint32_t hang_ups = 0;

 private:
  Bytes part_of(uint64_t at, uint64_t length) const {
    const auto from = bytes_.begin() + static_cast<ptrdiff_t>(at);
    return {from, from + static_cast<ptrdiff_t>(length)};
  }

  World& world_;
  const uint32_t volume_;
  std::mt19937_64 random_;
  Bytes bytes_;
};

/// Takes snapshots, reads each twice with evictions in between, cuts its readers off, and drops it.
class Snapshots {
 public:
  Snapshots(World& world, uint64_t own_seed) : world_(world), random_(own_seed) {}

  void run(const std::atomic<bool>& over) {
    for (uint32_t n = 0; !over.load() || taken == 0; n++) {
      const uint32_t volume = 1 + n % kVolumes;
      const uint32_t handle = kSnapshotFirst + n % (kVolumesMax - kSnapshotFirst);
      const std::string name = World::name_of(volume) + "@" + std::to_string(n);
      world_.bench.mapper->snapshot(volume, handle);
      world_.directory.add(name, World::facts(handle, true));
      const Bytes first = read_all(name);
      if (random_() % 2 == 0) world_.bench.mapper->evict_all();
      CHECK(read_all(name) == first);
      bool constant = true;
      for (uint64_t at = 0; at < kRegionBytes; at++)
        constant = constant && first[Rude::kStart + at] == constant_byte(at);
      CHECK(constant);
      {
        Client client(world_.path);
        CHECK(client.go(name, {}));
        for (uint32_t i = 0; i < kBatchMax; i++) client.request(nbd::kCmdRead, i, i * kReadBytes, kReadBytes);
        if (random_() % 2 == 0) {
          world_.server->disconnect(handle);
          uint8_t byte;
          while (client.receive(&byte, 1)) {
          }
        }
      }
      world_.directory.remove(name);
      world_.bench.mapper->drop(handle);
      taken++;
    }
  }
  uint32_t taken = 0;

 private:
  Bytes read_all(const std::string& name) {
    Client client(world_.path);
    Client::Wishes wishes;
    wishes.extended = random_() % 2 == 0;
    CHECK(client.go(name, wishes));
    Bytes all;
    for (uint64_t at = 0; at < kVolumeBytes; at += kReadBytes) {
      const Answer answer = client.call(nbd::kCmdRead, at, kReadBytes);
      if (!CHECK_EQ(answer.error, 0u)) break;
      all.insert(all.end(), answer.data.begin(), answer.data.end());
    }
    all.resize(kVolumeBytes);
    return all;
  }

  World& world_;
  std::mt19937_64 random_;
};

void run_once(World& world) {
  std::vector<std::unique_ptr<Rude>> rude;
  std::vector<std::unique_ptr<Reader>> readers;
  for (uint32_t v = 1; v <= kVolumes; v++) {
    rude.push_back(std::make_unique<Rude>(world, v, seed * 31 + v));
    for (uint32_t r = 0; r + 1 < kRegionsPerVolume; r++)
      readers.push_back(std::make_unique<Reader>(world, v, r, seed * 1000 + v * kRegionsPerVolume + r));
  }
  Snapshots snapshots(world, seed);
  std::atomic<bool> over{false};
  std::vector<std::thread> working, beside;
  for (auto& one : readers) working.emplace_back([&one] { one->run(); });
  for (auto& one : rude) beside.emplace_back([&one, &over] { one->run(over); });
  beside.emplace_back([&] { snapshots.run(over); });
  for (std::thread& thread : working) thread.join();
  over = true;
  for (std::thread& thread : beside) thread.join();
  CHECK(snapshots.taken > 0);
  CHECK(world.bench.mapper->grants_made > 0);
}

void end(World& world) {
  CHECK(world.server->stop());
  CHECK_EQ(world.directory.open_handles(), 0);
  CHECK_EQ(world.bench.mapper->grants_open(), 0u);
}

/// What the daemon's mapper does before it hands out the first slot of a file.
void make_files(World& world, const PoolSpec& spec) {
  for (uint32_t file = 0; file < kFiles; file++) CHECK_EQ(world.pool->ensure_file(file), 0);
  world.bench.mapper->slots_max = kFiles * (spec.file_span >> kBlockShift);
}

void test_memory() {
  PoolSpec spec;
  spec.driver = PoolSpec::Driver::kMemory;
  spec.capacity_bytes = uint64_t{8} << 30;
  spec.file_span = 1 << 20;
  World world(256, spec);
  world.bench.mapper->dirty_slots = true;
  world.bench.mapper->grant_blocks_max = 40;
  run_once(world);
  // A part of a block that a snapshot has: how many of these the load met is chance.
  world.bench.mapper->snapshot(1, kSnapshotFirst - 1);
  CHECK_EQ(world.bench.write(1, Rude::kStart, pattern(kUnit, seed)), 0);
  CHECK(world.bench.mapper->copies > 0);
  end(world);
}

void test_files_with_few_frames() {
  TempFolder folder;
  PoolSpec spec;
  spec.path = folder.folder("pool");
  spec.file_span = 16 << 20;
  World world(12, spec);
  make_files(world, spec);
  run_once(world);
  CHECK(world.bench.mapper->evictions > 0);
  end(world);
}

void test_slow_pool() {
  TempFolder folder;
  PoolSpec spec;
  spec.path = folder.folder("pool");
  spec.file_span = 16 << 20;
  spec.faults = {delay_of(true, true, 1)};
  World world(64, spec);
  make_files(world, spec);
  world.bench.mapper->grant_blocks_max = 8;
  run_once(world);
  end(world);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  seed = from_environment("NBD_LOAD_SEED",
                          static_cast<uint64_t>(SteadyClock::now().time_since_epoch().count()) % 1'000'000);
  const bool is_long = from_environment("ATOLL_LONG", 0) == 1 || from_environment("ATOLL_TEST_LONG", 0) == 1;
  const uint64_t seconds = from_environment("NBD_LOAD_SECONDS", is_long ? kLongSeconds : 0);
  const auto until = SteadyClock::now() + std::chrono::seconds(seconds);
  do {
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    test_memory();
    test_files_with_few_frames();
    test_slow_pool();
    seed++;
  } while (checks_failed == 0 && SteadyClock::now() < until);
  return check_summary();
}
