// A block device of its own for tests: a loop device over a file. Needs root; tests say so when they skip.
#pragma once
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "test/block_fixture.h"

namespace atoll_native {

/// First line a command prints; empty when it fails.
inline std::string first_line_of(const std::string& command) {
  FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  if (pipe == nullptr) return "";
  char line[256] = "";
  const bool got = fgets(line, sizeof line, pipe) != nullptr;
  const bool ended_well = pclose(pipe) == 0;
  std::string text = got && ended_well ? line : "";
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

class LoopDevice {
 public:
  explicit LoopDevice(const std::string& file, uint64_t bytes) {
    if (geteuid() != 0) return;
    std::FILE* made = fopen(file.c_str(), "w");
    REQUIRE(made != nullptr);
    REQUIRE(ftruncate(fileno(made), static_cast<off_t>(bytes)) == 0);
    fclose(made);
    path_ = first_line_of("losetup --find --show '" + file + "'");
    if (path_.empty()) return;
    // Detached at once, it stays while somebody has it open and goes with the last one: also when the test is killed.
    held_open_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE(held_open_ >= 0);
    first_line_of("losetup --detach " + path_);
  }
  ~LoopDevice() {
    if (held_open_ >= 0) close(held_open_);
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  /// Empty: there is none, the test is skipped.
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int held_open_ = -1;
};

/// A file system of a few megabytes in memory, to be full of.
class SmallFileSystem {
 public:
  SmallFileSystem(const std::string& folder, uint64_t bytes) : folder_(folder) {
    mounted_ = mount("tmpfs", folder.c_str(), "tmpfs", 0, ("size=" + std::to_string(bytes)).c_str()) == 0;
  }
  ~SmallFileSystem() {
    if (mounted_) umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallFileSystem(const SmallFileSystem&) = delete;
  SmallFileSystem& operator=(const SmallFileSystem&) = delete;
  bool mounted() const { return mounted_; }

 private:
  std::string folder_;
  bool mounted_ = false;
};

}  // namespace atoll_native
