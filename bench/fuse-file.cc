// fuse-file FILE DIR
//
// The smallest FUSE server that reads one plain file, as DIR/file: libfuse3's low-level interface, one thread, one
// pread and one reply per request. To be read beside Atoll's mount, which does the same and keeps a map. Ends when it
// is unmounted or gets a signal.
#define FUSE_USE_VERSION 314
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr size_t kReadBytesMax = 1 << 20;
constexpr fuse_ino_t kFile = 2;
constexpr double kSeconds = 1;

int fd = -1;
char* buffer = nullptr;

struct stat facts_of(fuse_ino_t ino) {
  struct stat facts = {};
  facts.st_ino = ino;
  facts.st_mode = ino == kFile ? S_IFREG | 0400 : S_IFDIR | 0500;
  facts.st_nlink = ino == kFile ? 1 : 2;
  struct stat file = {};
  if (ino == kFile && fstat(fd, &file) == 0) facts.st_size = file.st_size;
  return facts;
}

void on_init(void*, fuse_conn_info* conn) { conn->max_background = 64; }

void on_lookup(fuse_req_t req, fuse_ino_t folder, const char* name) {
  if (folder != FUSE_ROOT_ID || std::strcmp(name, "file") != 0) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  fuse_entry_param entry = {};
  entry.ino = kFile;
  entry.attr = facts_of(kFile);
  entry.attr_timeout = entry.entry_timeout = kSeconds;
  fuse_reply_entry(req, &entry);
}

void on_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  const struct stat facts = facts_of(ino);
  fuse_reply_attr(req, &facts, kSeconds);
}

void on_open(fuse_req_t req, fuse_ino_t, fuse_file_info* info) { fuse_reply_open(req, info); }

void on_read(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info*) {
  const ssize_t got = pread(fd, buffer, size < kReadBytesMax ? size : kReadBytesMax, offset);
  if (got < 0) {
    fuse_reply_err(req, errno);
  } else {
    fuse_reply_buf(req, buffer, static_cast<size_t>(got));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: fuse-file FILE DIR\n");
    return 2;
  }
  fd = open(argv[1], O_RDONLY);
  buffer = static_cast<char*>(std::aligned_alloc(4096, kReadBytesMax));
  if (fd < 0 || buffer == nullptr) {
    std::perror(argv[1]);
    return 1;
  }
  fuse_lowlevel_ops operations = {};
  operations.init = on_init;
  operations.lookup = on_lookup;
  operations.getattr = on_getattr;
  operations.open = on_open;
  operations.read = on_read;
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&args, "fuse-file");
  fuse_session* const session = fuse_session_new(&args, &operations, sizeof operations, nullptr);
  fuse_opt_free_args(&args);
  if (session == nullptr || fuse_set_signal_handlers(session) != 0 || fuse_session_mount(session, argv[2]) != 0)
    return 1;
  const int result = fuse_session_loop(session);
  fuse_remove_signal_handlers(session);
  fuse_session_unmount(session);
  fuse_session_destroy(session);
  return result < 0 ? 1 : 0;
}
