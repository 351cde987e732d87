#include "fuse/notifier.h"

#include <pthread.h>

#include <csignal>
#include <utility>

#include "fuse/libfuse.h"

namespace atoll_native::fuse {

Notifier::Notifier(fuse_session* session) : session_(session) {
  // Signals are the main thread's.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Notifier::~Notifier() { stop(); }

void Notifier::push(Item item) {
  const std::lock_guard lock(mutex_);
  if (stopping_ || queue_.size() >= kQueueMax) return;
  queue_.push_back(std::move(item));
  put_++;
  changed_.notify_all();
}

void Notifier::node(uint64_t ino) { push({0, ino, {}}); }
void Notifier::name(uint64_t folder, std::string name) { push({folder, 0, std::move(name)}); }
void Notifier::gone(uint64_t folder, std::string name, uint64_t ino) { push({folder, ino, std::move(name)}); }

void Notifier::close() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  queue_.clear();
  changed_.notify_all();
}

void Notifier::stop() {
  close();
  if (thread_.joinable()) thread_.join();
}

uint64_t Notifier::put() const {
  const std::lock_guard lock(mutex_);
  return put_;
}

uint64_t Notifier::done() const {
  const std::lock_guard lock(mutex_);
  return done_;
}

void Notifier::run() {
  pthread_setname_np(pthread_self(), "atoll-notify");
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (queue_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const Item item = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    // ENOENT: the kernel knows nothing of it. Anything else ends with the timeouts.
    if (item.folder == 0) {
      fuse_lowlevel_notify_inval_inode(session_, item.ino, 0, 0);
    } else if (item.ino != 0) {
      fuse_lowlevel_notify_delete(session_, item.folder, item.ino, item.name.data(), item.name.size());
    } else {
      fuse_lowlevel_notify_inval_entry(session_, item.folder, item.name.data(), item.name.size());
    }
    lock.lock();
    done_++;
    changed_.notify_all();
  }
}

}  // namespace atoll_native::fuse
