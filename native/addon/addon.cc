#include "addon/addon.h"

#include "addon/fuse_binding.h"
#include "addon/nbd_binding.h"

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "reactor/reactor.h"

namespace atoll_native::addon {
namespace {

struct Cores {
  std::mutex mutex;
  uint32_t next = 1;
  std::map<uint32_t, std::shared_ptr<Core>> by_id;
};

/// The one global: worker threads load the addon again and have nothing else in common.
Cores& cores() {
  static Cores* const all = new Cores;  // outlives the threads that a process's end does not join
  return *all;
}

Napi::Object module(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new EnvironmentData);
  register_life(env, exports);
  register_garbage(env, exports);
  register_pools(env, exports);
  register_mapper(env, exports);
  register_pages(env, exports);
  register_hashes(env, exports);
  register_nbd(env, exports);
  register_fuse(env, exports);
  return exports;
}

}  // namespace

uint32_t register_core(std::shared_ptr<Core> core) {
  Cores& all = cores();
  const std::lock_guard lock(all.mutex);
  all.by_id[all.next] = std::move(core);
  return all.next++;
}

std::shared_ptr<Core> unregister_core(uint32_t id) {
  Cores& all = cores();
  const std::lock_guard lock(all.mutex);
  const auto found = all.by_id.find(id);
  if (found == all.by_id.end()) return nullptr;
  std::shared_ptr<Core> core = std::move(found->second);
  all.by_id.erase(found);
  return core;
}

std::shared_ptr<Core> find_core(uint32_t id) {
  Cores& all = cores();
  const std::lock_guard lock(all.mutex);
  const auto found = all.by_id.find(id);
  return found == all.by_id.end() ? nullptr : found->second;
}

const std::shared_ptr<Core>& core_argument(const Napi::CallbackInfo& info) {
  // The mapper calls several times per fault, always for the same core: no lock and no reference count on that way.
  EnvironmentData* const data = info.Env().GetInstanceData<EnvironmentData>();
  const uint32_t id = u32(info, 0);
  if (data->core == nullptr || data->core_id != id) {
    data->core = find_core(id);
    data->core_id = id;
  }
  if (data->core != nullptr && data->core->stopped()) data->core.reset();
  if (data->core == nullptr) throw_errno(info.Env(), ESHUTDOWN, "there is no such core");
  return data->core;
}

void throw_errno(Napi::Env env, int error_number, const std::string& message) {
  const char* const name = strerrorname_np(error_number);
  Napi::Error error = Napi::Error::New(env, message.empty() ? std::strerror(error_number) : message);
  error.Set("code", Napi::String::New(env, name == nullptr ? "EIO" : name));
  error.Set("errno", Napi::Number::New(env, error_number));
  error.ThrowAsJavaScriptException();
}

// These three are on the mapper's way several times per fault: one call into the engine for each argument.

uint32_t u32(const Napi::CallbackInfo& info, size_t index) {
  uint32_t value = 0;  // stays, when the argument is no number
  napi_get_value_uint32(info.Env(), info[index], &value);
  return value;
}

uint64_t u64(const Napi::CallbackInfo& info, size_t index) {
  int64_t value = 0;
  napi_get_value_int64(info.Env(), info[index], &value);
  return value < 0 ? 0 : static_cast<uint64_t>(value);
}

uint8_t* bytes(const Napi::CallbackInfo& info, size_t index, size_t* length) {
  napi_typedarray_type type;
  size_t elements = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(info.Env(), info[index], &type, &elements, &data, nullptr, nullptr) != napi_ok) {
    Napi::TypeError::New(info.Env(), "a typed array is wanted").ThrowAsJavaScriptException();
    return nullptr;
  }
  size_t width = 1;
  switch (type) {
    case napi_int8_array:
    case napi_uint8_array:
    case napi_uint8_clamped_array:
      break;
    case napi_int16_array:
    case napi_uint16_array:
      width = 2;
      break;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array:
      width = 4;
      break;
    default:
      width = 8;
  }
  *length = elements * width;
  // An empty array may have no address; null would be taken for an error that was never thrown.
  static uint8_t nothing[1];
  return *length == 0 ? nothing : static_cast<uint8_t*>(data);
}

}  // namespace atoll_native::addon

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  return atoll_native::addon::module(env, exports);
}

NODE_API_MODULE(atoll, initialize)
