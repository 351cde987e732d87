// The one call that asks V8 itself for something: Node offers it neither to JavaScript nor through N-API.
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

}  // namespace

void register_garbage(Napi::Env env, Napi::Object exports) { method(env, exports, "collectGarbage", collect_garbage); }

}  // namespace atoll_native::addon
