#!/usr/bin/env bash
# Prints the folder of a Python environment with tests/clients/requirements.txt in it, after making it if it is not there; with a name,
# requirements-NAME.txt.
# It lies under the target directory, keyed by the requirements and the Python version, so a change makes a new one.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=tests/clients/requirements${1:+-$1}.txt
python=${PYTHON:-python3}
command -v "$python" >/dev/null || { echo "error: no \`$python\`; install Python 3.11 or newer, or set PYTHON" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: $("$python" --version) is too old for $requirements; install Python 3.11 or newer, or set PYTHON" >&2; exit 1; }

key=$({ "$python" --version; cat "$requirements"; } | sha256sum | cut -c1-12)
venv=$(realpath -m "${CARGO_TARGET_DIR:-target}")/venv/$key
if [ ! -e "$venv/.complete" ]; then
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    "$python" -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" >&2
    touch "$venv/.complete"
fi
echo "$venv"
