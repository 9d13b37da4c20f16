#include "server/service/stores_conversion.h"

#include <utility>

#include "server/engine/to_array.h"
#include "server/model/status_macros.h"
#include "server/service/corpus_request.h"
#include "server/service/jobs_conversion.h"

namespace cupola::service {

using storage::DType;

absl::StatusOr<engine::StoreActivationsRequest> FromProto(
    v1::StoreActivationsRequest request) {
  engine::StoreActivationsRequest plain;
  RETURN_IF_ERROR(TakeCorpus(&request, &plain));
  plain.min_activation = request.min_activation();
  plain.chunk_tokens = request.chunk_tokens();
  return plain;
}

engine::ReadStoreRequest FromProto(const v1::ReadStoreRequest& request) {
  return {request.key(), request.first_token(), request.tokens()};
}

v1::Store ToProto(const engine::StoreInfo& info) {
  v1::Store store;
  store.set_key(storage::ToHex(info.key));
  *store.mutable_provenance() = ToProto(info.provenance);
  store.set_d_sae(info.d_sae);
  store.set_tokens(info.tokens);
  store.set_tokens_there(info.tokens_there);
  store.set_entries(info.entries);
  store.set_bytes(info.bytes);
  store.set_complete(info.complete());
  store.set_created_micros(absl::ToUnixMicros(info.created));
  return store;
}

StreamedAnswer<v1::ReadStoreResponse> ToProto(engine::ReadStoreAnswer answer) {
  StreamedAnswer<v1::ReadStoreResponse> streamed;
  auto* header = streamed.first.mutable_header();
  *header->mutable_store() = ToProto(answer.info);
  header->set_first_token(answer.first);
  TensorCollector tensors;
  AddRows(std::move(answer.tokens.features), header->mutable_features(),
          &tensors);
  tensors.Add(engine::ToVector(DType::kInt64, answer.tokens.row),
              header->mutable_row());
  tensors.Add(engine::ToVector(DType::kInt32, answer.tokens.position),
              header->mutable_position());
  streamed.pieces = tensors.Finish();
  return streamed;
}

}  // namespace cupola::service
