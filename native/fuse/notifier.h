// Tells the kernel what it must not believe any more. The kernel takes its own locks for that, which a request on its
// way may hold until it is answered: so this has a thread that nobody waits for.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

struct fuse_session;

namespace atoll_native::fuse {

class Notifier {
 public:
  // What waits beyond this is forgotten, and attributes and names are right again when their timeouts pass.
  static constexpr size_t kQueueMax = 65536;

  explicit Notifier(fuse_session* session);
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  // ---- any thread
  /// Attributes and data.
  void node(uint64_t ino);
  /// A name in a folder: there is something else now.
  void name(uint64_t folder, std::string name);
  /// A name in a folder: there is nothing now. `ino`: what there was.
  void gone(uint64_t folder, std::string name, uint64_t ino);
  /// What waits is forgotten, and nothing is told any more, but for what is being told now.
  void close();
  /// The thread ends; what waits is forgotten. Returns when it has: after the connection was aborted.
  void stop();
  /// So many were put in, and so many are done.
  uint64_t put() const;
  uint64_t done() const;

 private:
  struct Item {
    uint64_t folder;  // 0: a node
    uint64_t ino;
    std::string name;
  };
  void push(Item item);
  void run();

  fuse_session* const session_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> queue_;
  uint64_t put_ = 0;
  uint64_t done_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace atoll_native::fuse
