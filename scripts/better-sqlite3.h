// Included before each source of better-sqlite3 12 when it is built here.
//
// From Node 24.19 on, node::ObjectWrap registers a clean-up hook and takes it back in its destructor, which aborts the
// process when the garbage collector runs it outside of any context. better-sqlite3 has a hook of its own for the end of
// an environment, and needs none of these; 13 does without ObjectWrap, but not with Node 20.
#pragma once
#include <node.h>

namespace node {
inline void no_cleanup_hook(v8::Isolate*, void (*)(void*), void*) {}
}  // namespace node

#define AddEnvironmentCleanupHook no_cleanup_hook
#define RemoveEnvironmentCleanupHook no_cleanup_hook
#include <node_object_wrap.h>
#undef AddEnvironmentCleanupHook
#undef RemoveEnvironmentCleanupHook
