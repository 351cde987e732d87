// Makes a reactor and starts its thread.
#pragma once
#include <memory>

#include "reactor/reactor.h"

namespace atoll_native {

class Core;

/// Null when the system gives no epoll or no thread. `core`'s segment, rings, threads and syncer exist and outlive it.
/// The destructor ends what is on its way to block peers (what waits for the mapper is left), then joins.
std::unique_ptr<Reactor> make_reactor(Core& core, Reactor::Options options);

}  // namespace atoll_native
