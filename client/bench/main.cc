// cupola_bench: from a command line to a load, and to what became of it.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/bench/caller.h"
#include "client/bench/load.h"
#include "client/bench/mix.h"
#include "client/bench/options.h"
#include "client/bench/point.h"
#include "client/bench/report.h"

namespace cupola::bench {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;
// For calls to end by themselves, and then after they were cancelled.
constexpr absl::Duration kPatience = absl::Seconds(5);
constexpr absl::Duration kCancelPatience = absl::Seconds(30);

int Complain(const absl::Status& status, int code) {
  std::fprintf(stderr, "cupola_bench: %s\n",
               std::string(status.message()).c_str());
  return code;
}

// One point of the sweep. Questions go on from `index`, which it moves.
PointReport Measure(const Options& options, PointReport report, const Ask& ask,
                    Caller* caller, int64_t* index) {
  Recorder recorder;
  std::unique_ptr<Load> load;
  OpenLoad* open = nullptr;
  if (report.rate > 0) {
    auto made = std::make_unique<OpenLoad>(
        Arrivals(options.arrivals, report.rate, options.mix.seed + *index),
        options.max_in_flight, *index, ask, &recorder);
    open = made.get();
    load = std::move(made);
  } else {
    load = std::make_unique<ClosedLoad>(report.clients, *index, ask, &recorder);
  }
  report.point = RunPoint(options.point, load.get(), &recorder);
  if (open != nullptr) report.backlog = open->CountBacklog();
  report.unfinished = load->Stop(kPatience);
  if (report.unfinished > 0) {
    caller->CancelAll();
    if (load->Stop(kCancelPatience) > 0) {
      std::fputs("cupola_bench: calls do not end when cancelled\n", stderr);
      std::_Exit(kFailed);  // they would come back to what is gone
    }
  }
  *index = load->next_index();
  return report;
}

int Bench(Options options) {
  const char* token = std::getenv("CUPOLA_TOKEN");
  if (token != nullptr) options.caller.token = token;
  const std::string time =
      absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
  auto caller = Caller::Connect(options.caller);
  if (!caller.ok()) return Complain(caller.status(), kFailed);
  const auto subject = (*caller)->Find(options.dictionary);
  if (!subject.ok()) return Complain(subject.status(), kFailed);
  for (const int64_t length : options.mix.lengths) {
    if (length > subject->context) {
      return Complain(
          absl::InvalidArgumentError(absl::StrCat(
              "--lengths is ", length, "; accepted: at most ", subject->context,
              ", the context of ", subject->model)),
          kUsage);
    }
  }
  options.mix.vocabulary = subject->vocabulary;
  const auto mix = Mix::Create(options.mix);
  if (!mix.ok()) return Complain(mix.status(), kUsage);
  const Ask ask = [&](int64_t index, std::function<void(Outcome)> done) {
    (*caller)->Send(*subject, mix->At(index), std::move(done));
  };

  // The table goes where the JSON does not.
  std::FILE* table = options.json == "-" ? stderr : stdout;
  std::fprintf(table, "%s at %s, seed %llu\n%s\n", subject->dictionary.c_str(),
               options.caller.address.c_str(),
               static_cast<unsigned long long>(options.mix.seed),
               TableHeading(options).c_str());
  std::vector<PointReport> points;
  for (const int64_t clients : options.clients) {
    points.emplace_back().clients = clients;
  }
  for (const double rate : options.rates) points.emplace_back().rate = rate;
  int64_t index = 0;
  for (PointReport& point : points) {
    point = Measure(options, point, ask, caller->get(), &index);
    std::fprintf(table, "%s\n", TableLine(point).c_str());
    std::fflush(table);
  }
  const std::string json = ToJson(options, *subject, time, points);
  if (options.json == "-") {
    std::puts(json.c_str());
  } else if (!options.json.empty()) {
    std::ofstream file(options.json);
    file << json << "\n";
    if (!file.flush()) {
      return Complain(
          absl::UnknownError(absl::StrCat("cannot write ", options.json)),
          kFailed);
    }
  }
  return 0;
}

}  // namespace
}  // namespace cupola::bench

int main(int argc, char** argv) {
  const auto options = cupola::bench::ParseOptions(
      std::vector<std::string>(argv + 1, argv + argc),
      static_cast<uint64_t>(absl::ToUnixMicros(absl::Now())));
  if (!options.ok()) {
    return cupola::bench::Complain(options.status(), cupola::bench::kUsage);
  }
  if (options->help) {
    std::fputs(cupola::bench::OptionsHelp().c_str(), stdout);
    return 0;
  }
  return cupola::bench::Bench(*options);
}
