// The reactor: who is called when, what wakes it, how it polls, how it ends.
#include "reactor/reactor.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>

#include "reactor/spin.h"
#include "reactor/timers.h"
#include "test/volume_fixture.h"

namespace atoll_native {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

void test_spin_window() {
  SpinWindow window(50'000);
  CHECK_EQ(window.ns(), 0u);
  window.miss(1'000'000);  // work is far apart: polling does not pay
  CHECK_EQ(window.ns(), 0u);
  window.miss(40'000);  // a poll would have caught this
  CHECK_EQ(window.ns(), SpinWindow::kStartNsMax);
  window.miss(40'000);
  window.miss(40'000);
  window.miss(40'000);
  CHECK_EQ(window.ns(), 50'000u);  // never beyond the limit
  window.hit(1'000);
  CHECK_EQ(window.ns(), 50'000u);
  for (int i = 0; i < 8; i++) window.miss(1'000'000);
  CHECK_EQ(window.ns(), 0u);
  SpinWindow never(0);
  never.miss(10);
  CHECK_EQ(never.ns(), 0u);
  SpinWindow tight(5'000);
  tight.miss(3'000);
  CHECK_EQ(tight.ns(), 5'000u);

  SpinPermits one(1);
  CHECK(one.take());
  CHECK(!one.take());
  one.give();
  CHECK(one.take());
  SpinPermits three(4);
  CHECK(three.take() && three.take() && three.take() && !three.take());
}

void test_timers() {
  Timers timers;
  std::vector<int> ran;
  CHECK_EQ(timers.next_due_ns(), Timers::kNever);
  timers.add(30, [&] { ran.push_back(3); });
  const uint64_t second = timers.add(20, [&] { ran.push_back(2); });
  timers.add(10, [&] {
    ran.push_back(1);
    timers.cancel(second);
    timers.add(5, [&] { ran.push_back(4); });
  });
  timers.add(10, [&] { ran.push_back(11); });
  CHECK_EQ(timers.next_due_ns(), 10u);
  CHECK(!timers.run(9));
  CHECK(timers.run(25));
  CHECK((ran == std::vector<int>{1, 11}));
  CHECK_EQ(timers.next_due_ns(), 26u);
  CHECK(timers.run(100));
  CHECK((ran == std::vector<int>{1, 11, 4, 3}));
  timers.cancel(12345);
  CHECK(!timers.run(1000));
}

/// An eventfd on a reactor that does what it is told.
class Probe : public EventHandler {
 public:
  Probe() : fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~Probe() override {
    close(fd);
    destroyed++;
  }
  void on_events(uint32_t events) override {
    seen |= events;
    calls++;
    uint64_t value;
    if (read(fd, &value, sizeof value) < 0) CHECK(errno == EAGAIN);
    if (on_event) on_event();
  }
  void on_turn_end() override {
    turn_ends++;
    if (on_end) on_end();
  }
  void kick() {
    const uint64_t one = 1;
    CHECK_EQ(write(fd, &one, sizeof one), static_cast<ssize_t>(sizeof one));
  }
  static void wait_for(const std::atomic<int>& counter, int value) {
    for (int i = 0; i < 5000 && counter < value; i++) std::this_thread::sleep_for(milliseconds(1));
    CHECK(counter >= value);
  }

  const int fd;
  std::atomic<int> calls{0};
  std::atomic<int> turn_ends{0};
  std::atomic<uint32_t> seen{0};
  std::function<void()> on_event;
  std::function<void()> on_end;
  static inline std::atomic<int> destroyed{0};
};

void test_events_and_removal() {
  Bench bench;
  Reactor& reactor = bench.reactor();
  Probe a;
  Probe b;
  bench.on(0, [&] {
    CHECK_EQ(reactor.add(a.fd, EPOLLIN, &a), 0);
    CHECK_EQ(reactor.add(a.fd, EPOLLIN, &a), -EEXIST);
    CHECK_EQ(reactor.add(-1, EPOLLIN, &a), -EINVAL);
    CHECK_EQ(reactor.add(b.fd, EPOLLIN, &b), 0);
  });
  a.kick();
  Probe::wait_for(a.calls, 1);
  CHECK((a.seen & EPOLLIN) != 0);
  CHECK_EQ(b.calls.load(), 0);
  // Both are ready in one batch, and each removes the other: exactly one is called.
  a.calls = b.calls = 0;
  bench.on(0, [&] {
    a.on_event = [&] { reactor.remove(b.fd, &b); };
    b.on_event = [&] { reactor.remove(a.fd, &a); };
    a.kick();
    b.kick();
  });
  for (int i = 0; i < 5000 && a.calls + b.calls == 0; i++) std::this_thread::sleep_for(milliseconds(1));
  bench.on(0, [] {});
  CHECK_EQ(a.calls + b.calls, 1);
  // modify(): interest off and on again.
  bench.on(0, [&] {
    a.on_event = b.on_event = nullptr;
    reactor.remove(a.fd, &a);
    reactor.remove(b.fd, &b);
    CHECK_EQ(reactor.add(b.fd, 0, &b), 0);
  });
  b.calls = 0;
  b.kick();
  std::this_thread::sleep_for(milliseconds(10));
  CHECK_EQ(b.calls.load(), 0);
  bench.on(0, [&] { reactor.modify(b.fd, EPOLLIN, &b); });
  Probe::wait_for(b.calls, 1);
  bench.on(0, [&] { reactor.remove(b.fd, &b); });
}

void test_turn_ends_and_destruction() {
  Bench bench;
  Reactor& reactor = bench.reactor();
  Probe* const a = new Probe;
  Probe* const b = new Probe;
  std::vector<int> order;
  a->on_event = [&, a] {
    reactor.at_turn_end(a);
    reactor.post([&] { order.push_back(1); });  // next turn
    order.push_back(0);
  };
  a->on_end = [&] { order.push_back(2); };
  bench.on(0, [&] {
    reactor.add(a->fd, EPOLLIN, a);
    reactor.add(b->fd, EPOLLIN, b);
  });
  a->kick();
  Probe::wait_for(a->turn_ends, 1);
  bench.on(0, [] {});
  CHECK((order == std::vector<int>{0, 2, 1}));
  // Asked from within on_turn_end: the next turn, without sleeping.
  std::atomic<int> rounds{0};
  bench.on(0, [&] {
    a->on_end = [&, a] {
      if (++rounds < 1000) reactor.at_turn_end(a);
    };
    reactor.at_turn_end(a);
  });
  Probe::wait_for(rounds, 1000);
  // Whoever is removed or destroyed in the turn has no end of turn.
  const int before = b->turn_ends;
  bench.on(0, [&] {
    a->on_end = [&, b] { reactor.remove(b->fd, b); };
    reactor.at_turn_end(a);
    reactor.at_turn_end(b);
  });
  bench.on(0, [] {});
  CHECK_EQ(b->turn_ends.load(), before);
  Probe::destroyed = 0;
  bench.on(0, [&] {
    a->on_event = [&, a] {
      reactor.remove(a->fd, a);
      reactor.destroy_later(a);
      reactor.destroy_later(b);
      CHECK_EQ(Probe::destroyed.load(), 0);  // not in its own callback
    };
  });
  a->kick();
  Probe::wait_for(Probe::destroyed, 2);
}

void test_tasks_and_timers() {
  Bench bench;
  Reactor& reactor = bench.reactor();
  std::atomic<int> ran{0};
  constexpr int kThreads = 4;
  constexpr int kTasks = 2000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < kTasks; i++) reactor.post([&] { ran++; });
    });
  }
  for (std::thread& thread : threads) thread.join();
  Probe::wait_for(ran, kThreads * kTasks);
  std::atomic<int> fired{0};
  std::atomic<int> cancelled{0};
  const auto begin = steady_clock::now();
  bench.on(0, [&] {
    reactor.add_timer(30, [&] { fired++; });
    const uint64_t id = reactor.add_timer(10, [&] { cancelled++; });
    reactor.cancel_timer(id);
  });
  Probe::wait_for(fired, 1);
  CHECK(steady_clock::now() - begin >= milliseconds(29));
  CHECK_EQ(cancelled.load(), 0);
  bench.on(0, [&] {
    CHECK_EQ(reactor.connections(), 0u);
    reactor.connection_count_changed(2);
    reactor.connection_count_changed(-1);
    CHECK_EQ(reactor.connections(), 1u);
  });
}

/// A socket that answers each byte, and polls.
class Echo : public EventHandler {
 public:
  explicit Echo(int socket) : fd(socket) {}
  void on_events(uint32_t) override { poll(); }
  bool poll() override {
    char byte;
    if (recv(fd, &byte, 1, MSG_DONTWAIT) != 1) return false;
    return send(fd, &byte, 1, 0) == 1;
  }
  const int fd;
};

void test_polls_while_it_pays_and_sleeps_when_idle() {
  Bench bench(2, 16, 50);
  int sockets[2];
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
  Echo echo(sockets[0]);
  Probe idle;
  bench.on(0, [&] {
    CHECK_EQ(bench.reactor().add(sockets[0], EPOLLIN, &echo), 0);
    CHECK_EQ(bench.reactor().add(idle.fd, EPOLLIN, &idle), 0);
  });
  const auto ping = [&] {
    char byte = 'x';
    return send(sockets[1], &byte, 1, 0) == 1 && recv(sockets[1], &byte, 1, 0) == 1;
  };
  for (int i = 0; i < 20000; i++) {
    if (!ping()) CHECK(!"an answer");
    if (i == 10000) idle.kick();
  }
  const ReactorStats busy = bench.reactor().stats();
  CHECK(busy.spin_hits > 0);
  CHECK(busy.spin_hits <= busy.spins);
  CHECK_EQ(idle.calls.load(), 1);  // others are seen while one socket is polled
  // Work that comes slowly is waited for asleep.
  for (int i = 0; i < 20; i++) {
    std::this_thread::sleep_for(milliseconds(2));
    CHECK(ping());
  }
  const bool polled_little = in_some_try([&] {
    const ReactorStats before = bench.reactor().stats();
    for (int i = 0; i < 20; i++) {
      std::this_thread::sleep_for(milliseconds(2));
      CHECK(ping());
    }
    return bench.reactor().stats().spins - before.spins < 10;
  });
  CHECK(polled_little);
  // And nothing at all costs nothing: it is asleep. What that comes to in processor time, the benchmark `idle`
  // measures.
  uint64_t woke = 0;
  const bool costs_nothing = in_some_try([&] {
    const uint64_t loops = bench.reactor().stats().loops;
    std::this_thread::sleep_for(milliseconds(1000));
    woke = bench.reactor().stats().loops - loops;
    return woke < 5;
  });
  if (!CHECK(costs_nothing)) std::printf("  it woke %llu times in a second\n", static_cast<unsigned long long>(woke));
  bench.on(0, [&] {
    bench.reactor().remove(sockets[0], &echo);
    bench.reactor().remove(idle.fd, &idle);
  });
  close(sockets[0]);
  close(sockets[1]);
}

void test_ends_with_io_on_its_way() {
  static std::atomic<int> ended;
  ended = 0;
  std::vector<uint8_t> bytes(4096, 1);
  std::vector<Request> requests(64);
  {
    Bench bench;
    FaultSpec delay;
    delay.kind = FaultSpec::Kind::kDelay;
    delay.delay_ms = 800;
    bench.mapper->open_volume(1, 64 << 20, 16, bench.memory_pool({delay}));
    CHECK_EQ(bench.write(1, 0, pattern(64 * 4096, 1)), 0);
    bench.on(0, [&] {
      for (size_t i = 0; i < requests.size(); i++) {
        requests[i] =
            Request{.op = i % 2 == 0 ? Op::kWrite : Op::kRead, .volume = 1, .offset = i * 4096, .length = 4096};
        if (i == 1) requests[i].op = Op::kFlush, requests[i].length = 0;
        requests[i].buffer = bytes.data();
        requests[i].done = [](Request*) { ended++; };
        bench.reactor().volumes().submit(&requests[i]);
      }
    });
    CHECK(ended < 64);
  }
  // All but the flush, which may have been waiting for the mapper when that was stopped.
  CHECK(ended >= 63);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  test_spin_window();
  test_timers();
  test_events_and_removal();
  test_turn_ends_and_destruction();
  test_tasks_and_timers();
  test_polls_while_it_pays_and_sleeps_when_idle();
  test_ends_with_io_on_its_way();
  return check_summary();
}
