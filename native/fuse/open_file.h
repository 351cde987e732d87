// Files and folders that the kernel has open.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fuse/names.h"

namespace atoll_native::fuse {

/// A node that is open at least once. Kept by its open files.
struct OpenNode {
  static constexpr uint32_t kRevoked = UINT32_MAX;
  explicit OpenNode(uint64_t ino_in) : ino(ino_in) {}

  const uint64_t ino;
  /// Of the open volume; kRevoked: it was taken away (a forced delete), and everything answers EIO.
  std::atomic<uint32_t> handle{kRevoked};
  /// It is being copied into: reads, writes and syncs ask kSettle first.
  std::atomic<bool> filling{false};
  /// Requests on their way to the volume peer.
  std::atomic<uint32_t> in_flight{0};
  /// Changes by others that the kernel was told of.
  uint64_t told = 0;
  bool fresh = true;                           // `told` is not set yet
  std::atomic<bool> changed_elsewhere{false};  // through another mount
  uint32_t opens = 0;
};

/// One open(): its address is the file handle that the kernel gives back.
struct OpenFile {
  std::shared_ptr<OpenNode> node;
  bool read_only = false;
};

/// One opendir(): a window of the listing. Offsets that the kernel sees are numbers of nodes (those of "." and ".." are
/// 1 and 2), so a listing goes on at the same place whatever came and went meanwhile.
struct OpenFolder {
  static constexpr uint64_t kDot = 1;
  static constexpr uint64_t kDotDot = 2;

  explicit OpenFolder(uint64_t ino_in) : ino(ino_in) {}
  const uint64_t ino;
  std::mutex mutex;
  Listing window;
  size_t next = 0;
  uint64_t at = kDotDot;  // offset that `next` goes on from
  bool end = false;

  /// Whether what follows an offset is in the window: nodes, or that there are no more.
  bool knows(uint64_t offset) const {
    return at == (offset < kDotDot ? kDotDot : offset) && (next < window.nodes.size() || end);
  }
  void fill(uint64_t offset, Listing listing, bool is_end) {
    window = std::move(listing);
    next = 0;
    at = offset < kDotDot ? kDotDot : offset;
    end = is_end;
  }
};

/// What is open. Files and folders of a connection that was aborted are never released, and end with this.
class OpenNodes {
 public:
  OpenFile* open_file(uint64_t ino, uint32_t handle, bool read_only) {
    auto file = std::make_unique<OpenFile>();
    file->node = open(ino);
    file->node->handle.store(handle, std::memory_order_release);
    file->read_only = read_only;
    return keep(files_, std::move(file));
  }
  void close_file(OpenFile* file) {
    close(file->node);
    forget(files_, file);
  }
  OpenFolder* open_folder(uint64_t ino) { return keep(folders_, std::make_unique<OpenFolder>(ino)); }
  void close_folder(OpenFolder* folder) { forget(folders_, folder); }

  std::shared_ptr<OpenNode> find(uint64_t ino) {
    const std::lock_guard lock(mutex_);
    const auto found = nodes_.find(ino);
    return found == nodes_.end() ? nullptr : found->second;
  }
  std::vector<std::shared_ptr<OpenNode>> all() {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<OpenNode>> all;
    for (const auto& [ino, node] : nodes_) all.push_back(node);
    return all;
  }

 private:
  template <typename T>
  using Kept = std::unordered_map<T*, std::unique_ptr<T>>;

  std::shared_ptr<OpenNode> open(uint64_t ino) {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<OpenNode>& node = nodes_[ino];
    if (node == nullptr) node = std::make_shared<OpenNode>(ino);
    node->opens++;
    return node;
  }
  void close(const std::shared_ptr<OpenNode>& node) {
    const std::lock_guard lock(mutex_);
    if (--node->opens == 0) nodes_.erase(node->ino);
  }
  template <typename T>
  T* keep(Kept<T>& among, std::unique_ptr<T> one) {
    const std::lock_guard lock(mutex_);
    T* const at = one.get();
    among.emplace(at, std::move(one));
    return at;
  }
  template <typename T>
  void forget(Kept<T>& among, T* one) {
    const std::lock_guard lock(mutex_);
    among.erase(one);
  }

  std::mutex mutex_;
  std::map<uint64_t, std::shared_ptr<OpenNode>> nodes_;
  Kept<OpenFile> files_;
  Kept<OpenFolder> folders_;
};

}  // namespace atoll_native::fuse
