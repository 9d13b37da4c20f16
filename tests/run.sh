#!/bin/bash
# Sets up, builds and tests everything, and prints one line of counts at the end.
# Needs nothing but Debian 12 or Ubuntu 24.04 with Python and access to their
# package indexes; under 20 minutes on 2 cores, a few when run again.
#
#   tests/run.sh [--quick | --label NAME] [--stress]
#
#   --quick       only the unit tests: no servers, no parity with other libraries
#   --label NAME  only the C++ tests with this label (unit, integration, stress,
#                 gpu)
#   --stress      also the tests that run long on purpose
#
# Environment: that of deploy/install-deps.sh and deploy/build.sh. Texts and
# tokenizers in ../shared/data are used where they exist.
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/common.sh"

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# The first failure does not hide the others: both run, then the script fails.
failed=0

cpp_tests() {
  ctest --test-dir "$CUPOLA_BUILD" --label-regex "^($1)\$" --parallel 2 \
    --output-on-failure --no-tests=error --output-junit "$results/ctest.xml" ||
    failed=1
}

python_tests() {
  "$PYTHON" -m pytest -q --durations=10 -p no:cacheprovider \
    --junitxml="$results/pytest.xml" "$@" || failed=1
}

# The closing line, from the two runners' own result files.
summary() {
  "$PYTHON" - "$results" <<'PY'
import pathlib, sys, xml.etree.ElementTree as xml

counts = dict(tests=0, failed=0, skipped=0)
for path in pathlib.Path(sys.argv[1]).glob("*.xml"):
    for suite in xml.parse(path).getroot().iter("testsuite"):
        value = lambda key: int(suite.get(key) or 0)
        counts["tests"] += value("tests")
        counts["failed"] += value("failures") + value("errors")
        counts["skipped"] += value("skipped") + value("disabled")
passed = counts["tests"] - counts["failed"] - counts["skipped"]
print(f"{passed} passed, {counts['failed']} failed, {counts['skipped']} skipped")
PY
}

labels='unit|integration' python=1 pytest_paths=(tests)
stress=0 quick=0
while (($#)); do
  case $1 in
    --quick)
      quick=1 labels=unit
      pytest_paths=(tests/client)
      ;;
    --label)
      (($# >= 2)) || die "--label needs a name"
      labels=$2 python=0
      shift
      ;;
    --stress) stress=1 ;;
    -h | --help) usage && exit ;;
    *) die "unknown option $1 (see --help)" ;;
  esac
  shift
done
if ((quick && !python)); then die "--quick and --label exclude each other"; fi
# What runs long on purpose is asked for by name.
if ((stress)); then
  labels+='|stress'
  export CUPOLA_STRESS=1  # what Python's stress tests ask for
else
  pytest_paths+=(--ignore=tests/stress)
fi

cd "$CUPOLA_ROOT"
# No test may reach for a model hub, and none may take more than its share.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export PYTHONDONTWRITEBYTECODE=1
deploy/install-deps.sh --tests
deploy/build.sh
results=$CUPOLA_BUILD/test-results
rm -rf "$results"
mkdir -p "$results"

step "C++ tests ($labels)" cpp_tests "$labels"
if ((python)); then
  step "Python tests" python_tests "${pytest_paths[@]}"
fi
say "Finished in $SECONDS s"
summary
((!failed))
