// What the layers that break or show things have in common: they stand on another peer and pass on what does not
// concern them. Faults are injected by stacking layers, never by conditions in real code.
#pragma once
#include <memory>
#include <utility>

#include "block/block.h"
#include "block/factory.h"

namespace atoll_native {

class Layer : public BlockPeer {
 public:
  Layer(std::shared_ptr<BlockPeer> below, const FaultSpec& spec) : below_(std::move(below)), spec_(spec) {}
  BlockCapabilities capabilities() const override { return below_->capabilities(); }
  uint64_t file_span() const override { return below_->file_span(); }
  int read_now(uint64_t address, uint8_t* buffer, uint32_t length) override {
    return below_->read_now(address, buffer, length);
  }
  int write_now(uint64_t address, const uint8_t* buffer, uint32_t length) override {
    return below_->write_now(address, buffer, length);
  }
  void submit(BlockIo* io, AsyncIo& async) override { below_->submit(io, async); }
  int sync_now(uint32_t file) override { return below_->sync_now(file); }
  uint64_t syncing_ns() const override { return below_->syncing_ns(); }
  bool failed() const override { return below_->failed(); }
  int ensure_file(uint32_t file) override { return below_->ensure_file(file); }
  int grow(uint64_t bytes) override { return below_->grow(bytes); }
  int zero_now(uint64_t address, uint64_t length) override { return below_->zero_now(address, length); }
  BlockUsage usage() override { return below_->usage(); }

 protected:
  /// What the specification calls operations; a copy is a write.
  enum class Touched : uint8_t { kRead, kWrite, kSync, kZero };
  static Touched kind_of(BlockOp op) {
    switch (op) {
      case BlockOp::kRead:
        return Touched::kRead;
      case BlockOp::kSync:
        return Touched::kSync;
      case BlockOp::kZero:
        return Touched::kZero;
      default:
        return Touched::kWrite;
    }
  }
  bool touches(Touched kind) const {
    const bool all = !spec_.read && !spec_.write && !spec_.sync && !spec_.zero;
    switch (kind) {
      case Touched::kRead:
        return all || spec_.read;
      case Touched::kWrite:
        return all || spec_.write;
      case Touched::kSync:
        return all || spec_.sync;
      default:
        return all || spec_.zero;
    }
  }

  const std::shared_ptr<BlockPeer> below_;
  const FaultSpec spec_;
};

}  // namespace atoll_native
