#!/usr/bin/env bash
# Prints the Python of an environment with the peers of `make bench-serving`, after making it if it is not there. Triton's wheel brings a
# Python back end that is linked with the system's own Python 3.11, so that one is taken where there is one; another makes it fail at start.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=benches/serving/peers.txt
python=${BENCH_PYTHON:-/usr/bin/python3.11}
[ -x "$python" ] || python=python3
key=$({ "$python" --version; cat "$requirements"; } | sha256sum | cut -c1-12)
venv=$(realpath -m "${CARGO_TARGET_DIR:-target}")/peers/$key
if [ ! -e "$venv/.complete" ]; then
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    "$python" -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" >&2
    touch "$venv/.complete"
fi
echo "$venv/bin/python"
