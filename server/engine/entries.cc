#include "server/engine/entries.h"

#include <algorithm>
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
         a.dtype == b.dtype && a.device == b.device;
}

bool Same(const DictionarySpec& a, const DictionarySpec& b) {
  const auto fields = [](const DictionarySpec& spec) {
    const dictionary::Overrides& o = spec.overrides;
    return std::tie(spec.name, spec.model, spec.path, spec.stamp, o.hook_in,
                    o.hook_out, o.processing, o.tap, o.prepend_bos, o.dtype,
                    o.fold_w_dec_norm, o.mlp_source, o.expected_l0,
                    o.expected_fvu);
  };
  return fields(a) == fields(b);
}

absl::Status AddModel(const ModelSpec& spec, const Entries& before,
                      const Devices& devices, Entries* entries) {
  if (spec.name.empty()) {
    return absl::InvalidArgumentError("catalog: a model has no name");
  }
  std::string device;
  if (!spec.device.empty()) {
    device = ResolveDevice(spec.device);
    if (std::count(devices.all.begin(), devices.all.end(), device) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "catalog: model \"", spec.name, "\": no device \"", spec.device,
          "\" here; accepted: ", absl::StrJoin(devices.all, ", ")));
    }
  } else if (devices.own.size() == 1) {
    device = devices.own.front();
  }
  std::shared_ptr<ModelEntry>& entry = entries->models[spec.name];
  if (entry != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("catalog: model \"", spec.name, "\" appears twice"));
  }
  entries->model_order.push_back(spec.name);
  const auto old = before.models.find(spec.name);
  if (old != before.models.end() && Same(old->second->spec, spec)) {
    entry = old->second;
    return absl::OkStatus();
  }
  entry = std::make_shared<ModelEntry>();
  entry->spec = spec;
  entry->device = device;
  return absl::OkStatus();
}

absl::Status AddDictionary(const DictionarySpec& spec, const Entries& before,
                           Entries* entries) {
  const std::string& name = spec.name;
  if (name.empty() || ParseDictionaryName(name).names_half) {
    return absl::InvalidArgumentError(
        absl::StrCat("catalog: \"", name,
                     "\" is no name for a dictionary (a pair's halves are "
                     "called NAME:in and NAME:out)"));
  }
  const auto model = entries->models.find(spec.model);
  if (model == entries->models.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("catalog: dictionary \"", name, "\" names model \"",
                     spec.model, "\"; there are: ", Names(entries->models)));
  }
  std::shared_ptr<DictionaryEntry>& entry = entries->dictionaries[name];
  if (entry != nullptr || entries->models.count(name) > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("catalog: the name \"", name, "\" appears twice"));
  }
  entries->dictionary_order.push_back(name);
  const auto old = before.dictionaries.find(name);
  if (old != before.dictionaries.end() && Same(old->second->spec, spec) &&
      old->second->model == model->second) {
    entry = old->second;
    return absl::OkStatus();
  }
  entry = std::make_shared<DictionaryEntry>();
  entry->spec = spec;
  entry->model = model->second;
  return absl::OkStatus();
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

absl::StatusOr<EntriesPtr> MakeEntries(const CatalogSpec& spec,
                                       const Entries& before,
                                       const Devices& devices) {
  auto entries = std::make_shared<Entries>();
  for (const ModelSpec& model : spec.models) {
    RETURN_IF_ERROR(AddModel(model, before, devices, entries.get()));
  }
  for (const DictionarySpec& dictionary : spec.dictionaries) {
    RETURN_IF_ERROR(AddDictionary(dictionary, before, entries.get()));
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
