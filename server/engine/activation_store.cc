#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/activation_stores.h"
#include "server/engine/to_array.h"
#include "server/model/status_macros.h"

// ActivationStore: what is in one file.

namespace cupola::engine {
namespace {

using storage::DType;

// Of a token and of an entry in a payload, and of its beginning.
constexpr int64_t kTokenBytes = 16, kEntryBytes = 8, kHeadBytes = 16;

template <typename T>
void Append(const T* values, size_t count, std::string* to) {
  to->append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

template <typename T>
std::vector<T> Take(const char** from, int64_t count) {
  std::vector<T> values(count);
  std::memcpy(values.data(), *from, count * sizeof(T));
  *from += count * sizeof(T);
  return values;
}

int64_t EntriesOf(const storage::ChunkFile::Size& size) {
  return (size.bytes - kHeadBytes - kTokenBytes * size.items) / kEntryBytes;
}

// Tokens that come one after another, in parts.
class Joined {
 public:
  // Tokens [begin, end) of the part.
  void Add(const StoredTokens& part, int64_t begin, int64_t end) {
    const auto* indptr =
        reinterpret_cast<const int64_t*>(part.features.indptr.bytes.data());
    const int64_t first = indptr[begin], last = indptr[end];
    for (int64_t t = begin; t < end; ++t) {
      indptr_.push_back(indptr_.back() + indptr[t + 1] - indptr[t]);
    }
    indices_.append(part.features.indices.bytes, 4 * first, 4 * (last - first));
    values_.append(part.features.values.bytes, 4 * first, 4 * (last - first));
    tokens_.row.insert(tokens_.row.end(), part.row.begin() + begin,
                       part.row.begin() + end);
    tokens_.position.insert(tokens_.position.end(),
                            part.position.begin() + begin,
                            part.position.begin() + end);
  }
  StoredTokens Finish(int64_t d_sae) && {
    const int64_t entries = indptr_.back();
    tokens_.features = {ToVector(DType::kInt64, indptr_),
                        {DType::kUInt32, {entries}, std::move(indices_)},
                        {DType::kFloat32, {entries}, std::move(values_)},
                        d_sae};
    return std::move(tokens_);
  }

 private:
  std::vector<int64_t> indptr_{0};
  std::string indices_, values_;
  StoredTokens tokens_;
};

}  // namespace

ActivationStore::ActivationStore(StoreAbout about,
                                 std::unique_ptr<storage::ChunkFile> file,
                                 HasRoom has_room)
    : about_(std::move(about)),
      file_(std::move(file)),
      has_room_(std::move(has_room)) {}

StoreInfo ActivationStore::Info() const {
  StoreInfo info{about_};
  for (const auto& size : file_->Sizes()) {
    if (size.items == 0) continue;
    info.tokens_there += size.items;
    info.entries += EntriesOf(size);
    ++info.chunks_there;
  }
  info.bytes = file_->bytes();
  return info;
}

absl::Status ActivationStore::Write(int64_t chunk, const StoredTokens& tokens) {
  const SparseArrays& features = tokens.features;
  const int64_t count = static_cast<int64_t>(tokens.row.size());
  const int64_t entries = features.values.shape.at(0);
  const auto* indptr =
      reinterpret_cast<const int64_t*>(features.indptr.bytes.data());
  std::vector<int32_t> active;
  for (int64_t t = 0; t < count; ++t) {
    active.push_back(static_cast<int32_t>(indptr[t + 1] - indptr[t]));
  }
  const int64_t bytes =
      kHeadBytes + kTokenBytes * count + kEntryBytes * entries;
  RETURN_IF_ERROR(has_room_(bytes));
  std::string payload;
  payload.reserve(bytes);
  Append(&count, 1, &payload);
  Append(&entries, 1, &payload);
  Append(tokens.row.data(), tokens.row.size(), &payload);
  Append(tokens.position.data(), tokens.position.size(), &payload);
  Append(active.data(), active.size(), &payload);
  payload += features.indices.bytes;
  payload += features.values.bytes;
  return file_->Append(chunk, count, payload);
}

absl::StatusOr<StoredTokens> ActivationStore::Decode(
    const std::string& payload) const {
  const auto damaged = absl::DataLossError(
      absl::StrCat("the store \"", storage::ToHex(about_.key),
                   "\" has a chunk that is none"));
  const int64_t bytes = static_cast<int64_t>(payload.size());
  if (bytes < kHeadBytes) return damaged;
  const char* at = payload.data();
  const std::vector<int64_t> sizes = Take<int64_t>(&at, 2);
  const int64_t count = sizes[0], entries = sizes[1];
  if (count < 0 || count > bytes / kTokenBytes || entries < 0 ||
      entries > bytes / kEntryBytes ||
      bytes != kHeadBytes + kTokenBytes * count + kEntryBytes * entries) {
    return damaged;
  }
  StoredTokens tokens;
  tokens.row = Take<int64_t>(&at, count);
  tokens.position = Take<int32_t>(&at, count);
  std::vector<int64_t> indptr{0};
  for (const int32_t active : Take<int32_t>(&at, count)) {
    if (active < 0 || active > about_.d_sae) return damaged;
    indptr.push_back(indptr.back() + active);
  }
  if (indptr.back() != entries) return damaged;
  const std::vector<uint32_t> latents = Take<uint32_t>(&at, entries);
  for (const uint32_t latent : latents) {
    if (latent >= about_.d_sae) return damaged;
  }
  tokens.features = {
      ToVector(DType::kInt64, indptr), ToVector(DType::kUInt32, latents),
      ToVector(DType::kFloat32, Take<float>(&at, entries)), about_.d_sae};
  return tokens;
}

absl::StatusOr<StoredTokens> ActivationStore::Read(int64_t chunk) const {
  ASSIGN_OR_RETURN(const std::string payload, file_->Read(chunk));
  return Decode(payload);
}

absl::StatusOr<StoredTokens> ActivationStore::ReadTokens(
    int64_t first, int64_t count, int64_t max_bytes) const {
  const auto sizes = file_->Sizes();
  const int64_t end = first + count;
  // Chunks that have some of them, and of each where it begins.
  std::vector<std::pair<int64_t, int64_t>> chunks;
  int64_t begin = 0, bytes = 0;
  for (size_t i = 0; i < sizes.size() && begin < end; ++i) {
    if (begin + sizes[i].items > first) {
      chunks.emplace_back(i, begin);
      bytes += sizes[i].bytes;
    }
    begin += sizes[i].items;
  }
  if (bytes > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "tokens ", first, " to ", end - 1, " are in chunks of ", bytes,
        " bytes together; accepted: ", max_bytes, ": ask for fewer"));
  }
  Joined joined;
  for (const auto& [chunk, offset] : chunks) {
    ASSIGN_OR_RETURN(const StoredTokens part, Read(chunk));
    joined.Add(
        part, std::max<int64_t>(first - offset, 0),
        std::min<int64_t>(end - offset, static_cast<int64_t>(part.row.size())));
  }
  return std::move(joined).Finish(about_.d_sae);
}

}  // namespace cupola::engine
