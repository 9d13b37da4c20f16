#!/bin/bash
# Installs what Cupola is built with and runs on, where it is missing: Debian
# packages, and a Python environment in .venv with the Python client (LibTorch is
# the torch wheel).
# A second run finds everything in place and takes no time.
#
#   deploy/install-deps.sh [--tests] [--system-only | --python-only]
#
#   --tests        also the oracles that tests and benchmarks compare with, and
#                  nginx and prometheus
#   --system-only  only the Debian packages
#   --python-only  only the Python environment
#
# Environment:
#   CUPOLA_TORCH_INDEX  a package index for the torch wheel, for example the
#                       project's own index of CPU or CUDA builds; unset: pip's
#                       configured index
#   CUPOLA_VENV         use this Python environment and install nothing into it
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly TORCH=torch==2.13.0
# Debian 12 and Ubuntu 24.04 name them alike.
readonly LIBRARIES=(
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libabsl-dev librocksdb-dev prometheus-cpp-dev libcivetweb-dev
  nlohmann-json3-dev libspdlog-dev libpcre2-dev libicu-dev libxxhash-dev
  libssl-dev libjemalloc-dev libgtest-dev libgmock-dev libbenchmark-dev
)
# What the tests of deploy/ run.
readonly TEST_PACKAGES=(nginx-light prometheus)
# command:package; a command from elsewhere serves as well.
readonly TOOLS=(
  c++:g++ cmake:cmake ninja:ninja-build ccache:ccache python3:python3
  openssl:openssl
)

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

missing_packages() {
  local package tool packages=("${LIBRARIES[@]}")
  if ((with_tests)); then packages+=("${TEST_PACKAGES[@]}"); fi
  for package in "${packages[@]}"; do
    if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) \
        != installed ]]; then
      echo "$package"
    fi
  done
  for tool in "${TOOLS[@]}"; do
    command -v "${tool%%:*}" >/dev/null || echo "${tool#*:}"
  done
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    echo python3-venv
  fi
}

install_packages() {
  command -v dpkg-query >/dev/null ||
    die "this script knows Debian and Ubuntu; elsewhere install the" \
      "counterparts of: ${LIBRARIES[*]}"
  local missing as_root=()
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} == 0)); then
    say "    Debian packages: all there"
    return
  fi
  if ((EUID != 0)); then
    command -v sudo >/dev/null ||
      die "not root and no sudo; as root run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get
    -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  say "    installing ${missing[*]}"
  "${apt[@]}" -qq update || die "apt-get update failed"
  "${apt[@]}" -qq -y --no-install-recommends install "${missing[@]}" \
    >"$CUPOLA_CACHE/apt.log" 2>&1 ||
    die "apt-get install failed: $(tail -n 5 "$CUPOLA_CACHE/apt.log")"
}

# A CUDA build of torch can only be built against with the CUDA toolkit, which
# CMake would report in words that do not say what to do.
check_torch() {
  "$PYTHON" - <<'PY' || exit 1
import shutil, sys, torch
if torch.version.cuda and not (shutil.which("nvcc")
                               or shutil.os.path.exists("/usr/local/cuda")):
    sys.exit(f"error: pip gave the CUDA {torch.version.cuda} build of torch, "
             "and building against it needs the CUDA toolkit (nvcc). Install "
             "the toolkit, or take the CPU build: remove .venv, set "
             "CUPOLA_TORCH_INDEX to the CPU index that the PyTorch site names "
             "and run this again")
print("    torch", torch.__version__)
PY
}

install_python() {
  if ((!CUPOLA_OWN_VENV)); then
    say "    using $CUPOLA_VENV as it is (CUPOLA_VENV is set)"
    [[ -x $PYTHON ]] || die "$PYTHON does not exist"
    return
  fi
  local locks=("$CUPOLA_ROOT/deploy/requirements.txt") lock stamp wanted
  if ((with_tests)); then
    locks+=("$CUPOLA_ROOT/tests/requirements.txt")
  fi
  if [[ ! -x $PYTHON ]] || ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      die "Python 3.11 or newer is needed, python3 is $(python3 -V)"
    rm -rf "$CUPOLA_VENV"
    python3 -m venv "$CUPOLA_VENV"
  fi
  # The locks are complete, so nothing is resolved and nothing backtracks.
  # Modules are compiled when first imported: most never are.
  local pip=("$PYTHON" -m pip install -qq --no-compile
    --disable-pip-version-check)
  for lock in "${locks[@]}"; do
    stamp=$CUPOLA_VENV/.$(basename "$(dirname "$lock")")-lock
    wanted=$(sha256sum <"$lock")
    if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
      say "    installing $(grep -c == "$lock") packages of" \
        "${lock#"$CUPOLA_ROOT"/}"
      "${pip[@]}" --no-deps -r "$lock"
      echo "$wanted" >"$stamp"
    fi
  done
  stamp=$CUPOLA_VENV/.torch-lock
  wanted="$TORCH ${CUPOLA_TORCH_INDEX:-}"
  if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
    say "    installing $TORCH"
    "${pip[@]}" ${CUPOLA_TORCH_INDEX:+--index-url "$CUPOLA_TORCH_INDEX"} \
      "$TORCH"
    check_torch
    echo "$wanted" >"$stamp"
  fi
}

# The client in place: changes in the checkout need no new installation.
install_client() {
  local stamp=$CUPOLA_VENV/.client-lock wanted
  if ((!CUPOLA_OWN_VENV)) || [[ ! -f $CUPOLA_ROOT/client/python/setup.py ]]; then
    return
  fi
  wanted=$(sha256sum <"$CUPOLA_ROOT/client/python/pyproject.toml")
  if [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]]; then
    say "    installing the Python client"
    "$PYTHON" -m pip install -qq --disable-pip-version-check --no-deps \
      --no-build-isolation --editable "$CUPOLA_ROOT/client/python"
    echo "$wanted" >"$stamp"
  fi
}

with_tests=0 want_system=1 want_python=1
for argument in "$@"; do
  case $argument in
    --tests) with_tests=1 ;;
    --system-only) want_python=0 ;;
    --python-only) want_system=0 ;;
    -h | --help) usage && exit ;;
    *) die "unknown option $argument (see --help)" ;;
  esac
done

with_lock install
if ((want_system)); then step "Debian packages" install_packages; fi
if ((want_python)); then
  step "Python environment" install_python
  install_client
fi
