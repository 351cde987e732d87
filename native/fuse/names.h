// What the mount asks of the control side: names, attributes, opening, sizes. The addon's answers come from JavaScript.
//
// A node's number is its resource's id (never used again) times 8 plus its kind, so nothing has to be remembered for
// the kernel, and forgotten (docs/fuse.md, "Numbers").
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace atoll_native::fuse {

/// Numbers are those of src/xseg/fuse-port.ts.
enum class Ask : uint32_t {
  kLookup = 1,   // ino: folder, name
  kGetattr = 2,  // ino
  kSetattr = 3,  // ino; a: FUSE_SET_ATTR_* bits, b: size, c: mtime in ms; d: 1 when it came with an open file
  kOpen = 4,     // ino; a: O_* flags
  kRelease = 5,  // ino; a: handle. No answer.
  kCreate = 6,   // ino: folder, name; a: O_* flags
  kMknod = 7,    // ino: folder, name
  kUnlink = 8,   // ino: folder, name
  kRename = 9,   // ino: folder, name, ino2: new folder, name2; a: RENAME_* flags
  kStatfs = 10,  // ino
  kList = 11,    // ino: folder; a: number of the last node that is known, 0 none
  kCopy = 12,    // ino: source, a: offset; ino2: target, b: offset; c: length
  kGrow = 13,    // ino; a: size that it has at least
  kSettle = 14,  // ino: a volume that is being copied into becomes what was copied
  kMkdir = 15,   // refused, with the reason of the folder; name
};

struct Question {
  uint32_t token = 0;
  Ask ask = Ask::kLookup;
  uint64_t ino = 0;
  uint64_t ino2 = 0;
  std::string name = {};   // valid UTF-8
  std::string name2 = {};  // valid UTF-8
  uint64_t a = 0;
  uint64_t b = 0;
  uint64_t c = 0;
  uint64_t d = 0;
};

struct Node {
  uint64_t ino = 0;
  uint32_t mode = 0;  // type and permissions
  uint32_t links = 1;
  uint64_t size = 0;         // bytes
  uint64_t blocks = 0;       // of 512 bytes
  uint32_t io_bytes = 4096;  // st_blksize
  uint64_t mtime_ms = 0;
  uint64_t ctime_ms = 0;
};

struct Statistics {
  uint32_t block_bytes = 0;
  uint64_t blocks = 0;
  uint64_t free = 0;
  uint64_t nodes = 0;
};

/// What is in a folder, or a part of it.
struct Listing {
  std::vector<Node> nodes;  // ascending
  std::vector<std::string> names;
  uint64_t made_ms = 0;  // CLOCK_MONOTONIC: when it was true
};

struct Answer {
  int error = 0;           // errno
  Node node;               // lookup, getattr, setattr, create, mknod
  uint32_t handle = 0;     // open, create
  bool read_only = false;  // open, create
  uint64_t count = 0;      // copy: bytes; the target is settled before anything else is done with it
  Statistics statistics;   // statfs
  Listing list;            // list
  bool end = false;        // list: there are no more
  std::vector<std::pair<uint64_t, Listing>> ahead;  // list: whole folders that may be asked for next
};

/// Any thread; never blocks. Answers come by Mount::answer(), once for each question but kRelease.
class Names {
 public:
  virtual ~Names() = default;
  virtual void ask(Question question) = 0;
  /// The kernel has shaken hands: the tree can be used.
  virtual void live() = 0;
  /// The tree is gone: unmounted by somebody else, or its connection was aborted.
  virtual void ended() = 0;
};

}  // namespace atoll_native::fuse
