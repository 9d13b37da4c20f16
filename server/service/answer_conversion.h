#ifndef CUPOLA_SERVER_SERVICE_ANSWER_CONVERSION_H_
#define CUPOLA_SERVER_SERVICE_ANSWER_CONVERSION_H_

#include <string>
#include <vector>

#include "cupola/v1/analysis.pb.h"
#include "server/engine/requests.h"

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

v1::TokenizeResponse ToProto(engine::TokenizeAnswer answer);

StreamedAnswer<v1::ActivationsResponse> ToProto(
    engine::ActivationsAnswer answer, double total_seconds);
StreamedAnswer<v1::FeaturesResponse> ToProto(engine::FeaturesAnswer answer,
                                             double total_seconds);
StreamedAnswer<v1::ReconstructResponse> ToProto(
    engine::ReconstructAnswer answer, double total_seconds);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ANSWER_CONVERSION_H_
