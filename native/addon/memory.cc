// Memory that this process holds and does not need.
#include "addon/addon.h"

#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <v8.h>
#pragma GCC diagnostic pop

namespace atoll_native::addon {
namespace {

/// Moderate pressure makes V8 begin to mark, beside what the thread does; none again, so that it goes on as before.
/// Asked of V8 itself: Node offers it neither to JavaScript nor through N-API.
Napi::Value collect_garbage(const Napi::CallbackInfo& info) {
  v8::Isolate* const isolate = v8::Isolate::GetCurrent();
  isolate->MemoryPressureNotification(v8::MemoryPressureLevel::kModerate);
  isolate->MemoryPressureNotification(v8::MemoryPressureLevel::kNone);
  return info.Env().Undefined();
}

/// glibc keeps what was freed between two pieces that are in use, in each thread's arena, for ever unless it is asked.
Napi::Value return_freed(const Napi::CallbackInfo& info) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  return info.Env().Undefined();
}

}  // namespace

void register_memory(Napi::Env env, Napi::Object exports) {
  method(env, exports, "collectGarbage", collect_garbage);
  method(env, exports, "returnFreed", return_freed);
}

}  // namespace atoll_native::addon
