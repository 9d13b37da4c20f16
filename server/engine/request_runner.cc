#include "server/engine/request_runner.h"

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/numerics.h"
#include "server/engine/part.h"
#include "storage/record.h"

namespace cupola::engine {

// A request on its way. Parts report from the worker's thread, one after
// another or from several workers; the last one finishes the request.
struct RequestRunner::InFlight {
  std::shared_ptr<const Question> question;
  RequestContext context;
  std::function<void(absl::StatusOr<Answered>)> done;
  std::vector<storage::CacheKey> keys;  // per sequence
  std::shared_ptr<Admission::Ticket> ticket;

  // Ends a request whose records have become too many: what it has is dropped,
  // what waits leaves the queue.
  void StopWhereTooLarge() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const int64_t accepted = question->max_record_bytes;
    if (accepted == 0 || bytes <= accepted || !status.ok()) return;
    status = absl::ResourceExhaustedError(absl::StrCat(
        "the answer so far holds ", bytes, " bytes; accepted: ", accepted,
        "; ask for fewer prompts, positions, latents or interventions"));
    answer.records.assign(answer.records.size(), nullptr);
    context.cancelled->store(true);
  }

  absl::Mutex mu;
  int64_t bytes ABSL_GUARDED_BY(mu) = 0;  // of the computed records
  Answered answer ABSL_GUARDED_BY(mu);
  size_t left ABSL_GUARDED_BY(mu) = 0;
  // Of each sequence's key, when the cache was looked into.
  std::vector<uint64_t> flights_ended;

  absl::Status Status() {
    absl::MutexLock lock(&mu);
    return status;
  }
  absl::Status status ABSL_GUARDED_BY(mu);
};

struct RequestRunner::Led {
  std::shared_ptr<InFlight> request;
  std::vector<size_t> sequences;
  std::vector<std::shared_ptr<Flight>> flights;  // of each of them
};

RequestRunner::RequestRunner(
    Catalog* catalog, storage::ResultCache* cache,
    std::map<std::string, std::unique_ptr<DeviceWorker>>* workers,
    const Admission::Options& admission, Executor* front, Observer* observer)
    : catalog_(catalog),
      cache_(cache),
      workers_(workers),
      front_(front),
      observer_(observer),
      flights_([cache](const storage::CacheKey& key,
                       const std::shared_ptr<const storage::Record>& record) {
        if (cache != nullptr) cache->Put(key, record);
      }) {
  for (const auto& [device, worker] : *workers) {
    if (device != kFilesWorker) numerics_[device] = NumericsFingerprint(device);
    admission_.try_emplace(device, admission);
  }
}

const std::string& RequestRunner::WorkerOf(const Question& question) const {
  static const std::string files = kFilesWorker;
  return question.reads_files ? files : question.device;
}

Estimate RequestRunner::EstimateOf(const Question& question,
                                   const std::vector<size_t>& missing,
                                   const RequestContext& context) const {
  const std::string& worker = WorkerOf(question);
  const DeviceSpeed& speed = workers_->at(worker)->speed();
  double flops = 0, inputs = 0;
  for (size_t i : missing) {
    const analysis::Sequence& sequence = *question.sequences[i];
    flops += FlopsOf(question, sequence);
    inputs += static_cast<double>(sequence.inputs.bytes.size() +
                                  4 * sequence.tokens.size());
  }
  double answer = question.answer_bytes;
  if (question.max_record_bytes > 0) {
    answer = std::min(answer, static_cast<double>(question.max_record_bytes));
  }
  Estimate estimate;
  estimate.rows = RowCount(question);
  estimate.columns = question.d_sae;
  estimate.parts = static_cast<int64_t>(question.sequences.size());
  estimate.cached = estimate.parts - static_cast<int64_t>(missing.size());
  const Admission& admission = admission_.at(worker);
  // The records, and the answer that is made of them.
  estimate.bytes = 2 * answer + inputs;
  // A guess that does not fit is no reason to refuse: what the records may
  // really hold is watched.
  if (question.answer_is_guessed) {
    estimate.bytes =
        std::min(estimate.bytes, static_cast<double>(admission.budget_bytes()));
  }
  estimate.seconds =
      missing.empty() ? 0 : speed.Seconds(question.operation, flops);
  estimate.measured = speed.Measured(question.operation, flops);
  estimate.wait = admission.Wait(context.client, estimate.seconds);
  return estimate;
}

int64_t RequestRunner::BytesInFlight() const {
  int64_t bytes = 0;
  for (const auto& [worker, admission] : admission_) {
    bytes += admission.bytes_in_flight();
  }
  return bytes;
}

int64_t RequestRunner::BudgetBytes() const {
  int64_t bytes = 0;
  for (const auto& [worker, admission] : admission_) {
    if (worker != kFilesWorker) bytes += admission.budget_bytes();
  }
  return bytes;
}

storage::CacheKey RequestRunner::KeyOf(
    const Question& question, const analysis::Sequence& sequence) const {
  const Provenance& from = question.provenance;
  storage::CacheKey key;
  key.scope = storage::ScopeOf(from.model_digest);
  key.operation = static_cast<uint8_t>(question.operation);
  storage::Hasher hasher("answer/1");
  hasher.AddInt(key.operation)
      .AddDigest(question.identity)
      .AddDigest(from.model_digest)
      .AddInt(static_cast<int64_t>(from.dtype))
      .AddInt(static_cast<int64_t>(from.processing))
      .AddBytes(numerics_.at(question.device))
      .AddInts(sequence.tokens.data(), sequence.tokens.size())
      .AddInts(sequence.positions.data(), sequence.positions.size())
      .AddInts(sequence.inputs.shape.data(), sequence.inputs.shape.size())
      .AddBytes(sequence.inputs.bytes)
      .AddInt(sequence.lists.size());
  for (const std::vector<int64_t>& list : sequence.lists) {
    hasher.AddInts(list.data(), list.size());
  }
  key.digest = hasher.Finish();
  return key;
}

void RequestRunner::Run(std::shared_ptr<const Question> question,
                        const RequestContext& context,
                        std::function<void(absl::StatusOr<Answered>)> done) {
  auto request = std::make_shared<InFlight>();
  request->question = std::move(question);
  request->context = context;
  request->done = std::move(done);

  const size_t count = request->question->sequences.size();
  Answered answer;
  answer.records.resize(count);
  std::vector<size_t> missing;
  int64_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    request->keys.push_back(
        KeyOf(*request->question, *request->question->sequences[i]));
    request->flights_ended.push_back(flights_.Ended(request->keys[i]));
    if (cache_ != nullptr && !context.bulk) {
      answer.records[i] = cache_->Get(request->keys[i]);
    }
    if (answer.records[i] == nullptr) {
      missing.push_back(i);
    } else {
      bytes += storage::MemoryBytes(*answer.records[i]);
    }
  }
  if (context.dry_run) {
    answer.estimate = EstimateOf(*request->question, missing, context);
    answer.records.clear();
    answer.from_cache = missing.empty();
    return request->done(std::move(answer));
  }
  if (request->question->found) {
    for (size_t i = 0; i < count; ++i) {
      if (answer.records[i] == nullptr) continue;
      request->question->found(i, *answer.records[i]);
    }
  }
  answer.from_cache = missing.empty();
  answer.seconds.lookup = absl::ToDoubleSeconds(absl::Now() - context.arrival);
  absl::Status status;
  {
    absl::MutexLock lock(&request->mu);
    request->bytes = bytes;
    request->StopWhereTooLarge();
    status = request->status;
  }
  if (!status.ok()) return request->done(status);
  // Before a cached answer is assembled, too: it takes as much. The estimate
  // is of all records, those from the cache among them.
  Estimate estimate = EstimateOf(*request->question, missing, context);
  estimate.bytes = std::max(estimate.bytes, 2.0 * static_cast<double>(bytes));
  auto ticket = admission_.at(WorkerOf(*request->question))
                    .Admit(estimate, context, absl::Now());
  if (!ticket.ok()) return request->done(ticket.status());
  request->ticket = *std::move(ticket);
  // Until the answer has been sent, where there is somebody to send it to.
  if (context.held != nullptr) context.held->Add(request->ticket);
  if (missing.empty()) {
    request->ticket->ComputingIsDone();
    return request->done(std::move(answer));
  }
  {
    absl::MutexLock lock(&request->mu);
    request->answer = std::move(answer);
    request->left = missing.size();
  }
  const auto led = std::make_shared<Led>();
  led->request = request;
  for (size_t i : missing) {
    Board(request, i, *led);
  }
  if (!led->sequences.empty()) AcquireWeights(led);
}

void RequestRunner::Board(const std::shared_ptr<InFlight>& request,
                          size_t sequence, Led& led) {
  Flight::Passenger passenger;
  passenger.context = request->context;
  passenger.done = [=, this](absl::StatusOr<Landed> landed) {
    Report(request, sequence, std::move(landed));
  };
  passenger.lead = [=, this](std::shared_ptr<Flight> flight) {
    front_->Run([=, this] {
      const auto mine = std::make_shared<Led>();
      mine->request = request;
      mine->sequences = {sequence};
      mine->flights = {flight};
      // Of a request that has failed already nothing more is computed.
      absl::Status status = request->Status();
      status.ok() ? AcquireWeights(mine) : flight->Abandon(status);
    });
  };
  const storage::CacheKey& key = request->keys[sequence];
  std::shared_ptr<Flight> flight;
  if (request->context.bulk) {
    flight = std::make_shared<Flight>(std::move(passenger));
  } else if (!request->question->sinks.empty()) {
    flight = flights_.Charter(key, std::move(passenger));
  } else {
    flight = flights_.Board(key, std::move(passenger));
    if (flight == nullptr) return observer_->OnSharedFlight();
    // Landed between the look into the cache and here: it is there now.
    if (cache_ != nullptr &&
        flights_.Ended(key) != request->flights_ended[sequence]) {
      if (auto record = cache_->Get(key)) {
        return flight->Land(Landed{std::move(record), {}}, /*keep=*/false);
      }
    }
  }
  led.sequences.push_back(sequence);
  led.flights.push_back(std::move(flight));
}

void RequestRunner::Report(const std::shared_ptr<InFlight>& request,
                           size_t sequence, absl::StatusOr<Landed> landed) {
  absl::MutexLock lock(&request->mu);
  if (landed.ok()) {
    request->bytes += storage::MemoryBytes(*landed->record);
    request->ticket->AtLeast(2.0 * static_cast<double>(request->bytes));
    StageSeconds& seconds = request->answer.seconds;
    seconds.queue = std::max(seconds.queue, landed->timing.queue);
    seconds.compute = std::max(seconds.compute, landed->timing.compute);
    request->answer.records[sequence] = std::move(landed->record);
    request->StopWhereTooLarge();
  } else {
    request->status.Update(landed.status());
  }
  if (--request->left > 0) return;
  front_->Run([request] {
    absl::StatusOr<Answered> answer = absl::UnknownError("");
    {
      absl::MutexLock lock(&request->mu);
      if (request->status.ok()) {
        answer = std::move(request->answer);
      } else {
        answer = request->status;
      }
    }
    request->ticket->ComputingIsDone();
    request->ticket = nullptr;
    request->done(std::move(answer));
  });
}

void RequestRunner::AcquireWeights(LedPtr led) {
  const Question& question = *led->request->question;
  WantedWeights wanted;
  wanted.model = question.model;
  if (question.needs_model) wanted.processing = question.provenance.processing;
  if (!question.dictionary.empty()) {
    wanted.dictionaries.push_back({question.dictionary, question.half});
  }
  wanted.dictionaries.insert(wanted.dictionaries.end(), question.others.begin(),
                             question.others.end());
  const auto acquired = [=, this](absl::StatusOr<HeldWeights> held) {
    if (!held.ok()) return Fail(led, held.status());
    BoundDictionaries bound;
    auto others = held->dictionaries.begin();
    if (!led->request->question->dictionary.empty()) {
      bound.dictionary = *others++;
    }
    bound.others.assign(others, held->dictionaries.end());
    Enqueue(led, std::move(held->model), bound);
  };
  catalog_->AcquireWeights(question.entries, wanted, led->request->context,
                           acquired);
}

void RequestRunner::Enqueue(LedPtr led, ModelPtr model,
                            const BoundDictionaries& bound) {
  const Question& question = *led->request->question;
  const RequestContext& context = led->request->context;
  const auto analysis = question.bind(bound);
  const uint64_t client = absl::HashOf(context.client);
  DeviceWorker& device = *workers_->at(WorkerOf(question));
  std::vector<Part> parts;
  for (size_t k = 0; k < led->sequences.size(); ++k) {
    const size_t i = led->sequences[k];
    Part& part = parts.emplace_back();
    part.model = model;
    part.analysis = analysis;
    part.identity = question.identity;
    part.sequence = question.sequences[i];
    part.flight = led->flights[k];
    part.client = client;
    part.operation = question.operation;
    part.flops = FlopsOf(question, *part.sequence);
    part.seconds = device.speed().Seconds(question.operation, part.flops);
    part.bulk = context.bulk;
    if (!question.sinks.empty()) part.sink = &question.sinks[i];
  }
  absl::Status pushed = device.queue().Push(std::move(parts));
  if (!pushed.ok()) Fail(std::move(led), std::move(pushed));
}

void RequestRunner::Fail(LedPtr led, absl::Status status) {
  front_->Run([led, status = std::move(status)] {
    for (const auto& flight : led->flights) flight->Abandon(status);
  });
}

}  // namespace cupola::engine
