#ifndef CUPOLA_SERVER_SERVICE_JOBS_SERVICE_H_
#define CUPOLA_SERVER_SERVICE_JOBS_SERVICE_H_

#include <memory>

#include "cupola/v1/jobs.grpc.pb.h"
#include "server/engine/executor.h"
#include "server/service/environment.h"

namespace cupola::service {

// The methods of cupola.v1.Jobs with raw messages (see wire.h).
using RawMatching = v1::Jobs::WithRawCallbackMethod_MatchFeatures<
    v1::Jobs::WithRawCallbackMethod_GetFeatureMatching<v1::Jobs::Service>>;
using RawCoactivation = v1::Jobs::WithRawCallbackMethod_CountCoactivation<
    v1::Jobs::WithRawCallbackMethod_GetCoactivation<RawMatching>>;
using RawDirections =
    v1::Jobs::WithRawCallbackMethod_ComputeDirectionStatistics<
        v1::Jobs::WithRawCallbackMethod_GetDirectionStatistics<
            RawCoactivation>>;
using RawStatisticsAndShards =
    v1::Jobs::WithRawCallbackMethod_ComputeFeatureStatistics<
        v1::Jobs::WithRawCallbackMethod_GetFeatureStatistics<
            v1::Jobs::WithRawCallbackMethod_ExportShard<
                v1::Jobs::WithRawCallbackMethod_MergeShards<RawDirections>>>>;
using RawJobs = v1::Jobs::WithRawCallbackMethod_AccumulateJacobian<
    v1::Jobs::WithRawCallbackMethod_List<v1::Jobs::WithRawCallbackMethod_Get<
        v1::Jobs::WithRawCallbackMethod_Watch<
            v1::Jobs::WithRawCallbackMethod_Cancel<
                v1::Jobs::WithRawCallbackMethod_Resume<
                    v1::Jobs::WithRawCallbackMethod_Delete<
                        v1::Jobs::WithRawCallbackMethod_GetJacobianTotals<
                            RawStatisticsAndShards>>>>>>>>;

// cupola.v1.Jobs: hands everything to the engine's jobs. What asks the disk
// runs on the environment's executor.
class JobsService final : public RawJobs {
 public:
  explicit JobsService(const Environment& environment)
      : environment_(environment),
        disk_(std::make_unique<engine::Executor>(1)) {}

  grpc::ServerUnaryReactor* AccumulateJacobian(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ComputeFeatureStatistics(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetFeatureStatistics(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* MatchFeatures(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetFeatureMatching(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* CountCoactivation(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetCoactivation(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* ComputeDirectionStatistics(
      grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
      grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetDirectionStatistics(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* ExportShard(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerReadReactor<grpc::ByteBuffer>* MergeShards(
      grpc::CallbackServerContext* context,
      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context,
                                const grpc::ByteBuffer* request,
                                grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Delete(grpc::CallbackServerContext* context,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetJacobianTotals(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;

 private:
  const Environment environment_;
  const std::unique_ptr<engine::Executor> disk_;  // of shards that come
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_JOBS_SERVICE_H_
