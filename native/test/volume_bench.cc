// What the fast path costs: nanoseconds of a 4 KiB read or write hit through the volume peer, beside the same operation
// asked of the block peer directly. Prints a table; no test. Arguments: rounds per row in thousands (default 300).
#include <time.h>

#include <algorithm>
#include <cstdlib>

#include "test/volume_fixture.h"

namespace atoll_native {
namespace {

constexpr uint32_t kShift = 16;
constexpr uint64_t kBytes = 256 << 20;
constexpr uint32_t kUnit = 4096;

uint64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t place(uint64_t i) { return (i * 0x9E3779B97F4A7C15ull >> 40) % (kBytes / kUnit) * kUnit; }

constexpr uint32_t kChunk = 2000;

/// Median over chunks of calls on the reactor's thread. A chunk in which a call did not end at once (`body` is false:
/// the block peer took it for slow) does not count, and what is on its way is waited for.
template <typename Body>
double ns_per_call(Bench& bench, uint64_t rounds, const std::atomic<uint64_t>& on_their_way, Body body) {
  std::vector<double> chunks;
  uint64_t i = 0;
  for (uint64_t tries = 0; chunks.size() * kChunk < rounds && tries < rounds / kChunk * 2; tries++) {
    bool whole = true;
    bench.on(0, [&] {
      const uint64_t begin = now_ns();
      for (uint64_t n = 0; n < kChunk && whole; n++) whole = body(i++);
      if (whole) chunks.push_back(static_cast<double>(now_ns() - begin) / kChunk);
    });
    while (on_their_way != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  REQUIRE(!chunks.empty());
  std::sort(chunks.begin(), chunks.end());
  return chunks[chunks.size() / 2];
}

void measure(Bench& bench, const char* name, uint32_t pool, uint64_t rounds) {
  bench.mapper->open_volume(1, kBytes, kShift, pool);
  const std::vector<uint8_t> data = pattern(1 << 20, 1);
  for (uint64_t at = 0; at < kBytes; at += data.size()) CHECK_EQ(bench.write(1, at, data), 0);
  BlockPeer* const peer = bench.core->pool(pool);
  std::vector<uint64_t> slots(kBytes >> kShift);
  for (uint64_t b = 0; b < slots.size(); b++) slots[b] = bench.mapper->slot_of(1, b);
  std::vector<uint8_t> buffer(kUnit, 7);
  static std::atomic<uint64_t> on_their_way;
  RequestSink& sink = bench.reactor().volumes();
  Request request;
  const auto submit = [&](Op op, uint64_t i) {
    request.op = op;
    request.flags = 0;
    request.volume = 1;
    request.offset = place(i);
    request.length = kUnit;
    request.buffer = buffer.data();
    request.done = [](Request*) { on_their_way--; };
    on_their_way++;
    sink.submit(&request);
    return on_their_way == 0;
  };
  const auto address = [&](uint64_t i) {
    const uint64_t at = place(i);
    return (slots[at >> kShift] << kShift) + (at & ((1 << kShift) - 1));
  };
  const auto row = [&](const char* op, double volume, double block) {
    std::printf("%-8s %-5s %7.1f ns  of it block I/O %7.1f  volume peer %6.1f\n", name, op, volume, block,
                volume - block);
  };
  // The two that are compared, one after the other.
  const double read_peer = ns_per_call(
      bench, rounds, on_their_way, [&](uint64_t i) { return peer->read_now(address(i), buffer.data(), kUnit) == 0; });
  row("read", ns_per_call(bench, rounds, on_their_way, [&](uint64_t i) { return submit(Op::kRead, i); }), read_peer);
  const double write_peer = ns_per_call(
      bench, rounds, on_their_way, [&](uint64_t i) { return peer->write_now(address(i), buffer.data(), kUnit) == 0; });
  row("write", ns_per_call(bench, rounds, on_their_way, [&](uint64_t i) { return submit(Op::kWrite, i); }), write_peer);
}

/// First writes: a fault, a grant, the data, OP_DONE, its reply. The test mapper is C++, so this is the floor.
void measure_faults(Bench& bench, uint32_t pool) {
  for (const uint32_t depth : {1u, 32u}) {
    bench.mapper->open_volume(depth + 1, uint64_t{1} << 40, kShift, pool);
    constexpr uint32_t kFaults = 20000;
    struct State {
      Bench* bench;
      std::vector<Request> requests;
      std::vector<uint8_t> bytes = std::vector<uint8_t>(kUnit, 3);
      uint32_t started = 0;
      std::atomic<uint32_t> ended{0};
      uint32_t volume;
      void next(Request* r) {
        if (started == kFaults) return;
        *r = Request{.op = Op::kWrite, .volume = volume, .offset = uint64_t{started++} << kShift, .length = kUnit};
        r->buffer = bytes.data();
        r->owner = this;
        r->done = [](Request* d) {
          State* const s = static_cast<State*>(d->owner);
          s->next(d);
          s->ended++;
        };
        bench->reactor().volumes().submit(r);
      }
    } state;
    state.bench = &bench;
    state.volume = depth + 1;
    state.requests.resize(depth);
    const uint64_t begin = now_ns();
    bench.on(0, [&] {
      for (Request& r : state.requests) state.next(&r);
    });
    while (state.ended < kFaults) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::printf("memory   first write at depth %2u %9.0f ns\n", depth, static_cast<double>(now_ns() - begin) / kFaults);
  }
}

}  // namespace
}  // namespace atoll_native

int main(int argc, char** argv) {
  using namespace atoll_native;
  const uint64_t rounds = (argc > 1 ? strtoull(argv[1], nullptr, 10) : 300) * 1000;
  char folder[] = "/tmp/atoll-volume-bench-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  {
    Bench bench(1, 4096, 50);
    measure(bench, "memory", bench.memory_pool({}, uint64_t{1} << 30), rounds);
    measure_faults(bench, 0);
  }
  {
    Bench bench(1, 4096, 50);
    PoolSpec spec;
    spec.path = folder;
    spec.file_span = 1 << 30;
    const uint32_t pool = bench.open(spec);
    REQUIRE(bench.core->pool(pool)->ensure_file(0) == 0);
    measure(bench, "local", pool, rounds);
  }
  const std::string remove = std::string("rm -rf ") + folder;
  if (system(remove.c_str()) != 0) std::printf("could not remove %s\n", folder);
  return check_summary();
}
