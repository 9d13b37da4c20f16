#ifndef CUPOLA_SERVER_ENGINE_JOB_INFO_H_
#define CUPOLA_SERVER_ENGINE_JOB_INFO_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "storage/digest.h"

namespace cupola::engine {

enum class JobState : uint8_t {
  kQueued = 1,
  kRunning = 2,
  kDone = 3,
  kFailed = 4,
  kCancelled = 5,
};

// Neither queued nor running.
bool HasEnded(JobState state);
// "queued", ...
const char* NameOf(JobState state);

// What a result was computed of.
struct JobProvenance {
  std::string model;
  storage::Digest model_digest{};
  std::vector<std::pair<std::string, storage::Digest>> dictionaries;
  std::string dataset;               // empty: prompts of the request
  storage::Digest dataset_digest{};  // of the documents
  storage::Digest rows_digest{};     // of the rows of tokens
  storage::Digest store{};           // that the job writes; else zeros
  std::string parameters;            // everything else, JSON
};

// A part of a job: the index-th of `count` runs of chunks, as equal as can be,
// in order.
struct Shard {
  int64_t index = 0, count = 1;
};

struct JobInfo {
  std::string id;
  std::string name;  // the client's; may be empty
  std::string kind;
  std::string title;  // what it is about, for people
  std::string owner;  // who submitted it (actor.h); may be empty
  JobState state = JobState::kQueued;
  Shard shard;
  // Of the shard; its first one is `first_chunk` of the whole job.
  int64_t chunks_done = 0, chunks = 0, first_chunk = 0;
  int64_t tokens_done = 0, tokens = 0;
  int64_t chunks_saved = 0;      // in the last checkpoint
  double seconds = 0;            // spent on chunks_done
  double tokens_per_second = 0;  // of late; 0: not known
  double seconds_left = -1;      // an estimate; -1: none
  std::string error;             // why it failed
  bool resumable = false;        // it ended before its time and may go on
  absl::Time submitted;
  absl::Time expires = absl::InfiniteFuture();  // once it has ended
  JobProvenance provenance;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_JOB_INFO_H_
