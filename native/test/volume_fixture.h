// What the tests of reactor and volume peer share: a core with pools and the test mapper, a client that waits for each
// request, and a client that keeps many random requests on their way and checks every byte it reads.
#pragma once
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "block/factory.h"
#include "core.h"
#include "reactor/reactor.h"
#include "test/check.h"
#include "test/test_mapper.h"
#include "volume/request.h"
#include "volume/volume_peer.h"

namespace atoll_native {

class Bench {
 public:
  explicit Bench(uint32_t reactors = 1, uint32_t frames = 256, uint32_t spin_us_max = 0) {
    std::string message;
    int error = 0;
    Core::Options options;
    options.reactors = reactors;
    options.frames = frames;
    options.spin_us_max = spin_us_max;
    core = Core::create(options, &message, &error);
    REQUIRE(core != nullptr);
    mapper = std::make_unique<TestMapper>(*core);
  }
  ~Bench() {
    mapper.reset();
    core->stop();
  }

  uint32_t memory_pool(std::vector<FaultSpec> faults = {}, uint64_t file_span = 16u << 20) {
    PoolSpec spec;
    spec.driver = PoolSpec::Driver::kMemory;
    spec.capacity_bytes = uint64_t{8} << 30;
    spec.file_span = file_span;
    spec.faults = std::move(faults);
    return open(spec);
  }
  uint32_t open(const PoolSpec& spec) {
    std::string message;
    uint32_t handle = 0;
    const int result = core->open_pool(spec, &handle, &message);
    if (!CHECK_EQ(result, 0)) std::printf("  %s\n", message.c_str());
    REQUIRE(result == 0);
    return handle;
  }
  Reactor& reactor(uint32_t id = 0) { return core->reactor(id); }
  /// Runs on the reactor's thread; waits for it.
  void on(uint32_t reactor_id, std::function<void()> task) {
    std::mutex mutex;
    std::condition_variable done;
    bool ended = false;
    reactor(reactor_id).post([&] {
      task();
      const std::lock_guard lock(mutex);
      ended = true;
      done.notify_all();
    });
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return ended; });
  }

  /// Sends a request to a reactor and waits for its end; returns its error.
  int call(Request* request, uint32_t reactor_id = 0) {
    struct Waiting {
      std::mutex mutex;
      std::condition_variable done;
      bool ended = false;
    } waiting;
    request->owner = &waiting;
    request->done = [](Request* r) {
      Waiting* const w = static_cast<Waiting*>(r->owner);
      const std::lock_guard lock(w->mutex);
      w->ended = true;
      w->done.notify_all();
    };
    reactor(reactor_id).post([&, reactor_id] { reactor(reactor_id).volumes().submit(request); });
    std::unique_lock lock(waiting.mutex);
    waiting.done.wait(lock, [&] { return waiting.ended; });
    return request->error;
  }
  int write(uint32_t volume, uint64_t offset, const std::vector<uint8_t>& bytes, uint16_t flags = 0, uint32_t on = 0) {
    Request request{.op = Op::kWrite, .flags = flags, .volume = volume, .offset = offset, .length = bytes.size()};
    request.buffer = const_cast<uint8_t*>(bytes.data());
    return call(&request, on);
  }
  std::vector<uint8_t> read(uint32_t volume, uint64_t offset, uint64_t length, uint32_t on = 0) {
    std::vector<uint8_t> bytes(length, 0x5A);
    Request request{.op = Op::kRead, .volume = volume, .offset = offset, .length = length, .buffer = bytes.data()};
    CHECK_EQ(call(&request, on), 0);
    return bytes;
  }
  int simple(Op op, uint32_t volume, uint64_t offset, uint64_t length, uint16_t flags = 0, uint32_t on = 0) {
    Request request{.op = op, .flags = flags, .volume = volume, .offset = offset, .length = length};
    return call(&request, on);
  }
  int flush(uint32_t volume, uint32_t on = 0) { return simple(Op::kFlush, volume, 0, 0, 0, on); }

  std::shared_ptr<Core> core;
  std::unique_ptr<TestMapper> mapper;
};

inline std::vector<uint8_t> pattern(uint64_t length, uint64_t seed) {
  std::vector<uint8_t> bytes(length);
  std::mt19937_64 random(seed);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random() % 251 + 1);
  return bytes;
}

/// Random reads, writes, trims and zeroes in one region of a volume, many at once from one reactor, never two that
/// touch the same bytes while one of them writes. Every read is compared with a shadow copy.
class Load {
 public:
  struct Options {
    uint32_t volume = 0;
    uint32_t reactor = 0;
    uint64_t start = 0;
    uint64_t bytes = 1 << 20;
    uint32_t depth = 16;
    uint32_t requests = 1000;
    uint64_t length_max = 128 << 10;
    uint64_t unit = 512;
    uint64_t seed = 1;
    bool discards = true;
    bool flushes = true;
  };

  Load(Bench& bench, Options options)
      : bench_(bench), options_(options), random_(options.seed), shadow_(options.bytes), slots_(options.depth) {
    for (Slot& slot : slots_) {
      slot.buffer.resize(options.length_max);
      slot.load = this;
    }
  }
  void start() {
    bench_.reactor(options_.reactor).post([this] { pump(); });
  }
  void wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return finished_; });
  }
  uint32_t errors() const { return errors_; }
  uint32_t mismatches() const { return mismatches_; }
  const std::vector<uint8_t>& shadow() const { return shadow_; }
  /// Reads the whole region and compares.
  void verify(uint32_t on) {
    const std::vector<uint8_t> bytes = bench_.read(options_.volume, options_.start, options_.bytes, on);
    CHECK(bytes == shadow_);
  }

 private:
  struct Slot {
    Request request;
    std::vector<uint8_t> buffer;
    Load* load = nullptr;
    bool busy = false;
    uint64_t from = 0, to = 0;
    bool changes = false;
  };

  bool conflicts(uint64_t from, uint64_t to, bool changes) const {
    for (const Slot& slot : slots_) {
      if (slot.busy && from < slot.to && slot.from < to && (changes || slot.changes)) return true;
    }
    return false;
  }

  void pump() {
    if (pumping_) return;  // done() inside submit()
    pumping_ = true;
    for (Slot& slot : slots_) {
      if (!slot.busy && started_ < options_.requests) begin(&slot);
    }
    pumping_ = false;
    if (started_ == options_.requests && busy_ == 0) {
      const std::lock_guard lock(mutex_);
      finished_ = true;
      done_.notify_all();
    } else if (started_ < options_.requests && !posted_) {
      posted_ = true;
      bench_.reactor(options_.reactor).post([this] {
        posted_ = false;
        pump();
      });
    }
  }

  void begin(Slot* slot) {
    const uint64_t units = options_.bytes / options_.unit;
    const uint64_t from = random_() % units * options_.unit;
    const bool large = random_() % 8 == 0;
    const uint64_t most = std::min(options_.bytes - from, large ? options_.length_max : options_.length_max / 16);
    const uint64_t length = (random_() % (std::max(most, options_.unit) / options_.unit) + 1) * options_.unit;
    const uint32_t dice = random_() % 100;
    Request& r = slot->request;
    r = Request{.op = Op::kRead, .volume = options_.volume, .offset = options_.start + from, .length = length};
    if (dice < 45) {
      r.op = Op::kWrite;
    } else if (dice < 50 && options_.discards) {
      r.op = dice < 48 ? Op::kTrim : Op::kWriteZeroes;
      if (dice == 49) r.flags = kNoHole;
    } else if (dice < 52 && options_.flushes) {
      r.op = Op::kFlush;
      r.length = 0;
    }
    const bool changes = r.op == Op::kWrite || r.op == Op::kTrim || r.op == Op::kWriteZeroes;
    if (changes && options_.flushes && dice % 16 == 0) r.flags |= kFua;
    if (conflicts(from, from + length, changes)) return;
    slot->from = from;
    slot->to = from + length;
    slot->changes = changes;
    slot->busy = true;
    busy_++;
    started_++;
    if (r.op == Op::kWrite) {
      // Cheap and different each time.
      const uint8_t base = static_cast<uint8_t>(random_() % 250 + 1);
      for (uint64_t i = 0; i < length; i++) slot->buffer[i] = static_cast<uint8_t>(base + i % 5);
      std::memcpy(shadow_.data() + from, slot->buffer.data(), length);
    } else if (changes) {
      std::memset(shadow_.data() + from, 0, length);
    } else {
      std::memset(slot->buffer.data(), 0xA5, length);
    }
    r.buffer = slot->buffer.data();
    r.owner = slot;
    r.done = [](Request* request) {
      Slot* const s = static_cast<Slot*>(request->owner);
      s->load->ended(s);
    };
    bench_.reactor(options_.reactor).volumes().submit(&r);
  }

  void ended(Slot* slot) {
    if (slot->request.error != 0) errors_++;
    if (slot->request.op == Op::kRead && slot->request.error == 0 &&
        std::memcmp(slot->buffer.data(), shadow_.data() + slot->from, slot->to - slot->from) != 0) {
      mismatches_++;
    }
    slot->busy = false;
    busy_--;
    pump();
  }

  Bench& bench_;
  const Options options_;
  std::mt19937_64 random_;
  std::vector<uint8_t> shadow_;
  std::vector<Slot> slots_;
  uint32_t started_ = 0;
  uint32_t busy_ = 0;
  uint32_t errors_ = 0;
  uint32_t mismatches_ = 0;
  bool pumping_ = false;
  bool posted_ = false;
  std::mutex mutex_;
  std::condition_variable done_;
  bool finished_ = false;
};

inline void run_load(Bench& bench, const std::vector<Load::Options>& options) {
  std::vector<std::unique_ptr<Load>> loads;
  for (const Load::Options& o : options) loads.push_back(std::make_unique<Load>(bench, o));
  for (auto& load : loads) load->start();
  for (size_t i = 0; i < loads.size(); i++) {
    loads[i]->wait();
    CHECK_EQ(loads[i]->errors(), 0u);
    CHECK_EQ(loads[i]->mismatches(), 0u);
    loads[i]->verify(options[i].reactor);
  }
  CHECK_EQ(bench.mapper->grants_open(), 0u);
}

inline FaultSpec delay_of(bool reads, bool writes, uint32_t delay_ms) {
  FaultSpec delay;
  delay.kind = FaultSpec::Kind::kDelay;
  delay.read = reads;
  delay.write = writes;
  delay.delay_ms = delay_ms;
  return delay;
}

}  // namespace atoll_native
