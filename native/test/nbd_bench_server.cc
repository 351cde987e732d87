// Serves memory over the real NBD code, to measure it alone: beside `nbdkit memory` with the same fio job.
//   nbd_bench_server SOCKET SIZE_MIB [REACTORS] [SPIN_US]
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "memory_directory.h"
#include "memory_sink.h"
#include "nbd/server.h"
#include "simple_reactor.h"

int main(int argc, char** argv) {
  using namespace atoll_native;
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s SOCKET SIZE_MIB [REACTORS] [SPIN_US]\n", argv[0]);
    return 2;
  }
  const uint64_t size = std::strtoull(argv[2], nullptr, 10) << 20;
  const uint32_t reactors = argc > 3 ? static_cast<uint32_t>(std::atoi(argv[3])) : 2;
  const uint32_t spin_us = argc > 4 ? static_cast<uint32_t>(std::atoi(argv[4])) : 50;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);

  MemoryVolume volume(size, 65536);
  nbd::MemoryDirectory directory;
  directory.exports[""] = {size, 65536, false, "memory", {"before"}};
  std::vector<std::unique_ptr<SimpleReactor>> loops;
  std::vector<std::unique_ptr<MemorySink>> sinks;
  std::vector<nbd::Server::Seat> seats;
  for (uint32_t i = 0; i < reactors; ++i) {
    loops.push_back(std::make_unique<SimpleReactor>(Reactor::Options{i, spin_us}));
    sinks.push_back(std::make_unique<MemorySink>(volume));
    seats.push_back({loops.back().get(), sinks.back().get()});
    loops.back()->start();
  }
  nbd::Limits limits;
  nbd::Server server(seats, directory, limits);
  std::string bound, message;
  if (server.listen(std::string("unix:") + argv[1], 0600, &bound, &message) < 0) {
    std::fprintf(stderr, "%s\n", message.c_str());
    return 1;
  }
  std::printf("ready %s\n", bound.c_str());
  std::fflush(stdout);
  int signal_number;
  sigwait(&set, &signal_number);
  server.stop();
  for (auto& loop : loops) loop->stop();
  return 0;
}
