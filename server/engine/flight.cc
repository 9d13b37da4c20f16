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

void Flight::Land(absl::StatusOr<Landed> landed, bool keep) {
  const bool unwanted = absl::IsCancelled(landed.status()) ||
                        absl::IsDeadlineExceeded(landed.status());
  if (unwanted) {
    // Where the first passenger still waits, it is what he is to be told.
    bool first_waits;
    {
      absl::MutexLock lock(&mu_);
      first_waits = engine::StillWanted(passengers_.front().context).ok();
    }
    return first_waits ? Abandon(landed.status()) : HandOver();
  }
  if (landed.ok() && keep && table_ != nullptr && table_->keep_ != nullptr) {
    table_->keep_(*key_, landed->record);
  }
  for (Passenger& passenger : End()) passenger.done(landed);
}

void Flight::Abandon(const absl::Status& status) {
  Passenger first;
  {
    absl::MutexLock lock(&mu_);
    first = std::move(passengers_.front());
    passengers_.pop_front();
  }
  first.done(status);
  HandOver();
}

void Flight::HandOver() {
  std::function<void(std::shared_ptr<Flight>)> lead;
  Passengers told;
  {
    // Nobody boards meanwhile, so an empty flight leaves the table for good.
    absl::MutexLockMaybe table(table_ == nullptr ? nullptr : &table_->mu_);
    absl::MutexLock lock(&mu_);
    while (!passengers_.empty() &&
           !engine::StillWanted(passengers_.front().context).ok()) {
      told.push_back(std::move(passengers_.front()));
      passengers_.pop_front();
    }
    if (!passengers_.empty()) {
      lead = passengers_.front().lead;
    } else if (table_ != nullptr) {
      table_->Remove(*this);
    }
  }
  for (Passenger& passenger : told) {
    passenger.done(engine::StillWanted(passenger.context));
  }
  if (lead) lead(shared_from_this());
}

Flight::Passengers Flight::End() {
  absl::MutexLockMaybe table(table_ == nullptr ? nullptr : &table_->mu_);
  // Whoever asks from here on finds the record, or starts another flight.
  if (table_ != nullptr) table_->Remove(*this);
  absl::MutexLock lock(&mu_);
  return std::exchange(passengers_, {});
}

std::shared_ptr<Flight> Flights::Board(const storage::CacheKey& key,
                                       Flight::Passenger passenger) {
  absl::MutexLock lock(&mu_);
  std::shared_ptr<Flight>& flight = flights_[key.digest];
  if (flight != nullptr) {
    absl::MutexLock inside(&flight->mu_);
    // Alone, the first is told when the flight ends for want of passengers.
    Flight::Passengers& all = flight->passengers_;
    all.push_back(std::move(passenger));
    for (Flight::Passenger* one : {&all.front(), &all.back()}) {
      if (std::exchange(one->watched, true)) continue;
      one->done = waiting_.Add(one->context, std::move(one->done));
    }
    return nullptr;
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
  ++ended_[flight.key_->digest[0]];
  if (flight.listed_) flights_.erase(flight.key_->digest);
}

int64_t Flights::in_flight() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int64_t>(flights_.size());
}

}  // namespace cupola::engine
