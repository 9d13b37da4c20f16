#!/bin/bash
# Sets up, builds, and prints the benchmark tables. The machine should be idle.
#
#   tests/bench/run.sh [OPTION...]     options go to features_vs_peer.py
set -euo pipefail
# shellcheck source=deploy/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../deploy/common.sh"

cd "$CUPOLA_ROOT"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
export HF_HUB_DISABLE_PROGRESS_BARS=1 TOKENIZERS_PARALLELISM=false
deploy/install-deps.sh --tests
deploy/build.sh cupola_server cupola_bench cache_latency corpus_math jacobian_blocks

say
grep -m 1 'model name' /proc/cpuinfo | sed 's/.*: //' || true
say "$(nproc) cores, 2 threads, $(date -u +%F)"
say
"$PYTHON" tests/bench/features_vs_peer.py "$@"
say
"$PYTHON" tests/bench/ablation_vs_peer.py
say
"$PYTHON" tests/bench/generate_vs_peer.py
say
"$PYTHON" tests/bench/jacobian_vs_peer.py
say
"$PYTHON" tests/bench/directions_vs_peer.py
say
"$PYTHON" tests/bench/serving_vs_peer.py
say
"$CUPOLA_BUILD/jacobian_blocks"
say
"$PYTHON" tests/bench/corpus_vs_scipy.py
say
"$PYTHON" tests/bench/corpus_jobs.py
say
"$PYTHON" tests/bench/statistics_vs_features.py
say
"$PYTHON" tests/bench/jacobian_layers_vs_peer.py
say
"$PYTHON" tests/bench/footprint.py
