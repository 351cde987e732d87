// The N-API layer: translates, and nothing else. What each call does is said in src/xseg/native.ts.
#pragma once
#include <napi.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core.h"

namespace atoll_native::addon {

/// What one environment (thread) has of the addon: the core that it used last, and its view of each segment.
struct EnvironmentData {
  struct View {
    uint32_t core = 0;
    Napi::Reference<Napi::ArrayBuffer> buffer;
  };
  uint32_t core_id = 0;
  std::shared_ptr<Core> core;
  std::vector<std::unique_ptr<View>> views;
};

/// Cores by number, so that worker threads find the one that the main thread made.
uint32_t register_core(std::shared_ptr<Core> core);
std::shared_ptr<Core> unregister_core(uint32_t id);
std::shared_ptr<Core> find_core(uint32_t id);

/// The core that the first argument names; throws into JavaScript and answers null when there is none, or no more.
/// The environment keeps it, so it lives at least as long as the call.
const std::shared_ptr<Core>& core_argument(const Napi::CallbackInfo& info);

/// A JavaScript Error with `code` (errno name) and `errno` (positive).
void throw_errno(Napi::Env env, int error_number, const std::string& message);

/// Numbers of arguments; 0 for what is no number.
uint32_t u32(const Napi::CallbackInfo& info, size_t index);
uint64_t u64(const Napi::CallbackInfo& info, size_t index);  // a double below 2^53

/// Bytes of a typed array argument; null with a TypeError thrown when it is none.
uint8_t* bytes(const Napi::CallbackInfo& info, size_t index, size_t* length);

void register_life(Napi::Env env, Napi::Object exports);
void register_garbage(Napi::Env env, Napi::Object exports);
void register_pools(Napi::Env env, Napi::Object exports);
void register_mapper(Napi::Env env, Napi::Object exports);
void register_pages(Napi::Env env, Napi::Object exports);
void register_hashes(Napi::Env env, Napi::Object exports);

template <typename Callback>
void method(Napi::Env env, Napi::Object exports, const char* name, Callback callback) {
  exports.Set(name, Napi::Function::New(env, callback, name));
}

}  // namespace atoll_native::addon
