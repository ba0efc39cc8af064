#!/usr/bin/env bash
# Checks ONNX models on a GPU: an MLP on the processor and on CUDA, the same labels, numbers within 1e-4, and how fast each is. A few
# minutes on a machine with an NVIDIA GPU; nothing of the rest of the product is built.
#
# It takes what there is: ONNX_DEVICE, a program built elsewhere (`cargo build --release -p tidemill-models --example onnx_device`), else
# it builds it; ORT_DYLIB_PATH, an ONNX Runtime built with CUDA, else scripts/onnxruntime.sh installs one (network). CUDA's and cuDNN's
# libraries are looked for among the packages of PYTHON (`nvidia/*/lib`, as PyTorch brings them), which needs numpy and onnx.
# Without a GPU it checks that `auto` is the processor and `cuda` is refused, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "${ONNX_DEVICE:-}" ]; then
    cargo build --release -p tidemill-models --example onnx_device >&2
    ONNX_DEVICE=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release/examples/onnx_device
fi
export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$(scripts/onnxruntime.sh)}
libraries=$("$python" - <<'PY' || true
import glob, os, sysconfig
print(":".join(sorted(glob.glob(os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "*", "lib")))))
PY
)
export LD_LIBRARY_PATH=${libraries:+$libraries:}${LD_LIBRARY_PATH:-}
echo "library: $ORT_DYLIB_PATH"
nvidia-smi -L 2>/dev/null || echo "no GPU here"
"$python" - "$work/mlp.onnx" <<'PY'
# 64 inputs, two hidden layers of 1024, 10 classes.
import sys
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

rng = np.random.default_rng(0)
widths = [64, 1024, 1024, 10]
nodes, weights, last = [], [], "x"
for i, (width, wider) in enumerate(zip(widths, widths[1:])):
    weights.append(numpy_helper.from_array((rng.normal(size=(width, wider)) / width**0.5).astype("f4"), f"w{i}"))
    weights.append(numpy_helper.from_array(rng.normal(size=wider).astype("f4"), f"b{i}"))
    nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"h{i}"]))
    last = f"h{i}"
    if i < 2:
        nodes.append(helper.make_node("Relu", [last], [f"r{i}"]))
        last = f"r{i}"
nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
nodes.append(helper.make_node("ArgMax", [last], ["label"], axis=1, keepdims=0))
matrix = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
label = helper.make_tensor_value_info("label", TensorProto.INT64, ["n"])
graph = helper.make_graph(nodes, "mlp", [matrix("x", 64)], [label, matrix("probabilities", 10)], weights)
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), sys.argv[1])
PY

run() { "$ONNX_DEVICE" "$work/mlp.onnx" "$1" "$2" 64 "${3:-50}"; }
for rows in 1 64 4096; do
    run cpu "$rows" > "$work/cpu.$rows"
    run auto "$rows" > "$work/auto.$rows"
    run cuda "$rows" > "$work/cuda.$rows" 2> "$work/refused.$rows" || true
done
"$python" - "$work" <<'PY'
import json, pathlib, subprocess, sys

work = pathlib.Path(sys.argv[1])
read = lambda name: json.loads((work / name).read_text() or "null")
gpu = subprocess.run("nvidia-smi -L", shell=True, capture_output=True, text=True).stdout.startswith("GPU ")
bad = 0
for rows in (1, 64, 4096):
    cpu, auto, cuda = (read(f"{device}.{rows}") for device in ("cpu", "auto", "cuda"))
    if cuda is None:
        said = (work / f"refused.{rows}").read_text().strip()
        print(f"{rows:5} rows: cuda refused: {said}")
        bad += gpu or "device_missing" not in said and "cannot run on `cuda:0`" not in said
        cuda = None
    for told in filter(None, (auto, cuda)):
        same = told["outputs"]["label"] == cpu["outputs"]["label"]
        worst = max(abs(a - b) for a, b in zip(told["outputs"]["probabilities"], cpu["outputs"]["probabilities"]))
        bad += not same or worst > 1e-4
        print(
            f"{rows:5} rows: {told['asked']} on {told['device']}: {told['each_ms']:.3f} ms (load {told['load_ms']:.0f} ms), "
            f"cpu {cpu['each_ms']:.3f} ms; labels {'equal' if same else 'DIFFER'}, largest difference {worst:.1e}"
        )
    bad += auto["device"] != ("cuda:0" if gpu else "cpu")
print("all as expected" if not bad else f"{bad} checks failed")
sys.exit(bool(bad))
PY
