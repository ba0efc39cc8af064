"""KServe's own client against a server, over REST and over gRPC. Runs in an environment of its own: `check.py HOST`."""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

HOST = sys.argv[1]
ROWS = np.array([[1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 0.5, 1.0]], np.float32)


def request(binary: bool) -> InferRequest:
    rows = InferInput("rows", list(ROWS.shape), "FP32")
    rows.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(model_name="numbers", infer_inputs=[rows])


def scores(answer) -> np.ndarray:
    output = next(o for o in answer.outputs if o.name == "probabilities")
    return output.as_numpy()


async def rest() -> np.ndarray:
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=1, timeout=30))
    base = f"http://{HOST}"
    assert await client.is_server_live(base)
    assert await client.is_server_ready(base)
    assert await client.is_model_ready(base, "numbers")
    found = []
    for binary in (False, True):
        answer = await client.infer(base, request(binary), model_name="numbers")
        assert answer.model_name == "numbers"
        found.append(scores(answer))
    np.testing.assert_array_equal(found[0], found[1])
    try:
        await client.infer(base, request(False), model_name="nobody")
    except Exception as error:
        assert "404" in str(error) or "nobody" in str(error), error
    else:
        raise AssertionError("`nobody` answered")
    await client.close()
    return found[0]


async def grpc() -> np.ndarray:
    client = InferenceGRPCClient(url=HOST)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("numbers")
    found = []
    for binary in (False, True):
        answer = await client.infer(request(binary))
        assert answer.model_version == "1"
        found.append(scores(answer))
    np.testing.assert_array_equal(found[0], found[1])
    await client.close()
    return found[0]


over_rest, over_grpc = asyncio.run(rest()), asyncio.run(grpc())
assert over_rest.shape == (2, 3), over_rest.shape
np.testing.assert_array_equal(over_rest, over_grpc)
print("ok")
