// What V8 and the C library are asked for themselves: Node offers it neither to JavaScript nor through N-API.
#include <malloc.h>

#include "addon/addon.h"
#include "addon/v8_header.h"

namespace atoll_native::addon {
namespace {

/// Moderate pressure makes V8 begin to mark, beside what the thread does; none again, so that it goes on as before.
Napi::Value collect_garbage(const Napi::CallbackInfo& info) {
  v8::Isolate* const isolate = v8::Isolate::GetCurrent();
  isolate->MemoryPressureNotification(v8::MemoryPressureLevel::kModerate);
  isolate->MemoryPressureNotification(v8::MemoryPressureLevel::kNone);
  return info.Env().Undefined();
}

/// Pages of the C library's heaps that are free whole go back to the system. By itself it gives back what lies at a
/// heap's end only: one small piece behind a moment's megabytes keeps them all.
Napi::Value trim_heaps(const Napi::CallbackInfo& info) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  return info.Env().Undefined();
}

}  // namespace

void register_garbage(Napi::Env env, Napi::Object exports) {
  method(env, exports, "collectGarbage", collect_garbage);
  method(env, exports, "trimHeaps", trim_heaps);
}

}  // namespace atoll_native::addon
