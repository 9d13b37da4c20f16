#include "client/bench/options.h"

#include <cmath>
#include <functional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace cupola::bench {
namespace {

constexpr int64_t kMaxClients = 100'000;
constexpr double kMaxRate = 1e6;
constexpr size_t kMaxPoints = 64;

// One option: its name, its value's placeholder, its meaning, and a setter that
// tells what is accepted where it does not take the value.
struct Spec {
  std::string name, value, help;
  std::function<std::string(const std::string&)> set;
};

std::function<std::string(const std::string&)> Integer(int64_t* target,
                                                       int64_t least,
                                                       int64_t most) {
  return [=](const std::string& text) -> std::string {
    int64_t value = 0;
    if (!absl::SimpleAtoi(text, &value) || value < least || value > most) {
      return absl::StrCat("a number from ", least, " to ", most);
    }
    *target = value;
    return "";
  };
}

// `least` < value <= `most`, or from `least` on where `with_least`.
std::function<std::string(const std::string&)> Real(
    std::function<void(double)> keep, double least, double most,
    bool with_least = false) {
  return [=](const std::string& text) -> std::string {
    double value = 0;
    if (!absl::SimpleAtod(text, &value) ||
        !(with_least ? value >= least : value > least) || !(value <= most)) {
      return absl::StrCat("a number ", with_least ? "from " : "above ", least,
                          " to ", most);
    }
    keep(value);
    return "";
  };
}

std::function<std::string(const std::string&)> Integers(
    std::vector<int64_t>* target, int64_t most) {
  return [=](const std::string& text) -> std::string {
    std::vector<int64_t> values;
    for (const absl::string_view part : absl::StrSplit(text, ',')) {
      int64_t value = 0;
      if (!absl::SimpleAtoi(part, &value) || value < 1 || value > most ||
          values.size() == kMaxPoints) {
        return absl::StrCat("up to ", kMaxPoints, " numbers from 1 to ", most,
                            ", as in 1,8,32");
      }
      values.push_back(value);
    }
    *target = std::move(values);
    return "";
  };
}

std::function<std::string(const std::string&)> Rates(
    std::vector<double>* target) {
  return [=](const std::string& text) -> std::string {
    std::vector<double> values;
    for (const absl::string_view part : absl::StrSplit(text, ',')) {
      double value = 0;
      if (!absl::SimpleAtod(part, &value) || !(value > 0) ||
          !(value <= kMaxRate) || values.size() == kMaxPoints) {
        return absl::StrCat("up to ", kMaxPoints, " numbers above 0 to ",
                            kMaxRate, ", as in 50,100");
      }
      values.push_back(value);
    }
    *target = std::move(values);
    return "";
  };
}

std::function<std::string(const std::string&)> Text(std::string* target) {
  return [=](const std::string& text) -> std::string {
    if (text.empty()) return "not empty";
    *target = text;
    return "";
  };
}

std::vector<Spec> Specs(Options* o) {
  return {
      {"dictionary", "NAME",
       "what is asked about, with its model; default: the server's first",
       Text(&o->dictionary)},
      {"clients", "N,...",
       "closed loop: so many clients, each of which asks again when it has its "
       "answer; a point for each number; default: 1,8,32",
       Integers(&o->clients, kMaxClients)},
      {"rate", "R,...",
       "open loop: requests per second, whatever becomes of those before; "
       "latencies count from the intended start",
       Rates(&o->rates)},
      {"arrivals", "poisson|fixed", "of the open loop; poisson",
       [o](const std::string& text) -> std::string {
         if (text != "poisson" && text != "fixed") return "poisson or fixed";
         o->arrivals = text == "fixed" ? ArrivalProcess::kFixed
                                       : ArrivalProcess::kPoisson;
         return "";
       }},
      {"features", "W", "how often features of a prompt are asked for; 1",
       Integer(&o->mix.weights[0], 0, 1'000'000)},
      {"ablate", "W", "how often ablations of its active latents are; 0",
       Integer(&o->mix.weights[1], 0, 1'000'000)},
      {"run", "W", "how often its losses are; 0",
       Integer(&o->mix.weights[2], 0, 1'000'000)},
      {"lengths", "N,...", "tokens of a prompt, one as often as the other; 32",
       Integers(&o->mix.lengths, 1 << 18)},
      {"repeat", "SHARE",
       "questions that have been asked before, from 0 to 1; 0",
       Real([o](double value) { o->mix.repeat = value; }, 0, 1, true)},
      {"repeated_prompts", "N", "from so many different prompts; 64",
       Integer(&o->mix.repeated_prompts, 1, 1'000'000)},
      {"window", "SECONDS", "of a measurement; 2",
       Real([o](double s) { o->point.window = absl::Seconds(s); }, 0, 3600)},
      {"max_windows", "N", "a point ends unstable after so many; 15",
       Integer(&o->point.max_windows, 1, 10'000)},
      {"deadline", "SECONDS", "of each call; 60",
       Real([o](double s) { o->caller.deadline = absl::Seconds(s); }, 0,
            86400)},
      {"connections", "N", "that share the calls; 4",
       Integer(&o->caller.connections, 1, 1024)},
      {"max_in_flight", "N",
       "calls of the open loop at a time; later ones wait; 10000",
       Integer(&o->max_in_flight, 1, kMaxClients)},
      {"seed", "N", "of prompts and arrivals; default: the clock's",
       [o](const std::string& text) -> std::string {
         return absl::SimpleAtoi(text, &o->mix.seed) ? ""
                                                     : "a number from 0 on";
       }},
      {"tls_ca", "FILE", "encrypt; the authorities to trust (PEM)",
       Text(&o->caller.tls_ca_file)},
      {"json", "FILE|-", "write the results as JSON, - on standard output",
       Text(&o->json)},
  };
}

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(what, "; see --help"));
}

}  // namespace

absl::StatusOr<Options> ParseOptions(const std::vector<std::string>& arguments,
                                     uint64_t seed) {
  Options options;
  options.mix.seed = seed;
  options.caller.connections = 4;
  const std::vector<Spec> specs = Specs(&options);
  std::set<std::string> seen;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help") {
      options.help = true;
      return options;
    }
    if (!absl::StartsWith(argument, "--")) {
      if (!options.caller.address.empty()) {
        return Invalid(absl::StrCat("\"", argument, "\" is a second address"));
      }
      options.caller.address = argument;
      continue;
    }
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(argument.substr(2), absl::MaxSplits('=', 1));
    const Spec* spec = nullptr;
    for (const Spec& one : specs) {
      if (one.name == parts.first) spec = &one;
    }
    if (spec == nullptr) {
      return Invalid(absl::StrCat("--", parts.first, " is unknown"));
    }
    std::string value = parts.second;
    if (!absl::StrContains(argument, "=")) {
      if (++i == arguments.size()) {
        return Invalid(
            absl::StrCat("--", spec->name, " needs a value: ", spec->value));
      }
      value = arguments[i];
    }
    if (!seen.insert(spec->name).second) {
      return Invalid(absl::StrCat("--", spec->name, " is given twice"));
    }
    if (const std::string accepted = spec->set(value); !accepted.empty()) {
      return Invalid(absl::StrCat("--", spec->name, " is \"", value,
                                  "\"; accepted: ", accepted));
    }
  }
  if (options.caller.address.empty()) return Invalid("the address is missing");
  if (!options.rates.empty() && !options.clients.empty()) {
    return Invalid("--clients and --rate exclude each other");
  }
  if (options.rates.empty() && options.clients.empty()) {
    options.clients = {1, 8, 32};
  }
  return options;
}

std::string OptionsHelp() {
  Options options;
  std::string text =
      "cupola_bench: load for a Cupola server, and what becomes of it\n\n"
      "  cupola_bench HOST:PORT [--clients 1,8,32 | --rate 50,100] ...\n\n";
  for (const Spec& spec : Specs(&options)) {
    absl::StrAppend(&text, "  --", spec.name, " ", spec.value, "\n      ",
                    spec.help, "\n");
  }
  absl::StrAppend(
      &text,
      "\nA point is stable when throughput and median latency of its last ",
      kStableWindows, " windows\nlie within ", (kStableRatio - 1) * 100,
      " % of each other; the numbers are those of these windows.\n"
      "$CUPOLA_TOKEN, where set, is presented to the server. Exit status: 0, "
      "also where calls\nfail; 1 without a server; 2 for a wrong command "
      "line.\n");
  return text;
}

}  // namespace cupola::bench
