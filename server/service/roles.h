#ifndef CUPOLA_SERVER_SERVICE_ROLES_H_
#define CUPOLA_SERVER_SERVICE_ROLES_H_

#include "absl/strings/string_view.h"

namespace cupola::service {

// What a token allows. Whoever may change what the server holds may also ask.
enum class Role { kRead, kAdmin };

// The role that a method asks for, by the name its RequestScope has (which is
// the RPC's own, but for Jobs: ListJobs, GetJob, WatchJob, CancelJob,
// ResumeJob, DeleteJob; and Datasets: UploadDataset, ListDatasets,
// GetDataset, DeleteDataset, TokenizeDataset, GetDatasetRows). A method that
// the table does not know asks for admin.
//
// Read: every question; storing a mean or a dataset; starting, watching,
// cancelling and resuming jobs, of anybody: readers trust each other so far.
// Nothing that has been computed is lost by it, but readers can fill the stores
// of means and datasets, which only an admin empties.
// Admin: loading, unloading and measuring, the cache, the catalog, deleting
// jobs, datasets and means.
Role RequiredRole(absl::string_view method);

// "read", "admin".
const char* RoleName(Role role);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ROLES_H_
