// A mapper for the tests of the volume peer: it plays the TypeScript mapper's part on the rings, in memory, with the
// same rules (grants, generations, epochs, one fault per block at a time), and is made to be nasty: replies come in any
// order, runs are granted in parts, freed slots are filled with garbage, frames are few.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <unordered_map>
#include <vector>

#include "block/block.h"
#include "core.h"
#include "map/generation.h"
#include "seal/blake3.h"
#include "segment/atomic.h"
#include "test/check.h"

namespace atoll_native {

class TestMapper {
 public:
  static constexpr uint8_t kGarbage = 0xDB;

  // ---- knobs, any thread
  std::atomic<uint32_t> grant_blocks_max{512};
  std::atomic<bool> dirty_slots{false};  // freed slots hold garbage until they are granted with GRANT_ZERO_REST
  std::atomic<int> fail_grants{0};       // errno
  std::atomic<int> fail_loads{0};
  std::atomic<bool> hold_flushes{false};  // flushes wait until it is false
  std::atomic<uint64_t> slots_max{UINT64_MAX};
  // ---- counters
  std::atomic<uint64_t> loads{0}, grants_made{0}, in_place_answers{0}, flushes{0}, evictions{0}, unmaps{0}, reused{0};
  /// the size that a volume has when its next unmapping comes; 0: as it is
  std::atomic<uint64_t> grows_before_unmap{0};
  std::atomic<uint64_t> hashes{0}, doubts{0}, condemned{0};
  std::atomic<bool> stale_hashes{false};  // every other answer to OP_HASH is of what the slot does not hold
  std::atomic<uint64_t> copies{0};        // grants with a block to copy from

  explicit TestMapper(Core& core) : core_(core) {
    for (uint32_t f = core.segment().frames(); f-- > 1;) free_frames_.push_back(f);
    thread_ = std::thread([this] { run(); });
  }
  ~TestMapper() {
    stopping_.store(true);
    core_.wake_mapper();
    thread_.join();
  }

  /// Called with each request, on the mapper's thread. Set by control().
  std::function<void(const RequestRecord&)> before;
  /// How far one look at the map goes; the real mapper's goes so many pages far.
  uint64_t status_bytes_max = UINT64_MAX;

  /// Runs on the mapper's thread; waits for it.
  void control(std::function<void()> task) {
    std::mutex mutex;
    std::condition_variable done;
    bool ended = false;
    post([&] {
      task();
      const std::lock_guard lock(mutex);
      ended = true;
      done.notify_all();
    });
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return ended; });
  }

  void open_volume(uint32_t handle, uint64_t size, uint32_t shift, uint32_t pool, bool read_only = false) {
    control([=, this] { make_record(handle, size, shift, pool, read_only); });
  }

  /// As the mapper does it: what is on its way beyond the new size finds out by itself.
  void resize(uint32_t handle, uint64_t size) { store_relaxed(core_.segment().volume(handle).size, size); }

  /// Snapshot of `volume` as the open, read-only volume `target`. Returns when it is complete.
  void snapshot(uint32_t volume, uint32_t target) {
    std::mutex mutex;
    std::condition_variable done;
    bool ended = false;
    post([&, volume, target] {
      Volume& v = volumes_[volume];
      v.parked = true;
      v.snapshot_target = target;
      v.snapshot_done = [&] {
        const std::lock_guard lock(mutex);
        ended = true;
        done.notify_all();
      };
    });
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return ended; });
  }

  /// Closes a snapshot that nobody has open any more, and gives back what it names.
  void drop(uint32_t handle) {
    control([&, handle] {
      VolumeRecord& record = core_.segment().volume(handle);
      store_release(record.state, kVolumeFree);
      const uint32_t pool = load_relaxed(record.pool);
      const auto end = leaves_.lower_bound(key_of(handle + 1, 0));
      for (auto at = leaves_.lower_bound(key_of(handle, 0)); at != end; at = leaves_.erase(at)) {
        if (at->second.resident) evict(at->first, at->second);
        for (const uint64_t entry : at->second.entries) unref(entry, pool);
      }
      volumes_.erase(handle);
    });
  }

  /// Puts what every used slot without a writer holds into the index, as sealing does. Returns how many there are.
  uint64_t seal() {
    uint64_t count = 0;
    control([&] {
      std::set<uint64_t> writable;
      for (const auto& [key, leaf] : leaves_) {
        if (leaf.generation != generation(static_cast<uint32_t>(key >> 32))) continue;
        for (const uint64_t entry : leaf.entries) {
          if ((entry & kEntryExclusive) != 0) writable.insert((entry & kEntryValueMask) - 1);
        }
      }
      for (const auto& [key, leaf] : leaves_) {
        for (const uint64_t entry : leaf.entries) {
          const uint64_t slot = (entry & kEntryValueMask) - 1;
          if (entry == 0 || writable.contains(slot) || index_.contains(slot)) continue;
          index_[slot] = hash_now(slot, load_relaxed(core_.segment().volume(static_cast<uint32_t>(key >> 32)).pool));
        }
      }
      count = index_.size();
    });
    return count;
  }
  /// Changes one byte of a slot.
  void rot(uint64_t slot, uint32_t pool, uint64_t at) {
    control([&, slot, pool, at] {
      uint8_t byte = 0;
      move_now(BlockOp::kRead, (slot << shift_of_all) + at, pool, &byte, 1);
      byte ^= 1;
      move_now(BlockOp::kWrite, (slot << shift_of_all) + at, pool, &byte, 1);
    });
  }
  void verify(uint32_t volume, bool on) {
    std::atomic_ref<uint32_t> flags(core_.segment().volume(volume).flags);
    if (on) {
      flags.fetch_or(kVolumeVerify);
    } else {
      flags.fetch_and(~kVolumeVerify);
    }
  }

  /// Slots that entries name, each once.
  uint64_t slots_used() {
    uint64_t used = 0;
    control([&] { used = refs_.size(); });
    return used;
  }
  uint64_t grants_open() {
    uint64_t open = 0;
    control([&] { open = grants_.size(); });
    return open;
  }
  /// The slot of a block, kSlotNone when it has none.
  uint64_t slot_of(uint32_t volume, uint64_t block) {
    uint64_t slot = kSlotNone;
    control([&] {
      const auto found = leaves_.find(key_of(volume, block >> kPageEntriesShift));
      if (found == leaves_.end()) return;
      const uint64_t value = found->second.entries[block & (kPageEntries - 1)] & kEntryValueMask;
      if (value != 0) slot = value - 1;
    });
    return slot;
  }
  /// Takes every leaf out of memory.
  void evict_all() {
    control([&] {
      for (auto& [key, leaf] : leaves_) {
        if (leaf.resident) evict(key, leaf);
      }
    });
  }

 private:
  struct Volume {
    bool parked = false;
    uint32_t snapshot_target = 0;
    bool draining = false;
    std::function<void()> snapshot_done;
    std::vector<RequestRecord> waiting;
    uint32_t grants = 0;
  };
  struct Leaf {
    std::array<uint64_t, kPageEntries> entries = {};
    bool resident = false;
    uint32_t frame = 0;
    uint32_t generation = UINT32_MAX;  // the volume's when the page is its own
    std::chrono::steady_clock::time_point loaded_at;
  };
  struct Grant {
    uint32_t volume;
    uint64_t block;
    uint32_t count;
    uint64_t slot;
  };
  struct Retired {
    uint64_t epoch;
    uint64_t what;
  };

  /// Counted only when it fails: how often the mapper looks is chance, and a test's total is not.
  static void expect(bool holds, const char* what) {
    if (!holds) check_that(false, what, __FILE__, __LINE__);
  }
  static uint64_t key_of(uint32_t volume, uint64_t leaf) { return uint64_t{volume} << 32 | leaf; }

  void post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      controls_.push_back(std::move(task));
    }
    core_.wake_mapper();
  }

  void make_record(uint32_t handle, uint64_t size, uint32_t shift, uint32_t pool, bool read_only) {
    VolumeRecord& record = core_.segment().volume(handle);
    store_relaxed(record.size, size);
    store_relaxed(record.block_shift, shift);
    store_relaxed(record.pool, pool);
    store_relaxed(record.flags, read_only ? kVolumeReadOnly : 0u);
    store_relaxed(record.failed, 0u);
    store_release(record.state, kVolumeOpen);
  }

  void run() {
    std::vector<RequestRecord> batch(256);
    while (!stopping_.load()) {
      const bool busy =
          !again_.empty() || !retired_frames_.empty() || !retired_slots_.empty() || snapshots_on_their_way();
      const uint32_t count = core_.take(batch.data(), static_cast<uint32_t>(batch.size()), busy ? 1 : 50);
      for (uint32_t i = 0; i < count; i++) handle(batch[i]);
      std::deque<RequestRecord> again;
      again.swap(again_);
      for (const RequestRecord& request : again) handle(request);
      std::vector<std::function<void()>> controls;
      {
        const std::lock_guard lock(mutex_);
        controls.swap(controls_);
      }
      for (const auto& task : controls) task();
      step_snapshots();
      reclaim();
      std::shuffle(replies_.begin(), replies_.end(), random_);
      expect(core_.reply(replies_.data(), static_cast<uint32_t>(replies_.size())) == 0, "replies fit");
      replies_.clear();
    }
  }

  void handle(const RequestRecord& request) {
    if (before) before(request);
    switch (request.op) {
      case kOpWake:
        return;
      case kOpSyncDone:
        return flushed(request);
      case kOpLoad:
        return load(request);
      case kOpDone:
        return grant_answered(request);
      case kOpStatus:
        return status(request);
      case kOpHash:
        return hash(request);
      case kOpRotten:
        return rotten(request);
      case kOpFlush:
        if (hold_flushes.load()) {
          again_.push_back(request);
          return;
        }
        flushes++;
        flush_tickets_.push_back({request, load_relaxed(core_.segment().volume(request.volume).map_dirty)});
        core_.sync_volume(request.volume, static_cast<uint32_t>(flush_tickets_.size() - 1));
        return;
      case kOpMapWrite:
      case kOpUnmap:
        if (volumes_[request.volume].parked) {
          volumes_[request.volume].waiting.push_back(request);
        } else if (request.op == kOpMapWrite) {
          map_write(request);
        } else {
          unmap(request);
        }
        return;
      default:
        expect(false, "a known operation");
    }
  }

  ReplyRecord& reply(const RequestRecord& request, int error = 0) {
    ReplyRecord record;
    record.op = request.op;
    record.volume = request.volume;
    record.reactor = request.reactor;
    record.ticket = request.ticket;
    record.error = static_cast<uint32_t>(error);
    return replies_.emplace_back(record);
  }

  // ---- frames
  bool take_frame(uint32_t* frame) {
    if (!free_frames_.empty()) {
      *frame = free_frames_.back();
      free_frames_.pop_back();
      return true;
    }
    // Some leaf that was looked at since it was loaded: one that goes before its reply is taken is asked for again, and
    // with more askers than frames nobody would ever get anywhere. It comes back when every reactor passed the epoch.
    if (retired_frames_.size() > 1) return false;
    std::vector<uint64_t> resident;
    const auto now = std::chrono::steady_clock::now();
    for (auto& [key, leaf] : leaves_) {
      if (!leaf.resident || leaf.frame == kFrameEmpty) continue;
      const bool used = load_relaxed(core_.segment().frame_meta(leaf.frame).referenced) != 0;
      if (used || now - leaf.loaded_at > std::chrono::milliseconds(10)) resident.push_back(key);
    }
    if (resident.empty()) return false;
    const uint64_t victim = resident[random_() % resident.size()];
    evict(victim, leaves_[victim]);
    return false;
  }
  void evict(uint64_t key, Leaf& leaf) {
    expect(core_.leaf_hash().remove(static_cast<uint32_t>(key >> 32), key & UINT32_MAX),
           "resident leaves are in the hash");
    leaf.resident = false;
    evictions++;
    if (leaf.frame != kFrameEmpty) retired_frames_.push_back({core_.epochs().advance(), leaf.frame});
  }
  /// Leaves that are known to be empty take no frame, but a place in the hash: they make room.
  void insert(uint32_t volume, uint64_t number, uint32_t frame) {
    while (!core_.leaf_hash().insert(volume, number, frame)) {
      const auto empty = std::find_if(leaves_.begin(), leaves_.end(),
                                      [](const auto& l) { return l.second.resident && l.second.frame == kFrameEmpty; });
      if (empty == leaves_.end()) std::abort();
      evict(empty->first, empty->second);
    }
  }
  void fill(Leaf& leaf, uint32_t frame) {
    leaf.loaded_at = std::chrono::steady_clock::now();
    store_relaxed(core_.segment().frame_meta(frame).referenced, 0u);
    for (uint32_t i = 0; i < kPageEntries; i++) {
      core_.segment().frame(frame)[i].store(leaf.entries[i], std::memory_order_relaxed);
    }
  }
  bool make_resident(uint32_t volume, uint64_t number) {
    Leaf& leaf = leaves_[key_of(volume, number)];
    if (leaf.resident) return true;
    uint32_t frame = kFrameEmpty;
    const bool empty = std::all_of(leaf.entries.begin(), leaf.entries.end(), [](uint64_t e) { return e == 0; });
    if (!empty) {
      if (!take_frame(&frame)) return false;
      fill(leaf, frame);
      const bool own = leaf.generation == generation(volume);
      core_.frames().stamp(frame, own ? volume : kStampNone, own ? leaf.generation : 0);
    }
    insert(volume, number, frame);
    leaf.frame = frame;
    leaf.resident = true;
    return true;
  }
  /// The leaf in memory, the volume's own, stamped.
  Leaf* writable_leaf(uint32_t volume, uint64_t number) {
    Leaf& leaf = leaves_[key_of(volume, number)];
    if (leaf.resident && leaf.frame != kFrameEmpty && leaf.generation == generation(volume)) return &leaf;
    uint32_t frame = 0;
    if (!take_frame(&frame)) return nullptr;
    if (leaf.generation != generation(volume)) {
      for (uint64_t& entry : leaf.entries) entry &= kEntryValueMask;
      leaf.generation = generation(volume);
    }
    fill(leaf, frame);
    core_.frames().stamp(frame, volume, leaf.generation);
    insert(volume, number, frame);
    if (leaf.resident && leaf.frame != kFrameEmpty) {
      retired_frames_.push_back({core_.epochs().advance(), leaf.frame});
    }
    leaf.resident = true;
    leaf.frame = frame;
    return &leaf;
  }
  void set_entry(Leaf* leaf, uint32_t index, uint64_t entry) {
    leaf->entries[index] = entry;
    core_.frames().publish(leaf->frame, index, entry);
  }
  uint32_t generation(uint32_t volume) { return load_relaxed(core_.segment().volume(volume).generation); }

  // ---- slots
  bool take_slots(uint32_t count, uint64_t* slot, bool* dirty) {
    if (count == 1 && !free_slots_.empty()) {
      *slot = free_slots_.front();
      free_slots_.pop_front();
      *dirty = dirty_.erase(*slot) != 0;
      reused++;
      return true;
    }
    if (next_slot_ + count > slots_max.load()) return false;
    *slot = next_slot_;
    next_slot_ += count;
    *dirty = false;
    return true;
  }
  void unref(uint64_t entry, uint32_t pool) {
    if (entry == 0) return;
    const uint64_t slot = (entry & kEntryValueMask) - 1;
    if (--refs_[slot] != 0) return;
    refs_.erase(slot);
    index_.erase(slot);
    slot_pool_[slot] = pool;
    retired_slots_.push_back({core_.epochs().advance(), slot});
  }
  void free_slot(uint64_t slot, uint32_t pool, uint32_t shift) {
    BlockPeer* const peer = core_.pool(pool);
    if (dirty_slots.load()) {
      const std::vector<uint8_t> garbage(size_t{1} << shift, kGarbage);
      peer->write_now(slot << shift, garbage.data(), static_cast<uint32_t>(garbage.size()));
      dirty_.insert(slot);
    } else {
      peer->zero_now(slot << shift, uint64_t{1} << shift);
    }
    free_slots_.push_back(slot);
  }
  void reclaim() {
    const uint64_t safe = core_.epochs().safe();
    while (!retired_frames_.empty() && retired_frames_.front().epoch <= safe) {
      const uint32_t frame = static_cast<uint32_t>(retired_frames_.front().what);
      retired_frames_.pop_front();
      // Whoever still looks at it finds slots that nobody has.
      for (uint32_t i = 0; i < kPageEntries; i++) {
        core_.segment().frame(frame)[i].store(kEntryExclusive | (kEntryValueMask - 1), std::memory_order_relaxed);
      }
      free_frames_.push_back(frame);
    }
    while (!retired_slots_.empty() && retired_slots_.front().epoch <= safe) {
      const uint64_t slot = retired_slots_.front().what;
      retired_slots_.pop_front();
      free_slot(slot, slot_pool_[slot], shift_of_all);
    }
  }

  // ---- faults
  void load(const RequestRecord& request) {
    if (const int error = fail_loads.load(); error != 0) {
      reply(request, error);
      return;
    }
    const uint64_t last = (request.block + request.count - 1) >> kPageEntriesShift;
    bool all = true;
    for (uint64_t leaf = request.block >> kPageEntriesShift; leaf <= last; leaf++) {
      all = make_resident(request.volume, leaf) && all;
      if (!all) break;
    }
    // What found no frame is asked for again by who needs it; the first leaf is there, or nothing is gained.
    if (!all && !leaves_[key_of(request.volume, request.block >> kPageEntriesShift)].resident) {
      again_.push_back(request);
      return;
    }
    loads++;
    reply(request);
  }

  void map_write(const RequestRecord& request) {
    if (const int error = fail_grants.load(); error != 0) {
      reply(request, error);
      return;
    }
    const auto key = std::pair(request.volume, request.block);
    if (busy_.contains(key)) {
      blocked_[key].push_back(request);
      return;
    }
    Leaf* const leaf = writable_leaf(request.volume, request.block >> kPageEntriesShift);
    if (leaf == nullptr) {
      again_.push_back(request);
      return;
    }
    const uint32_t index = request.block & (kPageEntries - 1);
    if ((leaf->entries[index] & kEntryExclusive) != 0) {
      in_place_answers++;
      reply(request).flags = kGrantInPlace;
      return;
    }
    uint32_t count = 1;
    const bool full = (request.flags & kFlagFull) != 0;
    expect(full || request.count == 1, "a part of a block is one block");
    const uint64_t most = full ? std::min<uint64_t>(request.count, grant_blocks_max.load()) : 1;
    while (count < most && index + count < kPageEntries && !busy_.contains({request.volume, request.block + count}) &&
           (leaf->entries[index + count] & kEntryExclusive) == 0) {
      count++;
    }
    uint64_t slot = 0;
    bool dirty = false;
    if (!take_slots(count, &slot, &dirty)) {
      reply(request, ENOSPC);
      return;
    }
    const uint32_t grant = ++last_grant_;
    grants_[grant] = {request.volume, request.block, count, slot};
    volumes_[request.volume].grants++;
    for (uint32_t i = 0; i < count; i++) busy_.insert({request.volume, request.block + i});
    grants_made++;
    const uint64_t old = leaf->entries[index] & kEntryValueMask;
    ReplyRecord& answer = reply(request);
    answer.grant = grant;
    answer.count = count;
    answer.slot_new = slot;
    answer.slot_old = full || old == 0 ? kSlotNone : old - 1;
    if (answer.slot_old != kSlotNone) copies++;
    answer.flags = dirty ? kGrantZeroRest : 0;
  }

  void grant_answered(const RequestRecord& request) {
    const auto found = grants_.find(request.grant);
    expect(found != grants_.end(), "an answer is to an open grant");
    if (found == grants_.end()) return;
    const Grant grant = found->second;
    expect(grant.block == request.block, "an answer is to its grant");
    const uint32_t pool = load_relaxed(core_.segment().volume(grant.volume).pool);
    if (request.error == 0) {
      Leaf* const leaf = writable_leaf(grant.volume, grant.block >> kPageEntriesShift);
      if (leaf == nullptr) {
        again_.push_back(request);
        return;
      }
      for (uint32_t i = 0; i < grant.count; i++) {
        const uint32_t index = (grant.block + i) & (kPageEntries - 1);
        unref(leaf->entries[index], pool);
        refs_[grant.slot + i]++;
        set_entry(leaf, index, kEntryExclusive | kEntryOwned | (grant.slot + i + 1));
      }
      dirty_map(grant.volume);
    } else {
      for (uint32_t i = 0; i < grant.count; i++) free_slot(grant.slot + i, pool, shift_of_all);
    }
    grants_.erase(found);
    volumes_[grant.volume].grants--;
    for (uint32_t i = 0; i < grant.count; i++) {
      const auto key = std::pair(grant.volume, grant.block + i);
      busy_.erase(key);
      const auto waiting = blocked_.find(key);
      if (waiting == blocked_.end()) continue;
      for (const RequestRecord& next : waiting->second) again_.push_back(next);
      blocked_.erase(waiting);
    }
    reply(request);
  }
  void dirty_map(uint32_t volume) {
    VolumeRecord& record = core_.segment().volume(volume);
    store_release(record.map_dirty, load_relaxed(record.map_dirty) + 1);
  }

  void unmap(const RequestRecord& request) {
    for (const auto& [volume, block] : busy_) {
      if (volume == request.volume && block >= request.block && block - request.block < request.count) {
        blocked_[{volume, block}].push_back(request);
        return;
      }
    }
    const uint32_t pool = load_relaxed(core_.segment().volume(request.volume).pool);
    const bool allocate = (request.flags & kFlagAllocate) != 0;
    if (const uint64_t size = grows_before_unmap.exchange(0); size != 0) resize(request.volume, size);
    const VolumeRecord& record = core_.segment().volume(request.volume);
    const uint64_t cut = ((request.block + request.count - 1) << load_relaxed(record.block_shift)) + request.length;
    const bool grown = request.length != 0 && load_relaxed(record.size) > cut;
    const uint64_t end = request.block + request.count - (grown ? 1 : 0);
    for (uint64_t block = request.block; block < end; block++) {
      const uint64_t number = block >> kPageEntriesShift;
      const uint32_t index = block & (kPageEntries - 1);
      const auto found = leaves_.find(key_of(request.volume, number));
      if (!allocate && found == leaves_.end()) {
        block = (number + 1) << kPageEntriesShift;
        block--;
        continue;
      }
      if (!allocate && found->second.entries[index] == 0) continue;
      Leaf* const leaf = writable_leaf(request.volume, number);
      if (leaf == nullptr) {
        again_.push_back(request);
        return;
      }
      uint64_t entry = 0;
      if (allocate) {
        // Only slots that were never used are known to be zero here.
        if (next_slot_ >= slots_max.load()) {
          reply(request, ENOSPC);
          return;
        }
        refs_[next_slot_]++;
        entry = kEntryExclusive | kEntryOwned | ++next_slot_;
      }
      unref(leaf->entries[index], pool);
      set_entry(leaf, index, entry);
    }
    unmaps++;
    dirty_map(request.volume);
    reply(request).count = grown ? 1 : 0;
  }

  void flushed(const RequestRecord& done) {
    const auto& [request, dirty] = flush_tickets_[done.ticket];
    if (done.error == 0) store_release(core_.segment().volume(request.volume).map_durable, dirty);
    reply(request, static_cast<int>(done.error));
  }

  void status(const RequestRecord& request) {
    const uint32_t shift = load_relaxed(core_.segment().volume(request.volume).block_shift);
    ExtentRecord* const out = core_.segment().scratch(request.reactor, request.arg & 0xFF);
    const uint32_t most = request.arg >> 8;
    uint32_t count = 0;
    for (uint64_t at = request.offset, end = at + std::min(request.length, status_bytes_max); at < end;) {
      const uint64_t block = at >> shift;
      const uint64_t to = std::min(end, (block + 1) << shift);
      const auto found = leaves_.find(key_of(request.volume, block >> kPageEntriesShift));
      const bool mapped = found != leaves_.end() && found->second.entries[block & (kPageEntries - 1)] != 0;
      const uint32_t flags = mapped ? 0 : kExtentHole | kExtentZero;
      if (count != 0 && out[count - 1].flags == flags) {
        out[count - 1].length += to - at;
      } else if (count == most) {
        break;
      } else {
        out[count].length = to - at;
        out[count++].flags = flags;
      }
      at = to;
    }
    reply(request).count = count;
  }

  // ---- verify on read
  /// One operation, waited for, whatever layers the pool has.
  void move_now(BlockOp op, uint64_t address, uint32_t pool, uint8_t* buffer, uint64_t length) {
    BlockIo io;
    io.op = op;
    io.address = address;
    io.buffer = buffer;
    io.length = length;
    expect(core_.run_now(*core_.shared_pool(pool), &io) == 0, "a slot is read or written");
  }
  BlockHash hash_now(uint64_t slot, uint32_t pool) {
    std::vector<uint8_t> bytes(size_t{1} << shift_of_all);
    move_now(BlockOp::kRead, slot << shift_of_all, pool, bytes.data(), bytes.size());
    return blake3(bytes.data(), bytes.size());
  }
  void hash(const RequestRecord& request) {
    hashes++;
    ReplyRecord& answer = reply(request);
    const auto found = index_.find(request.block);
    if (found == index_.end()) return;
    answer.count = 1;
    BlockHash told = found->second;
    if (stale_hashes.load() && hashes % 2 == 0) told[7] ^= 1;
    std::memcpy(reinterpret_cast<uint8_t*>(&answer) + kReplyHash, told.data(), told.size());
  }
  void rotten(const RequestRecord& request) {
    doubts++;
    const auto found = index_.find(request.block);
    const bool bad =
        found != index_.end() &&
        hash_now(request.block, load_relaxed(core_.segment().volume(request.volume).pool)) != found->second;
    if (bad) condemned++;
    reply(request, bad ? EIO : 0);
  }

  // ---- snapshots
  bool snapshots_on_their_way() {
    return std::any_of(volumes_.begin(), volumes_.end(), [](const auto& v) { return v.second.parked; });
  }
  void step_snapshots() {
    for (auto& [handle, volume] : volumes_) {
      if (!volume.parked || volume.grants != 0) continue;
      if (!volume.draining) {
        advance_generation(core_.segment(), handle);
        volume.draining = true;
      }
      if (!writers_drained(core_.segment(), handle)) continue;
      const VolumeRecord& record = core_.segment().volume(handle);
      make_record(volume.snapshot_target, record.size, record.block_shift, record.pool, true);
      std::vector<std::pair<uint64_t, Leaf>> copies_of;
      for (auto& [key, leaf] : leaves_) {
        if (key >> 32 != handle) continue;
        Leaf copy;
        for (uint32_t i = 0; i < kPageEntries; i++) {
          copy.entries[i] = leaf.entries[i] & kEntryValueMask;
          if (copy.entries[i] != 0) refs_[copy.entries[i] - 1]++;
        }
        copies_of.emplace_back(key_of(volume.snapshot_target, key & UINT32_MAX), copy);
      }
      for (const auto& [key, leaf] : copies_of) leaves_[key] = leaf;
      volume.parked = false;
      volume.draining = false;
      for (const RequestRecord& request : volume.waiting) again_.push_back(request);
      volume.waiting.clear();
      volume.snapshot_done();
    }
  }

 public:
  uint32_t shift_of_all = 16;  // tests use one block size per pool

 private:
  Core& core_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::vector<std::function<void()>> controls_;
  std::mt19937_64 random_{1};
  std::map<uint32_t, Volume> volumes_;
  std::map<uint64_t, Leaf> leaves_;
  std::vector<uint32_t> free_frames_;
  std::deque<Retired> retired_frames_;
  std::deque<Retired> retired_slots_;
  std::unordered_map<uint64_t, uint32_t> slot_pool_;
  std::unordered_map<uint64_t, uint32_t> refs_;
  std::unordered_map<uint64_t, BlockHash> index_;  // by slot
  std::deque<uint64_t> free_slots_;
  std::set<uint64_t> dirty_;
  uint64_t next_slot_ = 0;
  uint32_t last_grant_ = 0;
  std::unordered_map<uint32_t, Grant> grants_;
  std::set<std::pair<uint32_t, uint64_t>> busy_;
  std::map<std::pair<uint32_t, uint64_t>, std::vector<RequestRecord>> blocked_;
  std::deque<RequestRecord> again_;
  std::vector<ReplyRecord> replies_;
  std::deque<std::pair<RequestRecord, uint32_t>> flush_tickets_;
  std::thread thread_;
};

}  // namespace atoll_native
