#include "server/service/roles.h"

#include <algorithm>
#include <array>

namespace cupola::service {
namespace {

// What a reader may call.
constexpr std::array kRead = {
    // Analysis
    "Tokenize", "GetActivations", "GetFeatures", "Reconstruct", "Run",
    "Generate", "Ablate", "TabulateAblations", "GetWeight", "GetLatentWeights",
    "Attribute", "LogitLens", "GetQuality", "MeanActivation", "ListMeans",
    "GetJacobian", "AblateDirections", "Sweep",
    // Catalog
    "List", "Describe",
    // Jobs
    "AccumulateJacobian", "ListJobs", "GetJob", "WatchJob", "CancelJob",
    "ResumeJob", "DeleteJob", "GetJacobianTotals", "ComputeFeatureStatistics",
    "GetFeatureStatistics", "MatchFeatures", "GetFeatureMatching",
    "CountCoactivation", "GetCoactivation", "ComputeDirectionStatistics",
    "GetDirectionStatistics", "ExportShard", "MergeShards",
    // Stores
    "StoreActivations", "ListStores", "ReadStore",
    // Datasets
    "UploadDataset", "ListDatasets", "GetDataset", "DeleteDataset",
    "TokenizeDataset", "GetDatasetRows",
    // Admin
    "GetServerInfo", "GetCacheStatistics"};

}  // namespace

Role RequiredRole(absl::string_view method) {
  const bool read =
      std::find(kRead.begin(), kRead.end(), method) != kRead.end();
  return read ? Role::kRead : Role::kAdmin;
}

const char* RoleName(Role role) {
  return role == Role::kAdmin ? "admin" : "read";
}

}  // namespace cupola::service
