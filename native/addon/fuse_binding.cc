#include "addon/fuse_binding.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "addon/addon.h"
#include "fuse/mount.h"
#include "io/clock.h"
#include "reactor/reactor.h"
#include "volume/volume_peer.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

namespace atoll_native::addon {
namespace {

/// Numbers of one node in an answer: ino, mode, links, size, blocks, io bytes, mtime, ctime.
constexpr size_t kNodeNumbers = 8;

/// Questions wait in a box; JavaScript is woken once for as many as there are by then.
class JsNames final : public fuse::Names {
 public:
  JsNames(Napi::Env env, const Napi::Object& events) : events_(Napi::Persistent(events)) {
    Napi::Function nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
    calls_ = Napi::ThreadSafeFunction::New(env, nothing, "fuse", 0, 1);
    // What is mounted does not keep the process alive by itself: the control socket does.
    calls_.Unref(env);
  }

  void ask(fuse::Question question) override {
    const std::lock_guard lock(mutex_);
    box_.push_back(std::move(question));
    wake();
  }
  void live() override {
    const std::lock_guard lock(mutex_);
    live_ = true;
    wake();
  }
  void ended() override {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    wake();
  }
  /// Main thread: JavaScript is not told anything any more.
  void release() {
    const std::lock_guard lock(mutex_);
    if (std::exchange(released_, true)) return;
    calls_.Release();
    events_.Reset();
  }

 private:
  void wake() {
    if (released_ || std::exchange(woken_, true)) return;
    calls_.NonBlockingCall([this](Napi::Env env, Napi::Function) {
      if (env != nullptr) empty(env);
    });
  }

  void empty(Napi::Env env) {
    std::vector<fuse::Question> questions;
    bool live = false;
    bool ended = false;
    {
      const std::lock_guard lock(mutex_);
      woken_ = false;
      if (released_) return;
      questions.swap(box_);
      live = std::exchange(live_, false);
      ended = std::exchange(ended_, false);
    }
    const Napi::HandleScope scope(env);
    const Napi::Object events = events_.Value();
    if (live) events.Get("live").As<Napi::Function>().Call(events, {});
    const Napi::Function ask = events.Get("ask").As<Napi::Function>();
    for (const fuse::Question& q : questions) {
      const Napi::HandleScope inner(env);
      const auto number = [&](uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); };
      ask.Call(events, {number(q.token), number(static_cast<uint32_t>(q.ask)), number(q.ino), number(q.ino2),
                        Napi::String::New(env, q.name), Napi::String::New(env, q.name2), number(q.a), number(q.b),
                        number(q.c), number(q.d)});
      if (env.IsExceptionPending()) return;
    }
    if (ended) events.Get("ended").As<Napi::Function>().Call(events, {});
  }

  Napi::ObjectReference events_;
  Napi::ThreadSafeFunction calls_;
  std::mutex mutex_;  // of what follows; events_ is the main thread's
  std::vector<fuse::Question> box_;
  bool woken_ = false;
  bool live_ = false;
  bool ended_ = false;
  bool released_ = false;
};

struct Mounted {
  std::unique_ptr<JsNames> names;
  std::unique_ptr<fuse::Mount> mount;
};

/// Mounts by core and number; main thread only. They are kept until their core is gone, for its reactors may look at
/// them until they have ended.
struct Mounts {
  uint32_t next = 1;
  std::map<uint32_t, std::map<uint32_t, std::shared_ptr<Mounted>>> by_core;
};

Mounts& mounts() {
  static auto* const all = new Mounts;
  return *all;
}

std::shared_ptr<Mounted> mounted_argument(const Napi::CallbackInfo& info) {
  const auto core = mounts().by_core.find(u32(info, 0));
  if (core != mounts().by_core.end()) {
    const auto found = core->second.find(u32(info, 1));
    if (found != core->second.end()) return found->second;
  }
  throw_errno(info.Env(), EINVAL, "there is no such mount");
  return nullptr;
}

/// Every mount tells the others of what is written through it, as long as there are others.
void introduce(uint32_t core) {
  auto& all = mounts().by_core[core];
  for (auto& [id, one] : all) {
    if (all.size() < 2) {
      one->mount->set_on_change(nullptr);
      continue;
    }
    std::vector<std::weak_ptr<Mounted>> others;
    for (auto& [other_id, other] : all) {
      if (other_id != id) others.push_back(other);
    }
    one->mount->set_on_change([others](uint64_t ino) {
      for (const std::weak_ptr<Mounted>& other : others) {
        if (const std::shared_ptr<Mounted> there = other.lock()) there->mount->changed_elsewhere(ino);
      }
    });
  }
}

Napi::Value mount(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Core> core = core_argument(info);
  if (core == nullptr) return env.Undefined();
  const uint32_t core_id = u32(info, 0);
  const Napi::Object given = info[2].As<Napi::Object>();
  fuse::MountOptions options;
  options.path = given.Get("path").ToString().Utf8Value();
  options.allow_other = given.Get("allowOther").ToBoolean();
  options.uid = given.Get("uid").ToNumber().Uint32Value();
  options.gid = given.Get("gid").ToNumber().Uint32Value();
  options.name_seconds = given.Get("nameSeconds").ToNumber().DoubleValue();
  options.attribute_seconds = given.Get("attributeSeconds").ToNumber().DoubleValue();
  options.folder_seconds = given.Get("folderSeconds").ToNumber().DoubleValue();
  std::vector<fuse::Mount::Place> places;
  // Mounts have their hosts on different reactors.
  for (uint32_t i = 0; i < core->reactor_count(); i++) {
    Reactor& reactor = core->reactor((mounts().next + i) % core->reactor_count());
    places.push_back({&reactor, &reactor.volumes()});
  }
  auto mounted = std::make_shared<Mounted>();
  mounted->names = std::make_unique<JsNames>(env, info[1].As<Napi::Object>());
  mounted->mount =
      std::make_unique<fuse::Mount>(core->segment(), std::move(places), *mounted->names, std::move(options));
  std::string message;
  const int error = mounted->mount->start(&message);
  if (error != 0) {
    mounted->names->release();
    throw_errno(env, -error, message);
    return env.Undefined();
  }
  std::erase_if(mounts().by_core, [](const auto& one) { return find_core(one.first) == nullptr; });
  const uint32_t id = mounts().next++;
  mounts().by_core[core_id][id] = mounted;
  introduce(core_id);
  core->on_stop([mounted] {
    mounted->mount->stop();
    mounted->names->release();
  });
  return Napi::Number::New(env, id);
}

/// Blocks until what is on its way is answered, for a bounded time.
Napi::Value unmount(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Mounted> mounted = mounted_argument(info);
  if (mounted == nullptr) return info.Env().Undefined();
  mounted->mount->stop();
  mounted->names->release();
  const uint32_t core = u32(info, 0);
  mounts().by_core[core].erase(u32(info, 1));
  introduce(core);
  return info.Env().Undefined();
}

fuse::Node node_of(const double* numbers) {
  fuse::Node node;
  node.ino = static_cast<uint64_t>(numbers[0]);
  node.mode = static_cast<uint32_t>(numbers[1]);
  node.links = static_cast<uint32_t>(numbers[2]);
  node.size = static_cast<uint64_t>(numbers[3]);
  node.blocks = static_cast<uint64_t>(numbers[4]);
  node.io_bytes = static_cast<uint32_t>(numbers[5]);
  node.mtime_ms = static_cast<uint64_t>(numbers[6]);
  node.ctime_ms = static_cast<uint64_t>(numbers[7]);
  return node;
}

/// The nodes of a folder, and behind them those of the folders `ahead`, each a number and a count.
/// `names`: each ends with a NUL.
void lists_of(const double* numbers, size_t count, const std::string& names, const double* ahead, size_t folders,
              fuse::Answer* answer) {
  count = std::min(count, static_cast<size_t>(std::count(names.begin(), names.end(), '\0')));
  size_t at = 0;
  size_t name = 0;
  const auto add = [&](fuse::Listing* list, size_t until) {
    list->made_ms = monotonic_ms();
    for (; at < std::min(until, count); at++) {
      const size_t end = names.find('\0', name);
      list->nodes.push_back(node_of(numbers + at * kNodeNumbers));
      list->names.push_back(names.substr(name, end - name));
      name = end + 1;
    }
  };
  size_t later = 0;
  for (size_t i = 0; i < folders; i++) later += static_cast<size_t>(ahead[2 * i + 1]);
  add(&answer->list, count - std::min(later, count));
  for (size_t i = 0; i < folders; i++) {
    auto& [folder, list] = answer->ahead.emplace_back();
    folder = static_cast<uint64_t>(ahead[2 * i]);
    add(&list, at + static_cast<size_t>(ahead[2 * i + 1]));
  }
}

/// fuseAnswer(core, mount, token, errno, { node?, open?, copy?, statistics?, list?, names?, end?, ahead? })
Napi::Value answer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Mounted> mounted = mounted_argument(info);
  if (mounted == nullptr) return env.Undefined();
  fuse::Answer answer;
  answer.error = static_cast<int>(u32(info, 3));
  if (answer.error == 0 && info.Length() > 4 && info[4].IsObject()) {
    const Napi::Object given = info[4].As<Napi::Object>();
    const auto numbers = [&](const char* name, size_t least, size_t* count) -> const double* {
      const Napi::Value value = given.Get(name);
      if (!value.IsTypedArray()) return nullptr;
      const auto array = value.As<Napi::Float64Array>();
      *count = array.ElementLength();
      return *count < least ? nullptr : array.Data();
    };
    size_t count = 0;
    if (const double* n = numbers("node", kNodeNumbers, &count)) answer.node = node_of(n);
    if (const double* n = numbers("open", 2, &count)) {
      answer.handle = static_cast<uint32_t>(n[0]);
      answer.read_only = n[1] != 0;
    }
    if (const double* n = numbers("copy", 1, &count)) answer.count = static_cast<uint64_t>(n[0]);
    if (const double* n = numbers("statistics", 4, &count)) {
      answer.statistics = {static_cast<uint32_t>(n[0]), static_cast<uint64_t>(n[1]), static_cast<uint64_t>(n[2]),
                           static_cast<uint64_t>(n[3])};
    }
    if (const double* n = numbers("list", 0, &count)) {
      size_t folders = 0;
      const double* const folder = numbers("ahead", 0, &folders);
      lists_of(n, count / kNodeNumbers, given.Get("names").ToString().Utf8Value(), folder, folders / 2, &answer);
      answer.end = given.Get("end").ToBoolean();
    }
  }
  mounted->mount->answer(u32(info, 2), std::move(answer));
  return env.Undefined();
}

/// fuseTell(core, mount, folder, ino, name): folder 0: a node; ino 0: there is something else of that name now.
Napi::Value tell(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Mounted> mounted = mounted_argument(info);
  if (mounted == nullptr) return info.Env().Undefined();
  const uint64_t put = mounted->mount->tell(u64(info, 2), u64(info, 3), info[4].ToString().Utf8Value());
  return Napi::Number::New(info.Env(), static_cast<double>(put));
}

Napi::Value told(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Mounted> mounted = mounted_argument(info);
  if (mounted == nullptr) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), static_cast<double>(mounted->mount->notifier().done()));
}

Napi::Value revoke(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Mounted> mounted = mounted_argument(info);
  if (mounted == nullptr) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), mounted->mount->revoke(u64(info, 2)));
}

/// The calling thread, and those that it makes from then on, never wait for memory that only they can free.
Napi::Value io_flusher(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0);
}

Napi::Value is_io_flusher(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1);
}

/// execute(file, argv): returns an errno, or not at all.
Napi::Value execute(const Napi::CallbackInfo& info) {
  const std::string file = info[0].ToString().Utf8Value();
  const Napi::Array given = info[1].As<Napi::Array>();
  std::vector<std::string> texts;
  for (uint32_t i = 0; i < given.Length(); i++) texts.push_back(given.Get(i).ToString().Utf8Value());
  std::vector<char*> argv;
  for (std::string& text : texts) argv.push_back(text.data());
  argv.push_back(nullptr);
  // Node closes these to whoever comes after it.
  for (int fd = 0; fd <= 2; fd++) fcntl(fd, F_SETFD, 0);
  execve(file.c_str(), argv.data(), environ);
  const int error = errno;
  for (int fd = 0; fd <= 2; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
  return Napi::Number::New(info.Env(), error);
}

}  // namespace

void register_fuse(Napi::Env env, Napi::Object exports) {
  method(env, exports, "fuseMount", mount);
  method(env, exports, "fuseUnmount", unmount);
  method(env, exports, "fuseAnswer", answer);
  method(env, exports, "fuseTell", tell);
  method(env, exports, "fuseTold", told);
  method(env, exports, "fuseRevoke", revoke);
  method(env, exports, "ioFlusher", io_flusher);
  method(env, exports, "isIoFlusher", is_io_flusher);
  method(env, exports, "execute", execute);
}

}  // namespace atoll_native::addon
