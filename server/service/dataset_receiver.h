#ifndef CUPOLA_SERVER_SERVICE_DATASET_RECEIVER_H_
#define CUPOLA_SERVER_SERVICE_DATASET_RECEIVER_H_

#include <memory>
#include <utility>

#include "server/engine/datasets.h"
#include "server/service/upload_stream.h"

namespace cupola::service {

// Makes a dataset of the messages of Datasets.Upload.
class DatasetReceiver final : public UploadReceiver {
 public:
  // `datasets` outlives this.
  DatasetReceiver(engine::Datasets* datasets, engine::Sender sender)
      : datasets_(datasets), sender_(std::move(sender)) {}

  absl::StatusOr<std::optional<grpc::ByteBuffer>> Take(
      const grpc::ByteBuffer& message) override;
  void Finish(const engine::RequestContext& context, Done done) override;

 private:
  engine::Datasets* const datasets_;
  const engine::Sender sender_;
  std::unique_ptr<engine::Datasets::Upload> upload_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_DATASET_RECEIVER_H_
