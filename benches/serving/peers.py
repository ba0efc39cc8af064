"""The peers of `make bench-serving`, each as its own users start it: `peers.py make|triton|bentoml PICKLE`. Prints the port that it listens on.

Triton is the real server, out of NVIDIA's own wheel: `identity` does nothing, so it measures the server and its Python back end's transport
alone; `sklearn` runs the pickle with dynamic batching. BentoML serves the same pickle as its documentation shows, one row a call.
"""

import os
import pickle
import socket
import sys
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make(path: str):
    """The same model as ours, made here: a pickle is only read by the versions that wrote it."""
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 10))
    y = (x[:, 0] * 1.5 + x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]) + rng.normal(size=len(x)) * 0.7) > 0
    model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0).fit(x, y)
    Path(path).write_bytes(pickle.dumps(model))


def triton(path: str):
    import numpy as np
    from pytriton.decorators import batch
    from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    model = pickle.loads(Path(path).read_bytes())

    @batch
    def identity(x):
        return {"y": x}

    @batch
    def predict(x):
        return {"y": model.predict_proba(x)[:, 1:]}

    config = TritonConfig(
        http_address="127.0.0.1", http_port=free_port(), grpc_address="127.0.0.1", grpc_port=free_port(), metrics_port=free_port(),
    )
    tensors = {
        "inputs": [Tensor(name="x", dtype=np.float64, shape=(10,))],
        "outputs": [Tensor(name="y", dtype=np.float64, shape=(-1,))],
    }
    batching = ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=500))
    with Triton(config=config) as server:
        server.bind(model_name="identity", infer_func=identity, config=batching, **tensors)
        server.bind(model_name="sklearn", infer_func=predict, config=batching, **tensors)
        print(config.http_port, flush=True)
        server.serve()


def bentoml(path: str):
    port = free_port()
    print(port, flush=True)
    command = [sys.executable, "-m", "bentoml", "serve", "bento:Model", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "BENCH_PICKLE": str(Path(path).absolute()), "BENTOML_DO_NOT_TRACK": "True"}
    os.chdir(Path(__file__).parent)
    os.execve(sys.executable, command, environment)


if __name__ == "__main__":
    # Several threads for one row only get in each other's way, for every server here.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    {"make": make, "triton": triton, "bentoml": bentoml}[sys.argv[1]](sys.argv[2])
