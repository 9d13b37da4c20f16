#ifndef CUPOLA_SERVER_ENGINE_ENTRIES_H_
#define CUPOLA_SERVER_ENGINE_ENTRIES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/catalog_entry.h"
#include "server/engine/catalog_types.h"

namespace cupola::engine {

// Where a server computes; torch's devices.
struct Devices {
  // For entries that name none. Where there are several, an entry is put on
  // one when it is opened.
  std::vector<std::string> own;
  std::vector<std::string> all;  // with those that entries name
};

// Of the flag (see ResolveDevices) and the catalog a server starts with.
// INVALID_ARGUMENT: one that does not exist here.
absl::StatusOr<Devices> DevicesFor(const std::string& flag,
                                   const CatalogSpec& catalog);

// A catalog's entries from what its file says. An entry of `before` whose spec
// is the same (of a dictionary: and whose model's is) is taken over with all
// that is loaded of it; every other one is made anew.
//
// An entry that the catalog contradicts itself about is broken, and the rest is
// served: a name that several entries have (nobody can say which is meant), a
// dictionary of a model that is not there, a device that the server does not
// compute on, a spec that says so itself.
EntriesPtr MakeEntries(const CatalogSpec& spec, const Entries& before,
                       const Devices& devices);

// NOT_FOUND, with the names there are.
absl::Status UnknownModel(const Entries& entries, const std::string& name);
absl::Status UnknownDictionary(const Entries& entries, const std::string& name);
absl::Status UnknownEntry(const Entries& entries, const std::string& name);

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ENTRIES_H_
