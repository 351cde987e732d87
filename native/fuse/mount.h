// A mount: the FUSE frontend as a whole, of which there may be several. Start here; a request's way is
// Mount -> Seat (one per reactor, reading from one /dev/fuse) -> the reactor's RequestSink, and back; or
// Seat -> libfuse -> names.cc -> Names (the control side) -> Mount::answer().
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "fuse/ahead.h"
#include "fuse/names.h"
#include "fuse/notifier.h"
#include "fuse/open_file.h"
#include "fuse/seat.h"
#include "segment/segment.h"

namespace atoll_native::fuse {

struct MountOptions {
  std::string path;
  bool allow_other = false;
  uint32_t uid = 0;
  uint32_t gid = 0;
  double name_seconds = 1;       // the kernel asks again for a name after this
  double attribute_seconds = 1;  // and for attributes
  double folder_seconds = 10;    // and for both of a folder
};

class Mount {
 public:
  struct Place {
    Reactor* reactor;
    RequestSink* sink;
  };
  // How often open volumes are looked at for changes that did not come through this mount.
  static constexpr uint64_t kLookMs = 500;
  // How long unmounting waits for requests on their way.
  static constexpr uint32_t kStopMs = 5'000;

  /// `places`: every reactor; the first one is the host (seat.h).
  Mount(Segment& segment, std::vector<Place> places, Names& names, MountOptions options);
  ~Mount();
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  // ---- any thread but the reactors'
  /// 0 or -errno and a message. The tree is live when Names::live() was called.
  int start(std::string* message);
  /// Detaches the tree, ends what is on its way. Idempotent. `lazily`: who has a file open keeps it until he closes it
  /// is not possible with FUSE: everything that is open answers ENOTCONN from then on.
  void stop();

  // ---- any thread
  void answer(uint32_t token, Answer answer);
  /// Something is not as it was: what the kernel knows of a node (folder 0), of a name (ino 0), or that the node has
  /// it, is to be forgotten. How many of these there were.
  uint64_t tell(uint64_t folder, uint64_t ino, std::string name);
  Notifier& notifier() { return *notifier_; }
  /// An open node answers EIO from now on; how many of its requests are on their way.
  uint32_t revoke(uint64_t ino);
  /// Somebody else changed bytes of it.
  void changed_elsewhere(uint64_t ino);
  /// Told of every change through this mount, when there is another one.
  void set_on_change(std::function<void(uint64_t)> hook);

  // ---- for seats and callbacks
  const MountOptions& options() const { return options_; }
  Segment& segment() { return segment_; }
  fuse_session* session() { return session_; }
  OpenNodes& nodes() { return nodes_; }
  Ahead& ahead() { return ahead_; }
  void handshake();
  /// The host has more to do than it can: all take part.
  void share();
  /// The connection is gone.
  void disconnected();
  void ask(Question question, Call* call);
  void ask(Question question, fuse_req_t req);
  void ask_open(Question question, fuse_req_t req, const fuse_file_info& info);
  void ask_list(fuse_req_t req, OpenFolder* folder, uint64_t offset, size_t bytes, bool plus);
  void released(OpenFile* file);
  void wrote(OpenNode& node) {
    if (others_.load(std::memory_order_relaxed)) tell_others(node.ino);
  }

 private:
  /// A question on its way.
  struct Asked {
    Ask ask = Ask::kLookup;
    uint64_t ino = 0;
    uint64_t ino2 = 0;
    fuse_req_t req = nullptr;
    Call* call = nullptr;
    fuse_file_info info = {};
    OpenFolder* folder = nullptr;
    uint64_t offset = 0;
    size_t bytes = 0;
    bool plus = false;
  };
  void put(Question question, Asked asked);
  void reply(const Asked& asked, Answer& answer);
  void reply_opened(const Asked& asked, const Answer& answer);
  void reply_list(const Asked& asked, Answer& answer);
  void tell_others(uint64_t ino);
  void look();
  void arm_look();

  Segment& segment_;
  std::vector<Place> places_;
  Names& names_;
  const MountOptions options_;
  fuse_session* session_ = nullptr;
  std::vector<std::unique_ptr<Seat>> seats_;
  std::unique_ptr<Notifier> notifier_;
  OpenNodes nodes_;
  Ahead ahead_;
  uint64_t look_timer_ = 0;  // the first reactor's

  std::mutex mutex_;  // of what follows
  std::unordered_map<uint32_t, Asked> asked_;
  uint32_t last_token_ = 0;
  bool mounted_ = false;
  bool stopping_ = false;
  std::function<void(uint64_t)> on_change_;

  std::atomic<bool> others_{false};
  std::atomic<bool> ended_{false};
};

/// libfuse's callbacks (names.cc).
extern const fuse_lowlevel_ops kOperations;
/// Fills `to` with what of a folder's window fits; bytes written.
size_t fill_folder(fuse_req_t req, const Mount& mount, OpenFolder& folder, uint64_t offset, char* to, size_t bytes,
                   bool plus);
struct stat stat_of(const Mount& mount, const Node& node);
/// `age_seconds`: since that was true; the kernel believes it for as much less.
fuse_entry_param entry_of(const Mount& mount, const Node& node, double age_seconds);

}  // namespace atoll_native::fuse
