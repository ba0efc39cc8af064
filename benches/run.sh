#!/usr/bin/env bash
# All benchmarks, on demand: `make bench`. Figures are printed with the machine and commit; none is a test's pass condition.
set -euo pipefail
cd "$(dirname "$0")/.."
binary="${CARGO_TARGET_DIR:-target}/release/tidemill"
[ -x "$binary" ] || { echo "benches/run.sh: $binary is missing; run: cargo build --release -p tidemill" >&2; exit 1; }
echo "commit $(git rev-parse --short HEAD), $(nproc) cores, $(uname -m), $(date -u +%F)"
python3 benches/loop.py "$binary" "$@"
