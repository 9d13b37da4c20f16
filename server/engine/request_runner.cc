#include "server/engine/request_runner.h"

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
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
  std::vector<size_t> missing;          // sequences to compute

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
  absl::Status status ABSL_GUARDED_BY(mu);
};

RequestRunner::RequestRunner(
    Catalog* catalog, storage::ResultCache* cache,
    std::map<std::string, std::unique_ptr<DeviceWorker>>* workers,
    Executor* front, Observer* observer)
    : catalog_(catalog),
      cache_(cache),
      workers_(workers),
      front_(front),
      observer_(observer) {
  for (const auto& [device, worker] : *workers) {
    numerics_[device] = NumericsFingerprint(device);
  }
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
      .AddBytes(numerics_.at(catalog_->DeviceOf(question.model)))
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
  for (size_t i = 0; i < count; ++i) {
    request->keys.push_back(
        KeyOf(*request->question, *request->question->sequences[i]));
    if (cache_ != nullptr && !context.bulk) {
      answer.records[i] = cache_->Get(request->keys[i]);
      observer_->OnCacheLookup(answer.records[i] != nullptr);
    }
    if (answer.records[i] == nullptr) request->missing.push_back(i);
  }
  if (request->question->found) {
    for (size_t i = 0; i < count; ++i) {
      if (answer.records[i] == nullptr) continue;
      request->question->found(i, *answer.records[i]);
    }
  }
  answer.from_cache = request->missing.empty();
  answer.seconds.lookup = absl::ToDoubleSeconds(absl::Now() - context.arrival);
  if (request->missing.empty()) return request->done(std::move(answer));
  {
    absl::MutexLock lock(&request->mu);
    request->answer = std::move(answer);
    request->left = request->missing.size();
  }
  AcquireWeights(std::move(request));
}

void RequestRunner::AcquireWeights(std::shared_ptr<InFlight> request) {
  const auto with_model = [=, this](ModelPtr model) {
    if (request->question->dictionary.empty()) {
      return AcquireOthers(request, std::move(model), {});
    }
    catalog_->AcquireDictionary(
        request->question->dictionary, request->question->half,
        request->context, [=, this](absl::StatusOr<DictionaryPtr> dictionary) {
          if (!dictionary.ok()) return Fail(request, dictionary.status());
          AcquireOthers(request, model, {*std::move(dictionary), {}});
        });
  };
  if (!request->question->needs_model) return with_model(nullptr);
  catalog_->AcquireModel(
      request->question->model, request->question->provenance.processing,
      request->context, [=, this](absl::StatusOr<ModelPtr> model) {
        if (!model.ok()) return Fail(request, model.status());
        with_model(*std::move(model));
      });
}

void RequestRunner::AcquireOthers(std::shared_ptr<InFlight> request,
                                  ModelPtr model, BoundDictionaries bound) {
  const std::vector<DictionaryUse>& others = request->question->others;
  if (bound.others.size() == others.size()) {
    return Enqueue(request, std::move(model), bound);
  }
  const DictionaryUse& next = others[bound.others.size()];
  catalog_->AcquireDictionary(
      next.entry, next.half, request->context,
      [=, this](absl::StatusOr<DictionaryPtr> dictionary) {
        if (!dictionary.ok()) return Fail(request, dictionary.status());
        BoundDictionaries more = bound;
        more.others.push_back(*std::move(dictionary));
        AcquireOthers(request, model, std::move(more));
      });
}

void RequestRunner::Enqueue(std::shared_ptr<InFlight> request, ModelPtr model,
                            const BoundDictionaries& bound) {
  const Question& question = *request->question;
  const auto analysis = question.bind(bound);
  std::vector<Part> parts;
  for (size_t i : request->missing) {
    Part& part = parts.emplace_back();
    part.model = model;
    part.analysis = analysis;
    part.identity = question.identity;
    part.sequence = question.sequences[i];
    part.context = request->context;
    if (!question.sinks.empty()) part.sink = &question.sinks[i];
    part.done =
        [=, this](absl::StatusOr<std::shared_ptr<const storage::Record>> record,
                  PartTiming timing) {
          if (record.ok() && cache_ != nullptr && !request->context.bulk) {
            cache_->Put(request->keys[i], *record);
          }
          absl::MutexLock lock(&request->mu);
          if (record.ok()) {
            request->bytes += storage::MemoryBytes(**record);
            request->answer.records[i] = *std::move(record);
            request->StopWhereTooLarge();
          } else {
            request->status.Update(record.status());
          }
          StageSeconds& seconds = request->answer.seconds;
          seconds.queue = std::max(seconds.queue, timing.queue);
          seconds.compute = std::max(seconds.compute, timing.compute);
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
            request->done(std::move(answer));
          });
        };
  }
  const std::string worker =
      question.reads_files ? kFilesWorker : catalog_->DeviceOf(question.model);
  absl::Status pushed = workers_->at(worker)->queue().Push(std::move(parts));
  if (!pushed.ok()) Fail(request, std::move(pushed));
}

void RequestRunner::Fail(std::shared_ptr<InFlight> request,
                         absl::Status status) {
  front_->Run([request, status = std::move(status)] { request->done(status); });
}

}  // namespace cupola::engine
