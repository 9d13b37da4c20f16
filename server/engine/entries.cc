#include "server/engine/entries.h"

#include <algorithm>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/engine/dictionary_name.h"
#include "server/engine/numerics.h"
#include "server/model/status_macros.h"

namespace cupola::engine {
namespace {

template <typename Map>
std::string Names(const Map& map) {
  return absl::StrJoin(map, ", ", [](std::string* out, const auto& item) {
    absl::StrAppend(out, item.first);
  });
}

bool Same(const ModelSpec& a, const ModelSpec& b) {
  return a.name == b.name && a.path == b.path && a.stamp == b.stamp &&
         a.dtype == b.dtype && a.device == b.device && a.failure == b.failure;
}

bool Same(const DictionarySpec& a, const DictionarySpec& b) {
  const auto fields = [](const DictionarySpec& spec) {
    const dictionary::Overrides& o = spec.overrides;
    return std::tie(spec.name, spec.model, spec.path, spec.stamp, spec.failure,
                    o.hook_in, o.hook_out, o.processing, o.tap, o.prepend_bos,
                    o.dtype, o.fold_w_dec_norm, o.mlp_source, o.expected_l0,
                    o.expected_fvu);
  };
  return fields(a) == fields(b);
}

// How many entries have each name.
template <typename Spec>
std::map<std::string, int> CountNames(const std::vector<Spec>& specs) {
  std::map<std::string, int> counts;
  for (const Spec& spec : specs) ++counts[spec.name];
  return counts;
}

absl::Status Broken(absl::string_view kind, const std::string& name,
                    absl::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat(kind, " \"", name, "\" ", why));
}

absl::Status CheckModel(const ModelSpec& spec, int count,
                        const Devices& devices) {
  const auto broken = [&spec](absl::string_view why) {
    return Broken("model", spec.name, why);
  };
  if (!spec.failure.empty()) return broken(spec.failure);
  if (spec.name.empty()) return broken("has no name");
  if (count > 1) {
    return broken("appears twice in the catalog; keep one of the two");
  }
  const std::string device = ResolveDevice(spec.device);
  if (spec.device.empty() ||
      std::count(devices.all.begin(), devices.all.end(), device) > 0) {
    return absl::OkStatus();
  }
  return broken(absl::StrCat(
      "is to compute on \"", spec.device,
      "\", which is not here; accepted: ", absl::StrJoin(devices.all, ", ")));
}

absl::Status CheckDictionary(const DictionarySpec& spec, int count,
                             const Entries& entries) {
  const auto broken = [&spec](absl::string_view why) {
    return Broken("dictionary", spec.name, why);
  };
  if (!spec.failure.empty()) return broken(spec.failure);
  if (spec.name.empty() || ParseDictionaryName(spec.name).names_half) {
    return broken(
        "has no name for a dictionary (a pair's halves are called NAME:in and "
        "NAME:out)");
  }
  if (count > 1) {
    return broken("appears twice in the catalog; keep one of the two");
  }
  if (entries.models.count(spec.name) > 0) {
    return broken("has the name of a model; give it another one");
  }
  if (entries.models.count(spec.model) > 0) return absl::OkStatus();
  return broken(absl::StrCat("names model \"", spec.model,
                             "\"; there are: ", Names(entries.models)));
}

void AddModel(const ModelSpec& spec, int count, const Entries& before,
              const Devices& devices, Entries* entries) {
  std::shared_ptr<ModelEntry>& entry = entries->models[spec.name];
  if (entry != nullptr) return;  // broken already
  entries->model_order.push_back(spec.name);
  const absl::Status broken = CheckModel(spec, count, devices);
  const auto old = before.models.find(spec.name);
  if (old != before.models.end() && Same(old->second->spec, spec) &&
      old->second->broken == broken) {
    entry = old->second;
    return;
  }
  entry = std::make_shared<ModelEntry>();
  entry->spec = spec;
  entry->broken = broken;
  if (!broken.ok()) return;
  if (!spec.device.empty()) {
    entry->device = ResolveDevice(spec.device);
  } else if (devices.own.size() == 1) {
    entry->device = devices.own.front();
  }
}

void AddDictionary(const DictionarySpec& spec, int count, const Entries& before,
                   Entries* entries) {
  std::shared_ptr<DictionaryEntry>& entry = entries->dictionaries[spec.name];
  if (entry != nullptr) return;  // broken already
  entries->dictionary_order.push_back(spec.name);
  const absl::Status broken = CheckDictionary(spec, count, *entries);
  const auto found = entries->models.find(spec.model);
  const std::shared_ptr<ModelEntry> model =
      found == entries->models.end() ? nullptr : found->second;
  const auto old = before.dictionaries.find(spec.name);
  if (model != nullptr && old != before.dictionaries.end() &&
      Same(old->second->spec, spec) && old->second->broken == broken &&
      old->second->model == model) {
    entry = old->second;
    return;
  }
  entry = std::make_shared<DictionaryEntry>();
  entry->spec = spec;
  entry->broken = broken;
  entry->model = model;
  if (model != nullptr) return;
  entry->model = std::make_shared<ModelEntry>();
  entry->model->broken = broken;
}

}  // namespace

absl::StatusOr<Devices> DevicesFor(const std::string& flag,
                                   const CatalogSpec& catalog) {
  Devices devices;
  ASSIGN_OR_RETURN(devices.own, ResolveDevices(flag));
  devices.all = devices.own;
  for (const ModelSpec& model : catalog.models) {
    const std::string device = ResolveDevice(model.device);
    if (!device.empty() &&
        std::count(devices.all.begin(), devices.all.end(), device) == 0) {
      devices.all.push_back(device);
    }
  }
  return devices;
}

EntriesPtr MakeEntries(const CatalogSpec& spec, const Entries& before,
                       const Devices& devices) {
  auto entries = std::make_shared<Entries>();
  const auto models = CountNames(spec.models);
  for (const ModelSpec& model : spec.models) {
    AddModel(model, models.at(model.name), before, devices, entries.get());
  }
  const auto dictionaries = CountNames(spec.dictionaries);
  for (const DictionarySpec& dictionary : spec.dictionaries) {
    AddDictionary(dictionary, dictionaries.at(dictionary.name), before,
                  entries.get());
  }
  return entries;
}

absl::Status UnknownModel(const Entries& entries, const std::string& name) {
  return absl::NotFoundError(absl::StrCat(
      "no model \"", name, "\"; there are: ", Names(entries.models)));
}

absl::Status UnknownDictionary(const Entries& entries,
                               const std::string& name) {
  return absl::NotFoundError(absl::StrCat(
      "no dictionary \"", name, "\"; there are: ", Names(entries.dictionaries),
      " (of a pair also NAME:in, NAME:out)"));
}

absl::Status UnknownEntry(const Entries& entries, const std::string& name) {
  std::vector<std::string> names = entries.model_order;
  names.insert(names.end(), entries.dictionary_order.begin(),
               entries.dictionary_order.end());
  return absl::NotFoundError(
      absl::StrCat("name is \"", name, "\"; the catalog has ",
                   names.empty() ? "no entries" : absl::StrJoin(names, ", ")));
}

}  // namespace cupola::engine
