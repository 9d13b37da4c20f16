# shellcheck shell=bash
# Shared by the scripts of this folder and by tests/run.sh: sourced, never run.
# Sets CUPOLA_ROOT, CUPOLA_BUILD, CUPOLA_VENV and PYTHON; defines say, die, step.

CUPOLA_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CUPOLA_BUILD=${CUPOLA_BUILD:-$CUPOLA_ROOT/build}
# An environment that the caller names is used as it is: nothing is installed
# into it (install-deps.sh reads CUPOLA_OWN_VENV).
# shellcheck disable=SC2034
if [[ -n ${CUPOLA_VENV:-} ]]; then
  CUPOLA_OWN_VENV=0
else
  CUPOLA_OWN_VENV=1
  CUPOLA_VENV=$CUPOLA_ROOT/.venv
fi
PYTHON=$CUPOLA_VENV/bin/python
CUPOLA_CACHE=$CUPOLA_ROOT/.cache
# The Python client is used in place, also in an environment without it.
PYTHONPATH=$CUPOLA_ROOT/client/python${PYTHONPATH:+:$PYTHONPATH}
export CUPOLA_ROOT CUPOLA_BUILD PYTHON PYTHONPATH

say() { printf '%s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# step TITLE COMMAND...: runs the command and reports how long it took.
step() {
  local title=$1 start=$SECONDS
  shift
  say "==> $title"
  "$@"
  say "    $title: done in $((SECONDS - start)) s"
}

# with_lock NAME: holds the lock until the script ends, so that two runs in one
# checkout take turns. The descriptor is closed in children that outlive us.
with_lock() {
  mkdir -p "$CUPOLA_CACHE"
  exec 9>"$CUPOLA_CACHE/$1.lock"
  if ! flock --nonblock 9; then
    say "waiting for another run ($1)"
    flock 9
  fi
}
