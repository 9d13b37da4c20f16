#ifndef CUPOLA_SERVER_SERVICE_ROLES_H_
#define CUPOLA_SERVER_SERVICE_ROLES_H_

#include "absl/strings/string_view.h"

namespace cupola::service {

// What a token allows. Whoever may change what the server holds may also ask.
enum class Role { kRead, kAdmin };

// The role that a method asks for, by the name its RequestScope has (which is
// the RPC's own, but for Jobs: ListJobs, GetJob, WatchJob, CancelJob,
// ResumeJob, DeleteJob; and Datasets: UploadDataset, ListDatasets,
// GetDataset, DeleteDataset, TokenizeDataset, GetDatasetRows). A method that the table does not know asks for admin.
//
// Read: every question, and what one leaves behind that takes nothing from
// others and can be undone: a stored mean; a dataset; starting, watching, cancelling and
// resuming a job (what it computed stays).
// Admin: loading, unloading and measuring, the cache, the catalog, deleting
// jobs, datasets and means.
Role RequiredRole(absl::string_view method);

// "read", "admin".
const char* RoleName(Role role);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ROLES_H_
