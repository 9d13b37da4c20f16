#!/bin/bash
# Builds the fuzz targets with clang (AddressSanitizer and UndefinedBehavior-
# Sanitizer) in build-fuzz/ and runs each for some seconds. What a run finds it
# leaves in build-fuzz/findings/; what it learns, in build-fuzz/corpus/, where
# the next one begins.
#
#   tests/fuzz/run.sh [SECONDS [TARGET...]]      default: 10, all
#
# Environment: that of deploy/build.sh; CXX, another clang++.
set -euo pipefail
CUPOLA_BUILD=${CUPOLA_FUZZ_BUILD:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build-fuzz}
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../deploy/common.sh"

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# The first clang++ whose fuzzer library is installed with it.
find_clang() {
  local compiler
  for compiler in ${CXX:-} clang++ clang++-{19,18,17,16,15,14}; do
    if command -v "$compiler" >/dev/null &&
      [[ -f $("$compiler" --print-file-name=libclang_rt.fuzzer-x86_64.a) ||
        -f $("$compiler" --print-resource-dir)/lib/linux/libclang_rt.fuzzer-$(uname -m).a ]]; then
      command -v "$compiler"
      return
    fi
  done
  return 1
}

# fuzz TARGET: fails when it finds something.
fuzz() {
  local target=$1 corpus=$CUPOLA_BUILD/corpus/$1
  mkdir -p "$corpus" "$CUPOLA_BUILD/seeds/$target"
  if ! "$CUPOLA_BUILD/${target}_fuzz" -max_total_time="$seconds" \
    -max_len=32768 -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=512 \
    -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="$findings/$target-" \
    "$corpus" "$CUPOLA_BUILD/seeds/$target" >"$findings/$target.log" 2>&1; then
    tail -n 40 "$findings/$target.log" >&2
    say "    $target: FOUND SOMETHING ($findings)"
    return 1
  fi
  say "    $target: $(awk '/number_of_executed_units/ { print $2 }' \
    "$findings/$target.log") inputs"
  rm "$findings/$target.log"
}

seconds=10
case ${1:-} in
  -h | --help) usage && exit ;;
  '') ;;
  *) seconds=$1 && shift ;;
esac
targets=("$@")
if ((${#targets[@]} == 0)); then
  targets=(cache_record job_state tokenizer safetensors model_config
    dictionary_config request)
fi

clang=$(find_clang) ||
  die "no clang++ with libFuzzer: apt-get install clang libclang-rt-dev"
cd "$CUPOLA_ROOT"
export CUPOLA_CMAKE_ARGS="--preset fuzz -DCMAKE_CXX_COMPILER=$clang"
deploy/build.sh fuzz_targets
findings=$CUPOLA_BUILD/findings
mkdir -p "$findings"
rm -rf "$CUPOLA_BUILD/seeds"
"$CUPOLA_BUILD/write_fuzz_seeds" "$CUPOLA_BUILD/seeds"
failed=0
for target in "${targets[@]}"; do
  fuzz "$target" || failed=1
done
((!failed))
