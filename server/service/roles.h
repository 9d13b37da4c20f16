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
// Read: every question, also about others' jobs and datasets; storing a mean or
// a dataset; starting jobs; cancelling, resuming and deleting one's own jobs,
// and deleting one's own datasets (engine/actor.h).
// Admin: the same of anybody's; loading, unloading and measuring, the cache,
// the catalog, deleting means.
Role RequiredRole(absl::string_view method);

// "read", "admin".
const char* RoleName(Role role);

}  // namespace cupola::service

#endif  // CUPOLA_SERVER_SERVICE_ROLES_H_
