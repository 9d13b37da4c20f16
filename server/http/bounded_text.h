#ifndef CUPOLA_SERVER_HTTP_BOUNDED_TEXT_H_
#define CUPOLA_SERVER_HTTP_BOUNDED_TEXT_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "google/protobuf/io/zero_copy_stream.h"
#include "server/http/byte_budget.h"

namespace cupola::http {

// Where Protobuf writes text of unknown length: nothing is allocated that a
// share does not hold, and writing fails when there is too much.
class BoundedText final : public google::protobuf::io::ZeroCopyOutputStream {
 public:
  // At most `most` bytes; `expected` of them are made room for at once.
  BoundedText(int64_t expected, int64_t most, ByteBudget::Share* share);

  bool Next(void** data, int* size) override;
  void BackUp(int count) override;
  int64_t ByteCount() const override;

  // RESOURCE_EXHAUSTED: why writing has failed.
  const absl::Status& status() const { return status_; }
  std::string Take() && { return std::move(text_); }

 private:
  const int64_t most_;
  ByteBudget::Share* const share_;
  absl::Status status_;
  std::string text_;
};

// A body of more bytes than are accepted.
absl::Status BodyTooLarge(int64_t most);

}  // namespace cupola::http

#endif  // CUPOLA_SERVER_HTTP_BOUNDED_TEXT_H_
