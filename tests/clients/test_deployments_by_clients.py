"""Deployed functions as the field's stock clients ask them: tensors, repository, limits, streams. The same checks over HTTP and gRPC."""

import json
import threading
import time

import boto3
import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from botocore.config import Config
from conftest import Project, worker_env
from tritonclient.utils import InferenceServerException

APP = '''
import time
import numpy as np
import tidemill

COLUMN = [-1]

@tidemill.endpoint(
    inputs={"a": ("FP32", COLUMN), "b": ("INT64", COLUMN), "s": ("BYTES", COLUMN)},
    outputs={"a": ("FP32", COLUMN), "b": ("INT64", COLUMN), "s": ("BYTES", COLUMN)},
)
def identity(a: np.ndarray, b: np.ndarray, s: np.ndarray):
    return {"a": a, "b": b, "s": s}

@tidemill.endpoint(batch=4, inputs={"x": ("FP32", [-1, 3])}, outputs={"y": ("FP32", [-1, 3])})
def double(x: np.ndarray):
    return x * np.float32(2)

@tidemill.endpoint(inputs={"seconds": ("FP64", [1])}, outputs={"slept": ("FP64", [1])})
def slow(seconds: np.ndarray):
    time.sleep(float(seconds[0]))
    return {"slept": seconds}

@tidemill.endpoint(inputs={"upto": ("INT32", [1])}, outputs={"i": ("INT64", [1])})
def count(upto: np.ndarray):
    for i in range(int(upto[0])):
        yield {"i": np.array([i], np.int64)}

@tidemill.endpoint(inputs={"upto": ("INT32", [1])}, outputs={"i": ("INT64", [1])})
def nap(upto: np.ndarray):
    for i in range(int(upto[0])):
        time.sleep(0.2)
        yield {"i": np.array([i], np.int64)}
'''
NAMES = ["identity", "double", "slow", "count", "nap"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by-clients")
    project = Project(folder, "", worker_env())
    (folder / "app.py").write_text(APP)
    project.up()
    for name in NAMES:
        project.run("deploy", f"app.py:{name}", "--json")
    yield project
    project.stop()


@pytest.fixture(scope="module", params=["http", "grpc"])
def module(request):
    return {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]


@pytest.fixture(scope="module")
def client(module, server):
    with module.InferenceServerClient(server.host) as client:
        yield client


def tensor(module, name, values, datatype):
    made = module.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def doubled(module, rows=2):
    return [tensor(module, "x", np.arange(rows * 3, dtype=np.float32).reshape(rows, 3), "FP32")]


def test_tensors_come_back_as_they_went(module, client):
    a, b = np.array([0.5, np.nan, -1], np.float32), np.array([1, 2**62, -3], np.int64)
    s = np.array([b"one", "zwölf".encode(), b""], object)
    sent = [tensor(module, "a", a, "FP32"), tensor(module, "b", b, "INT64"), tensor(module, "s", s, "BYTES")]
    answer = client.infer("identity", sent, request_id="q1")
    np.testing.assert_array_equal(answer.as_numpy("a"), a)
    np.testing.assert_array_equal(answer.as_numpy("b"), b)
    assert answer.as_numpy("s").tolist() == s.tolist()
    only = client.infer("identity", sent, outputs=[module.InferRequestedOutput("b")])
    assert only.as_numpy("a") is None and only.as_numpy("b").tolist() == b.tolist()


def test_classification_of_a_deployment(module, client):
    answer = client.infer("double", doubled(module, 1), outputs=[module.InferRequestedOutput("y", class_count=2)])
    assert answer.as_numpy("y").tolist() == [[b"4.000000:2", b"2.000000:1"]]


def test_what_does_not_fit_is_refused(module, client):
    wrong = {
        "datatype FP64, expected FP32": tensor(module, "x", np.zeros((1, 3)), "FP64"),
        r"shape \[1, 4\], expected shape \[-1, 3\]": tensor(module, "x", np.zeros((1, 4), np.float32), "FP32"),
        "no input `z`": tensor(module, "z", np.zeros((1, 3), np.float32), "FP32"),
        "a batch of 5 rows came, expected at most 4": doubled(module, 5)[0],
    }
    for message, sent in wrong.items():
        with pytest.raises(InferenceServerException, match=message) as error:
            client.infer("double", [sent])
        assert error.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    with pytest.raises(InferenceServerException, match="does not serve version 9"):
        client.infer("double", doubled(module), model_version="9")
    with pytest.raises(InferenceServerException, match="no output `z`"):
        client.infer("double", doubled(module), outputs=[module.InferRequestedOutput("z")])


def test_a_timeout_ends_a_request_and_not_the_deployment(module, client):
    slow = [tensor(module, "seconds", np.array([3.0]), "FP64")]
    with pytest.raises(InferenceServerException) as error:
        client.infer("slow", slow, timeout=200_000)
    assert error.value.status() in ("504", "StatusCode.DEADLINE_EXCEEDED"), error.value
    quick = [tensor(module, "seconds", np.array([0.0]), "FP64")]
    assert client.infer("slow", quick, timeout=30_000_000).as_numpy("slept").tolist() == [0.0]


def test_a_deployment_is_unloaded_and_loaded(module, client):
    client.infer("double", doubled(module))
    client.unload_model("double")
    assert not client.is_model_ready("double")
    with pytest.raises(InferenceServerException, match="is unloaded"):
        client.infer("double", doubled(module))
    client.load_model("double")
    assert client.is_model_ready("double")
    np.testing.assert_array_equal(client.infer("double", doubled(module, 1)).as_numpy("y"), [[0, 2, 4]])
    with pytest.raises(InferenceServerException, match="does not take `config`"):
        client.load_model("double", config="{}")


def test_configuration_and_statistics_are_the_deployments(module, client):
    from google.protobuf.json_format import MessageToDict

    def told(message):
        return message if isinstance(message, dict) else MessageToDict(message, preserving_proto_field_name=True)

    config = told(client.get_model_config("double"))
    config = config.get("config", config)
    assert (config["max_batch_size"], [int(d) for d in config["input"][0]["dims"]]) == (4, [3])
    config = told(client.get_model_config("count"))
    assert config.get("config", config)["model_transaction_policy"]["decoupled"]

    def rows():
        return int(told(client.get_inference_statistics("double"))["model_stats"][0]["inference_count"])

    before = rows()
    client.infer("double", doubled(module, 3))
    assert rows() == before + 3


def test_a_decoupled_function_answers_a_stream_many_times_and_then_says_that_it_is_done(server):
    module, got, done = tritonclient.grpc, [], threading.Event()

    def take(result, error):
        got.append((result, error))
        final = error is None and result.get_response().parameters["triton_final_response"].bool_param
        if final:
            done.set()

    with module.InferenceServerClient(server.host) as client:
        with pytest.raises(InferenceServerException, match="ask by `ModelStreamInfer`"):
            client.infer("count", [tensor(module, "upto", np.array([2], np.int32), "INT32")])
        client.start_stream(take)
        upto = [tensor(module, "upto", np.array([5], np.int32), "INT32")]
        client.async_stream_infer("count", upto, request_id="c", enable_empty_final_response=True)
        assert done.wait(60), got
        client.stop_stream()
    assert all(error is None for _, error in got)
    assert [int(result.as_numpy("i")[0]) for result, _ in got[:-1]] == [0, 1, 2, 3, 4]
    assert got[-1][0].as_numpy("i") is None


def test_the_generate_extension_streams_events(server):
    url = f"{server.url}/v2/models/count/generate_stream"
    with requests.post(url, json={"upto": 3}, stream=True, timeout=60) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert [json.loads(line.removeprefix(b"data: "))["i"] for line in lines] == [0, 1, 2]


def test_boto3_reads_a_deployments_stream_and_its_answer(server):
    runtime = boto3.client(
        "sagemaker-runtime", endpoint_url=server.url, region_name="eu-west-1", aws_access_key_id="a",
        aws_secret_access_key="b", config=Config(retries={"max_attempts": 1}),
    )
    answer = runtime.invoke_endpoint(
        EndpointName="double", ContentType="text/csv", Accept="text/csv", Body="1,2,3\n4,5,6\n"
    )
    assert answer["Body"].read() == b"2.0,4.0,6.0\n8.0,10.0,12.0\n"
    assert answer["InvokedProductionVariant"] == "1"
    stream = runtime.invoke_endpoint_with_response_stream(
        EndpointName="count", ContentType="application/json", Body='{"instances": [3]}'
    )
    parts = [json.loads(event["PayloadPart"]["Bytes"]) for event in stream["Body"]]
    assert [part["predictions"] for part in parts] == [[0], [1], [2]]


def test_googles_client_predicts_and_streams(server):
    from google.api import httpbody_pb2
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.aiplatform_v1.services.prediction_service import PredictionServiceClient
    from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceRestTransport
    from google.protobuf import json_format, struct_pb2

    transport = PredictionServiceRestTransport(host=server.host, credentials=AnonymousCredentials(), url_scheme="http")
    client = PredictionServiceClient(transport=transport)
    endpoint = "projects/p/locations/l/endpoints/"
    rows = [json_format.ParseDict([1, 2, 3], struct_pb2.Value())]
    answer = client.predict(endpoint=endpoint + "double", instances=rows)
    assert [list(row) for row in answer.predictions] == [[2.0, 4.0, 6.0]]
    body = httpbody_pb2.HttpBody(content_type="application/json", data=b'{"instances": [2]}')
    pieces = list(client.stream_raw_predict(request={"endpoint": endpoint + "count", "http_body": body}))
    assert [json.loads(piece.data)["predictions"] for piece in pieces] == [[0], [1]]


def test_mlflows_client_scores_a_deployment(server):
    answer = requests.post(f"{server.url}/invocations/double", json={"instances": [[1, 2, 3]]}, timeout=60)
    assert answer.json() == {"predictions": [[2.0, 4.0, 6.0]]}
    import io

    import pandas as pd

    parquet = io.BytesIO()
    pd.DataFrame({"a": [1.0, 4.0], "b": [2.0, 5.0], "c": [3.0, 6.0]}).to_parquet(parquet)
    answer = requests.post(
        f"{server.url}/invocations/double", data=parquet.getvalue(), timeout=60,
        headers={"Content-Type": "application/vnd.apache.parquet"},
    )
    assert answer.json() == {"predictions": [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]}


def test_a_stream_that_is_far_ahead_of_its_answers_holds_up_nothing_else_on_its_connection(server):
    kind = tritonclient.grpc
    replies, beside = [], []
    with kind.InferenceServerClient(server.host) as client:
        client.start_stream(lambda result, error: replies.append(error))
        for i in range(600):
            client.async_stream_infer("slow", [tensor(kind, "seconds", np.array([0.001]), "FP64")], request_id=str(i))
        client.async_infer(
            "slow", [tensor(kind, "seconds", np.array([0.5]), "FP64")], lambda result, error: beside.append(error)
        )
        # Ends once everything has been answered.
        client.stop_stream()
        assert replies == [None] * 600
        for _ in range(100):
            if beside:
                break
            time.sleep(0.1)
        assert beside == [None]


def test_streams_are_counted_and_end_with_the_callers_time(server):
    kind = tritonclient.grpc

    def ask(client, upto, headers=None):
        replies, done = [], threading.Event()

        def take(result, error):
            replies.append(error or result)
            if error or result.get_response().parameters["triton_final_response"].bool_param:
                done.set()

        client.start_stream(take, headers=headers)
        client.async_stream_infer(
            "nap", [tensor(kind, "upto", np.array([upto], np.int32), "INT32")], enable_empty_final_response=True
        )
        assert done.wait(30), replies
        client.stop_stream()
        return replies

    with kind.InferenceServerClient(server.host) as client:
        assert len(ask(client, 3)) == 4
        before = requests.get(f"{server.url}/v2/models/nap/stats", timeout=30).json()["model_stats"][0]
        assert before["inference_stats"]["success"]["count"] == before["inference_count"] == before["execution_count"] == 1
        assert before["inference_stats"]["compute_infer"]["ns"] >= 3 * 0.2e9
        assert [before["response_stats"][str(i)]["success"]["count"] for i in range(3)] == [1, 1, 1]
        assert before["response_stats"]["3"]["empty_response"]["count"] == 1
        began = time.monotonic()
        late = ask(client, 60, headers={"x-tidemill-timeout-ms": "700"})
        assert time.monotonic() - began < 5
        errors = [str(reply) for reply in late if isinstance(reply, InferenceServerException)]
        assert len(errors) == 1 and "within the request's time" in errors[0], late
        after = client.get_inference_statistics("nap", as_json=True)["model_stats"][0]
        assert int(after["inference_stats"]["fail"]["count"]) == 1
        assert int(after["inference_stats"]["success"]["count"]) == 1
