#ifndef CUPOLA_SERVER_ENGINE_DEVICE_WORKER_H_
#define CUPOLA_SERVER_ENGINE_DEVICE_WORKER_H_

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "server/engine/device_queue.h"
#include "server/engine/observer.h"

namespace cupola::engine {

// Where questions that read files instead of computing are queued
// (Question::reads_files): at a worker of their own, whose device is the CPU,
// so that nobody on a device waits for them.
inline constexpr char kFilesWorker[] = "files";

// The one thread that computes on a device: it pulls batches from its queue,
// runs one forward pass for all parts of a batch, hands its tensors to each
// question's analysis, and gives every part its record or its error. Work in
// steps (a generation) takes turns with such batches and with its like: nobody
// waits for the end of a long text.
class DeviceWorker {
 public:
  // `device` is a torch device string; `observer` outlives the worker.
  DeviceWorker(std::string device, const DeviceQueue::Options& queue,
               Observer* observer);
  ~DeviceWorker();  // as Stop
  DeviceWorker(const DeviceWorker&) = delete;
  DeviceWorker& operator=(const DeviceWorker&) = delete;

  DeviceQueue& queue() { return queue_; }
  const std::string& device() const { return device_; }

  // Ends queued and running work with UNAVAILABLE and joins the thread.
  void Stop();

 private:
  void Loop();
  absl::Status Stopping() const;
  void RunBatch(std::vector<Part>& batch);
  // Computes the batch's records, or the one status that all its parts share.
  absl::StatusOr<std::vector<storage::Record>> Compute(
      const std::vector<Part*>& batch);

  const std::string device_;
  Observer* const observer_;
  DeviceQueue queue_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_DEVICE_WORKER_H_
