"""Writes onnx/mlp.onnx and onnx/trees.onnx: small models for the tests of reading and checking ONNX files.

Run: python generate_onnx.py (python 3.11, scikit-learn 1.9, skl2onnx 1.20, onnx 1.23).
"""

import pathlib

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestRegressor
from sklearn.neural_network import MLPRegressor

rng = np.random.default_rng(2)
x = rng.normal(size=(200, 3)).astype(np.float32)
y = x[:, 0] * x[:, 1] + x[:, 2]
folder = pathlib.Path(__file__).with_name("onnx")
folder.mkdir(exist_ok=True)
models = {
    "mlp": MLPRegressor(hidden_layer_sizes=(4,), max_iter=300, random_state=0),
    "trees": RandomForestRegressor(3, max_depth=3, random_state=0),
}
for name, model in models.items():
    onnx = convert_sklearn(model.fit(x, y), initial_types=[("x", FloatTensorType([None, 3]))], target_opset={"": 17, "ai.onnx.ml": 3})
    (folder / f"{name}.onnx").write_bytes(onnx.SerializeToString())
    print(name, len(onnx.SerializeToString()), [node.op_type for node in onnx.graph.node], model.predict(x[:2]).tolist(), x[:2].tolist())
