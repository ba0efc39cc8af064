#!/usr/bin/env bash
# Prints the path of ONNX Runtime's library, after installing the wheel of tests/clients/requirements.txt if it is not there.
# It lies under the target directory, keyed by its version. Set ORT_DYLIB_PATH to what this prints.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
wheel=$(grep -E '^onnxruntime==' tests/clients/requirements.txt)
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools/onnxruntime-${wheel#*==}
if [ ! -e "$folder/.complete" ]; then
    command -v "$python" >/dev/null || { echo "error: no \`$python\`; install Python 3.11 or newer, or set PYTHON" >&2; exit 1; }
    rm -rf "$folder"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" "$wheel" >&2
    touch "$folder/.complete"
fi
library=$(find "$folder/onnxruntime/capi" -maxdepth 1 \( -name 'libonnxruntime.so*' -o -name 'libonnxruntime*.dylib' \) | head -n 1)
[ -n "$library" ] || { echo "error: $wheel holds no library for this machine" >&2; exit 1; }
echo "$library"
