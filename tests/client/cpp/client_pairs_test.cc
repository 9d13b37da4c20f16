// The client's questions about pairs of dictionaries, and its jobs.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/cpp/client.h"
#include "cupola/v1/analysis.grpc.pb.h"
#include "cupola/v1/jobs.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"

namespace cupola {
namespace {

std::string Value(const grpc::ServerContext& context, const std::string& key) {
  const auto found = context.client_metadata().find(key);
  if (found == context.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
}

class FakePairs final : public v1::Analysis::Service {
 public:
  // The three questions about a pair: a block, the samples back, one curve.
  grpc::Status GetJacobian(
      grpc::ServerContext* context, const v1::JacobianRequest* request,
      grpc::ServerWriter<v1::JacobianResponse>* writer) override {
    model = Value(*context, "cupola-model");
    v1::JacobianResponse message;
    v1::Tensor* values = message.mutable_header()->mutable_values();
    values->set_dtype(v1::FLOAT32);
    for (const int extent : {1, 1, 2}) values->add_shape(extent);
    message.mutable_header()->mutable_provenance()->set_chunked_bytes(8);
    message.mutable_header()->set_output_dictionary(
        request->output_dictionary());
    writer->Write(message);
    message.Clear();
    message.set_chunk("8 bytes.");
    writer->Write(message);
    return grpc::Status::OK;
  }
  grpc::Status AblateDirections(
      grpc::ServerContext* /*context*/,
      const v1::DirectionAblationRequest* request,
      grpc::ServerWriter<v1::DirectionAblationResponse>* writer) override {
    v1::DirectionAblationResponse message;
    v1::Tensor* row = message.mutable_header()->mutable_row();
    row->set_dtype(v1::INT32);
    row->add_shape(request->samples().rows_size());
    row->set_data(std::string(4 * request->samples().rows_size(), '\1'));
    writer->Write(message);
    return grpc::Status::OK;
  }
  grpc::Status Sweep(
      grpc::ServerContext* /*context*/, const v1::SweepRequest* request,
      grpc::ServerWriter<v1::SweepResponse>* /*writer*/) override {
    return {grpc::StatusCode::INVALID_ARGUMENT,
            "points is " + std::to_string(request->points())};
  }

  std::string model;  // of the last GetJacobian
};

// One job, which gets on by a quarter with each message of Watch.
class FakeJobs final : public v1::Jobs::Service {
 public:
  grpc::Status AccumulateJacobian(grpc::ServerContext* context,
                                  const v1::AccumulateJacobianRequest* request,
                                  v1::Job* job) override {
    ++submitted;
    model = Value(*context, "cupola-model");
    if (!accepts.ok()) return accepts;
    job_.set_id("job-1");
    job_.set_title(request->jacobian().dictionary());
    job_.set_state(v1::Job::QUEUED);
    job_.set_chunks(4);
    *job = job_;
    return grpc::Status::OK;
  }
  grpc::Status List(grpc::ServerContext* /*context*/,
                    const v1::ListJobsRequest* /*request*/,
                    v1::ListJobsResponse* response) override {
    if (!job_.id().empty()) *response->add_jobs() = job_;
    return grpc::Status::OK;
  }
  grpc::Status Get(grpc::ServerContext* /*context*/, const v1::JobId* request,
                   v1::Job* job) override {
    return Known(*request, v1::Job::STATE_UNSPECIFIED, job);
  }
  grpc::Status Cancel(grpc::ServerContext* /*context*/,
                      const v1::JobId* request, v1::Job* job) override {
    return Known(*request, v1::Job::CANCELLED, job);
  }
  grpc::Status Resume(grpc::ServerContext* /*context*/,
                      const v1::JobId* request, v1::Job* job) override {
    return Known(*request, v1::Job::RUNNING, job);
  }
  grpc::Status Delete(grpc::ServerContext* /*context*/,
                      const v1::JobId* request,
                      v1::DeleteJobResponse* /*response*/) override {
    v1::Job job;
    const grpc::Status status = Known(*request, v1::Job::CANCELLED, &job);
    job_.Clear();
    return status;
  }
  grpc::Status Watch(grpc::ServerContext* context, const v1::JobId* /*request*/,
                     grpc::ServerWriter<v1::Job>* writer) override {
    for (int done = 1; done <= 4 && !context->IsCancelled(); ++done) {
      job_.set_chunks_done(done);
      job_.set_state(done == 4 ? v1::Job::DONE : v1::Job::RUNNING);
      if (!writer->Write(job_)) break;
    }
    return watch;
  }
  grpc::Status GetJacobianTotals(
      grpc::ServerContext* /*context*/,
      const v1::JacobianTotalsRequest* request,
      grpc::ServerWriter<v1::JacobianTotalsResponse>* writer) override {
    v1::JacobianTotalsResponse message;
    message.mutable_header()->set_tokens(2000);
    v1::Tensor* rows = message.mutable_header()->mutable_rows();
    rows->set_dtype(v1::FLOAT64);
    rows->add_shape(request->rows_size());
    rows->add_shape(columns);
    writer->Write(message);
    message.Clear();
    message.set_chunk(std::string(totals_bytes, 'x'));
    writer->Write(message);
    return grpc::Status::OK;
  }

  grpc::Status accepts = grpc::Status::OK, watch = grpc::Status::OK;
  int submitted = 0;
  int64_t columns = 3;
  size_t totals_bytes = 0;
  std::string model;  // of the last submission

 private:
  grpc::Status Known(const v1::JobId& request, v1::Job::State state,
                     v1::Job* job) {
    if (request.id() != job_.id()) {
      return {grpc::StatusCode::NOT_FOUND, "no job " + request.id()};
    }
    if (state != v1::Job::STATE_UNSPECIFIED) job_.set_state(state);
    *job = job_;
    return grpc::Status::OK;
  }

  v1::Job job_;
};

class ClientPairsTest : public ::testing::Test {
 protected:
  ClientPairsTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&pairs_);
    builder.RegisterService(&jobs_);
    server_ = builder.BuildAndStart();
    auto client = Client::Connect("127.0.0.1:" + std::to_string(port));
    EXPECT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  FakePairs pairs_;
  FakeJobs jobs_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientPairsTest, QuestionsAboutAPair) {
  v1::JacobianRequest jacobian;
  jacobian.set_dictionary("m/in");
  jacobian.set_output_dictionary("m/out");
  const auto block = client_->GetJacobian(jacobian);
  ASSERT_TRUE(block.ok()) << block.status();
  EXPECT_EQ(block->values().data(), "8 bytes.");
  EXPECT_EQ(block->output_dictionary(), "m/out");
  EXPECT_EQ(pairs_.model, "m/in");

  v1::DirectionAblationRequest ablation;
  for (const int row : {0, 1, 2}) ablation.mutable_samples()->add_rows(row);
  const auto ablated = client_->AblateDirections(ablation);
  ASSERT_TRUE(ablated.ok()) << ablated.status();
  EXPECT_EQ(ablated->row().data().size(), 12);

  v1::SweepRequest sweep;
  sweep.set_points(7);
  const auto swept = client_->Sweep(sweep);
  EXPECT_EQ(swept.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(swept.status().message(), "points is 7");
}

TEST_F(ClientPairsTest, AJobFromItsSubmissionToItsEnd) {
  EXPECT_EQ(client_->GetJob("job-1").status().code(),
            absl::StatusCode::kNotFound);
  v1::AccumulateJacobianRequest request;
  request.mutable_jacobian()->set_dictionary("m/in");
  const auto job = client_->AccumulateJacobian(request);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), v1::Job::QUEUED);
  EXPECT_EQ(job->title(), "m/in");
  EXPECT_EQ(jobs_.model, "m/in");
  EXPECT_EQ(client_->ListJobs()->jobs_size(), 1);

  std::vector<int64_t> done;
  const auto watch = [&](const v1::Job& now) {
    done.push_back(now.chunks_done());
    return true;
  };
  const auto ended = client_->WatchJob("job-1", watch);
  ASSERT_TRUE(ended.ok()) << ended.status();
  EXPECT_EQ(done, (std::vector<int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(ended->state(), v1::Job::DONE);
  EXPECT_EQ(client_->GetJob("job-1")->state(), v1::Job::DONE);

  EXPECT_EQ(client_->CancelJob("job-1")->state(), v1::Job::CANCELLED);
  EXPECT_EQ(client_->ResumeJob("job-1")->state(), v1::Job::RUNNING);
  EXPECT_TRUE(client_->DeleteJob("job-1").ok());
  EXPECT_EQ(client_->ListJobs()->jobs_size(), 0);
}

TEST_F(ClientPairsTest, WatchingEndsAsTheCallerOrTheServerSays) {
  ASSERT_TRUE(client_->AccumulateJacobian({}).ok());
  int news = 0;
  const auto left =
      client_->WatchJob("job-1", [&](const v1::Job&) { return ++news < 2; });
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_EQ(left->chunks_done(), 2);
  EXPECT_EQ(news, 2);
  jobs_.watch = {grpc::StatusCode::INTERNAL, "no more"};
  const auto broken =
      client_->WatchJob("job-1", [](const v1::Job&) { return true; });
  EXPECT_EQ(broken.status().message(), "no more");
}

TEST_F(ClientPairsTest, AJobIsSubmittedOnce) {
  jobs_.accepts = {grpc::StatusCode::UNAVAILABLE, "draining"};
  EXPECT_EQ(client_->AccumulateJacobian({}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(jobs_.submitted, 1);
}

TEST_F(ClientPairsTest, TotalsComeInChunksWithoutAnnouncement) {
  v1::JacobianTotalsRequest request;
  request.add_rows(0);
  request.add_rows(1);
  jobs_.totals_bytes = 2 * 3 * 8;
  const auto totals = client_->GetJacobianTotals(request);
  ASSERT_TRUE(totals.ok()) << totals.status();
  EXPECT_EQ(totals->rows().data(), std::string(48, 'x'));
  EXPECT_EQ(totals->tokens(), 2000);
  jobs_.totals_bytes = 47;
  EXPECT_EQ(client_->GetJacobianTotals(request).status().code(),
            absl::StatusCode::kDataLoss);
  jobs_.totals_bytes = 49;
  EXPECT_EQ(client_->GetJacobianTotals(request).status().code(),
            absl::StatusCode::kDataLoss);
  for (const int64_t columns :
       {int64_t{1} << 40, int64_t{1} << 62, int64_t{-1}}) {
    jobs_.columns = columns;
    EXPECT_EQ(client_->GetJacobianTotals(request).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
}

}  // namespace
}  // namespace cupola
