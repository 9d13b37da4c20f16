#include "storage/record.h"

#include <xxhash.h>

#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace cupola::storage {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the formats are little-endian and written without swapping");

constexpr char kMagic[4] = {'C', 'U', 'P', 'R'};
constexpr size_t kTimeOffset = 8;
constexpr size_t kEchoOffset = 16;
constexpr size_t kLengthOffset = 48;
constexpr size_t kChecksumOffset = 56;
constexpr size_t kArrayHeaderBytes = 2;  // without the shape
constexpr size_t kMaxArrays = std::numeric_limits<uint16_t>::max();
constexpr size_t kMaxRank = std::numeric_limits<uint8_t>::max();

template <typename T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <typename T>
T Load(absl::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

struct FreeState {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

// REQUIRES: bytes.size() >= kRecordHeaderBytes.
XXH128_canonical_t Checksum(const CacheKey& key, absl::string_view bytes) {
  const std::string stored_key = EncodeKey(key);
  std::unique_ptr<XXH3_state_t, FreeState> state(XXH3_createState());
  XXH3_128bits_reset(state.get());
  XXH3_128bits_update(state.get(), stored_key.data(), stored_key.size());
  XXH3_128bits_update(state.get(), bytes.data(), kChecksumOffset);
  XXH3_128bits_update(state.get(), bytes.data() + kRecordHeaderBytes,
                      bytes.size() - kRecordHeaderBytes);
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  return canonical;
}

// The smallest string that is greater than all strings which begin with
// `prefix`. REQUIRES: some byte of the prefix is not 0xff.
std::string EndOfPrefix(std::string prefix) {
  while (static_cast<uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  ++prefix.back();
  return prefix;
}

std::string ScopePrefix(uint64_t scope) {
  std::string prefix;
  prefix.reserve(kStoredKeyBytes);
  prefix.push_back('r');
  prefix.push_back(static_cast<char>(kFormatVersion));
  for (int shift = 56; shift >= 0; shift -= 8) {
    prefix.push_back(static_cast<char>(scope >> shift));
  }
  return prefix;
}

// Reads the array headers: their dtypes and shapes, without bytes. Moves
// `offset` from the first header to the payload.
absl::StatusOr<Record> DecodeArrayHeaders(absl::string_view bytes,
                                          size_t* offset) {
  const size_t count = Load<uint16_t>(bytes, 6);
  if ((bytes.size() - *offset) / kArrayHeaderBytes < count) {
    return absl::DataLossError(absl::StrCat("truncated: ", bytes.size(),
                                            " bytes, ", count, " arrays"));
  }
  Record record(count);
  for (size_t i = 0; i < count; ++i) {
    if (bytes.size() - *offset < kArrayHeaderBytes) {
      return absl::DataLossError(absl::StrCat("truncated in array ", i));
    }
    Array& array = record[i];
    array.dtype = static_cast<DType>(Load<uint8_t>(bytes, *offset));
    const size_t rank = Load<uint8_t>(bytes, *offset + 1);
    *offset += kArrayHeaderBytes;
    if (SizeOf(array.dtype) == 0) {
      return absl::DataLossError(absl::StrCat(
          "unknown dtype ", static_cast<int>(array.dtype), " of array ", i));
    }
    if ((bytes.size() - *offset) / sizeof(int64_t) < rank) {
      return absl::DataLossError(
          absl::StrCat("truncated in the shape of array ", i));
    }
    array.shape.resize(rank);
    for (int64_t& size : array.shape) {
      size = Load<int64_t>(bytes, *offset);
      *offset += sizeof(size);
    }
  }
  return record;
}

// Whether the arrays' shapes account for exactly `payload` bytes.
absl::Status CheckShapes(const Record& record, uint64_t payload) {
  uint64_t left = payload;
  for (size_t i = 0; i < record.size(); ++i) {
    const std::optional<int64_t> size =
        ByteSize(record[i].dtype, record[i].shape);
    if (!size.has_value() || static_cast<uint64_t>(*size) > left) {
      return absl::DataLossError(absl::StrCat("shape overflow: array ", i,
                                              " exceeds the payload of ",
                                              payload, " bytes"));
    }
    left -= *size;
  }
  if (left != 0) {
    return absl::DataLossError(absl::StrCat("payload length: ", left, " of ",
                                            payload,
                                            " bytes belong to no array"));
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t ScopeOf(const Digest& model_digest) {
  uint64_t scope = 0;
  for (int i = 0; i < 8; ++i) scope = scope << 8 | model_digest[i];
  return scope;
}

std::string EncodeKey(const CacheKey& key) {
  std::string stored = ScopePrefix(key.scope);
  stored.push_back(static_cast<char>(key.operation));
  stored.append(reinterpret_cast<const char*>(key.digest.data()),
                key.digest.size());
  return stored;
}

KeyRange ScopeRange(uint64_t scope) {
  std::string begin = ScopePrefix(scope);
  std::string end = EndOfPrefix(begin);
  return {std::move(begin), std::move(end)};
}

absl::StatusOr<std::string> EncodeRecord(const CacheKey& key,
                                         const Record& record, absl::Time now) {
  if (record.size() > kMaxArrays) {
    return absl::InvalidArgumentError(
        absl::StrCat(record.size(), " arrays; at most ", kMaxArrays));
  }
  size_t headers = 0;
  uint64_t payload = 0;
  for (size_t i = 0; i < record.size(); ++i) {
    if (record[i].shape.size() > kMaxRank || !IsValid(record[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("array ", i, ": ", record[i].bytes.size(),
                       " bytes do not fit its dtype and its shape of rank ",
                       record[i].shape.size()));
    }
    headers += kArrayHeaderBytes + record[i].shape.size() * sizeof(int64_t);
    payload += record[i].bytes.size();
  }

  std::string out;
  out.reserve(kRecordHeaderBytes + headers + payload);
  out.append(kMagic, sizeof(kMagic));
  Append<uint8_t>(&out, kFormatVersion);
  Append<uint8_t>(&out, 0);
  Append<uint16_t>(&out, record.size());
  Append<int64_t>(&out, absl::ToUnixMicros(now));
  out.append(reinterpret_cast<const char*>(key.digest.data()),
             key.digest.size());
  Append<uint64_t>(&out, payload);
  out.append(kRecordHeaderBytes - kChecksumOffset, '\0');
  for (const Array& array : record) {
    Append<uint8_t>(&out, static_cast<uint8_t>(array.dtype));
    Append<uint8_t>(&out, array.shape.size());
    for (int64_t size : array.shape) Append<int64_t>(&out, size);
  }
  for (const Array& array : record) out.append(array.bytes);

  const XXH128_canonical_t checksum = Checksum(key, out);
  std::memcpy(out.data() + kChecksumOffset, &checksum, sizeof(checksum));
  return out;
}

absl::StatusOr<StoredRecord> DecodeRecord(const CacheKey& key,
                                          absl::string_view bytes) {
  if (bytes.size() < kRecordHeaderBytes) {
    return absl::DataLossError(
        absl::StrCat("truncated: ", bytes.size(), " bytes"));
  }
  if (std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) {
    return absl::DataLossError("bad magic");
  }
  const int version = Load<uint8_t>(bytes, 4);
  if (version != kFormatVersion) {
    return absl::DataLossError(absl::StrCat("format version ", version,
                                            "; this reads ", kFormatVersion));
  }
  if (std::memcmp(bytes.data() + kEchoOffset, key.digest.data(),
                  key.digest.size()) != 0) {
    return absl::DataLossError("key echo of another record");
  }
  size_t offset = kRecordHeaderBytes;
  absl::StatusOr<Record> record = DecodeArrayHeaders(bytes, &offset);
  if (!record.ok()) return record.status();
  const uint64_t payload = Load<uint64_t>(bytes, kLengthOffset);
  if (payload > bytes.size() - offset) {
    return absl::DataLossError(
        absl::StrCat("truncated: ", bytes.size() - offset, " of ", payload,
                     " payload bytes"));
  }
  if (payload < bytes.size() - offset) {
    return absl::DataLossError(
        absl::StrCat("payload length: ", bytes.size() - offset - payload,
                     " bytes after the payload"));
  }
  if (absl::Status shapes = CheckShapes(*record, payload); !shapes.ok()) {
    return shapes;
  }
  const XXH128_canonical_t checksum = Checksum(key, bytes);
  if (std::memcmp(bytes.data() + kChecksumOffset, &checksum,
                  sizeof(checksum)) != 0) {
    return absl::DataLossError("checksum mismatch");
  }
  for (Array& array : *record) {
    const size_t size = *ByteSize(array.dtype, array.shape);
    array.bytes.assign(bytes.data() + offset, size);
    offset += size;
  }
  return StoredRecord{*std::move(record),
                      absl::FromUnixMicros(Load<int64_t>(bytes, kTimeOffset))};
}

int64_t MemoryBytes(const Record& record) {
  int64_t bytes = sizeof(Record);
  for (const Array& array : record) {
    bytes += static_cast<int64_t>(sizeof(Array) +
                                  array.shape.size() * sizeof(int64_t) +
                                  array.bytes.size());
  }
  return bytes;
}

}  // namespace cupola::storage
