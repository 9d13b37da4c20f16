#include "server/engine/device_worker.h"

#include <algorithm>
#include <limits>
#include <list>
#include <map>
#include <utility>

#include "ATen/ATen.h"
#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/types/span.h"
#include "c10/core/DeviceGuard.h"
#include "c10/core/InferenceMode.h"
#include "server/engine/stepped_batch.h"
#include "server/model/model.h"
#include "server/model/status_macros.h"
#include "server/model/torch_status.h"

namespace cupola::engine {
namespace {

// Works in steps that take turns: each may hold memory of its own.
constexpr size_t kMaxSteppedBatches = 4;

// Assumed of work that was never measured.
constexpr double kCpuFlops = 5e10, kGpuFlops = 5e12;

// Long work lets others have a turn as often, which takes as long at most: they
// wait no longer than for both, and it makes progress however many they are.
constexpr absl::Duration kTurnEvery = absl::Milliseconds(50);
constexpr double kTurnSeconds = 0.1;
constexpr absl::Duration kLongTurn = absl::Seconds(1);

// One pass for a batch: what its analyses read of it (without captures there is
// none), and where. Parts about the same tokens share a row.
struct SharedPass {
  model::ForwardRequest request;
  std::vector<int64_t> rows;  // by part
};
SharedPass ShareFor(const std::vector<Part*>& batch,
                    std::function<absl::Status()> poll) {
  SharedPass pass;
  pass.request.poll = std::move(poll);
  pass.rows.resize(batch.size());
  if (batch.front()->model == nullptr) return pass;
  std::vector<const std::vector<int32_t>*> rows;
  absl::flat_hash_map<absl::Span<const int32_t>, int64_t> places;
  for (size_t i = 0; i < batch.size(); ++i) {
    const std::vector<int32_t>& tokens = batch[i]->sequence->tokens;
    const auto [place, is_new] = places.try_emplace(tokens, rows.size());
    if (is_new) rows.push_back(&tokens);
    pass.rows[i] = place->second;
    pass.request.captures.merge(batch[i]->analysis->captures());
  }
  pass.request.batch = model::TokenBatch::Pack(rows);
  return pass;
}

// Tokens (or rows of inputs) that a batch takes through the device.
int64_t TokensOf(const std::vector<Part>& batch) {
  int64_t tokens = 0;
  absl::flat_hash_set<absl::Span<const int32_t>> rows;
  for (const Part& part : batch) {
    const bool is_new = part.sequence->tokens.empty() ||
                        rows.insert(part.sequence->tokens).second;
    if (is_new) tokens += part.size();
  }
  return tokens;
}

// The batch's parts by question, each with its place in the batch.
std::vector<std::vector<size_t>> ByQuestion(const std::vector<Part*>& batch) {
  std::map<storage::Digest, std::vector<size_t>> groups;
  for (size_t i = 0; i < batch.size(); ++i) {
    groups[batch[i]->identity].push_back(i);
  }
  std::vector<std::vector<size_t>> result;
  for (auto& [identity, members] : groups) result.push_back(std::move(members));
  return result;
}

}  // namespace

DeviceWorker::DeviceWorker(std::string device,
                           const DeviceQueue::Options& queue,
                           Observer* observer)
    : device_(std::move(device)),
      observer_(observer),
      queue_(queue),
      speed_(device_ == "cpu" ? kCpuFlops : kGpuFlops),
      thread_([this] { Loop(); }) {}

DeviceWorker::~DeviceWorker() { Stop(); }

void DeviceWorker::Stop() {
  stopping_ = true;
  queue_.Close(absl::UnavailableError("the server is shutting down"));
  if (thread_.joinable()) thread_.join();
}

void DeviceWorker::Loop() {
  c10::InferenceMode inference;
  const c10::DeviceGuard guard{c10::Device(device_)};
  while (true) {
    std::vector<Part> batch = queue_.PopBatch(
        {.wait = stepped_.empty(), .stepwise = MayBeginSteps()});
    if (batch.empty() && stepped_.empty()) return;
    last_turn_ = work_began_ = absl::Now();
    works_for_a_job_ = !batch.empty() && batch.front().bulk;
    Begin(std::move(batch));
    StepAll();
  }
}

bool DeviceWorker::MayBeginSteps() const {
  return !stepping_ && stepped_.size() < kMaxSteppedBatches;
}

void DeviceWorker::Begin(std::vector<Part> batch) {
  if (batch.empty()) return;
  if (!batch.front().analysis->stepwise()) return RunBatch(batch);
  stepped_.emplace_back(
      std::move(batch), [this] { return Poll(); }, [this] { return Others(); },
      device_, observer_);
}

void DeviceWorker::StepAll() {
  stepping_ = true;
  const absl::Cleanup done = [this] { stepping_ = false; };
  stepped_.remove_if([this](SteppedBatch& one) {
    const bool last = one.Step();
    if (last && one.succeeded()) Learn(one.parts(), one.seconds());
    return last;
  });
}

void DeviceWorker::Learn(const std::vector<Part>& batch, double seconds) {
  double flops = 0;
  for (const Part& part : batch) {
    if (part.operation != batch.front().operation) return;
    flops += part.flops;
  }
  speed_.Learn(batch.front().operation, flops, seconds);
}

void DeviceWorker::TakeTurn() {
  const absl::Time start = absl::Now();
  if (turn_depth_ == kMaxTurnDepth || start - last_turn_ < kTurnEvery) return;
  // What is long waits for other long work, but not for a job, and not for
  // ever; then it gives turns itself.
  const bool long_ones =
      turn_depth_ == 0 && (works_for_a_job_ || start - work_began_ > kLongTurn);
  ++turn_depth_;
  const absl::Cleanup done = [this, start] {
    --turn_depth_;
    last_turn_ = absl::Now();
    others_[turn_depth_] += last_turn_ - start;
  };
  if (!stepping_) StepAll();
  Begin(queue_.PopBatch(
      {.wait = false,
       .stepwise = MayBeginSteps(),
       .most_seconds = long_ones ? std::numeric_limits<double>::infinity()
                                 : kTurnSeconds}));
  if (long_ones) work_began_ = absl::Now();
}

absl::Status DeviceWorker::Poll() {
  RETURN_IF_ERROR(Stopping());
  TakeTurn();
  return Stopping();
}

absl::Status DeviceWorker::Stopping() const {
  return stopping_ ? absl::UnavailableError("the server is shutting down")
                   : absl::OkStatus();
}

void DeviceWorker::RunBatch(std::vector<Part>& batch) {
  const absl::Time start = absl::Now();
  const absl::Duration others_before = Others();
  // What of the time since `start` was spent on this batch.
  const auto own_seconds = [&] {
    return absl::ToDoubleSeconds(absl::Now() - start -
                                 (Others() - others_before));
  };
  size_t landed = 0;
  const absl::Cleanup land_the_rest = [&] {
    for (; landed < batch.size(); ++landed) {
      batch[landed].flight->Land(
          absl::InternalError("the batch ended before its time"));
    }
  };
  std::vector<Part*> parts;
  for (Part& part : batch) parts.push_back(&part);
  auto records = Compute(parts);
  if (records.ok()) Learn(batch, own_seconds());
  // A batch fails as a whole; its parts may come from several clients. Each
  // gets its own try, so that one part's failure is not another's.
  const bool alone = parts.size() == 1 || stopping_;
  while (landed < batch.size()) {
    Part& part = batch[landed];
    absl::StatusOr<storage::Record> record;
    if (records.ok()) {
      record = std::move((*records)[landed]);
    } else if (alone) {
      record = records.status();
    } else {
      auto single = Compute({&part});
      if (single.ok()) {
        record = std::move(single->front());
      } else {
        record = single.status();
      }
    }
    const PartTiming timing{absl::ToDoubleSeconds(start - part.enqueued),
                            own_seconds()};
    ++landed;
    if (record.ok()) {
      part.flight->Land(Landed{
          std::make_shared<const storage::Record>(*std::move(record)), timing});
    } else {
      part.flight->Land(record.status());
    }
  }
  observer_->OnBatch(device_, TokensOf(batch), batch.size(), own_seconds());
}

absl::StatusOr<std::vector<storage::Record>> DeviceWorker::Compute(
    const std::vector<Part*>& batch) {
  const auto poll = [&]() -> absl::Status {
    RETURN_IF_ERROR(Poll());
    absl::Status unwanted;
    for (const Part* part : batch) {
      unwanted = part->flight->StillWanted();
      if (unwanted.ok()) return unwanted;  // somebody still waits
    }
    return unwanted;
  };
  return model::CatchTorch(
      "running a batch", [&]() -> absl::StatusOr<std::vector<storage::Record>> {
        model::ForwardResult forward;
        const model::Model* model = batch.front()->model.get();
        const SharedPass shared = ShareFor(batch, poll);
        const bool runs = !shared.request.captures.empty();
        if (runs) {
          ASSIGN_OR_RETURN(forward, model->Forward(shared.request));
        }
        const analysis::Pass pass{model, runs ? &forward : nullptr, poll};
        std::vector<storage::Record> records(batch.size());
        for (const std::vector<size_t>& members : ByQuestion(batch)) {
          // Who asks about no sequence of their own get the same answer.
          const bool once = batch[members.front()]->sequence->is_empty();
          std::vector<analysis::Placed> placed;
          for (size_t i : members) {
            placed.push_back({batch[i]->sequence.get(), shared.rows[i]});
            if (once) break;
          }
          ASSIGN_OR_RETURN(std::vector<storage::Record> answers,
                           batch[members.front()]->analysis->Run(pass, placed));
          for (size_t k = 0; k < members.size(); ++k) {
            records[members[k]] = once ? answers[0] : std::move(answers[k]);
          }
        }
        return records;
      });
}

}  // namespace cupola::engine
