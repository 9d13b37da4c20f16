#include "server/http/bounded_text.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace cupola::http {
namespace {

constexpr int64_t kLeastPiece = 16 << 10;

}  // namespace

BoundedText::BoundedText(int64_t expected, int64_t most,
                         ByteBudget::Share* share)
    : most_(most), share_(share) {
  const int64_t size = std::min(expected, most);
  status_ = share_->Hold(share_->held() + size);
  if (status_.ok()) text_.reserve(static_cast<size_t>(size));
}

bool BoundedText::Next(void** data, int* size) {
  if (!status_.ok()) return false;
  const auto used = static_cast<int64_t>(text_.size());
  const auto room = static_cast<int64_t>(text_.capacity());
  if (used == most_) {
    status_ = BodyTooLarge(most_);
    return false;
  }
  int64_t piece = room - used;
  if (piece == 0) {
    piece = std::max(used, kLeastPiece);
    // While a string grows there are its old bytes, too.
    status_ = share_->Hold(share_->held() + used + piece);
    if (!status_.ok()) return false;
  }
  piece = std::min({piece, most_ - used,
                    static_cast<int64_t>(std::numeric_limits<int>::max())});
  text_.resize(static_cast<size_t>(used + piece));
  *data = text_.data() + used;
  *size = static_cast<int>(piece);
  return true;
}

void BoundedText::BackUp(int count) {
  text_.resize(text_.size() - static_cast<size_t>(count));
}

int64_t BoundedText::ByteCount() const {
  return static_cast<int64_t>(text_.size());
}

absl::Status BodyTooLarge(int64_t most) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "the answer's body has more than ", most,
      " bytes; accepted over HTTP: ", most,
      "; gRPC has no such limit, and Accept: application/octet-stream makes "
      "bodies of tensors smaller"));
}

}  // namespace cupola::http
