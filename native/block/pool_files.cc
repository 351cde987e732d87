#include "block/pool_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "io/full_io.h"

namespace atoll_native {

namespace {

constexpr const char* kSuperblockName = "superblock";
constexpr uint64_t kStatBlockBytes = 512;  // st_blocks counts these whatever the file system
constexpr size_t kZeroesBytes = 1u << 20;  // written at once where places cannot be had otherwise
constexpr size_t kFileNameBytes = 10;      // 's', eight hex digits, NUL

void file_name(uint32_t file, char (&name)[kFileNameBytes]) { snprintf(name, sizeof name, "s%08x", file); }

/// The number in a pool file's name, or -1 for other names.
int64_t file_number(const char* name) {
  if (name[0] != 's' || strlen(name) != kFileNameBytes - 1) return -1;
  for (const char* c = name + 1; *c != 0; c++) {
    if (isxdigit(static_cast<unsigned char>(*c)) == 0 || isupper(static_cast<unsigned char>(*c)) != 0) return -1;
  }
  return strtoll(name + 1, nullptr, 16);
}

void raise_descriptor_limit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);  // where that is refused, the old limit is the limit
}

std::string because(const std::string& what, int error_number) { return what + ": " + strerror(error_number); }

/// Gives a file of `size` bytes its places up to `bytes`. Never writes below `size`, as glibc's posix_fallocate does
/// where the file system cannot allocate: guests may be writing there. 0 or -errno.
int allocate(int fd, uint64_t size, uint64_t bytes) {
  int result;
  do {
    result = fallocate(fd, 0, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return 0;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
  const std::vector<uint8_t> zeroes(kZeroesBytes);
  for (; size < bytes; size += std::min<uint64_t>(kZeroesBytes, bytes - size)) {
    const int error = write_full(fd, zeroes.data(), std::min<uint64_t>(kZeroesBytes, bytes - size), size);
    if (error != 0) return error;
  }
  return 0;
}

int sync_directory(int fd) { return fsync(fd) == 0 ? 0 : -errno; }

}  // namespace

PoolFiles::PoolFiles(const PoolSpec& spec)
    : kind_(spec.kind),
      path_(spec.path),
      data_offset_(spec.kind == PoolSpec::Kind::kDirectory ? 0 : spec.data_offset),
      span_shift_(static_cast<uint32_t>(std::countr_zero(spec.file_span))),
      declared_(spec.capacity_bytes),
      direct_(spec.direct),
      preallocate_(spec.preallocate && spec.kind != PoolSpec::Kind::kDevice) {}

std::unique_ptr<PoolFiles> PoolFiles::open(const PoolSpec& spec, std::string* message, int* error_number) {
  std::unique_ptr<PoolFiles> pool(new PoolFiles(spec));
  if (pool->kind_ == PoolSpec::Kind::kDirectory) pool->file_count_max_ = kFilesMax;
  // Anonymous memory is zero, which is every File's beginning, and is taken page by page when files are used.
  void* files =
      mmap(nullptr, pool->file_count_max_ * sizeof(File), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (files == MAP_FAILED) {
    *error_number = errno;
    *message = because(spec.path, errno);
    return nullptr;
  }
  pool->files_ = static_cast<File*>(files);
  raise_descriptor_limit();
  const int result =
      pool->kind_ == PoolSpec::Kind::kDirectory ? pool->open_directory(message) : pool->open_single(message);
  if (result < 0) {
    *error_number = -result;
    return nullptr;
  }
  return pool;
}

PoolFiles::~PoolFiles() {
  if (files_ != nullptr) {
    for (uint32_t i = 0; i < file_count_max_; i++) {
      for (const auto* descriptor : {&files_[i].descriptor_plus_one, &files_[i].durable_descriptor_plus_one}) {
        const int open_one = descriptor->load(std::memory_order_relaxed);
        if (open_one != 0) close(open_one - 1);
      }
    }
    munmap(files_, file_count_max_ * sizeof(File));
  }
  if (lock_fd_ >= 0) close(lock_fd_);
  if (directory_fd_ >= 0) close(directory_fd_);
}

// ---------------------------------------------------------------- opening

int PoolFiles::lock(int fd, const std::string& what, std::string* message) const {
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return 0;
  const int error = errno;
  if (error == EWOULDBLOCK) {
    *message = what + " is held by another daemon; a pool is served by one daemon at a time";
    return -EBUSY;
  }
  *message = because("locking " + what, error);
  return -error;
}

int PoolFiles::open_directory(std::string* message) {
  directory_fd_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_fd_ < 0) {
    const int error = errno;
    *message = because(path_, error);
    return -error;
  }
  lock_fd_ = openat(directory_fd_, kSuperblockName, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd_ < 0) {
    const int error = errno;
    *message = because(path_ + "/" + kSuperblockName, error);
    return -error;
  }
  if (const int result = lock(lock_fd_, path_, message); result < 0) return result;
  if (direct_) {
    // The superblock lies in the same file system as the files that will be.
    const int probe = openat(directory_fd_, kSuperblockName, O_RDWR | O_CLOEXEC | O_DIRECT);
    if (probe < 0) {
      const int error = errno;
      *message = because(path_ + " does not take O_DIRECT; make the pool without --direct", error);
      return -error;
    }
    const int result = learn_alignment(probe, message);
    close(probe);
    if (result < 0) return result;
  }
  learn_existing();
  learn_holes(lock_fd_);
  return 0;
}

int PoolFiles::open_single(std::string* message) {
  const bool device = kind_ == PoolSpec::Kind::kDevice;
  const int flags = O_RDWR | O_CLOEXEC | (direct_ ? O_DIRECT : 0) | (device ? O_EXCL : O_CREAT);
  const int fd = ::open(path_.c_str(), flags, 0600);
  if (fd < 0) {
    const int error = errno;
    if (error == EBUSY) {
      *message = path_ + " is in use: mounted, or held by another daemon";
    } else if (error == EINVAL && direct_) {
      *message = because(path_ + " does not take O_DIRECT; make the pool without --direct", error);
    } else {
      *message = because(path_, error);
    }
    return -error;
  }
  files_[0].descriptor_plus_one.store(fd + 1, std::memory_order_release);
  struct stat info;
  if (fstat(fd, &info) != 0 || (device ? !S_ISBLK(info.st_mode) : !S_ISREG(info.st_mode))) {
    *message = path_ + (device ? " is not a block device" : " is not a regular file");
    return -EINVAL;
  }
  if (!device) {
    if (const int result = lock(fd, path_, message); result < 0) return result;
  }
  if (!device) learn_holes(fd);
  return direct_ ? learn_alignment(fd, message) : 0;
}

/// Punches a hole behind the end of a file, where nothing is, to see whether the file system can.
void PoolFiles::learn_holes(int fd) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  struct stat info;
  if (direct_ || preallocate_ || data_offset_ % page != 0 || fstat(fd, &info) != 0) return;
  const uint64_t end = (static_cast<uint64_t>(info.st_size) / page + 1) * page;
  const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  holes_replace_pages_ = fallocate(fd, mode, static_cast<off_t>(end), static_cast<off_t>(page)) == 0;
}

int PoolFiles::learn_alignment(int fd, std::string* message) {
  offset_alignment_ = memory_alignment_ = kDirectAlignmentDefault;
  if (kind_ == PoolSpec::Kind::kDevice) {
    int sector = 0;
    if (ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0) {
      offset_alignment_ = memory_alignment_ = static_cast<uint32_t>(sector);
    }
  } else {
#ifdef STATX_DIOALIGN
    struct ::statx info = {};
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
        (info.stx_mask & STATX_DIOALIGN) != 0) {
      if (info.stx_dio_offset_align == 0) {
        *message = path_ + " does not take O_DIRECT; make the pool without --direct";
        return -EINVAL;
      }
      offset_alignment_ = info.stx_dio_offset_align;
      memory_alignment_ = info.stx_dio_mem_align;
    }
#endif
  }
  if (data_offset_ % offset_alignment_ != 0) {
    *message = path_ + ": its data does not begin on a sector";
    return -EINVAL;
  }
  return 0;
}

void PoolFiles::learn_existing() {
  const int fd = dup(directory_fd_);
  DIR* directory = fd < 0 ? nullptr : fdopendir(fd);
  if (directory == nullptr) {
    if (fd >= 0) close(fd);
    return;  // only usage() knows less for it
  }
  while (const dirent* entry = readdir(directory)) {
    const int64_t number = file_number(entry->d_name);
    if (number < 0 || number >= file_count_max_) continue;
    files_[number].known = true;
    known_files_.push_back(static_cast<uint32_t>(number));
  }
  closedir(directory);
}

int PoolFiles::open_named(uint32_t file, int extra_flags) const {
  char name[kFileNameBytes];
  file_name(file, name);
  const int fd =
      openat(directory_fd_, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (direct_ ? O_DIRECT : 0) | extra_flags, 0600);
  return fd >= 0 ? fd : -errno;
}

int PoolFiles::open_file(uint32_t file) {
  std::unique_lock lock(mutex_);
  // A file that is being made may be there with its data since long: only its maker knows, so it is waited for.
  while (files_[file].being_made) {
    lock.unlock();
    { std::lock_guard made(making_); }
    lock.lock();
  }
  std::atomic<int>& descriptor = files_[file].descriptor_plus_one;
  if (const int open_one = descriptor.load(std::memory_order_relaxed); open_one != 0) return open_one - 1;
  const int fd = open_named(file, 0);
  if (fd >= 0) descriptor.store(fd + 1, std::memory_order_release);
  return fd;
}

int PoolFiles::open_durable(uint32_t file) {
  const int first = descriptor(file);
  if (first < 0) return first;
  std::lock_guard lock(mutex_);
  std::atomic<int>& entry = files_[file].durable_descriptor_plus_one;
  if (const int open_one = entry.load(std::memory_order_relaxed); open_one != 0) return open_one - 1;
  const int fd = open_again(first);
  if (fd >= 0) entry.store(fd + 1, std::memory_order_release);
  return fd;
}

/// Another open file of the same, or -errno. Through /proc, so that it is the same whatever its name means by now.
int PoolFiles::open_again(int fd) const {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const int again = ::open(path, O_RDWR | O_CLOEXEC | (direct_ ? O_DIRECT : 0));
  return again >= 0 ? again : -errno;
}

int PoolFiles::take_durable(uint32_t file) {
  const int first = descriptor(file);
  if (first < 0) return first;
  const int idle = files_[file].durable_descriptor_plus_one.exchange(0, std::memory_order_acq_rel);
  return idle != 0 ? idle - 1 : open_again(first);
}

/// One is kept.
void PoolFiles::give_durable(uint32_t file, int fd) {
  int none = 0;
  if (!files_[file].durable_descriptor_plus_one.compare_exchange_strong(none, fd + 1, std::memory_order_acq_rel))
    close(fd);
}

// ---------------------------------------------------------------- creating

int PoolFiles::size_file(int fd) const {
  const uint64_t bytes = kind_ == PoolSpec::Kind::kDirectory ? span() : data_offset_ + declared_;
  struct stat info;
  if (fstat(fd, &info) != 0) return -errno;
  if (preallocate_) {
    // Also when the size is right: a creation that a crash cut short may have set it. (Where the file system cannot
    // allocate, what is below it stays as it is.)
    if (static_cast<uint64_t>(info.st_blocks) * kStatBlockBytes >= bytes) return 0;
    return allocate(fd, static_cast<uint64_t>(info.st_size), bytes);
  }
  if (static_cast<uint64_t>(info.st_size) >= bytes) return 0;
  return ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : -errno;
}

/// The descriptor of the file, made and sized and durable, or -errno with nothing left behind.
int PoolFiles::make(uint32_t file, int open_fd, const std::function<int(int fd)>& sync) {
  int fd = open_fd;
  bool created = false;
  if (fd < 0) {
    fd = open_named(file, 0);
    if (fd == -ENOENT) {
      fd = open_named(file, O_CREAT | O_EXCL);
      created = true;
    }
    if (fd < 0) return fd;
  }
  int result = size_file(fd);
  if (result == 0) result = sync(fd);
  if (result == 0 && kind_ == PoolSpec::Kind::kDirectory) result = sync_directory(directory_fd_);
  if (result == 0) return fd;
  if (created) {
    char name[kFileNameBytes];
    file_name(file, name);
    unlinkat(directory_fd_, name, 0);
  }
  if (open_fd < 0) close(fd);
  return result;
}

int PoolFiles::ensure(uint32_t file, const std::function<int(int fd)>& sync) {
  if (file >= file_count_max_) return -ERANGE;
  if (kind_ == PoolSpec::Kind::kDevice) return 0;
  std::lock_guard making(making_);
  File& entry = files_[file];
  int open_fd;
  {
    std::lock_guard lock(mutex_);
    open_fd = entry.descriptor_plus_one.load(std::memory_order_relaxed) - 1;
    entry.being_made = true;
  }
  const int fd = make(file, open_fd, sync);
  std::lock_guard lock(mutex_);
  entry.being_made = false;
  if (fd < 0) return fd;
  if (!entry.known) {
    entry.known = true;
    if (kind_ == PoolSpec::Kind::kDirectory) known_files_.push_back(file);
  }
  entry.descriptor_plus_one.store(fd + 1, std::memory_order_release);
  return 0;
}

// ---------------------------------------------------------------- usage

uint64_t PoolFiles::physical_now() {
  struct stat info;
  if (kind_ != PoolSpec::Kind::kDirectory) {
    const int fd = files_[0].descriptor_plus_one.load(std::memory_order_acquire) - 1;
    return fstat(fd, &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * kStatBlockBytes : 0;
  }
  std::vector<uint32_t> files;
  {
    std::lock_guard lock(mutex_);
    files = known_files_;
  }
  uint64_t bytes = 0;
  for (const uint32_t file : files) {
    char name[kFileNameBytes];
    file_name(file, name);
    if (fstatat(directory_fd_, name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
      bytes += static_cast<uint64_t>(info.st_blocks) * kStatBlockBytes;
    }
  }
  return bytes;
}

BlockUsage PoolFiles::usage() {
  if (kind_ == PoolSpec::Kind::kDevice) {
    // Asked each time: a device may grow.
    uint64_t bytes = 0;
    if (ioctl(files_[0].descriptor_plus_one.load(std::memory_order_acquire) - 1, BLKGETSIZE64, &bytes) != 0) bytes = 0;
    bytes -= std::min(bytes, data_offset_);
    return {bytes, bytes};
  }
  std::lock_guard lock(usage_mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (usage_at_ == std::chrono::steady_clock::time_point{} || now - usage_at_ >= kUsageAgeMax) {
    physical_ = physical_now();
    usage_at_ = now;
  }
  const uint64_t declared = declared_.load();
  if (kind_ == PoolSpec::Kind::kFile) {
    struct stat info;
    const int fd = files_[0].descriptor_plus_one.load(std::memory_order_acquire) - 1;
    const uint64_t size = fstat(fd, &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
    // A file that was made larger has grown its pool.
    if (declared != 0) return {std::max(declared, size - std::min(size, data_offset_)), physical_};
  } else if (declared != 0) {
    return {declared, physical_};
  }
  struct statvfs free_space;
  const int fd = directory_fd_ >= 0 ? directory_fd_ : files_[0].descriptor_plus_one.load(std::memory_order_acquire) - 1;
  const uint64_t free_bytes =
      fstatvfs(fd, &free_space) == 0 ? static_cast<uint64_t>(free_space.f_bavail) * free_space.f_frsize : 0;
  return {physical_ + free_bytes, physical_};
}

}  // namespace atoll_native
