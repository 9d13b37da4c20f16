#include "server/service/answer_conversion.h"

#include <utility>

namespace cupola::service {

void FillProvenance(const engine::Provenance& plain, double total_seconds,
                    const std::vector<std::string>& pieces,
                    v1::Provenance* provenance) {
  for (const std::vector<int32_t>& ids : plain.token_ids) {
    provenance->add_token_ids()->mutable_ids()->Assign(ids.begin(), ids.end());
  }
  provenance->set_model(plain.model);
  provenance->set_model_digest(plain.model_digest.data(),
                               plain.model_digest.size());
  if (!plain.dictionary.empty()) {
    provenance->set_dictionary(plain.dictionary);
    provenance->set_dictionary_digest(plain.dictionary_digest.data(),
                                      plain.dictionary_digest.size());
  }
  provenance->set_dtype(static_cast<v1::DType>(plain.dtype));
  provenance->set_processing(
      plain.processing == model::Processing::kFolded ? v1::FOLDED : v1::RAW);
  provenance->set_from_cache(plain.from_cache);
  provenance->mutable_seconds()->set_lookup(plain.seconds.lookup);
  provenance->mutable_seconds()->set_queue(plain.seconds.queue);
  provenance->mutable_seconds()->set_compute(plain.seconds.compute);
  provenance->mutable_seconds()->set_total(total_seconds);
  if (plain.estimate.has_value()) {
    v1::Estimate* estimate = provenance->mutable_estimate();
    estimate->set_parts(plain.estimate->parts);
    estimate->set_cached_parts(plain.estimate->cached);
    estimate->set_rows(plain.estimate->rows);
    estimate->set_columns(plain.estimate->columns);
    estimate->set_bytes(static_cast<int64_t>(plain.estimate->bytes));
    estimate->set_seconds(plain.estimate->seconds);
    estimate->set_wait_seconds(plain.estimate->wait);
    estimate->set_measured(plain.estimate->measured);
  }
  int64_t chunked_bytes = 0;
  for (const std::string& piece : pieces) {
    chunked_bytes += static_cast<int64_t>(piece.size());
  }
  provenance->set_chunked_bytes(chunked_bytes);
}

void AddRows(engine::SparseArrays rows, v1::SparseRows* message,
             TensorCollector* tensors) {
  tensors->Add(std::move(rows.indptr), message->mutable_indptr());
  tensors->Add(std::move(rows.indices), message->mutable_indices());
  tensors->Add(std::move(rows.values), message->mutable_values());
  message->set_columns(rows.columns);
}

v1::TokenizeResponse ToProto(engine::TokenizeAnswer answer) {
  v1::TokenizeResponse response;
  response.set_prepended_bos(answer.prepended_bos);
  for (engine::TokenizeAnswer::Tokens& tokens : answer.prompts) {
    v1::TokenizeResponse::Tokens* prompt = response.add_prompts();
    prompt->mutable_ids()->Assign(tokens.ids.begin(), tokens.ids.end());
    for (std::string& piece : tokens.pieces) {
      prompt->add_pieces(std::move(piece));
    }
    prompt->set_text(std::move(tokens.text));
  }
  return response;
}

StreamedAnswer<v1::ActivationsResponse> ToProto(
    engine::ActivationsAnswer answer, double total_seconds) {
  StreamedAnswer<v1::ActivationsResponse> streamed;
  v1::ActivationsResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  for (size_t i = 0; i < answer.hooks.size(); ++i) {
    v1::ActivationsResponse::Header::Hook* hook = header->add_hooks();
    hook->set_name(std::move(answer.hooks[i]));
    for (engine::Array& prompt : answer.activations[i]) {
      tensors.Add(std::move(prompt), hook->add_prompts());
    }
  }
  for (engine::Array& positions : answer.positions) {
    tensors.Add(std::move(positions), header->add_positions());
  }
  return Finish(std::move(streamed), &tensors, answer.provenance,
                total_seconds);
}

StreamedAnswer<v1::FeaturesResponse> ToProto(engine::FeaturesAnswer answer,
                                             double total_seconds) {
  StreamedAnswer<v1::FeaturesResponse> streamed;
  v1::FeaturesResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  AddRows(std::move(answer.features), header->mutable_features(), &tensors);
  return FinishRows(std::move(streamed), &tensors, &answer, total_seconds);
}

StreamedAnswer<v1::ReconstructResponse> ToProto(
    engine::ReconstructAnswer answer, double total_seconds) {
  StreamedAnswer<v1::ReconstructResponse> streamed;
  v1::ReconstructResponse::Header* header = streamed.first.mutable_header();
  TensorCollector tensors;
  tensors.Add(std::move(answer.reconstruction),
              header->mutable_reconstruction());
  // Without a target both arrays are empty, and their fields unset.
  if (!answer.target.bytes.empty()) {
    tensors.Add(std::move(answer.target), header->mutable_target());
    tensors.Add(std::move(answer.squared_error),
                header->mutable_squared_error());
  }
  tensors.Add(std::move(answer.l0), header->mutable_l0());
  header->set_fvu(answer.fvu);
  header->set_mean_l0(answer.mean_l0);
  return FinishRows(std::move(streamed), &tensors, &answer, total_seconds);
}

}  // namespace cupola::service
