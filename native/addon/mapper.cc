// What the mapper peer's thread calls: its ends of the rings, frames, the leaf hash, generations, epochs, background
// work.
#include <cerrno>

#include "addon/addon.h"
#include "map/generation.h"
#include "volume/dirty_files.h"

namespace atoll_native::addon {
namespace {

/// The largest integer that a double holds exactly, with all below it.
constexpr double kSafeInteger = 9007199254740991.0;

/// Frames that exist and may be written; throws otherwise.
bool frame_argument(const Napi::CallbackInfo& info, Core& core, size_t index) {
  if (core.frames().writable(u32(info, index))) return true;
  throw_errno(info.Env(), EINVAL, "no such frame, or the shared empty one");
  return false;
}

/// A leaf number that fits a hash entry; throws otherwise.
bool leaf_argument(const Napi::CallbackInfo& info) {
  if (u64(info, 2) <= LeafHash::kLeafMax) return true;
  throw_errno(info.Env(), EINVAL, "leaf number out of range");
  return false;
}

bool run_argument(const Napi::CallbackInfo& info, size_t index) {
  if (uint64_t{u32(info, index)} + u32(info, index + 1) <= kPageEntries) return true;
  throw_errno(info.Env(), EINVAL, "entries beyond the page");
  return false;
}

bool volume_argument(const Napi::CallbackInfo& info) {
  if (u32(info, 1) < kVolumesMax) return true;
  throw_errno(info.Env(), EINVAL, "no such volume handle");
  return false;
}

Napi::Value number(const Napi::CallbackInfo& info, double value) { return Napi::Number::New(info.Env(), value); }

Napi::Value take(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  size_t length = 0;
  uint8_t* const staging = core == nullptr ? nullptr : bytes(info, 1, &length);
  if (staging == nullptr) return info.Env().Undefined();
  const uint32_t most = static_cast<uint32_t>(std::min<size_t>(u32(info, 2), length / kRecordBytes));
  return number(info, core->take(staging, most, u32(info, 3)));
}

Napi::Value reply(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  size_t length = 0;
  uint8_t* const staging = core == nullptr ? nullptr : bytes(info, 1, &length);
  if (staging == nullptr) return info.Env().Undefined();
  const uint32_t count = u32(info, 2);
  if (count > length / kRecordBytes) {
    throw_errno(info.Env(), EINVAL, "fewer replies than said");
    return info.Env().Undefined();
  }
  const int result = core->reply(staging, count);
  if (result < 0) throw_errno(info.Env(), -result, "replies were not taken");
  return info.Env().Undefined();
}

Napi::Value wake(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Core> core = find_core(u32(info, 0));
  if (core != nullptr) core->wake_mapper();
  return info.Env().Undefined();
}

Napi::Value publish(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !frame_argument(info, *core, 1)) return info.Env().Undefined();
  const uint32_t index = u32(info, 2);
  if (index >= kPageEntries) {
    throw_errno(info.Env(), EINVAL, "entry beyond the page");
    return info.Env().Undefined();
  }
  core->frames().publish(u32(info, 1), index, uint64_t{u32(info, 4)} << 32 | u32(info, 3));
  return info.Env().Undefined();
}

Napi::Value publish_run(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !frame_argument(info, *core, 1) || !run_argument(info, 2)) return info.Env().Undefined();
  const uint64_t bits = uint64_t{u32(info, 5)} << 32;
  const uint64_t slot = u64(info, 4);
  if ((bits & ~(kEntryOwned | kEntryExclusive)) != 0 || slot >= kEntryZeroes - u32(info, 3)) {
    throw_errno(info.Env(), EINVAL, "slots or flag bits out of range");
    return info.Env().Undefined();
  }
  core->frames().publish_run(u32(info, 1), u32(info, 2), u32(info, 3), slot, bits);
  return info.Env().Undefined();
}

Napi::Value clear_run(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !frame_argument(info, *core, 1) || !run_argument(info, 2)) return info.Env().Undefined();
  core->frames().clear_run(u32(info, 1), u32(info, 2), u32(info, 3));
  return info.Env().Undefined();
}

Napi::Value copy_frame_shared(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !frame_argument(info, *core, 1) || !frame_argument(info, *core, 2)) {
    return info.Env().Undefined();
  }
  core->frames().copy_shared(u32(info, 1), u32(info, 2));
  return info.Env().Undefined();
}

Napi::Value clear_frame(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core != nullptr && frame_argument(info, *core, 1)) core->frames().clear(u32(info, 1));
  return info.Env().Undefined();
}

Napi::Value drop_frame(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  // a frame that keeps its memory is as good
  if (core != nullptr && frame_argument(info, *core, 1)) core->segment().drop_frame(u32(info, 1));
  return info.Env().Undefined();
}

Napi::Value stamp(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core != nullptr && frame_argument(info, *core, 1)) {
    core->frames().stamp(u32(info, 1), u32(info, 2), u32(info, 3));
  }
  return info.Env().Undefined();
}

Napi::Value hash_insert(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !volume_argument(info) || !leaf_argument(info)) return info.Env().Undefined();
  if (u32(info, 3) >= core->segment().frames()) {
    throw_errno(info.Env(), EINVAL, "no such frame");
    return info.Env().Undefined();
  }
  return Napi::Boolean::New(info.Env(), core->leaf_hash().insert(u32(info, 1), u64(info, 2), u32(info, 3)));
}

Napi::Value hash_remove(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core != nullptr && volume_argument(info) && leaf_argument(info))
    core->leaf_hash().remove(u32(info, 1), u64(info, 2));
  return info.Env().Undefined();
}

Napi::Value hash_find(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !volume_argument(info) || !leaf_argument(info)) return info.Env().Undefined();
  const uint32_t frame = core->leaf_hash().find(u32(info, 1), u64(info, 2));
  return number(info, frame == LeafHash::kNone ? -1.0 : frame);
}

Napi::Value advance(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !volume_argument(info)) return info.Env().Undefined();
  return number(info, advance_generation(core->segment(), u32(info, 1)));
}

Napi::Value drained(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !volume_argument(info)) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), writers_drained(core->segment(), u32(info, 1)));
}

Napi::Value epoch_advance(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr) return info.Env().Undefined();
  return number(info, static_cast<double>(core->epochs().advance()));
}

Napi::Value epoch_safe(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr) return info.Env().Undefined();
  return number(info, static_cast<double>(core->epochs().safe()));
}

Napi::Value sync_volume(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core != nullptr && volume_argument(info)) core->sync_volume(u32(info, 1), u32(info, 2));
  return info.Env().Undefined();
}

Napi::Value mark_file(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !volume_argument(info)) return info.Env().Undefined();
  if (u32(info, 2) >= kFilesMax) {
    throw_errno(info.Env(), EINVAL, "no such pool file");
    return info.Env().Undefined();
  }
  DirtyFiles(core->segment()).mark(u32(info, 1), u32(info, 2));
  return info.Env().Undefined();
}

Napi::Value forget_files(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr || !volume_argument(info)) return info.Env().Undefined();
  std::vector<uint32_t> files;
  DirtyFiles(core->segment()).take(u32(info, 1), &files);
  return info.Env().Undefined();
}

Napi::Value zero_runs(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  size_t length = 0;
  uint8_t* const given = core == nullptr ? nullptr : bytes(info, 2, &length);
  if (given == nullptr) return info.Env().Undefined();
  const size_t count = u32(info, 3);
  if (count > length / (2 * sizeof(double))) {
    throw_errno(info.Env(), EINVAL, "fewer runs than said");
    return info.Env().Undefined();
  }
  const double* const pairs = reinterpret_cast<const double*>(given);  // a Float64Array is aligned
  std::vector<ByteRun> runs(count);
  for (size_t i = 0; i < count; i++) {
    const double address = pairs[2 * i], run = pairs[2 * i + 1];
    // So said that NaN is refused too: what is zeroed cannot be brought back.
    if (!(address >= 0 && address <= kSafeInteger && run >= 0 && run <= kSafeInteger)) {
      throw_errno(info.Env(), EINVAL, "a run that is no range of bytes");
      return info.Env().Undefined();
    }
    runs[i] = {static_cast<uint64_t>(address), static_cast<uint64_t>(run)};
  }
  core->zero_runs(u32(info, 1), std::move(runs), u32(info, 4));
  return info.Env().Undefined();
}

Napi::Value sync_file(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core != nullptr) core->sync_file(u32(info, 1), u32(info, 2), u32(info, 3));
  return info.Env().Undefined();
}

}  // namespace

void register_mapper(Napi::Env env, Napi::Object exports) {
  method(env, exports, "take", take);
  method(env, exports, "reply", reply);
  method(env, exports, "wake", wake);
  method(env, exports, "publish", publish);
  method(env, exports, "publishRun", publish_run);
  method(env, exports, "clearRun", clear_run);
  method(env, exports, "copyFrameShared", copy_frame_shared);
  method(env, exports, "clearFrame", clear_frame);
  method(env, exports, "dropFrame", drop_frame);
  method(env, exports, "stamp", stamp);
  method(env, exports, "hashInsert", hash_insert);
  method(env, exports, "hashRemove", hash_remove);
  method(env, exports, "hashFind", hash_find);
  method(env, exports, "advanceGeneration", advance);
  method(env, exports, "writersDrained", drained);
  method(env, exports, "epochAdvance", epoch_advance);
  method(env, exports, "epochSafe", epoch_safe);
  method(env, exports, "syncVolume", sync_volume);
  method(env, exports, "markFile", mark_file);
  method(env, exports, "forgetFiles", forget_files);
  method(env, exports, "zeroRuns", zero_runs);
  method(env, exports, "syncFile", sync_file);
}

}  // namespace atoll_native::addon
