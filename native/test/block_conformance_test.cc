// One and the same test for every block peer: what block.h promises, whatever the driver and its mode.
#include <algorithm>
#include <cstring>
#include <memory>

#include "test/block_device_fixture.h"
#include "test/block_fixture.h"

namespace atoll_native {
namespace {

constexpr uint64_t kSpan = 4 * kMiB;
constexpr uint64_t kBytes = 12 * kMiB;  // three files of a directory
constexpr uint64_t kOneSpan = 1ull << 52;
constexpr uint64_t kDataOffset = kMiB;

struct Case {
  const char* name;
  PoolSpec spec;
  bool remembers = true;
  bool survives = true;  // closing and opening again
};

std::vector<uint8_t> random_bytes(Random& random, uint64_t length) {
  std::vector<uint8_t> bytes(length);
  random.fill(bytes.data(), length);
  return bytes;
}

/// A place inside one file; sectors and blocks are as likely as odd bytes.
void pick_range(Random& random, uint64_t file_bytes, uint64_t length_max, uint64_t* address, uint64_t* length) {
  constexpr uint64_t kGrains[] = {1, 512, 4096, 65536};
  const uint64_t grain = kGrains[random.below(4)];
  *length = std::max(grain, random.below(length_max) / grain * grain);
  do {
    *address = random.below(kBytes - *length) / grain * grain;
  } while (*address / file_bytes != (*address + *length - 1) / file_bytes);
}

void ensure_files(const Case& c, BlockPeer& peer) {
  for (uint64_t address = 0; address < kBytes; address += kSpan) CHECK_EQ(peer.ensure_file(peer.file_of(address)), 0);
  CHECK_EQ(peer.ensure_file(0), 0);  // again: nothing happens
  if (c.spec.driver == PoolSpec::Driver::kLocal) CHECK(peer.ensure_file(UINT32_MAX) < 0);
}

void unwritten_reads_as_zeroes(BlockPeer& peer, TestLoop& loop) {
  std::vector<uint8_t> buffer(256 * kKiB, 0xee);
  CHECK_EQ(any_read(peer, loop, 0, buffer.data(), static_cast<uint32_t>(buffer.size())), 0);
  CHECK(all_zero(buffer.data(), buffer.size()));
  std::fill(buffer.begin(), buffer.end(), 0xee);
  CHECK_EQ(async_read(peer, loop, kSpan - 100 * kKiB, buffer.data(), 100 * kKiB), 0);
  CHECK(all_zero(buffer.data(), 100 * kKiB));
}

/// Random operations of every kind beside a model.
void behaves_like_memory(BlockPeer& peer, TestLoop& loop, std::vector<uint8_t>& model, uint64_t seed) {
  constexpr int kRounds = 150;
  Random random(seed);
  std::vector<uint8_t> buffer;
  int wrong = 0;
  for (int round = 0; round < kRounds; round++) {
    uint64_t address, length;
    const uint64_t kind = random.below(10);
    pick_range(random, kSpan, 700 * kKiB, &address, &length);
    if (kind < 3) {
      buffer = random_bytes(random, length);
      CHECK_EQ(any_write(peer, loop, address, buffer.data(), static_cast<uint32_t>(length)), 0);
      std::copy(buffer.begin(), buffer.end(), model.begin() + static_cast<ptrdiff_t>(address));
    } else if (kind < 5) {
      buffer = random_bytes(random, length);
      const BlockOp op = kind == 3 ? BlockOp::kWrite : BlockOp::kWriteDurable;
      CHECK_EQ(async_write(peer, loop, address, buffer.data(), length, op), 0);
      std::copy(buffer.begin(), buffer.end(), model.begin() + static_cast<ptrdiff_t>(address));
    } else if (kind == 5) {
      CHECK_EQ(peer.zero_now(address, length), 0);
      std::fill_n(model.begin() + static_cast<ptrdiff_t>(address), length, 0);
    } else if (kind == 6) {
      BlockIo io{.op = BlockOp::kZero, .address = address, .length = length};
      CHECK_EQ(run_op(peer, loop, io), 0);
      std::fill_n(model.begin() + static_cast<ptrdiff_t>(address), length, 0);
    } else if (kind == 7) {
      uint64_t source, ignored;
      do {
        pick_range(random, kSpan, length, &source, &ignored);
      } while (source + length > kBytes || source / kSpan != (source + length - 1) / kSpan ||
               (source < address + length && address < source + length));
      BlockIo io{.op = BlockOp::kCopy, .address = address, .source = source, .length = length};
      CHECK_EQ(run_op(peer, loop, io), 0);
      std::copy_n(model.begin() + static_cast<ptrdiff_t>(source), length,
                  model.begin() + static_cast<ptrdiff_t>(address));
    } else if (kind == 8) {
      buffer.assign(length, 0xee);
      CHECK_EQ(async_read(peer, loop, address, buffer.data(), length), 0);
      wrong += memcmp(buffer.data(), model.data() + address, length) != 0;
    } else {
      CHECK_EQ(peer.sync_now(peer.file_of(address)), 0);
      buffer.assign(length, 0xee);
      CHECK_EQ(any_read(peer, loop, address, buffer.data(), static_cast<uint32_t>(length)), 0);
      wrong += memcmp(buffer.data(), model.data() + address, length) != 0;
    }
  }
  CHECK_EQ(wrong, 0);
}

void equals_model(BlockPeer& peer, TestLoop& loop, const std::vector<uint8_t>& model) {
  std::vector<uint8_t> buffer(kSpan);
  for (uint64_t address = 0; address < kBytes; address += kSpan) {
    CHECK_EQ(async_read(peer, loop, address, buffer.data(), kSpan), 0);
    CHECK(memcmp(buffer.data(), model.data() + address, kSpan) == 0);
    std::fill(buffer.begin(), buffer.end(), 0xee);
    CHECK_EQ(any_read(peer, loop, address, buffer.data(), static_cast<uint32_t>(kSpan)), 0);
    CHECK(memcmp(buffer.data(), model.data() + address, kSpan) == 0);
  }
}

/// More operations at once than anything holds, reads and writes into disjoint places.
void many_at_once(BlockPeer& peer, TestLoop& loop, std::vector<uint8_t>& model) {
  constexpr uint64_t kPiece = 1024;
  constexpr int kOps = 2 * AsyncIo::kHeldMax;
  static_assert(kOps * 2 * kPiece <= kBytes);
  Random random(77);
  std::vector<uint8_t> data = random_bytes(random, kOps * kPiece + 1);
  std::vector<BlockIo> ios(kOps);
  struct Counter {
    int done = 0, errors = 0;
  } counter;
  for (int i = 0; i < kOps; i++) {
    const uint64_t address = static_cast<uint64_t>(i) * 2 * kPiece;
    // Buffers at odd addresses, as payloads in a stream are.
    ios[i] = {.op = BlockOp::kWrite, .address = address, .length = kPiece, .buffer = data.data() + 1 + i * kPiece};
    ios[i].owner = &counter;
    ios[i].done = [](BlockIo* io) {
      auto* c = static_cast<Counter*>(io->owner);
      c->done++;
      c->errors += io->error != 0;
    };
    memcpy(model.data() + address, ios[i].buffer, kPiece);
    peer.submit(&ios[i], loop.io);
  }
  CHECK(loop.run_until([&] { return counter.done == kOps; }));
  CHECK_EQ(counter.errors, 0);
}

void refuses_what_crosses(BlockPeer& peer, TestLoop& loop) {
  uint8_t bytes[8192] = {};
  const uint64_t border = peer.file_span();
  CHECK_EQ(peer.read_now(border - 4096, bytes, 8192), -EINVAL);
  CHECK_EQ(peer.write_now(border - 4096, bytes, 8192), -EINVAL);
  CHECK_EQ(async_read(peer, loop, border - 4096, bytes, 8192), EINVAL);
  CHECK_EQ(async_write(peer, loop, border - 4096, bytes, 8192), EINVAL);
  CHECK_EQ(peer.zero_now(border - 4096, 8192), -EINVAL);
  CHECK_EQ(peer.zero_now(UINT64_MAX - 4095, 4096), -EINVAL);
}

void zeroing_gives_space_back(const Case& c, TestLoop& loop) {
  std::shared_ptr<BlockPeer> peer = open_peer(c.spec);
  if (!peer->capabilities().zero_is_hole || !c.remembers) return;
  std::vector<uint8_t> data(kSpan, 1);
  for (uint64_t address = 0; address < kBytes; address += kSpan) {
    CHECK_EQ(any_write(*peer, loop, address, data.data(), kSpan), 0);
    CHECK_EQ(peer->sync_now(peer->file_of(address)), 0);
  }
  const uint64_t full = peer->usage().physical_bytes;
  CHECK(full >= kBytes);
  for (uint64_t address = 0; address < kBytes; address += kSpan) CHECK_EQ(peer->zero_now(address, kSpan), 0);
  usleep(1'050'000);  // a sum is good for a second
  CHECK(peer->usage().physical_bytes <= full - kBytes);
}

void run_case(const Case& c, ThreadPool& pool, bool ring) {
  std::printf("-- %s, %s\n", c.name, ring ? "io_uring" : "threads");
  TestLoop loop(pool, {.io_uring = ring});
  std::vector<uint8_t> model(kBytes, 0);
  {
    std::shared_ptr<BlockPeer> peer = open_peer(c.spec);
    CHECK_EQ(peer->file_span(), c.spec.file_span);
    CHECK(!peer->failed());
    CHECK_EQ(peer->capabilities().persistent, c.spec.driver == PoolSpec::Driver::kLocal);
    CHECK_EQ(peer->capabilities().direct, c.spec.direct);
    ensure_files(c, *peer);
    if (ring) {
      unwritten_reads_as_zeroes(*peer, loop);
    } else {
      for (uint64_t at = 0; at < kBytes; at += kSpan) CHECK_EQ(peer->zero_now(at, kSpan), 0);
    }
    if (c.remembers) {
      behaves_like_memory(*peer, loop, model, ring ? 1 : 2);
      many_at_once(*peer, loop, model);
      equals_model(*peer, loop, model);
    }
    // Behind a delay nothing is inline, and read_now says no more than that.
    if (c.spec.driver == PoolSpec::Driver::kLocal && c.spec.faults.empty()) refuses_what_crosses(*peer, loop);
    BlockIo sync{.op = BlockOp::kSync, .file = 0};
    CHECK_EQ(run_op(*peer, loop, sync), 0);
    CHECK(!peer->failed());
    if (c.spec.capacity_bytes != 0) CHECK(peer->usage().capacity_bytes >= c.spec.capacity_bytes);
  }
  if (c.remembers && c.survives) {
    std::shared_ptr<BlockPeer> again = open_peer(c.spec);
    equals_model(*again, loop, model);
  }
}

PoolSpec local(PoolSpec::Kind kind, const std::string& path) {
  PoolSpec spec;
  spec.kind = kind;
  spec.path = path;
  const bool directory = kind == PoolSpec::Kind::kDirectory;
  spec.file_span = directory ? kSpan : kOneSpan;
  spec.data_offset = directory ? 0 : kDataOffset;
  spec.capacity_bytes = kBytes;
  return spec;
}

bool takes_direct(const PoolSpec& spec) {
  std::string message;
  const int error = open_error(spec, &message);
  if (error == 0) return true;
  CHECK_EQ(error, EINVAL);
  std::printf("skipped, the file system refuses O_DIRECT: %s\n", message.c_str());
  return false;
}

std::vector<Case> cases(const TempFolder& folder, const LoopDevice& device) {
  using Kind = PoolSpec::Kind;
  std::vector<Case> all;
  PoolSpec simple;
  simple.file_span = kSpan;
  simple.capacity_bytes = kBytes;
  simple.driver = PoolSpec::Driver::kNull;
  all.push_back({"null", simple, false, false});
  simple.driver = PoolSpec::Driver::kMemory;
  all.push_back({"memory", simple, true, false});

  all.push_back({"directory", local(Kind::kDirectory, folder.folder("sparse"))});
  PoolSpec spec = local(Kind::kDirectory, folder.folder("allocated"));
  spec.preallocate = true;
  all.push_back({"directory, preallocated", spec});
  spec = local(Kind::kDirectory, folder.folder("direct"));
  spec.direct = true;
  if (takes_direct(spec)) {
    all.push_back({"directory, direct", spec});
    spec.path = folder.folder("direct-allocated");
    spec.preallocate = true;
    all.push_back({"directory, direct and preallocated", spec});
    spec = local(Kind::kFile, folder.file("direct-file"));
    spec.direct = true;
    all.push_back({"file, direct", spec});
  }
  all.push_back({"file", local(Kind::kFile, folder.file("file"))});
  spec = local(Kind::kFile, folder.file("thin-file"));
  spec.capacity_bytes = 0;
  all.push_back({"file, thin", spec});
  spec = local(Kind::kFile, folder.file("allocated-file"));
  spec.preallocate = true;
  all.push_back({"file, preallocated", spec});

  if (device.path().empty()) {
    std::printf("skipped: device kinds need root and loop devices\n");
    return all;
  }
  spec = local(Kind::kDevice, device.path());
  all.push_back({"device", spec});
  spec.direct = true;
  all.push_back({"device, direct", spec});
  return all;
}

/// The same, with every layer stacked on it that lets things pass.
Case layered(Case c, const TempFolder& folder) {
  FaultSpec error, delay, log;
  error.kind = FaultSpec::Kind::kError;
  error.after = UINT64_MAX;
  delay.kind = FaultSpec::Kind::kDelay;
  log.kind = FaultSpec::Kind::kLog;
  log.path = folder.file("log");
  c.spec.faults = {error, delay, log};
  return c;
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  setvbuf(stdout, nullptr, _IOLBF, 0);  // so that a hang says where
  TempFolder folder;
  LoopDevice device(folder.file("device"), kDataOffset + kBytes);
  ThreadPool pool(4);
  for (const Case& c : cases(folder, device)) {
    const bool device_kind = c.spec.driver == PoolSpec::Driver::kLocal && c.spec.kind == PoolSpec::Kind::kDevice;
    if (device_kind) {
      // A device has what was there before; the other kinds begin empty.
      std::shared_ptr<BlockPeer> peer = open_peer(c.spec);
      CHECK_EQ(peer->zero_now(0, kBytes), 0);
    }
    run_case(c, pool, true);
    run_case(c, pool, false);
    TestLoop loop(pool);
    zeroing_gives_space_back(c, loop);
  }
  Case through_layers = {"directory, through layers", local(PoolSpec::Kind::kDirectory, folder.folder("layers"))};
  run_case(layered(through_layers, folder), pool, true);
  return check_summary();
}
