// Work on a reactor that another thread waits for.
#pragma once
#include <functional>
#include <future>

#include "reactor/reactor.h"

namespace atoll_native {

/// Runs `task` on the reactor and waits for it. Not from a reactor's thread. Reactors never wait for other threads, so
/// this is short.
inline void run_on(Reactor& reactor, const std::function<void()>& task) {
  std::promise<void> done;
  reactor.post([&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

}  // namespace atoll_native
