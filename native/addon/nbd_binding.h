// The nbd* calls of src/xseg/native.ts: the server's life, and the Directory whose answers come from JavaScript.
#pragma once
#include <napi.h>

namespace atoll_native::addon {

void register_nbd(Napi::Env env, Napi::Object exports);

}  // namespace atoll_native::addon
