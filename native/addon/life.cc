// A core's life, its segment, its statistics.
#include <array>
#include <cerrno>

#include "addon/addon.h"
#include "reactor/reactor.h"

namespace atoll_native::addon {
namespace {

void end_core(uint32_t id) {
  const std::shared_ptr<Core> core = unregister_core(id);
  if (core != nullptr) core->stop();
}

Napi::Value create_core(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Napi::Object given = info[0].As<Napi::Object>();
  const auto number = [&](const char* name) { return given.Get(name).ToNumber().Uint32Value(); };
  Core::Options options;
  options.reactors = number("reactors");
  options.frames = number("frames");
  options.spin_us_max = number("spinUs");
  options.io_threads = number("ioThreads");
  options.io_uring = given.Get("ioUring").ToBoolean();
  std::string message;
  int error = 0;
  std::shared_ptr<Core> core = Core::create(options, &message, &error);
  if (core == nullptr) {
    throw_errno(env, error, message);
    return env.Undefined();
  }
  const uint32_t id = register_core(std::move(core));
  // An environment that ends without destroyCore (process.exit, an exception) must not leave threads behind that run
  // while the process takes itself apart.
  env.AddCleanupHook([id] { end_core(id); });
  return Napi::Number::New(env, id);
}

Napi::Value destroy_core(const Napi::CallbackInfo& info) {
  const uint32_t id = u32(info, 0);
  end_core(id);
  // The segment stays mapped while JavaScript still holds the buffer.
  EnvironmentData* const data = info.Env().GetInstanceData<EnvironmentData>();
  std::erase_if(data->views, [id](const auto& view) { return view->core == id; });
  if (data->core_id == id) data->core.reset();
  return info.Env().Undefined();
}

/// Wrapped once per environment: an engine may refuse to wrap the same address twice.
Napi::Value segment(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Core* const core = core_argument(info).get();
  if (core == nullptr) return env.Undefined();
  EnvironmentData* const data = env.GetInstanceData<EnvironmentData>();
  const uint32_t id = u32(info, 0);
  for (const auto& view : data->views) {
    if (view->core == id) return view->buffer.Value();
  }
  auto view = std::make_unique<EnvironmentData::View>();
  view->core = id;
  // Keeps the mapping while JavaScript can see it, whatever happens to the core.
  const auto held = new std::shared_ptr<Segment>(core->shared_segment());
  const Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(
      env, core->segment().base(), core->segment().bytes(),
      [](Napi::Env, void*, std::shared_ptr<Segment>* segment) { delete segment; }, held);
  view->buffer = Napi::Reference<Napi::ArrayBuffer>::New(buffer, 1);
  data->views.push_back(std::move(view));
  return buffer;
}

Napi::Object distribution(Napi::Env env, const LatencyCounts& latency) {
  Napi::Object result = Napi::Object::New(env);
  Napi::Array counts = Napi::Array::New(env, kLatencyBuckets);
  for (uint32_t i = 0; i < kLatencyBuckets; i++) counts.Set(i, static_cast<double>(latency.counts[i]));
  result.Set("counts", counts);
  result.Set("sum", static_cast<double>(latency.sum_us));
  return result;
}

Napi::Value sync_stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Core* const core = core_argument(info).get();
  if (core == nullptr) return env.Undefined();
  Napi::Object result = Napi::Object::New(env);
  result.Set("times", distribution(env, core->data_syncs()));
  result.Set("errors", static_cast<double>(core->data_sync_errors()));
  return result;
}

Napi::Value reactor_stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Core* const core = core_argument(info).get();
  if (core == nullptr) return env.Undefined();
  Napi::Array all = Napi::Array::New(env, core->reactor_count());
  for (uint32_t i = 0; i < core->reactor_count(); i++) {
    const ReactorStats stats = core->reactor(i).stats();
    Napi::Object one = Napi::Object::New(env);
    const auto set = [&](const char* name, uint64_t value) { one.Set(name, static_cast<double>(value)); };
    set("loops", stats.loops);
    set("spins", stats.spins);
    set("spinHits", stats.spin_hits);
    set("requests", stats.requests);
    set("inline", stats.inline_done);
    set("async", stats.async_done);
    set("faults", stats.faults);
    set("errors", stats.errors);
    set("reads", stats.reads);
    set("writes", stats.writes);
    set("readBytes", stats.read_bytes);
    set("writeBytes", stats.write_bytes);
    Napi::Object waits = Napi::Object::New(env);
    constexpr std::array<const char*, kWaitKinds> kKinds = {"read", "write", "flush", "other"};
    for (uint32_t kind = 0; kind < kWaitKinds; kind++) waits.Set(kKinds[kind], distribution(env, stats.waits[kind]));
    one.Set("waits", waits);
    all.Set(i, one);
  }
  return all;
}

}  // namespace

void register_life(Napi::Env env, Napi::Object exports) {
  method(env, exports, "createCore", create_core);
  method(env, exports, "destroyCore", destroy_core);
  method(env, exports, "segment", segment);
  method(env, exports, "reactorStats", reactor_stats);
  method(env, exports, "syncStats", sync_stats);
}

}  // namespace atoll_native::addon
