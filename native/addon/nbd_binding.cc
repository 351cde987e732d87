#include "addon/nbd_binding.h"

#include <cerrno>
#include <map>
#include <mutex>
#include <utility>

#include "addon/addon.h"
#include "nbd/directory.h"
#include "nbd/server.h"
#include "reactor/reactor.h"
#include "volume/volume_peer.h"

namespace atoll_native::addon {
namespace {

/// Listeners that are not told otherwise are their owner's only.
constexpr uint32_t kListenMode = 0600;

/// Questions go to JavaScript as calls with a token; answers come back by the token, each once.
class JsDirectory final : public nbd::Directory {
 public:
  JsDirectory(Napi::Env env, const Napi::Object& events) : events_(Napi::Persistent(events)) {
    Napi::Function nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
    calls_ = Napi::ThreadSafeFunction::New(env, nothing, "nbd", 0, 1);
    // A server that listens does not keep the process alive by itself: the control socket does.
    calls_.Unref(env);
  }

  void open(const std::string& name, uint32_t connection, std::function<void(nbd::OpenAnswer)> answer) override {
    const uint32_t token = remember(opens_, answer);
    const bool asked = call([token, name, connection](Napi::Env env, Napi::Object events) {
      events.Get("open").As<Napi::Function>().Call(
          events, {Napi::Number::New(env, token), Napi::String::New(env, name), Napi::Number::New(env, connection)});
    });
    if (!asked) answer_open(token, refusal<nbd::OpenAnswer>());
  }

  void list(std::function<void(nbd::ListAnswer)> answer) override {
    const uint32_t token = remember(lists_, answer);
    const bool asked = call([token](Napi::Env env, Napi::Object events) {
      events.Get("list").As<Napi::Function>().Call(events, {Napi::Number::New(env, token)});
    });
    if (!asked) answer_list(token, refusal<nbd::ListAnswer>());
  }

  void contexts(const std::string& name, const std::vector<std::string>& queries, bool listing,
                std::function<void(nbd::ContextsAnswer)> answer) override {
    const uint32_t token = remember(contexts_, answer);
    const bool asked = call([token, name, queries, listing](Napi::Env env, Napi::Object events) {
      Napi::Array list = Napi::Array::New(env, queries.size());
      for (uint32_t i = 0; i < queries.size(); i++) list.Set(i, Napi::String::New(env, queries[i]));
      events.Get("contexts")
          .As<Napi::Function>()
          .Call(events,
                {Napi::Number::New(env, token), Napi::String::New(env, name), list, Napi::Boolean::New(env, listing)});
    });
    if (!asked) answer_contexts(token, refusal<nbd::ContextsAnswer>());
  }

  void closed(uint32_t connection, uint32_t handle, bool read_only) override {
    call([connection, handle, read_only](Napi::Env env, Napi::Object events) {
      events.Get("closed").As<Napi::Function>().Call(
          events,
          {Napi::Number::New(env, connection), Napi::Number::New(env, handle), Napi::Boolean::New(env, read_only)});
    });
  }

  void answer_open(uint32_t token, nbd::OpenAnswer answer) { give(opens_, token, std::move(answer)); }
  void answer_list(uint32_t token, nbd::ListAnswer answer) { give(lists_, token, std::move(answer)); }
  void answer_contexts(uint32_t token, nbd::ContextsAnswer answer) { give(contexts_, token, std::move(answer)); }

  /// Main thread, after the server has stopped: JavaScript is not told anything any more. A connection whose last
  /// request ends later still finds this object here.
  void release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    calls_.Release();
    events_.Reset();
  }

 private:
  template <typename Answer>
  using Waiting = std::map<uint32_t, std::function<void(Answer)>>;

  template <typename Answer>
  static Answer refusal() {
    Answer answer;
    answer.error = ESHUTDOWN;
    return answer;
  }

  template <typename Answer>
  uint32_t remember(Waiting<Answer>& waiting, std::function<void(Answer)> answer) {
    const std::lock_guard lock(mutex_);
    waiting[++last_token_] = std::move(answer);
    return last_token_;
  }

  template <typename Answer>
  void give(Waiting<Answer>& waiting, uint32_t token, Answer answer) {
    std::function<void(Answer)> receiver;
    {
      const std::lock_guard lock(mutex_);
      const auto found = waiting.find(token);
      if (found == waiting.end()) return;
      receiver = std::move(found->second);
      waiting.erase(found);
    }
    receiver(std::move(answer));
  }

  /// Runs `work` on the main thread. False when JavaScript is going down.
  bool call(std::function<void(Napi::Env, Napi::Object)> work) {
    const std::lock_guard lock(mutex_);
    if (released_) return false;
    return calls_.NonBlockingCall([this, work = std::move(work)](Napi::Env env, Napi::Function) {
      if (env != nullptr && !events_.IsEmpty()) work(env, events_.Value());
    }) == napi_ok;
  }

  Napi::ObjectReference events_;
  Napi::ThreadSafeFunction calls_;
  std::mutex mutex_;  // of what follows; events_ is the main thread's
  bool released_ = false;
  uint32_t last_token_ = 0;
  Waiting<nbd::OpenAnswer> opens_;
  Waiting<nbd::ListAnswer> lists_;
  Waiting<nbd::ContextsAnswer> contexts_;
};

struct Serving {
  std::unique_ptr<JsDirectory> directory;
  std::unique_ptr<nbd::Server> server;
};

/// Servers by core; main thread only. One is kept until the next is made after its core has gone, for its reactors may
/// look at it until they have ended.
std::map<uint32_t, std::shared_ptr<Serving>>& servers() {
  static auto* const all = new std::map<uint32_t, std::shared_ptr<Serving>>;
  return *all;
}

std::shared_ptr<Serving> serving_argument(const Napi::CallbackInfo& info) {
  const auto found = servers().find(u32(info, 0));
  if (found != servers().end()) return found->second;
  throw_errno(info.Env(), EINVAL, "nbdStart first");
  return nullptr;
}

Napi::Value start(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Core> core = core_argument(info);
  if (core == nullptr) return env.Undefined();
  const uint32_t id = u32(info, 0);
  if (servers().contains(id)) {
    throw_errno(env, EALREADY, "NBD is served already");
    return env.Undefined();
  }
  const Napi::Object given = info[2].As<Napi::Object>();
  nbd::Limits limits;
  limits.connections_max = given.Get("connectionsMax").ToNumber().Uint32Value();
  limits.negotiation_ms = given.Get("negotiationMs").ToNumber().Uint32Value();
  limits.connection_bytes_max = static_cast<uint64_t>(given.Get("connectionBytesMax").ToNumber().Int64Value());
  std::vector<nbd::Server::Seat> seats;
  for (uint32_t i = 0; i < core->reactor_count(); i++)
    seats.push_back({&core->reactor(i), &core->reactor(i).volumes()});
  auto serving = std::make_shared<Serving>();
  serving->directory = std::make_unique<JsDirectory>(env, info[1].As<Napi::Object>());
  serving->server = std::make_unique<nbd::Server>(std::move(seats), *serving->directory, limits);
  std::erase_if(servers(), [](const auto& one) { return find_core(one.first) == nullptr; });
  servers()[id] = serving;
  core->on_stop([serving] {
    serving->server->stop();
    serving->directory->release();
  });
  return env.Undefined();
}

Napi::Value listen(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<Serving> serving = serving_argument(info);
  if (serving == nullptr) return env.Undefined();
  const std::string address = info[1].ToString().Utf8Value();
  const uint32_t mode = info.Length() > 2 && info[2].IsNumber() ? u32(info, 2) : kListenMode;
  std::string bound;
  std::string message;
  const int id = serving->server->listen(address, mode, &bound, &message);
  if (id < 0) {
    throw_errno(env, -id, message);
    return env.Undefined();
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("id", id);
  result.Set("address", bound);
  return result;
}

Napi::Value close(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Serving> serving = serving_argument(info);
  if (serving != nullptr) serving->server->close_listener(static_cast<int>(u32(info, 1)));
  return info.Env().Undefined();
}

std::string text(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
}

int error_of(const Napi::Object& answer) { return answer.Get("error").ToNumber().Int32Value(); }

Napi::Value answer_open(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Serving> serving = serving_argument(info);
  if (serving == nullptr) return info.Env().Undefined();
  const Napi::Object given = info[2].As<Napi::Object>();
  nbd::OpenAnswer answer;
  answer.error = error_of(given);
  answer.message = text(given, "message");
  if (answer.error == 0) {
    answer.handle = given.Get("handle").ToNumber().Uint32Value();
    answer.size = static_cast<uint64_t>(given.Get("size").ToNumber().Int64Value());
    answer.block_size = given.Get("blockSize").ToNumber().Uint32Value();
    answer.read_only = given.Get("readOnly").ToBoolean();
    answer.description = text(given, "description");
  }
  serving->directory->answer_open(u32(info, 1), std::move(answer));
  return info.Env().Undefined();
}

Napi::Value answer_list(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Serving> serving = serving_argument(info);
  if (serving == nullptr) return info.Env().Undefined();
  const Napi::Array given = info[2].As<Napi::Array>();
  nbd::ListAnswer answer;
  for (uint32_t i = 0; i < given.Length(); i++) {
    const Napi::Object one = given.Get(i).As<Napi::Object>();
    answer.exports.push_back({text(one, "name"), text(one, "description")});
  }
  serving->directory->answer_list(u32(info, 1), std::move(answer));
  return info.Env().Undefined();
}

Napi::Value answer_contexts(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Serving> serving = serving_argument(info);
  if (serving == nullptr) return info.Env().Undefined();
  const Napi::Object given = info[2].As<Napi::Object>();
  nbd::ContextsAnswer answer;
  answer.error = error_of(given);
  const Napi::Array list = given.Get("contexts").As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    const Napi::Object one = list.Get(i).As<Napi::Object>();
    answer.contexts.push_back({text(one, "name"), one.Get("handle").ToNumber().Uint32Value()});
  }
  serving->directory->answer_contexts(u32(info, 1), std::move(answer));
  return info.Env().Undefined();
}

Napi::Value disconnect(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Serving> serving = serving_argument(info);
  if (serving != nullptr) serving->server->disconnect(u32(info, 1));
  return info.Env().Undefined();
}

/// Ends all connections and listeners, so that what they hold is released while JavaScript still listens.
Napi::Value stop(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Serving> serving = serving_argument(info);
  if (serving != nullptr) serving->server->stop();
  return info.Env().Undefined();
}

Napi::Value status(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  Napi::Array list = Napi::Array::New(env);
  const auto found = servers().find(u32(info, 0));
  if (found != servers().end()) {
    uint32_t i = 0;
    for (const nbd::ConnectionFacts& facts : found->second->server->connections()) {
      Napi::Object one = Napi::Object::New(env);
      one.Set("id", facts.id);
      one.Set("name", facts.name);
      one.Set("handle", facts.handle);
      one.Set("inFlight", facts.in_flight);
      one.Set("bytesHeld", static_cast<double>(facts.bytes_held));
      one.Set("reactor", facts.reactor);
      list.Set(i++, one);
    }
  }
  result.Set("connections", list);
  return result;
}

}  // namespace

void register_nbd(Napi::Env env, Napi::Object exports) {
  method(env, exports, "nbdStart", start);
  method(env, exports, "nbdListen", listen);
  method(env, exports, "nbdClose", close);
  method(env, exports, "nbdStop", stop);
  method(env, exports, "nbdAnswerOpen", answer_open);
  method(env, exports, "nbdAnswerList", answer_list);
  method(env, exports, "nbdAnswerContexts", answer_contexts);
  method(env, exports, "nbdDisconnect", disconnect);
  method(env, exports, "nbdStatus", status);
}

}  // namespace atoll_native::addon
