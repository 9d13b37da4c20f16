#!/bin/bash
# Builds with sanitizers and runs the tests under them.
#
#   tests/sanitize.sh asan|tsan [CTEST-ARGUMENT...]
#
#   asan  AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer: every
#         C++ test, the servers that they start included (build-asan/)
#   tsan  ThreadSanitizer: what has no LibTorch in it, which is the queue,
#         batching, admission, single flight, loading, jobs, the cache, and the
#         services over an engine that is none (build-tsan/)
#
# LibTorch and the libraries of the system are built without. Nothing of theirs
# is suppressed: LibTorch leaks nothing that counts, libstdc++'s containers say
# nothing that crosses the border, and tests/sanitize/seen_locks.cc shows
# ThreadSanitizer the locks that it would not see.
#
# Environment: that of deploy/build.sh; CUPOLA_SANITIZE_BUILD, another folder.
set -euo pipefail
case ${1:-} in
  asan | tsan) kind=$1 && shift ;;
  *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" && exit 2 ;;
esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CUPOLA_BUILD=${CUPOLA_SANITIZE_BUILD:-$root/build-$kind}
# shellcheck source=deploy/common.sh
source "$root/deploy/common.sh"

# Tests of tsan: everything of storage/, what of the engine needs no weights,
# and the services.
readonly TSAN_TESTS=(
  storage_digest_test storage_test storage_failure_test
  admission_test batch_policy_test client_shares_test device_queue_test
  flight_test jobs_test load_slot_test loader_test mean_store_test
  service_threads_test
)

cd "$CUPOLA_ROOT"
mkdir -p "$CUPOLA_BUILD"
export CUPOLA_CMAKE_ARGS="--preset $kind"
arguments=(--test-dir "$CUPOLA_BUILD" --output-on-failure --no-tests=error
  --timeout 1200)
if [[ $kind == tsan ]]; then
  deploy/build.sh "${TSAN_TESTS[@]}"
  # What other libraries do among themselves does not count.
  export TSAN_OPTIONS="history_size=4 ignore_noninstrumented_modules=1 \
${TSAN_OPTIONS:-}"
  arguments+=(--tests-regex "^($(IFS='|' && echo "${TSAN_TESTS[*]}"))\$")
else
  deploy/build.sh
  export ASAN_OPTIONS="detect_stack_use_after_return=1 ${ASAN_OPTIONS:-}"
  export UBSAN_OPTIONS="print_stacktrace=1 ${UBSAN_OPTIONS:-}"
  arguments+=(--label-regex '^(unit|integration)$')
fi
step "Tests under $kind" ctest "${arguments[@]}" "$@"
