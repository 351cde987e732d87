#include <chrono>

#include "nbd/place.h"

namespace atoll_native::nbd {

std::shared_ptr<ConnectionStatus> Registry::enter(uint32_t reactor) {
  auto status = std::make_shared<ConnectionStatus>();
  std::lock_guard lock(mutex_);
  // Ids come round after 2^32 connections; one that is still in use is passed over.
  while (next_id_ == 0 || all_.count(next_id_) != 0) next_id_++;
  status->id = next_id_++;
  status->reactor = reactor;
  all_[status->id] = status;
  return status;
}

void Registry::name(ConnectionStatus& status, const std::string& name, uint32_t handle) {
  std::lock_guard lock(mutex_);
  status.name = name;
  status.handle.store(handle, std::memory_order_relaxed);
}

void Registry::leave(uint32_t id) {
  std::lock_guard lock(mutex_);
  all_.erase(id);
  if (all_.empty()) changed_.notify_all();
}

uint32_t Registry::count() const {
  std::lock_guard lock(mutex_);
  return static_cast<uint32_t>(all_.size());
}

std::vector<ConnectionFacts> Registry::facts() const {
  std::lock_guard lock(mutex_);
  std::vector<ConnectionFacts> facts;
  facts.reserve(all_.size());
  for (const auto& [id, status] : all_) {
    facts.push_back({id, status->reactor, status->name, status->handle.load(std::memory_order_relaxed),
                     status->in_flight.load(std::memory_order_relaxed),
                     status->bytes_held.load(std::memory_order_relaxed)});
  }
  return facts;
}

bool Registry::wait_empty(uint32_t ms) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::milliseconds(ms), [this] { return all_.empty(); });
}

}  // namespace atoll_native::nbd
