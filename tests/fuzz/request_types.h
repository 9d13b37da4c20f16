#ifndef CUPOLA_TESTS_FUZZ_REQUEST_TYPES_H_
#define CUPOLA_TESTS_FUZZ_REQUEST_TYPES_H_

#include <cstddef>
#include <string>
#include <tuple>

#include "cupola/v1/analysis.pb.h"
#include "cupola/v1/catalog_config.pb.h"
#include "cupola/v1/datasets.pb.h"
#include "cupola/v1/jobs.pb.h"

namespace cupola::testing {

// The messages that become plain structs. An input of request_fuzz is the
// number of its type here, a byte, then the message.
using RequestTypes = std::tuple<
    v1::TokenizeRequest, v1::ActivationsRequest, v1::FeaturesRequest,
    v1::ReconstructRequest, v1::RunRequest, v1::GenerateRequest,
    v1::AblateRequest, v1::AblationTableRequest, v1::WeightRequest,
    v1::LatentWeightsRequest, v1::AttributeRequest, v1::LogitLensRequest,
    v1::QualityRequest, v1::MeanActivationRequest, v1::ListMeansRequest,
    v1::DeleteMeanRequest, v1::JacobianRequest, v1::DirectionAblationRequest,
    v1::SweepRequest, v1::AccumulateJacobianRequest, v1::JacobianTotalsRequest,
    v1::ModelEntry, v1::DictionaryEntry, v1::FeatureStatisticsRequest,
    v1::GetFeatureStatisticsRequest, v1::JobOptions, v1::Tokenization,
    v1::DatasetRows>;

// Calls visit(number, Message()) of each type.
template <typename Visit>
void ForEachRequestType(Visit visit) {
  std::apply(
      [&visit](const auto&... messages) {
        size_t number = 0;
        (visit(number++, messages), ...);
      },
      RequestTypes());
}

}  // namespace cupola::testing

#endif  // CUPOLA_TESTS_FUZZ_REQUEST_TYPES_H_
