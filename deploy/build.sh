#!/bin/bash
# Configures and builds Cupola (Release, Ninja, ccache) in build/.
#
#   deploy/build.sh [TARGET...]      default: everything
#
# Environment:
#   CUPOLA_BUILD      another build folder
#   CUPOLA_CMAKE_ARGS more arguments for the configuration, for example
#                     "-DCUPOLA_SANITIZE=thread"
#   CUPOLA_JOBS       compiler processes; default: as memory and cores allow
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ -x $PYTHON ]] || die "no $PYTHON: run deploy/install-deps.sh first"

# A file that includes ATen takes up to 2 GiB to compile.
jobs() {
  local cores gib
  cores=$(nproc)
  gib=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
  echo $((gib / 2 < 1 ? 1 : gib / 2 < cores ? gib / 2 : cores))
}

# Asking torch itself takes 3 s; its place in the environment does not change.
torch_prefix() {
  "$PYTHON" -c 'import importlib.util as u, os
print(os.path.join(os.path.dirname(u.find_spec("torch").origin), "share/cmake"))' ||
    die "no torch in $CUPOLA_VENV: run deploy/install-deps.sh first"
}

# Ninja itself configures again when a CMake file has changed; here only other
# arguments count.
configure() {
  local arguments stamp=$CUPOLA_BUILD/.configured-with
  read -ra arguments <<<"${CUPOLA_CMAKE_ARGS:-}"
  arguments=(-S "$CUPOLA_ROOT" -B "$CUPOLA_BUILD" -G Ninja
    -DCMAKE_BUILD_TYPE=Release "-DCMAKE_PREFIX_PATH=$(torch_prefix)"
    "-DPython3_EXECUTABLE=$PYTHON" "${arguments[@]}")
  if [[ -f $CUPOLA_BUILD/build.ninja && -f $stamp &&
    $(<"$stamp") == "${arguments[*]}" ]]; then
    say "    as before"
    return
  fi
  cmake "${arguments[@]}" >"$CUPOLA_BUILD/configure.log" 2>&1 || {
    tail -n 30 "$CUPOLA_BUILD/configure.log" >&2
    die "the configuration failed ($CUPOLA_BUILD/configure.log)"
  }
  echo "${arguments[*]}" >"$stamp"
}

# Quiet while all goes well: one progress line on a terminal, none in a log.
compile() {
  if [[ -t 1 ]]; then
    ninja -C "$CUPOLA_BUILD" -j "${CUPOLA_JOBS:-$(jobs)}" "$@"
  else
    ninja -C "$CUPOLA_BUILD" -j "${CUPOLA_JOBS:-$(jobs)}" --quiet "$@"
  fi
}

mkdir -p "$CUPOLA_BUILD"
with_lock build
step "Configuring" configure
step "Building" compile "$@"
