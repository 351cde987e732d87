// One client: its socket on one reactor, first negotiating, then transmitting. Owns what the client holds: buffers, the
// open export, contexts; gives it all back when the last request has ended.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/own_pages.h"
#include "nbd/buffer_pool.h"
#include "nbd/input.h"
#include "nbd/negotiation.h"
#include "nbd/output.h"
#include "nbd/place.h"
#include "nbd/transmission.h"

namespace atoll_native::nbd {

class Connection final : public EventHandler, public Negotiation::Host, public Transmission::Host {
 public:
  // How long a client that said good bye, or was told so, may take for the replies that are left.
  static constexpr uint32_t kLingerMs = 10'000;

  /// Takes over `fd`, a connected stream socket that does not block. Lives until it destroys itself on its reactor.
  static void start(Place& place, int fd);

  // Many pages, and connections come and go all day.
  static void* operator new(size_t) { return memory().take(); }
  static void operator delete(void* connection) { memory().give(connection); }

  /// In-flight requests are answered, new ones refused, then it ends.
  void shut_down();
  /// Ends now; requests on their way end by themselves.
  void kill();
  bool uses(uint32_t handle) const;

  void on_events(uint32_t events) override;
  bool poll() override;
  void on_turn_end() override;

 private:
  static OwnPages& memory();
  Connection(Place& place, int fd);
  ~Connection() override;

  // Negotiation::Host
  void ask_open(const std::string& name) override;
  void ask_list() override;
  void ask_contexts(const std::string& name, const std::vector<std::string>& queries, bool listing) override;
  void release(uint32_t handle, bool read_only) override;
  // Transmission::Host
  void wake() override;

  template <typename Answer>
  std::function<void(Answer)> answer_here(void (Connection::*then)(Answer),
                                          void (*orphan)(Place&, uint32_t, const Answer&));
  void open_answered(OpenAnswer answer);
  void list_answered(ListAnswer answer);
  void contexts_answered(ContextsAnswer answer);

  void negotiate(Negotiation::Progress progress);
  bool send_reply();
  void begin_transmission();
  void after_run();
  void want(uint32_t events);
  void close_socket();
  void end_when_finished();

  Place& place_;
  int fd_;
  uint32_t events_ = 0;  // that the reactor watches
  std::shared_ptr<ConnectionStatus> status_;
  BufferAccount account_;
  Input input_;
  Output output_;
  Negotiation negotiation_;
  Negotiation::Progress progress_ = Negotiation::Progress::kReply;
  size_t reply_sent_ = 0;  // bytes of negotiation_.output()
  std::unique_ptr<Transmission> transmission_;
  uint64_t timer_ = 0;  // of the negotiation, later of the good bye; 0 none
  bool lingering_ = false;
  bool retired_ = false;
};

}  // namespace atoll_native::nbd
