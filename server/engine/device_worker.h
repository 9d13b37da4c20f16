#ifndef CUPOLA_SERVER_ENGINE_DEVICE_WORKER_H_
#define CUPOLA_SERVER_ENGINE_DEVICE_WORKER_H_

#include <atomic>
#include <list>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/cost.h"
#include "server/engine/device_queue.h"
#include "server/engine/observer.h"
#include "server/engine/stepped_batch.h"

namespace cupola::engine {

// Where questions that read files instead of computing are queued
// (Question::reads_files): at a worker of their own, whose device is the CPU,
// so that nobody on a device waits for them.
inline constexpr char kFilesWorker[] = "files";

// The one thread that computes on a device: it pulls batches from its queue,
// runs one forward pass for all parts of a batch, hands its tensors to each
// question's analysis, and gives every part its record or its error. Work in
// steps (a generation) takes turns with such batches and with its like: nobody
// waits for the end of a long text. Nor of anything else that is long: where an
// analysis polls, the worker now and then serves what is short and waits.
class DeviceWorker {
 public:
  // `device` is a torch device string; `observer` outlives the worker.
  DeviceWorker(std::string device, const DeviceQueue::Options& queue,
               Observer* observer);
  ~DeviceWorker();  // as Stop
  DeviceWorker(const DeviceWorker&) = delete;
  DeviceWorker& operator=(const DeviceWorker&) = delete;

  DeviceQueue& queue() { return queue_; }
  const DeviceSpeed& speed() const { return speed_; }
  const std::string& device() const { return device_; }

  // Ends queued and running work with UNAVAILABLE and joins the thread.
  void Stop();

 private:
  void Loop();
  void StepAll();
  bool MayBeginSteps() const;
  void Begin(std::vector<Part> batch);
  // Of a batch of one operation.
  void Learn(const std::vector<Part>& batch, double seconds);
  absl::Status Stopping() const;
  // Between pieces of work: Stopping, and others' turn.
  absl::Status Poll();
  void RunBatch(std::vector<Part>& batch);
  // Serves others for a moment, when it is time to; called between the pieces
  // of long work.
  void TakeTurn();
  // Computes the batch's records, or the one status that all its parts share.
  absl::StatusOr<std::vector<storage::Record>> Compute(
      const std::vector<Part*>& batch);

  const std::string device_;
  Observer* const observer_;
  DeviceQueue queue_;
  DeviceSpeed speed_;
  std::atomic<bool> stopping_{false};
  // Of the thread alone.
  std::list<SteppedBatch> stepped_;
  bool stepping_ = false;  // one of them is at work
  // Turns within other work; what is long may have turns within its own.
  static constexpr int kMaxTurnDepth = 2;
  int turn_depth_ = 0;
  // All turns so far, by the depth of the work they were within.
  absl::Duration others_[kMaxTurnDepth + 1];
  absl::Duration Others() const { return others_[turn_depth_]; }
  // What runs outside of all turns.
  absl::Time work_began_ = absl::InfinitePast();
  bool works_for_a_job_ = false;
  absl::Time last_turn_ = absl::InfinitePast();
  std::thread thread_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DEVICE_WORKER_H_
