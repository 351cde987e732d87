// Pools: opening, and what is done on them past all maps.
#include <cerrno>

#include "addon/addon.h"
#include "block/block.h"
#include "block/factory.h"

namespace atoll_native::addon {
namespace {

std::string text(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
}

uint64_t number(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  return value.IsNumber() ? static_cast<uint64_t>(value.As<Napi::Number>().Int64Value()) : 0;
}

bool flag(const Napi::Object& object, const char* name) { return object.Get(name).ToBoolean(); }

FaultSpec fault_spec(const Napi::Object& given) {
  FaultSpec fault;
  const std::string kind = text(given, "kind");
  fault.kind = kind == "delay" ? FaultSpec::Kind::kDelay
               : kind == "log" ? FaultSpec::Kind::kLog
                               : FaultSpec::Kind::kError;
  fault.read = flag(given, "read");
  fault.write = flag(given, "write");
  fault.sync = flag(given, "sync");
  fault.zero = flag(given, "zero");
  if (given.Get("errno").IsNumber()) fault.error_number = static_cast<int>(number(given, "errno"));
  fault.after = number(given, "after");
  fault.times = number(given, "times");
  fault.delay_ms = static_cast<uint32_t>(number(given, "delayMs"));
  fault.path = text(given, "path");
  return fault;
}

PoolSpec pool_spec(const Napi::Object& given) {
  PoolSpec spec;
  const std::string driver = text(given, "driver");
  spec.driver = driver == "memory" ? PoolSpec::Driver::kMemory
                : driver == "null" ? PoolSpec::Driver::kNull
                                   : PoolSpec::Driver::kLocal;
  const std::string kind = text(given, "kind");
  spec.kind = kind == "device" ? PoolSpec::Kind::kDevice
              : kind == "file" ? PoolSpec::Kind::kFile
                               : PoolSpec::Kind::kDirectory;
  spec.path = text(given, "path");
  spec.data_offset = number(given, "dataOffset");
  spec.file_span = number(given, "fileSpan");
  spec.capacity_bytes = number(given, "capacityBytes");
  spec.direct = flag(given, "direct");
  spec.preallocate = flag(given, "preallocate");
  if (given.Get("faults").IsArray()) {
    const Napi::Array faults = given.Get("faults").As<Napi::Array>();
    for (uint32_t i = 0; i < faults.Length(); i++) spec.faults.push_back(fault_spec(faults.Get(i).As<Napi::Object>()));
  }
  return spec;
}

Napi::Value open_pool(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Core* const core = core_argument(info).get();
  if (core == nullptr) return env.Undefined();
  uint32_t handle = 0;
  std::string message;
  const int result = core->open_pool(pool_spec(info[1].As<Napi::Object>()), &handle, &message);
  if (result < 0) {
    throw_errno(env, -result, message);
    return env.Undefined();
  }
  return Napi::Number::New(env, handle);
}

Napi::Value close_pool(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr) return info.Env().Undefined();
  const int result = core->close_pool(u32(info, 1));
  if (result < 0) throw_errno(info.Env(), -result, "the pool cannot be closed");
  return info.Env().Undefined();
}

/// The pool that the second argument names; throws when there is none.
std::shared_ptr<BlockPeer> pool_argument(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr) return nullptr;
  std::shared_ptr<BlockPeer> pool = core->shared_pool(u32(info, 1));
  if (pool == nullptr) throw_errno(info.Env(), ENOENT, "there is no such pool");
  return pool;
}

Napi::Value pool_usage(const Napi::CallbackInfo& info) {
  const std::shared_ptr<BlockPeer> pool = pool_argument(info);
  if (pool == nullptr) return info.Env().Undefined();
  const BlockUsage usage = pool->usage();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("capacityBytes", static_cast<double>(usage.capacity_bytes));
  result.Set("physicalBytes", static_cast<double>(usage.physical_bytes));
  result.Set("failed", pool->failed());
  return result;
}

Napi::Value pool_capabilities(const Napi::CallbackInfo& info) {
  const std::shared_ptr<BlockPeer> pool = pool_argument(info);
  if (pool == nullptr) return info.Env().Undefined();
  const BlockCapabilities can = pool->capabilities();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("persistent", can.persistent);
  result.Set("zeroIsHole", can.zero_is_hole);
  result.Set("direct", can.direct);
  return result;
}

Napi::Value ensure_file(const Napi::CallbackInfo& info) {
  const std::shared_ptr<BlockPeer> pool = pool_argument(info);
  if (pool == nullptr) return info.Env().Undefined();
  const int result = pool->ensure_file(u32(info, 2));
  if (result < 0) throw_errno(info.Env(), -result, "a pool file cannot be made");
  return info.Env().Undefined();
}

Napi::Value grow_pool(const Napi::CallbackInfo& info) {
  const std::shared_ptr<BlockPeer> pool = pool_argument(info);
  if (pool == nullptr) return info.Env().Undefined();
  const int result = pool->grow(u64(info, 2));
  if (result < 0) throw_errno(info.Env(), -result, "the pool cannot be made larger");
  return info.Env().Undefined();
}

Napi::Value zero_now(const Napi::CallbackInfo& info) {
  const std::shared_ptr<BlockPeer> pool = pool_argument(info);
  if (pool == nullptr) return info.Env().Undefined();
  const int result = pool->zero_now(u64(info, 2), u64(info, 3));
  if (result < 0) throw_errno(info.Env(), -result, "slots cannot be zeroed");
  return info.Env().Undefined();
}

/// One operation, waited for.
Napi::Value move_now(const Napi::CallbackInfo& info, BlockOp op) {
  const Napi::Env env = info.Env();
  Core* const core = core_argument(info).get();
  if (core == nullptr) return env.Undefined();
  const std::shared_ptr<BlockPeer> pool = core->shared_pool(u32(info, 1));
  if (pool == nullptr) {
    throw_errno(env, ENOENT, "there is no such pool");
    return env.Undefined();
  }
  BlockIo io;
  io.op = op;
  io.address = u64(info, 2);
  io.buffer = bytes(info, 3, &io.length);
  if (io.buffer == nullptr) return env.Undefined();
  const int result = core->run_now(*pool, &io);
  if (result < 0) throw_errno(env, -result, "slots cannot be read or written");
  return env.Undefined();
}

Napi::Value read_now(const Napi::CallbackInfo& info) { return move_now(info, BlockOp::kRead); }
Napi::Value write_now(const Napi::CallbackInfo& info) { return move_now(info, BlockOp::kWrite); }

}  // namespace

void register_pools(Napi::Env env, Napi::Object exports) {
  method(env, exports, "openPool", open_pool);
  method(env, exports, "closePool", close_pool);
  method(env, exports, "poolUsage", pool_usage);
  method(env, exports, "growPool", grow_pool);
  method(env, exports, "poolCapabilities", pool_capabilities);
  method(env, exports, "ensureFile", ensure_file);
  method(env, exports, "zeroNow", zero_now);
  method(env, exports, "readNow", read_now);
  method(env, exports, "writeNow", write_now);
}

}  // namespace atoll_native::addon
