#include "fuse/mount.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "reactor/run_on.h"
#include "segment/atomic.h"

namespace atoll_native::fuse {
namespace {

// What an answer that nobody gave any more says.
constexpr int kGone = ENOTCONN;

/// Whether the connection is over.
bool aborted(int fd) {
  pollfd device = {.fd = fd, .events = 0, .revents = 0};
  return poll(&device, 1, 0) != 0;
}

/// Whether what is mounted last at a path is a mount of Atoll's.
bool ours_on_top(const std::string& path) {
  std::error_code error;
  const std::filesystem::path given(path);
  // Not of the last part: that would ask the mount.
  const std::filesystem::path at = std::filesystem::canonical(given.parent_path(), error) / given.filename();
  if (error) return false;
  std::ifstream mounts("/proc/self/mountinfo");
  bool ours = false;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string skipped, where, word;
    fields >> skipped >> skipped >> skipped >> skipped >> where;
    if (where != at.string()) continue;
    while (fields >> word && word != "-") {
    }
    fields >> word;
    ours = word == "fuse.atoll";
  }
  return ours;
}

/// Aborts the connection, and detaches the mount, when it is there still. False: only root may; or it is not certain
/// that the path is ours.
bool force_unmount(int fd, const std::string& path) {
  if (aborted(fd)) return true;
  if (!ours_on_top(path)) return false;
  return umount2(path.c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) == 0 && aborted(fd);
}

/// Questions after which lists are not what they were.
bool changes(Ask ask) {
  switch (ask) {
    case Ask::kLookup:
    case Ask::kGetattr:
    case Ask::kOpen:
    case Ask::kRelease:
    case Ask::kStatfs:
    case Ask::kList:
      return false;
    default:
      return true;
  }
}

}  // namespace

Mount::Mount(Segment& segment, std::vector<Place> places, Names& names, MountOptions options)
    : segment_(segment),
      places_(std::move(places)),
      names_(names),
      options_(std::move(options)),
      ahead_(static_cast<uint64_t>(options_.attribute_seconds * 1000)) {}

Mount::~Mount() {
  stop();
  notifier_.reset();
  if (session_ != nullptr) fuse_session_destroy(session_);
}

int Mount::start(std::string* message) {
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&args, "atoll");
  fuse_opt_add_arg(&args, "-o");
  fuse_opt_add_arg(&args, "fsname=atoll,subtype=atoll,default_permissions,nosuid,nodev");
  if (options_.allow_other) {
    fuse_opt_add_arg(&args, "-o");
    fuse_opt_add_arg(&args, "allow_other");
  }
  session_ = fuse_session_new(&args, &kOperations, sizeof kOperations, this);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) {
    *message = "libfuse does not take the mount's options";
    return -EINVAL;
  }
  errno = 0;
  if (fuse_session_mount(session_, options_.path.c_str()) != 0) {
    const int error = errno == 0 ? EPERM : errno;
    *message = "cannot mount " + options_.path + ": " + std::strerror(error);
    return -error;
  }
  const int fd = fuse_session_fd(session_);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  notifier_ = std::make_unique<Notifier>(session_);
  {
    const std::lock_guard lock(mutex_);
    mounted_ = true;
  }
  int error = 0;
  for (const Place& place : places_) {
    seats_.push_back(std::make_unique<Seat>(*this, *place.reactor, *place.sink, seats_.empty()));
  }
  // The host begins when the list of all is whole.
  for (auto seat = seats_.rbegin(); seat != seats_.rend(); ++seat)
    run_on((*seat)->reactor(), [&] {
      const int result = (*seat)->start(fd);
      if (result != 0) error = result;
    });
  run_on(*places_.front().reactor, [this] { arm_look(); });
  if (error != 0) {
    *message = "cannot watch /dev/fuse";
    stop();
  }
  return error;
}

void Mount::stop() {
  {
    const std::lock_guard lock(mutex_);
    if (!mounted_ || stopping_) return;
    stopping_ = true;
  }
  // What is on its way to the volume peer is answered; what waits for the control side is not.
  for (const auto& seat : seats_) run_on(seat->reactor(), [&] { seat->stop(); });
  run_on(*places_.front().reactor, [this] { places_.front().reactor->cancel_timer(look_timer_); });
  std::unordered_map<uint32_t, Asked> asked;
  {
    const std::lock_guard lock(mutex_);
    asked.swap(asked_);
  }
  for (auto& [token, one] : asked) {
    Answer none;
    none.error = kGone;
    reply(one, none);
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kStopMs);
  for (const auto& seat : seats_) {
    bool quiet = false;
    while (!quiet && std::chrono::steady_clock::now() < deadline) {
      run_on(seat->reactor(), [&] { quiet = seat->quiet(); });
      if (!quiet) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  // From here on nobody uses the descriptor, whose number may be another file's as soon as it is closed.
  for (const auto& seat : seats_) run_on(seat->reactor(), [&] { seat->forget(); });
  // Aborted first, where that can be: requests that nobody took hold locks that the notifier may wait for in the
  // kernel, and while it is in there a close does not abort.
  if (force_unmount(fuse_session_fd(session_), options_.path)) notifier_->stop();
  notifier_->close();
  // Detaches lazily and closes /dev/fuse.
  fuse_session_unmount(session_);
  notifier_->stop();
}

void Mount::handshake() { names_.live(); }

void Mount::share() {
  for (size_t i = 1; i < seats_.size(); i++) {
    Seat* const seat = seats_[i].get();
    if (!seat->takes_part()) seat->reactor().post([seat] { seat->take_part(); });
  }
}

void Mount::disconnected() {
  if (!ended_.exchange(true)) names_.ended();
}

// ----------------------------------------------------------------------------------------------------- questions

void Mount::put(Question question, Asked asked) {
  asked.ask = question.ask;
  asked.ino = question.ino;
  asked.ino2 = question.ino2;
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      while (++last_token_ == 0 || asked_.contains(last_token_)) {
      }
      question.token = last_token_;
      asked_[question.token] = asked;
    }
  }
  if (question.token == 0) {
    Answer none;
    none.error = kGone;
    reply(asked, none);
    return;
  }
  names_.ask(std::move(question));
}

void Mount::ask(Question question, Call* call) {
  Asked asked;
  asked.call = call;
  put(std::move(question), std::move(asked));
}

void Mount::ask(Question question, fuse_req_t req) {
  Asked asked;
  asked.req = req;
  put(std::move(question), std::move(asked));
}

void Mount::ask_open(Question question, fuse_req_t req, const fuse_file_info& info) {
  Asked asked;
  asked.req = req;
  asked.info = info;
  put(std::move(question), std::move(asked));
}

void Mount::ask_list(fuse_req_t req, OpenFolder* folder, uint64_t offset, size_t bytes, bool plus) {
  Asked asked;
  asked.req = req;
  asked.folder = folder;
  asked.offset = offset;
  asked.bytes = bytes;
  asked.plus = plus;
  Question question{.ask = Ask::kList, .ino = folder->ino};
  question.a = offset <= OpenFolder::kDotDot ? 0 : offset;
  put(std::move(question), std::move(asked));
}

void Mount::released(OpenFile* file) {
  const uint32_t handle = file->node->handle.load(std::memory_order_acquire);
  Question question{.ask = Ask::kRelease, .ino = file->node->ino};
  question.a = handle;
  question.b = file->read_only ? 1 : 0;
  nodes_.close_file(file);
  names_.ask(std::move(question));
}

// ------------------------------------------------------------------------------------------------------- answers

void Mount::answer(uint32_t token, Answer answer) {
  Asked asked;
  {
    const std::lock_guard lock(mutex_);
    const auto found = asked_.find(token);
    if (found == asked_.end()) return;
    asked = found->second;
    asked_.erase(found);
  }
  if (changes(asked.ask)) ahead_.drop();
  reply(asked, answer);
}

uint64_t Mount::tell(uint64_t folder, uint64_t ino, std::string name) {
  ahead_.drop();
  if (folder == 0) {
    notifier_->node(ino);
  } else if (ino == 0) {
    notifier_->name(folder, std::move(name));
  } else {
    notifier_->gone(folder, std::move(name), ino);
  }
  return notifier_->put();
}

void Mount::reply(const Asked& asked, Answer& answer) {
  if (asked.ask == Ask::kSettle && answer.error == 0) {
    const std::shared_ptr<OpenNode> node = nodes_.find(asked.ino);
    if (node != nullptr) node->filling.store(false, std::memory_order_release);
  }
  if (asked.call != nullptr) {
    Call* const call = asked.call;
    const int error = answer.error;
    call->seat->reactor().post([call, error] { call->seat->answered(call, error); });
    return;
  }
  if (answer.error != 0) {
    fuse_reply_err(asked.req, answer.error);
    return;
  }
  switch (asked.ask) {
    case Ask::kLookup:
    case Ask::kMknod: {
      const fuse_entry_param entry = entry_of(*this, answer.node, 0);
      fuse_reply_entry(asked.req, &entry);
      break;
    }
    case Ask::kGetattr:
    case Ask::kSetattr: {
      const struct stat facts = stat_of(*this, answer.node);
      fuse_reply_attr(asked.req, &facts, S_ISDIR(facts.st_mode) ? options_.folder_seconds : options_.attribute_seconds);
      break;
    }
    case Ask::kOpen:
    case Ask::kCreate:
      reply_opened(asked, answer);
      break;
    case Ask::kStatfs: {
      struct statvfs facts = {};
      facts.f_bsize = facts.f_frsize = answer.statistics.block_bytes;
      facts.f_blocks = answer.statistics.blocks;
      facts.f_bfree = facts.f_bavail = answer.statistics.free;
      facts.f_files = answer.statistics.nodes;
      facts.f_namemax = 255;
      fuse_reply_statfs(asked.req, &facts);
      break;
    }
    case Ask::kList:
      reply_list(asked, answer);
      break;
    case Ask::kCopy: {
      const std::shared_ptr<OpenNode> node = nodes_.find(asked.ino2);
      if (node != nullptr) node->filling.store(true, std::memory_order_release);
      fuse_reply_write(asked.req, answer.count);
      break;
    }
    default:
      fuse_reply_err(asked.req, 0);
  }
}

void Mount::reply_opened(const Asked& asked, const Answer& answer) {
  const uint64_t ino = asked.ask == Ask::kCreate ? answer.node.ino : asked.ino;
  OpenFile* const file = nodes_.open_file(ino, answer.handle, answer.read_only);
  fuse_file_info info = asked.info;
  info.fh = reinterpret_cast<uint64_t>(file);
  int result;
  if (asked.ask == Ask::kCreate) {
    const fuse_entry_param entry = entry_of(*this, answer.node, 0);
    result = fuse_reply_create(asked.req, &entry, &info);
  } else {
    result = fuse_reply_open(asked.req, &info);
  }
  // Whoever opened it is gone, and the kernel will not release what it does not know.
  if (result != 0) released(file);
}

void Mount::reply_list(const Asked& asked, Answer& answer) {
  OpenFolder& folder = *asked.folder;
  {
    const std::lock_guard lock(folder.mutex);
    const bool end = answer.end || answer.list.nodes.empty();
    folder.fill(asked.offset, std::move(answer.list), end);
  }
  if (!answer.ahead.empty()) ahead_.put(std::move(answer.ahead));
  const auto bytes = std::make_unique_for_overwrite<char[]>(asked.bytes);
  const size_t used = fill_folder(asked.req, *this, folder, asked.offset, bytes.get(), asked.bytes, asked.plus);
  fuse_reply_buf(asked.req, bytes.get(), used);
}

// ------------------------------------------------------------------------------------------------- what others do

uint32_t Mount::revoke(uint64_t ino) {
  const std::shared_ptr<OpenNode> node = nodes_.find(ino);
  if (node == nullptr) return 0;
  node->handle.store(OpenNode::kRevoked, std::memory_order_seq_cst);
  return node->in_flight.load(std::memory_order_seq_cst);
}

void Mount::changed_elsewhere(uint64_t ino) {
  const std::shared_ptr<OpenNode> node = nodes_.find(ino);
  if (node != nullptr) node->changed_elsewhere.store(true, std::memory_order_relaxed);
}

void Mount::set_on_change(std::function<void(uint64_t)> hook) {
  const std::lock_guard lock(mutex_);
  on_change_ = std::move(hook);
  others_.store(on_change_ != nullptr, std::memory_order_relaxed);
}

void Mount::tell_others(uint64_t ino) {
  std::function<void(uint64_t)> hook;
  {
    const std::lock_guard lock(mutex_);
    hook = on_change_;
  }
  if (hook) hook(ino);
}

void Mount::arm_look() {
  look_timer_ = places_.front().reactor->add_timer(kLookMs, [this] {
    look();
    arm_look();
  });
}

/// Volumes that are open here and were changed over NBD or through another mount: what the page cache has of them goes.
void Mount::look() {
  for (const std::shared_ptr<OpenNode>& node : nodes_.all()) {
    const uint32_t handle = node->handle.load(std::memory_order_acquire);
    if (handle == OpenNode::kRevoked) continue;
    const VolumeRecord& record = segment_.volume(handle);
    const uint64_t ours = load_relaxed(record.mount_changes);
    const uint64_t foreign = load_relaxed(record.changes) - ours;
    const bool elsewhere = node->changed_elsewhere.exchange(false, std::memory_order_relaxed);
    if (!node->fresh && (foreign != node->told || elsewhere)) notifier_->node(node->ino);
    node->fresh = false;
    node->told = foreign;
  }
}

}  // namespace atoll_native::fuse
