// Map pages between frames (or plain arrays) and blobs; their checksums.
#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "addon/addon.h"
#include "map/crc32c.h"
#include "map/page_codec.h"

namespace atoll_native::addon {
namespace {

using Entries = std::array<uint64_t, kPageEntries>;

/// level, page id, base, owner, generation, mapped: from argument `index` on.
PageHeader header_argument(const Napi::CallbackInfo& info, size_t index) {
  PageHeader header;
  header.level = u32(info, index);
  header.page_id = u64(info, index + 1);
  header.base = u64(info, index + 2);
  header.owner = u64(info, index + 3);
  header.generation = u32(info, index + 4);
  header.mapped = u64(info, index + 5);
  return header;
}

/// level, pageId, base, owner, generation, mapped, entryCount
constexpr size_t kHeaderNumbers = 7;

/// Room for a blob at argument `index` (Uint8Array) and offset `index + 1`; null with an error thrown when it is short.
uint8_t* blob_room(const Napi::CallbackInfo& info, size_t index) {
  size_t length = 0;
  uint8_t* const out = bytes(info, index, &length);
  if (out == nullptr) return nullptr;
  const uint64_t at = u64(info, index + 1);
  if (at > length || length - at < kPageBlobMax) {
    throw_errno(info.Env(), ENOBUFS, "no room for a map page");
    return nullptr;
  }
  return out + at;
}

void header_out(const Napi::CallbackInfo& info, size_t index, const PageHeader& header) {
  size_t length = 0;
  uint8_t* const given = bytes(info, index, &length);
  if (given == nullptr) return;
  if (length < kHeaderNumbers * sizeof(double)) return throw_errno(info.Env(), EINVAL, "seven numbers are wanted");
  double out[kHeaderNumbers];
  out[0] = header.level;
  out[1] = static_cast<double>(header.page_id);
  out[2] = static_cast<double>(header.base);
  out[3] = static_cast<double>(header.owner);
  out[4] = header.generation;
  out[5] = static_cast<double>(header.mapped);
  out[6] = header.entry_count;
  std::memcpy(given, out, sizeof out);
}

Napi::Value encode_frame(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  if (core == nullptr) return info.Env().Undefined();
  const uint32_t frame = u32(info, 1);
  if (!core->frames().writable(frame)) {
    throw_errno(info.Env(), EINVAL, "no such frame");
    return info.Env().Undefined();
  }
  uint8_t* const out = blob_room(info, 8);
  if (out == nullptr) return info.Env().Undefined();
  Entries entries;
  for (uint32_t i = 0; i < kPageEntries; i++) {
    entries[i] = core->segment().frame(frame)[i].load(std::memory_order_relaxed);
  }
  return Napi::Number::New(info.Env(), static_cast<double>(encode_page(header_argument(info, 2), entries, out)));
}

Napi::Value decode_frame(const Napi::CallbackInfo& info) {
  Core* const core = core_argument(info).get();
  size_t length = 0;
  const uint8_t* const blob = core == nullptr ? nullptr : bytes(info, 1, &length);
  if (blob == nullptr) return info.Env().Undefined();
  const uint32_t frame = u32(info, 3);
  if (!core->frames().writable(frame)) {
    throw_errno(info.Env(), EINVAL, "no such frame");
    return info.Env().Undefined();
  }
  PageHeader header;
  Entries entries;
  const PageError error = decode_page({blob, length}, u64(info, 2), &header, entries);
  if (error == PageError::kNone) {
    for (uint32_t i = 0; i < kPageEntries; i++) core->frames().publish(frame, i, entries[i]);
    header_out(info, 4, header);
  }
  return Napi::Number::New(info.Env(), static_cast<int>(error));
}

/// The kPageEntries entries of a Uint32Array argument, (lo, hi) each; its words may lie at any multiple of 4.
uint8_t* entries_argument(const Napi::CallbackInfo& info, size_t index) {
  size_t length = 0;
  uint8_t* const words = bytes(info, index, &length);
  if (words == nullptr || length >= sizeof(Entries)) return words;
  throw_errno(info.Env(), EINVAL, "1024 words are wanted");
  return nullptr;
}

Napi::Value decode_plain(const Napi::CallbackInfo& info) {
  size_t length = 0;
  const uint8_t* const blob = bytes(info, 0, &length);
  uint8_t* const words = blob == nullptr ? nullptr : entries_argument(info, 2);
  if (words == nullptr) return info.Env().Undefined();
  PageHeader header;
  Entries entries;
  const PageError error = decode_page({blob, length}, u64(info, 1), &header, entries);
  if (error == PageError::kNone) {
    std::memcpy(words, entries.data(), sizeof entries);
    header_out(info, 3, header);
  }
  return Napi::Number::New(info.Env(), static_cast<int>(error));
}

Napi::Value encode_plain(const Napi::CallbackInfo& info) {
  const uint8_t* const words = entries_argument(info, 0);
  uint8_t* const out = words == nullptr ? nullptr : blob_room(info, 7);
  if (out == nullptr) return info.Env().Undefined();
  Entries entries;
  std::memcpy(entries.data(), words, sizeof entries);
  const size_t length = encode_page(header_argument(info, 1), entries, out);
  return Napi::Number::New(info.Env(), static_cast<double>(length));
}

Napi::Value checksum(const Napi::CallbackInfo& info) {
  size_t length = 0;
  const uint8_t* const data = bytes(info, 0, &length);
  if (data == nullptr) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), crc32c(data, length, u32(info, 1)));
}

}  // namespace

void register_pages(Napi::Env env, Napi::Object exports) {
  method(env, exports, "encodePage", encode_frame);
  method(env, exports, "decodePage", decode_frame);
  method(env, exports, "decodePageTo", decode_plain);
  method(env, exports, "encodePageFrom", encode_plain);
  method(env, exports, "crc32c", checksum);
}

}  // namespace atoll_native::addon
