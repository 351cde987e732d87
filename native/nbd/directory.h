// What the frontend asks of the control side: which exports there are, and to open one. The addon's answers come from
// JavaScript; tests have a native one.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace atoll_native::nbd {

struct OpenAnswer {
  int error = 0;        // errno
  std::string message;  // for people, when there is an error
  uint32_t handle = 0;
  uint64_t size = 0;  // bytes
  uint32_t block_size = 65536;
  bool read_only = false;
  std::string description;
};

struct ExportEntry {
  std::string name;
  std::string description;
};

struct ListAnswer {
  int error = 0;
  std::vector<ExportEntry> exports;
};

struct ContextEntry {
  std::string name;
  uint32_t handle = kBaseAllocation;  // Request::context
  static constexpr uint32_t kBaseAllocation = UINT32_MAX;
};

struct ContextsAnswer {
  int error = 0;
  std::string message;
  std::vector<ContextEntry> contexts;
};

/// Asked on reactors' threads; never blocks. Each answer is called exactly once, from any thread, at any later time:
/// the connection may be gone by then, and what was opened for it is given back through closed().
class Directory {
 public:
  virtual ~Directory() = default;
  virtual void open(const std::string& name, uint32_t connection, std::function<void(OpenAnswer)> answer) = 0;
  virtual void list(std::function<void(ListAnswer)> answer) = 0;
  /// Contexts of export `name` that match the queries (`base:allocation`, `atoll:changed-since:SNAP`). `listing`: a
  /// query may also be a namespace or prefix that ends in a colon, no queries mean all, and no handles are opened.
  virtual void contexts(const std::string& name, const std::vector<std::string>& queries, bool listing,
                        std::function<void(ContextsAnswer)> answer) = 0;
  /// The connection does not use `handle` any more: once for each handle it got by open() or contexts(). `read_only` as
  /// open() answered it; true for those of contexts.
  virtual void closed(uint32_t connection, uint32_t handle, bool read_only) = 0;
};

}  // namespace atoll_native::nbd
