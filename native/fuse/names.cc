// libfuse's callbacks: what is about names becomes a question, what is about data goes to the seat.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "fuse/mount.h"
#include "io/clock.h"

namespace atoll_native::fuse {
namespace {

Mount& mount_of(fuse_req_t req) { return *static_cast<Mount*>(fuse_req_userdata(req)); }
OpenFile* file_of(const fuse_file_info* info) { return reinterpret_cast<OpenFile*>(info->fh); }

/// Whether the bytes are UTF-8 without overlong forms, surrogates and what is beyond U+10FFFF.
bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<uint8_t>(text[i]);
    const size_t more = first < 0x80   ? 0
                        : first < 0xc2 ? 4
                        : first < 0xe0 ? 1
                        : first < 0xf0 ? 2
                        : first < 0xf5 ? 3
                                       : 4;
    if (more == 4 || i + more >= text.size()) return false;
    for (size_t k = 1; k <= more; k++) {
      if ((static_cast<uint8_t>(text[i + k]) & 0xc0) != 0x80) return false;
    }
    const auto second = more == 0 ? 0 : static_cast<uint8_t>(text[i + 1]);
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
        (first == 0xf4 && second > 0x8f)) {
      return false;
    }
    i += more + 1;
  }
  return true;
}

/// A name in a folder; one that is no UTF-8 is nobody's.
void ask_name(fuse_req_t req, Ask ask, fuse_ino_t folder, const char* name, int if_no_text) {
  if (!is_utf8(name)) {
    fuse_reply_err(req, if_no_text);
    return;
  }
  mount_of(req).ask({.ask = ask, .ino = folder, .name = name}, req);
}

void on_init(void* userdata, fuse_conn_info* conn) {
  // Data in the page cache is told of when others change it (Mount::look), and not guessed from times.
  conn->want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA);
  // A listing brings the attributes of all that is listed: who lists asks for them next, and they cost little then.
  conn->want &= ~static_cast<unsigned>(FUSE_CAP_READDIRPLUS_AUTO);
  conn->max_write = Call::kDataBytesMax;
  conn->max_background = 64;
  conn->congestion_threshold = 48;
  // ms resolution
  conn->time_gran = 1'000'000;
  static_cast<Mount*>(userdata)->handshake();
}

void on_lookup(fuse_req_t req, fuse_ino_t folder, const char* name) {
  ask_name(req, Ask::kLookup, folder, name, ENOENT);
}

void on_getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  mount_of(req).ask({.ask = Ask::kGetattr, .ino = ino}, req);
}

void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat* attributes, int valid, fuse_file_info* info) {
  const int64_t now_or_given = (valid & FUSE_SET_ATTR_MTIME_NOW) != 0
                                   ? -1
                                   : attributes->st_mtim.tv_sec * 1000 + attributes->st_mtim.tv_nsec / 1'000'000;
  Question question{.ask = Ask::kSetattr, .ino = ino};
  question.a = static_cast<uint32_t>(valid);
  question.b = static_cast<uint64_t>(attributes->st_size);
  question.c = now_or_given < 0 ? 0 : static_cast<uint64_t>(now_or_given);
  question.d = info == nullptr ? 0 : 1;
  question.name2 = std::to_string(attributes->st_mode & 07777) + ' ' + std::to_string(attributes->st_uid) + ' ' +
                   std::to_string(attributes->st_gid);
  mount_of(req).ask(std::move(question), req);
}

void on_mknod(fuse_req_t req, fuse_ino_t folder, const char* name, mode_t mode, dev_t) {
  if (!S_ISREG(mode)) {
    fuse_reply_err(req, EPERM);
    return;
  }
  ask_name(req, Ask::kMknod, folder, name, EINVAL);
}

void on_mkdir(fuse_req_t req, fuse_ino_t folder, const char* name, mode_t) {
  ask_name(req, Ask::kMkdir, folder, name, EINVAL);
}

void on_unlink(fuse_req_t req, fuse_ino_t folder, const char* name) {
  ask_name(req, Ask::kUnlink, folder, name, ENOENT);
}

void on_rmdir(fuse_req_t req, fuse_ino_t, const char*) { fuse_reply_err(req, EPERM); }
void on_symlink(fuse_req_t req, const char*, fuse_ino_t, const char*) { fuse_reply_err(req, EPERM); }
void on_link(fuse_req_t req, fuse_ino_t, fuse_ino_t, const char*) { fuse_reply_err(req, EPERM); }

void on_rename(fuse_req_t req, fuse_ino_t folder, const char* name, fuse_ino_t to_folder, const char* to,
               unsigned flags) {
  if (!is_utf8(name)) {
    fuse_reply_err(req, ENOENT);
    return;
  }
  if (!is_utf8(to)) {
    fuse_reply_err(req, EINVAL);
    return;
  }
  Question question{.ask = Ask::kRename, .ino = folder, .ino2 = to_folder, .name = name, .name2 = to};
  question.a = flags;
  mount_of(req).ask(std::move(question), req);
}

void on_open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
  Question question{.ask = Ask::kOpen, .ino = ino};
  question.a = static_cast<uint32_t>(info->flags);
  mount_of(req).ask_open(std::move(question), req, *info);
}

void on_create(fuse_req_t req, fuse_ino_t folder, const char* name, mode_t, fuse_file_info* info) {
  if (!is_utf8(name)) {
    fuse_reply_err(req, EINVAL);
    return;
  }
  Question question{.ask = Ask::kCreate, .ino = folder, .name = name};
  question.a = static_cast<uint32_t>(info->flags);
  mount_of(req).ask_open(std::move(question), req, *info);
}

void on_release(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  mount_of(req).released(file_of(info));
  fuse_reply_err(req, 0);
}

/// A file that is closed has what was copied into it. The kernel waits for this at every close(), and not for
/// releasing.
void on_flush(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
  if (!file_of(info)->node->filling.load(std::memory_order_acquire)) {
    fuse_reply_err(req, 0);
    return;
  }
  mount_of(req).ask({.ask = Ask::kSettle, .ino = ino}, req);
}

void on_fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info* info) { Seat::current()->sync(req, file_of(info)); }

void on_fallocate(fuse_req_t req, fuse_ino_t, int mode, off_t offset, off_t length, fuse_file_info* info) {
  Seat::current()->zero(req, file_of(info), mode, static_cast<uint64_t>(offset), static_cast<uint64_t>(length));
}

void on_lseek(fuse_req_t req, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
  if (offset < 0) {
    fuse_reply_err(req, ENXIO);
    return;
  }
  Seat::current()->seek(req, file_of(info), static_cast<uint64_t>(offset), whence);
}

void on_copy(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_file_info*, fuse_ino_t to, off_t to_offset,
             fuse_file_info*, size_t length, int) {
  Question question{.ask = Ask::kCopy, .ino = from, .ino2 = to};
  question.a = static_cast<uint64_t>(from_offset);
  question.b = static_cast<uint64_t>(to_offset);
  question.c = length;
  mount_of(req).ask(std::move(question), req);
}

void on_statfs(fuse_req_t req, fuse_ino_t ino) {
  mount_of(req).ask({.ask = Ask::kStatfs, .ino = ino == 0 ? FUSE_ROOT_ID : ino}, req);
}

void on_opendir(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
  OpenNodes& nodes = mount_of(req).nodes();
  OpenFolder* const folder = nodes.open_folder(ino);
  info->fh = reinterpret_cast<uint64_t>(folder);
  if (fuse_reply_open(req, info) != 0) nodes.close_folder(folder);
}

void on_releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  mount_of(req).nodes().close_folder(reinterpret_cast<OpenFolder*>(info->fh));
  fuse_reply_err(req, 0);
}

void read_folder(fuse_req_t req, size_t size, off_t offset, fuse_file_info* info, bool plus) {
  Mount& mount = mount_of(req);
  OpenFolder* const folder = reinterpret_cast<OpenFolder*>(info->fh);
  const uint64_t from = static_cast<uint64_t>(offset);
  bool known = false;
  {
    const std::lock_guard lock(folder->mutex);
    known = folder->knows(from);
    if (!known && from <= OpenFolder::kDotDot) {
      if (std::optional<Listing> listing = mount.ahead().take(folder->ino, monotonic_ms())) {
        folder->fill(from, std::move(*listing), true);
        known = true;
      }
    }
  }
  if (!known) {
    mount.ask_list(req, folder, from, size, plus);
    return;
  }
  const auto bytes = std::make_unique_for_overwrite<char[]>(size);
  const size_t used = fill_folder(req, mount, *folder, from, bytes.get(), size, plus);
  fuse_reply_buf(req, bytes.get(), used);
}

void on_readdir(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  read_folder(req, size, offset, info, false);
}

void on_readdirplus(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  read_folder(req, size, offset, info, true);
}

}  // namespace

struct stat stat_of(const Mount& mount, const Node& node) {
  struct stat facts = {};
  facts.st_ino = node.ino;
  facts.st_mode = node.mode;
  facts.st_nlink = node.links;
  facts.st_uid = mount.options().uid;
  facts.st_gid = mount.options().gid;
  facts.st_size = static_cast<off_t>(node.size);
  facts.st_blocks = static_cast<blkcnt_t>(node.blocks);
  facts.st_blksize = node.io_bytes;
  const auto time_of = [](uint64_t ms) {
    return timespec{static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000) * 1'000'000};
  };
  facts.st_mtim = facts.st_atim = time_of(node.mtime_ms);
  facts.st_ctim = time_of(node.ctime_ms);
  return facts;
}

fuse_entry_param entry_of(const Mount& mount, const Node& node, double age_seconds) {
  fuse_entry_param entry = {};
  entry.ino = node.ino;
  entry.generation = 1;
  entry.attr = stat_of(mount, node);
  const MountOptions& options = mount.options();
  const bool folder = S_ISDIR(node.mode);
  entry.attr_timeout = std::max(0.0, (folder ? options.folder_seconds : options.attribute_seconds) - age_seconds);
  entry.entry_timeout = std::max(0.0, (folder ? options.folder_seconds : options.name_seconds) - age_seconds);
  return entry;
}

size_t fill_folder(fuse_req_t req, const Mount& mount, OpenFolder& folder, uint64_t offset, char* to, size_t bytes,
                   bool plus) {
  const std::lock_guard lock(folder.mutex);
  size_t used = 0;
  const auto add = [&](const char* name, const fuse_entry_param& entry, uint64_t next) {
    const size_t size =
        plus ? fuse_add_direntry_plus(req, to + used, bytes - used, name, &entry, static_cast<off_t>(next))
             : fuse_add_direntry(req, to + used, bytes - used, name, &entry.attr, static_cast<off_t>(next));
    if (size > bytes - used) return false;
    used += size;
    return true;
  };
  for (; offset < OpenFolder::kDotDot; offset++) {
    // Number 0: a name that the kernel looks up nothing for.
    fuse_entry_param entry = {};
    entry.attr.st_ino = folder.ino;
    entry.attr.st_mode = S_IFDIR;
    if (!add(offset == 0 ? "." : "..", entry, offset + 1)) return used;
  }
  // Elsewhere than the window: the kernel comes back for it.
  if (offset != folder.at) return used;
  const double age = static_cast<double>(monotonic_ms() - folder.window.made_ms) / 1000;
  while (folder.next < folder.window.nodes.size()) {
    const Node& node = folder.window.nodes[folder.next];
    if (!add(folder.window.names[folder.next].c_str(), entry_of(mount, node, age), node.ino)) break;
    folder.at = node.ino;
    folder.next++;
  }
  return used;
}

const fuse_lowlevel_ops kOperations = [] {
  fuse_lowlevel_ops operations = {};
  operations.init = on_init;
  operations.lookup = on_lookup;
  operations.getattr = on_getattr;
  operations.setattr = on_setattr;
  operations.mknod = on_mknod;
  operations.mkdir = on_mkdir;
  operations.unlink = on_unlink;
  operations.rmdir = on_rmdir;
  operations.symlink = on_symlink;
  operations.link = on_link;
  operations.rename = on_rename;
  operations.open = on_open;
  operations.create = on_create;
  operations.flush = on_flush;
  operations.release = on_release;
  operations.fsync = on_fsync;
  operations.fallocate = on_fallocate;
  operations.lseek = on_lseek;
  operations.copy_file_range = on_copy;
  operations.statfs = on_statfs;
  operations.opendir = on_opendir;
  operations.releasedir = on_releasedir;
  operations.readdir = on_readdir;
  operations.readdirplus = on_readdirplus;
  return operations;
}();

}  // namespace atoll_native::fuse
