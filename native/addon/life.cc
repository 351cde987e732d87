// A core's life, its segment, its statistics.
#include <cerrno>

#include "addon/addon.h"
#include "reactor/reactor.h"

namespace atoll_native::addon {
namespace {

Napi::Value create_core(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
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
  return Napi::Number::New(env, register_core(std::move(core)));
}

Napi::Value destroy_core(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Core> core = unregister_core(u32(info, 0));
  if (core != nullptr) core->stop();
  return info.Env().Undefined();
}

/// Wrapped once per environment: the same address wrapped twice aborts some engines, and views agree for free.
Napi::Value segment(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Core> core = core_argument(info);
  if (core == nullptr) return env.Undefined();
  EnvironmentData* const data = env.GetInstanceData<EnvironmentData>();
  const uint32_t id = u32(info, 0);
  for (const auto& view : data->views) {
    if (view->core == id) return view->buffer.Value();
  }
  auto view = std::make_unique<EnvironmentData::View>();
  view->core = id;
  view->segment = core->shared_segment();
  const auto held = new std::shared_ptr<Segment>(view->segment);
  const Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(
      env, core->segment().base(), core->segment().bytes(),
      [](Napi::Env, void*, std::shared_ptr<Segment>* segment) { delete segment; }, held);
  view->buffer = Napi::Reference<Napi::ArrayBuffer>::New(buffer, 1);
  data->views.push_back(std::move(view));
  return buffer;
}

Napi::Value reactor_stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Core> core = core_argument(info);
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
}

}  // namespace atoll_native::addon
