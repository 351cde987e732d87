// The fuse* calls of src/xseg/native.ts: mounts, and the Names whose answers come from JavaScript.
#pragma once
#include <napi.h>

namespace atoll_native::addon {

void register_fuse(Napi::Env env, Napi::Object exports);

}  // namespace atoll_native::addon
