#ifndef CUPOLA_SERVER_SERVICE_ANALYSIS_SERVICE_H_
#define CUPOLA_SERVER_SERVICE_ANALYSIS_SERVICE_H_

#include "cupola/v1/analysis.grpc.pb.h"
#include "server/service/environment.h"

namespace cupola::service {

// The methods of cupola.v1.Analysis with raw messages (see wire.h).
using RawAnalysis = v1::Analysis::WithRawCallbackMethod_Tokenize<v1::Analysis::WithRawCallbackMethod_GetActivations<
    v1::Analysis::WithRawCallbackMethod_GetFeatures<v1::Analysis::WithRawCallbackMethod_Reconstruct<
        v1::Analysis::WithRawCallbackMethod_Run<v1::Analysis::WithRawCallbackMethod_TabulateAblations<
            v1::Analysis::WithRawCallbackMethod_Ablate<v1::Analysis::WithRawCallbackMethod_GetWeight<
                v1::Analysis::WithRawCallbackMethod_GetLatentWeights<
                    v1::Analysis::WithRawCallbackMethod_Attribute<v1::Analysis::WithRawCallbackMethod_LogitLens<
                        v1::Analysis::WithRawCallbackMethod_GetQuality<
                            v1::Analysis::WithRawCallbackMethod_AblateDirections<
                                v1::Analysis::WithRawCallbackMethod_Sweep<
                                    v1::Analysis::WithRawCallbackMethod_GetJacobian<
                                        v1::Analysis::WithRawCallbackMethod_Generate<
                                            v1::Analysis::WithRawCallbackMethod_MeanActivation<
                                                v1::Analysis::WithRawCallbackMethod_ListMeans<
                                                    v1::Analysis::WithRawCallbackMethod_DeleteMean<
                                                        v1::Analysis::
                                                            Service>>>>>>>>>>>>>>>>>>>;

// cupola.v1.Analysis: turns each request into a plain struct, hands it to the
// engine, and turns the engine's answer back. Handlers return at once; answers
// are encoded on the engine's threads.
class AnalysisService final : public RawAnalysis {
 public:
  explicit AnalysisService(const Environment& environment)
      : environment_(environment) {}

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListMeans(grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* request,
                                      grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* DeleteMean(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* MeanActivation(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetActivations(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetFeatures(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Reconstruct(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Run(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Ablate(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* TabulateAblations(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetWeight(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetLatentWeights(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Attribute(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* LogitLens(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetQuality(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GetJacobian(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* AblateDirections(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Sweep(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(
      grpc::CallbackServerContext* context,
      const grpc::ByteBuffer* request) override;

 private:
  const Environment environment_;
};

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ANALYSIS_SERVICE_H_
