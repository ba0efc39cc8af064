#!/usr/bin/env bash
# Prints the path of ONNX Runtime's library, after installing the wheel of tests/clients/requirements.txt if it is not there; on a machine
# with an NVIDIA GPU the wheel of requirements-gpu.txt. TIDEMILL_ORT=cpu or gpu chooses.
# It lies under the target directory, keyed by its name and version. Set ORT_DYLIB_PATH to what this prints.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
kind=${TIDEMILL_ORT:-cpu}
if [ -z "${TIDEMILL_ORT:-}" ] && command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
    kind=gpu
fi
case $kind in
    cpu) wheel=$(grep -E '^onnxruntime==' tests/clients/requirements.txt) ;;
    gpu) wheel=$(grep -E '^onnxruntime-gpu==' tests/clients/requirements-gpu.txt) ;;
    *) echo "error: TIDEMILL_ORT is \`$kind\`, expected cpu or gpu" >&2; exit 1 ;;
esac
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools/${wheel/==/-}
if [ ! -e "$folder/.complete" ]; then
    command -v "$python" >/dev/null || { echo "error: no \`$python\`; install Python 3.11 or newer, or set PYTHON" >&2; exit 1; }
    rm -rf "$folder"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" "$wheel" >&2
    touch "$folder/.complete"
fi
library=$(find "$folder/onnxruntime/capi" -maxdepth 1 \( -name 'libonnxruntime.so*' -o -name 'libonnxruntime*.dylib' \) | head -n 1)
[ -n "$library" ] || { echo "error: $wheel holds no library for this machine" >&2; exit 1; }
echo "$library"
