#ifndef CUPOLA_SERVER_ENGINE_ACTOR_H_
#define CUPOLA_SERVER_ENGINE_ACTOR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace cupola::engine {

// Who asks for a change of what clients have made: jobs, datasets. Clients are
// told apart by their tokens' names; where there are no tokens everybody is an
// admin without a name, as the server itself is.
struct Actor {
  std::string name;
  bool admin = true;
};

// PERMISSION_DENIED unless the actor owns it or is an admin. What was made when
// there were no tokens has no owner, and is the admins'. `what`: "job \"x\"".
inline absl::Status CheckOwner(const Actor& actor, const std::string& owner,
                               absl::string_view what) {
  if (actor.admin || (!owner.empty() && actor.name == owner)) {
    return absl::OkStatus();
  }
  return absl::PermissionDeniedError(absl::StrCat(
      what,
      owner.empty() ? " has no owner" : absl::StrCat(" is of \"", owner, "\""),
      "; accepted: its owner, or a token with the role admin"));
}

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_ACTOR_H_
