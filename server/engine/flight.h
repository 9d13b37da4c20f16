#ifndef CUPOLA_SERVER_ENGINE_FLIGHT_H_
#define CUPOLA_SERVER_ENGINE_FLIGHT_H_

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/request_context.h"
#include "server/engine/wait_list.h"
#include "storage/result_cache.h"

namespace cupola::engine {

struct PartTiming {
  double queue = 0;    // seconds waited
  double compute = 0;  // seconds of the batch it ran in
};

// A record that has been computed.
struct Landed {
  std::shared_ptr<const storage::Record> record;
  PartTiming timing;
};

class Flights;

// A record on its way, and everybody who waits for it: requests that ask for
// the same while it is computed share one flight. Each passenger keeps a
// deadline and a cancellation of its own: who gives up is told, the flight goes
// on while anybody is left. Thread-safe.
class Flight : public std::enable_shared_from_this<Flight> {
 public:
  using Done = std::function<void(absl::StatusOr<Landed>)>;

  struct Passenger {
    RequestContext context;
    // Called once: by whoever lands the flight or, where there are several
    // passengers, when this one's own time is up.
    Done done;
    // Called instead of the first passenger's way of getting the flight off,
    // when that one has given up on the ground: this one is the first now.
    std::function<void(std::shared_ptr<Flight>)> lead;
    bool watched = false;  // `done` is a wait list's; for Flights alone
  };

  // A flight that nobody else can board.
  explicit Flight(Passenger passenger);

  // OK while somebody waits, else why the last passenger does not.
  absl::Status StillWanted() const;

  // Tells all passengers; the end, unless a flight that nobody wanted any more
  // has been boarded in the last moment: that one leads it. `keep`: store what
  // has landed.
  void Land(absl::StatusOr<Landed> landed, bool keep = true);
  // Nothing was tried yet, for reasons of the first passenger's own (`status`):
  // the next one who still waits leads the flight.
  void Abandon(const absl::Status& status);

 private:
  friend class Flights;
  using Passengers = std::deque<Passenger>;
  // Hands the flight to the first passenger who still wants it; the others
  // before him are told why they do not. Without any, the flight ends.
  void HandOver();
  // Takes the flight out of its table.
  Passengers End();

  // Set before anybody else sees this, where the flight is one of a table's.
  Flights* table_ = nullptr;
  std::optional<storage::CacheKey> key_;
  bool listed_ = false;

  mutable absl::Mutex mu_;
  Passengers passengers_ ABSL_GUARDED_BY(mu_);
};

// All flights there are, by what they bring. Any thread may call.
class Flights {
 public:
  // `keep` stores what has landed, before its flight leaves the table; null:
  // nothing does.
  using Keep = std::function<void(
      const storage::CacheKey&, const std::shared_ptr<const storage::Record>&)>;
  explicit Flights(Keep keep) : keep_(std::move(keep)) {}

  // Null: the passenger boarded a flight that is on its way. Else a new one,
  // with the passenger as its first, which the caller brings to its end.
  std::shared_ptr<Flight> Board(const storage::CacheKey& key,
                                Flight::Passenger passenger);
  // Always a new flight, of one passenger for good, whose record is kept.
  std::shared_ptr<Flight> Charter(const storage::CacheKey& key,
                                  Flight::Passenger passenger);

  // How many flights to here, or to few other places, have ended: who has
  // looked for a record in vain looks again when that has changed meanwhile.
  uint64_t Ended(const storage::CacheKey& key) const {
    return ended_[key.digest[0]];
  }
  int64_t in_flight() const;

 private:
  friend class Flight;
  void Remove(const Flight& flight) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Keep keep_;
  std::array<std::atomic<uint64_t>, 256> ended_{};
  mutable absl::Mutex mu_;  // before any Flight::mu_
  absl::flat_hash_map<storage::Digest, std::shared_ptr<Flight>> flights_
      ABSL_GUARDED_BY(mu_);
  WaitList waiting_;
};

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_FLIGHT_H_
