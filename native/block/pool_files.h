// The files of a `local` pool and their descriptors: a directory of files, one file, or a block device.
//
// Descriptors are opened when first needed and stay open until the pool is closed: finding one is a single load on the
// path of every request, and none is ever closed while somebody may be using it. What limits a pool is therefore
// RLIMIT_NOFILE, which is raised to its hard limit; beyond it operations on files not open yet answer EMFILE.
//
// Two daemons never share a pool: the superblock file of a directory, or the file, carries an exclusive flock; a device
// is claimed by O_EXCL, which mounts and other users of that device respect too.
#pragma once
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "block/block.h"
#include "block/factory.h"
#include "block/slow_gate.h"
#include "segment/layout.gen.h"

namespace atoll_native {

class PoolFiles {
 public:
  /// How long a sum of the files' sizes is good for: it asks the file system about each file.
  static constexpr std::chrono::milliseconds kUsageAgeMax{1000};
  /// What O_DIRECT needs where the kernel does not say.
  static constexpr uint32_t kDirectAlignmentDefault = 4096;

  struct File {
    std::atomic<int> descriptor_plus_one;  // 0: not open
    std::atomic<int> durable_descriptor_plus_one;
    bool known;       // exists on disk, counted in usage; guarded by mutex_
    bool being_made;  // ensure() is at it; guarded by mutex_
    SlowGate gate;
  };

  static std::unique_ptr<PoolFiles> open(const PoolSpec& spec, std::string* message, int* error_number);
  ~PoolFiles();
  PoolFiles(const PoolFiles&) = delete;
  PoolFiles& operator=(const PoolFiles&) = delete;

  /// The descriptor of a file if it is open, else -EAGAIN: opening may wait for a disk, so a reactor leaves it to a
  /// thread.
  int descriptor_now(uint32_t file) const {
    if (file >= file_count_max_) return -ERANGE;
    // Acquire pairs with the release of who opened it: the file has its size by then.
    const int open_one = files_[file].descriptor_plus_one.load(std::memory_order_acquire);
    return open_one != 0 ? open_one - 1 : -EAGAIN;
  }
  /// Opens it when it is not. May block. The descriptor, or -errno (ENOENT: no such file; EMFILE; ERANGE: beyond what a
  /// pool can have).
  int descriptor(uint32_t file) {
    const int fd = descriptor_now(file);
    return fd == -EAGAIN ? open_file(file) : fd;
  }
  /// An open file of the same for one durable write, until give_durable(). The kernel tells of a lost page once per
  /// open file: so a durable write that is told hides it neither from a sync of the file nor from another durable
  /// write, whose page it may have been. May block; -errno as descriptor().
  int take_durable(uint32_t file);
  void give_durable(uint32_t file, int fd);
  /// A second open file of the same, for durable writes past the page cache, which are told their own errors.
  int durable_descriptor_now(uint32_t file) const {
    if (file >= file_count_max_) return -ERANGE;
    const int open_one = files_[file].durable_descriptor_plus_one.load(std::memory_order_acquire);
    return open_one != 0 ? open_one - 1 : -EAGAIN;
  }
  int durable_descriptor(uint32_t file) {
    const int fd = durable_descriptor_now(file);
    return fd == -EAGAIN ? open_durable(file) : fd;
  }
  SlowGate& gate(uint32_t file) { return files_[file].gate; }
  uint32_t file_of(uint64_t address) const { return static_cast<uint32_t>(address >> span_shift_); }
  uint64_t offset_of(uint64_t address) const { return (address & (span() - 1)) + data_offset_; }
  uint64_t span() const { return 1ull << span_shift_; }
  /// One operation never crosses the border of a file.
  bool inside_a_file(uint64_t address, uint64_t length) const {
    return (address >> span_shift_) < file_count_max_ && length <= span() - (address & (span() - 1));
  }
  PoolSpec::Kind kind() const { return kind_; }
  bool preallocated() const { return preallocate_; }
  /// Another size from now on, of the pool and of what is made of its files. Returns the one it had.
  uint64_t declare(uint64_t bytes) { return declared_.exchange(bytes); }
  bool direct() const { return direct_; }
  /// Zeroing a slot takes its pages out of the page cache, so that whoever still has them keeps what they held.
  bool holes_replace_pages() const { return holes_replace_pages_; }
  /// Of addresses and lengths, and of buffers, in direct pools; else 1.
  uint32_t offset_alignment() const { return offset_alignment_; }
  uint32_t memory_alignment() const { return memory_alignment_; }

  /// Makes a file, as large as it has to be, durably. 0 or -errno. ENOSPC leaves nothing behind. `sync`: fsync of a
  /// file that may be in use, 0 or -errno; that it failed is more than a failed creation, which whoever gives it has to
  /// see to.
  int ensure(uint32_t file, const std::function<int(int fd)>& sync);
  BlockUsage usage();

 private:
  PoolFiles(const PoolSpec& spec);
  int open_directory(std::string* message);
  int open_single(std::string* message);
  int lock(int fd, const std::string& what, std::string* message) const;
  void learn_holes(int fd);
  int learn_alignment(int fd, std::string* message);
  void learn_existing();
  int open_file(uint32_t file);
  int open_durable(uint32_t file);
  int open_again(int fd) const;
  int make(uint32_t file, int open_fd, const std::function<int(int fd)>& sync);
  int open_named(uint32_t file, int extra_flags) const;
  int size_file(int fd) const;
  uint64_t physical_now();

  const PoolSpec::Kind kind_;
  const std::string path_;
  const uint64_t data_offset_;
  const uint32_t span_shift_;
  std::atomic<uint64_t> declared_;
  const bool direct_;
  const bool preallocate_;
  uint32_t file_count_max_ = 1;
  uint32_t offset_alignment_ = 1;
  uint32_t memory_alignment_ = 1;
  bool holes_replace_pages_ = false;
  int directory_fd_ = -1;  // directory: the directory
  int lock_fd_ = -1;       // directory: the superblock file
  File* files_ = nullptr;  // file_count_max_ of them, in memory that is only taken where files are
  std::mutex mutex_;       // opening, and what is known; never held while waiting for a disk to write
  std::mutex making_;      // creating: one at a time
  std::vector<uint32_t> known_files_;
  std::mutex usage_mutex_;
  std::chrono::steady_clock::time_point usage_at_{};
  uint64_t physical_ = 0;
};

}  // namespace atoll_native
