#include "nbd/negotiation.h"

#include <algorithm>

namespace atoll_native::nbd {
namespace {

template <typename T>
void append(std::string& to, T value) {
  uint8_t bytes[sizeof(T)];
  store<T>(bytes, value);
  to.append(reinterpret_cast<const char*>(bytes), sizeof(T));
}

/// Takes values off the front of an option's data; every length is checked before it is used.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> data) : left_(data) {}

  template <typename T>
  bool number(T* value) {
    if (left_.size() < sizeof(T)) return false;
    *value = load<T>(left_.data());
    left_ = left_.subspan(sizeof(T));
    return true;
  }
  /// A string with its 32-bit length before it.
  bool string(std::string_view* value) {
    uint32_t bytes;
    if (!number(&bytes) || bytes > left_.size()) return false;
    *value = {reinterpret_cast<const char*>(left_.data()), bytes};
    left_ = left_.subspan(bytes);
    return true;
  }
  size_t left() const { return left_.size(); }

 private:
  std::span<const uint8_t> left_;
};

/// UTF-8 without NUL, as strict as the standard: no surrogates, nothing overlong, nothing beyond U+10FFFF.
bool is_text(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const uint8_t first = static_cast<uint8_t>(text[i]);
    if (first == 0) return false;
    const size_t length = first < 0x80   ? 1
                          : first < 0xc2 ? 0
                          : first < 0xe0 ? 2
                          : first < 0xf0 ? 3
                          : first < 0xf5 ? 4
                                         : 0;
    if (length == 0 || length > text.size() - i) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((static_cast<uint8_t>(text[i + k]) & 0xc0) != 0x80) return false;
    }
    const uint8_t second = length > 1 ? static_cast<uint8_t>(text[i + 1]) : 0;
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
        (first == 0xf4 && second > 0x8f)) {
      return false;
    }
    i += length;
  }
  return true;
}

bool is_name(std::string_view name) { return name.size() <= kNameBytesMax && is_text(name); }

uint32_t reply_of(int error) {
  switch (error) {
    case ENOENT:
      return kRepErrUnknown;
    case EPERM:
    case EACCES:
    case EBUSY:
      return kRepErrPolicy;
    case ESHUTDOWN:
      return kRepErrShutdown;
    case EINVAL:
      return kRepErrInvalid;
    default:
      return kRepErrPlatform;
  }
}

}  // namespace

Negotiation::Negotiation(Host& host) : host_(host) {
  append<uint64_t>(output_, kMagicServer);
  append<uint64_t>(output_, kMagicOption);
  append<uint16_t>(output_, kFlagFixedNewstyle | kFlagNoZeroes);
}

Negotiation::Progress Negotiation::consume(std::span<const uint8_t> bytes, uint32_t* used) {
  *used = 0;
  if (phase_ == Phase::kWaiting) return Progress::kWaiting;
  if (phase_ == Phase::kDone) return Progress::kClose;
  if (phase_ == Phase::kClientFlags) {
    if (bytes.size() < kClientFlagsBytes) return Progress::kNeedBytes;
    *used = kClientFlagsBytes;
    const uint32_t flags = load<uint32_t>(bytes.data());
    if ((flags & ~kClientFlagsKnown) != 0) return Progress::kClose;
    fixed_ = (flags & kFlagFixedNewstyle) != 0;
    no_zeroes_ = (flags & kFlagNoZeroes) != 0;
    phase_ = Phase::kOptions;
    return Progress::kReply;
  }
  if (bytes.size() < kOptionHeaderBytes) return Progress::kNeedBytes;
  if (load<uint64_t>(bytes.data()) != kMagicOption) return Progress::kClose;
  option_ = load<uint32_t>(bytes.data() + 8);
  const uint32_t length = load<uint32_t>(bytes.data() + 12);
  if (length > kOptionBytesMax) {
    // Not even skipped: a client that sends so much wants no export.
    fail(kRepErrTooBig, "option data too long");
    return Progress::kClose;
  }
  if (bytes.size() - kOptionHeaderBytes < length) return Progress::kNeedBytes;
  *used = kOptionHeaderBytes + length;
  if (++options_ > kOptionsMax) return Progress::kClose;
  return option(option_, bytes.subspan(kOptionHeaderBytes, length));
}

Negotiation::Progress Negotiation::option(uint32_t option, std::span<const uint8_t> data) {
  if (option == kOptExportName) {
    std::string_view name(reinterpret_cast<const char*>(data.data()), data.size());
    // This option has no error replies.
    if (!is_name(name) || shutting_down_ || session_.extended) return Progress::kClose;
    return open(name);
  }
  if (!fixed_) return Progress::kClose;  // the only option of clients that did not ask for more
  if (option == kOptAbort) {
    reply(kRepAck);
    return Progress::kClose;
  }
  if (shutting_down_) return fail(kRepErrShutdown, "server is shutting down");
  switch (option) {
    case kOptList:
      if (!data.empty()) return fail(kRepErrInvalid, "NBD_OPT_LIST has no data");
      phase_ = Phase::kWaiting;
      host_.ask_list();
      return Progress::kWaiting;
    case kOptInfo:
    case kOptGo:
      return info(data);
    case kOptStructuredReply:
      if (!data.empty()) return fail(kRepErrInvalid, "NBD_OPT_STRUCTURED_REPLY has no data");
      if (session_.extended) return fail(kRepErrExtHeaderReqd, "extended headers are in use");
      session_.structured = true;
      reply(kRepAck);
      return Progress::kReply;
    case kOptExtendedHeaders:
      if (!data.empty()) return fail(kRepErrInvalid, "NBD_OPT_EXTENDED_HEADERS has no data");
      session_.structured = session_.extended = true;
      reply(kRepAck);
      return Progress::kReply;
    case kOptListMetaContext:
    case kOptSetMetaContext:
      return meta_context(data);
    default:  // STARTTLS and PEEK_EXPORT too
      return fail(kRepErrUnsup, "option not supported");
  }
}

/// NBD_OPT_INFO and NBD_OPT_GO.
Negotiation::Progress Negotiation::info(std::span<const uint8_t> data) {
  Reader reader(data);
  std::string_view name;
  uint16_t count;
  if (!reader.string(&name) || !reader.number(&count) || reader.left() != size_t{count} * sizeof(uint16_t)) {
    return fail(kRepErrInvalid, "option data is malformed");
  }
  if (!is_name(name)) return fail(kRepErrInvalid, "export name is not a valid string");
  info_wanted_.clear();
  for (uint16_t i = 0; i < count; ++i) {
    uint16_t type = 0;
    reader.number(&type);
    if (std::find(info_wanted_.begin(), info_wanted_.end(), type) == info_wanted_.end() && type <= kInfoBlockSize) {
      info_wanted_.push_back(type);
    }
  }
  return open(name);
}

Negotiation::Progress Negotiation::open(std::string_view name) {
  if (open_ && name == name_) return opened();
  asked_name_ = name;
  phase_ = Phase::kWaiting;
  host_.ask_open(asked_name_);
  return Progress::kWaiting;
}

Negotiation::Progress Negotiation::answer_open(OpenAnswer answer) {
  phase_ = Phase::kOptions;
  if (answer.error != 0) {
    if (option_ == kOptExportName) return Progress::kClose;
    return fail(reply_of(answer.error), answer.message);
  }
  if (open_) host_.release(session_.volume, session_.read_only);
  open_ = true;
  name_ = asked_name_;
  description_ = std::move(answer.description);
  session_.volume = answer.handle;
  session_.size = answer.size;
  session_.block_size = answer.block_size;
  session_.read_only = answer.read_only;
  return opened();
}

/// The export is open: tells about it, and, unless that was all that was asked, ends the negotiation.
Negotiation::Progress Negotiation::opened() {
  const bool ends = option_ != kOptInfo;
  // Contexts belong to the export they were selected on.
  if (ends && context_name_ != name_) drop_contexts();
  session_.context_count = static_cast<uint32_t>(contexts_.size());
  const uint16_t flags = transmission_flags(session_);
  if (option_ == kOptExportName) {
    append<uint64_t>(output_, session_.size);
    append<uint16_t>(output_, flags);
    if (!no_zeroes_) output_.append(kExportNameZeroBytes, '\0');
  } else {
    std::string data;
    append<uint64_t>(data, session_.size);
    append<uint16_t>(data, flags);
    info_reply(kInfoExport, data);
    for (uint16_t type : info_wanted_) {
      if (type == kInfoName) info_reply(type, name_);
      if (type == kInfoDescription && !description_.empty()) info_reply(type, description_.substr(0, kNameBytesMax));
      if (type == kInfoBlockSize) {
        data.clear();
        append<uint32_t>(data, 1);
        append<uint32_t>(data, session_.block_size);
        append<uint32_t>(data, kPayloadMax);
        info_reply(type, data);
      }
    }
    reply(kRepAck);
  }
  if (!ends) return Progress::kReply;
  phase_ = Phase::kDone;
  return Progress::kTransmission;
}

Negotiation::Progress Negotiation::answer_list(const ListAnswer& answer) {
  phase_ = Phase::kOptions;
  if (answer.error != 0) return fail(reply_of(answer.error), "cannot list exports");
  std::string data;
  for (const ExportEntry& entry : answer.exports) {
    if (!is_name(entry.name)) continue;  // could not be asked for anyway
    if (output_.size() > kListBytesMax) return fail(kRepErrTooBig, "too many exports to list");
    data.clear();
    append<uint32_t>(data, static_cast<uint32_t>(entry.name.size()));
    data += entry.name;
    if (is_text(entry.description)) data += entry.description.substr(0, kNameBytesMax);
    reply(kRepServer, data);
  }
  reply(kRepAck);
  return Progress::kReply;
}

/// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
Negotiation::Progress Negotiation::meta_context(std::span<const uint8_t> data) {
  const bool listing = option_ == kOptListMetaContext;
  // Whatever comes of it, selecting replaces what was selected before.
  if (!listing) drop_contexts();
  if (!session_.structured) return fail(kRepErrInvalid, "structured replies come first");
  Reader reader(data);
  std::string_view name;
  uint32_t count;
  if (!reader.string(&name) || !reader.number(&count)) return fail(kRepErrInvalid, "option data is malformed");
  if (!is_name(name)) return fail(kRepErrInvalid, "export name is not a valid string");
  if (count > kQueriesMax) return fail(kRepErrTooBig, "too many queries");
  std::vector<std::string> queries;
  for (uint32_t i = 0; i < count; ++i) {
    std::string_view query;
    if (!reader.string(&query)) return fail(kRepErrInvalid, "option data is malformed");
    if (!is_name(query)) return fail(kRepErrInvalid, "query is not a valid string");
    // A query starts with a namespace; those of others match nothing here, and no query twice means no context twice.
    if (query.find(':') == std::string_view::npos) return fail(kRepErrInvalid, "query has no namespace");
    if (std::find(queries.begin(), queries.end(), query) == queries.end()) queries.emplace_back(query);
  }
  if (reader.left() != 0) return fail(kRepErrInvalid, "option data is malformed");
  if (!listing && queries.empty()) {
    reply(kRepAck);
    return Progress::kReply;
  }
  asked_name_ = name;
  phase_ = Phase::kWaiting;
  host_.ask_contexts(asked_name_, queries, listing);
  return Progress::kWaiting;
}

Negotiation::Progress Negotiation::answer_contexts(const ContextsAnswer& answer) {
  phase_ = Phase::kOptions;
  if (answer.error != 0) return fail(reply_of(answer.error), answer.message);
  const bool listing = option_ == kOptListMetaContext;
  uint32_t told = 0;
  for (const ContextEntry& entry : answer.contexts) {
    if (told >= (listing ? kContextsListedMax : Transmission::kContextsMax) || !is_name(entry.name)) {
      if (!listing && entry.handle != ContextEntry::kBaseAllocation) host_.release(entry.handle, true);
      continue;
    }
    told++;
    std::string data;
    append<uint32_t>(data, listing ? 0 : told);
    data += entry.name;
    reply(kRepMetaContext, data);
    if (!listing) contexts_.push_back({told, entry.handle});
  }
  if (!listing) context_name_ = asked_name_;
  reply(kRepAck);
  return Progress::kReply;
}

void Negotiation::drop_contexts() {
  for (const StatusContext& context : contexts_) {
    if (context.handle != ContextEntry::kBaseAllocation) host_.release(context.handle, true);
  }
  contexts_.clear();
}

void Negotiation::release_handles() {
  drop_contexts();
  if (open_) host_.release(session_.volume, session_.read_only);
  open_ = false;
}

void Negotiation::reply(uint32_t type, std::string_view data) {
  append<uint64_t>(output_, kMagicOptionReply);
  append<uint32_t>(output_, option_);
  append<uint32_t>(output_, type);
  append<uint32_t>(output_, static_cast<uint32_t>(data.size()));
  output_ += data;
}

/// An error reply. The text is ours or the Directory's, cut to a bound; the client's own bytes are never echoed.
Negotiation::Progress Negotiation::fail(uint32_t type, std::string_view text) {
  text = text.substr(0, kTextBytesMax);
  while (!text.empty() && !is_text(text)) text.remove_suffix(1);
  reply(type, text);
  return Progress::kReply;
}

void Negotiation::info_reply(uint16_t type, std::string_view data) {
  std::string payload;
  append<uint16_t>(payload, type);
  payload += data;
  reply(kRepInfo, payload);
}

}  // namespace atoll_native::nbd
