// Option haggling: fixed newstyle, from the greeting to the choice of an export. Knows no socket and no thread: bytes
// come in, bytes go out, questions go to the Host, whose answers come back through answer_*(). While a question is open
// nothing is parsed.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/directory.h"
#include "nbd/protocol.h"
#include "nbd/transmission.h"
#include "nbd/validate.h"

namespace atoll_native::nbd {

class Negotiation {
 public:
  // Data of one option. The longest sensible one selects kContextsMax contexts with names of 4096 bytes.
  static constexpr uint32_t kOptionBytesMax = 64u << 10;
  // Options of one client: far more than any sends, far less than keeps a core busy for the time limit.
  static constexpr uint32_t kOptionsMax = 1024;
  // Queries of one LIST_META_CONTEXT or SET_META_CONTEXT.
  static constexpr uint32_t kQueriesMax = 64;
  // Contexts listed.
  static constexpr uint32_t kContextsListedMax = 4096;
  // Reply to LIST: about 100 thousand exports.
  static constexpr uint64_t kListBytesMax = 16u << 20;
  // Texts for people in replies.
  static constexpr uint32_t kTextBytesMax = 512;

  enum class Progress : uint8_t {
    kNeedBytes,
    kReply,         // output() must be sent before more is parsed
    kWaiting,       // for an answer
    kTransmission,  // output() must be sent, then session() and contexts() hold
    kClose,         // after output() is sent, if it can be
  };

  class Host {
   public:
    virtual ~Host() = default;
    virtual void ask_open(const std::string& name) = 0;
    virtual void ask_list() = 0;
    virtual void ask_contexts(const std::string& name, const std::vector<std::string>& queries, bool listing) = 0;
    /// A handle is not needed any more.
    virtual void release(uint32_t handle, bool read_only) = 0;
  };

  explicit Negotiation(Host& host);

  /// Uses what it can of `bytes`; `*used` says how much. At most one option per call.
  Progress consume(std::span<const uint8_t> bytes, uint32_t* used);
  Progress answer_open(OpenAnswer answer);
  Progress answer_list(const ListAnswer& answer);
  Progress answer_contexts(const ContextsAnswer& answer);
  /// Options from now on get ERR_SHUTDOWN.
  void shut_down() { shutting_down_ = true; }
  /// Gives all handles back; for the end of a connection, also after transmission.
  void release_handles();

  std::string& output() { return output_; }
  const Session& session() const { return session_; }
  /// An export that was asked about stays open until another one is, or the end.
  bool has_open(uint32_t handle) const { return open_ && session_.volume == handle; }
  const std::vector<StatusContext>& contexts() const { return contexts_; }
  const std::string& export_name() const { return name_; }

 private:
  enum class Phase : uint8_t { kClientFlags, kOptions, kWaiting, kDone };

  Progress option(uint32_t option, std::span<const uint8_t> data);
  Progress info(std::span<const uint8_t> data);
  Progress meta_context(std::span<const uint8_t> data);
  Progress open(std::string_view name);
  Progress opened();
  void reply(uint32_t type, std::string_view data = {});
  Progress fail(uint32_t type, std::string_view text);
  void drop_contexts();
  void info_reply(uint16_t type, std::string_view data);

  Host& host_;
  Phase phase_ = Phase::kClientFlags;
  bool no_zeroes_ = false;
  bool fixed_ = false;
  bool shutting_down_ = false;
  uint32_t options_ = 0;
  std::string output_;

  // the option being answered
  uint32_t option_ = 0;
  std::string asked_name_;
  std::vector<uint16_t> info_wanted_;

  // what holds so far
  bool open_ = false;  // name_ is open as session_.volume
  std::string name_;
  std::string description_;
  Session session_;
  std::string context_name_;  // the export the contexts were selected on
  std::vector<StatusContext> contexts_;
};

}  // namespace atoll_native::nbd
