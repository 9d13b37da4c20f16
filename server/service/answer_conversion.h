#ifndef CUPOLA_SERVER_SERVICE_ANSWER_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_ANSWER_CONVERSION_H_

#include <string>
#include <utility>
#include <vector>

#include "cupola/v1/analysis.pb.h"
#include "server/engine/requests.h"
#include "server/service/tensor_conversion.h"

// The engine's answers -> Protobuf. Data is moved, so the cost does not grow
// with the answer's size.

namespace cupola::service {

// A streamed answer: its first message, and the bytes that follow in chunks
// when the answer is large (else empty; see tensor_conversion.h).
template <typename Response>
struct StreamedAnswer {
  Response first;
  std::vector<std::string> pieces;
};

// `pieces`: what follows in chunks. `total_seconds`: from the request's arrival
// until now.
void FillProvenance(const engine::Provenance& plain, double total_seconds,
                    const std::vector<std::string>& pieces,
                    v1::Provenance* provenance);

// The end of every streamed answer's ToProto: the tensors' data, then the
// header's provenance.
template <typename Response>
StreamedAnswer<Response> Finish(StreamedAnswer<Response> streamed,
                                TensorCollector* tensors,
                                const engine::Provenance& provenance,
                                double total_seconds) {
  streamed.pieces = tensors->Finish();
  FillProvenance(provenance, total_seconds, streamed.pieces,
                 streamed.first.mutable_header()->mutable_provenance());
  return streamed;
}

// The same of an answer that has a row per token, whose header ends with the
// rows' `prompt` and `position`.
template <typename Response, typename Answer>
StreamedAnswer<Response> FinishRows(StreamedAnswer<Response> streamed,
                                    TensorCollector* tensors, Answer* answer,
                                    double total_seconds) {
  auto* header = streamed.first.mutable_header();
  tensors->Add(std::move(answer->prompt), header->mutable_prompt());
  tensors->Add(std::move(answer->position), header->mutable_position());
  return Finish(std::move(streamed), tensors, answer->provenance,
                total_seconds);
}

void AddRows(engine::SparseArrays rows, v1::SparseRows* message,
             TensorCollector* tensors);

v1::TokenizeResponse ToProto(engine::TokenizeAnswer answer);

StreamedAnswer<v1::ActivationsResponse> ToProto(
    engine::ActivationsAnswer answer, double total_seconds);
StreamedAnswer<v1::FeaturesResponse> ToProto(engine::FeaturesAnswer answer,
                                             double total_seconds);
StreamedAnswer<v1::ReconstructResponse> ToProto(
    engine::ReconstructAnswer answer, double total_seconds);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ANSWER_CONVERSION_H_
