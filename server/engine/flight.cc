#include "server/engine/flight.h"

#include <utility>

namespace cupola::engine {

Flight::Flight(Passenger passenger) {
  passengers_.push_back(std::move(passenger));
}

absl::Status Flight::StillWanted() const {
  absl::MutexLock lock(&mu_);
  absl::Status unwanted;
  for (const Passenger& passenger : passengers_) {
    unwanted = engine::StillWanted(passenger.context);
    if (unwanted.ok()) break;
  }
  return unwanted;
}

std::vector<Flight::Passenger> Flight::TakePassengers() {
  // Whoever asks from here on finds the record, or starts another flight.
  if (table_ != nullptr) table_->Remove(*this);
  absl::MutexLock lock(&mu_);
  ended_ = true;
  return std::exchange(passengers_, {});
}

void Flight::Land(absl::StatusOr<Landed> landed) {
  if (landed.ok() && table_ != nullptr && table_->keep_ != nullptr) {
    table_->keep_(*key_, landed->record);
  }
  // A flight that nobody wants ends early: each hears his own reason, and who
  // came in the last moment tries for himself.
  const bool unwanted = absl::IsCancelled(landed.status()) ||
                        absl::IsDeadlineExceeded(landed.status());
  std::vector<Passenger> passengers = TakePassengers();
  for (size_t i = 0; i < passengers.size(); ++i) {
    Passenger& passenger = passengers[i];
    absl::Status own;
    if (unwanted) own = engine::StillWanted(passenger.context);
    if (!own.ok()) {
      passenger.done(own);
    } else if (unwanted && i > 0) {
      passenger.again(std::move(passenger.done));
    } else {
      passenger.done(landed);
    }
  }
}

void Flight::Abandon(const absl::Status& status) {
  std::vector<Passenger> passengers = TakePassengers();
  passengers.front().done(status);
  for (size_t i = 1; i < passengers.size(); ++i) {
    passengers[i].again(std::move(passengers[i].done));
  }
}

std::shared_ptr<Flight> Flights::Board(const storage::CacheKey& key,
                                       Flight::Passenger passenger) {
  absl::MutexLock lock(&mu_);
  std::shared_ptr<Flight>& flight = flights_[key.digest];
  if (flight != nullptr) {
    absl::MutexLock inside(&flight->mu_);
    if (!flight->ended_) {
      // Alone, the first is told when the flight ends for want of passengers.
      std::vector<Flight::Passenger>& all = flight->passengers_;
      if (all.size() == 1) {
        all[0].done = waiting_.Add(all[0].context, std::move(all[0].done));
      }
      passenger.done =
          waiting_.Add(passenger.context, std::move(passenger.done));
      all.push_back(std::move(passenger));
      return nullptr;
    }
  }
  flight = std::make_shared<Flight>(std::move(passenger));
  flight->table_ = this;
  flight->key_ = key;
  flight->listed_ = true;
  return flight;
}

std::shared_ptr<Flight> Flights::Charter(const storage::CacheKey& key,
                                         Flight::Passenger passenger) {
  auto flight = std::make_shared<Flight>(std::move(passenger));
  flight->table_ = this;
  flight->key_ = key;
  return flight;
}

void Flights::Remove(const Flight& flight) {
  absl::MutexLock lock(&mu_);
  ++ended_;
  if (!flight.listed_) return;
  const auto found = flights_.find(flight.key_->digest);
  if (found != flights_.end() && found->second.get() == &flight) {
    flights_.erase(found);
  }
}

int64_t Flights::in_flight() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(flights_.size());
}

}  // namespace cupola::engine
