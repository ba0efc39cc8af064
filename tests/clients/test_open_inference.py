"""The Open Inference Protocol as NVIDIA's own clients speak it, over HTTP and over gRPC: the same checks with both."""

import json
import threading

import ml_dtypes
import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

FEATURES = ["x", "count", "flag", "colour"]


class Kind:
    """One of the two clients, with what they call differently."""

    def __init__(self, name: str):
        self.name = name
        self.module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[name]

    def connect(self, project):
        return self.module.InferenceServerClient(project.host)

    def input(self, name, values, datatype, binary=True):
        made = self.module.InferInput(name, list(values.shape), datatype)
        if self.name == "http":
            made.set_data_from_numpy(values, binary_data=binary)
        else:
            made.set_data_from_numpy(values)
        return made

    def output(self, name, binary=True, **options):
        if self.name == "http":
            options["binary_data"] = binary
        return self.module.InferRequestedOutput(name, **options)

    def told(self, message):
        """An answer about the server or a model, as JSON has it."""
        if self.name == "http":
            return message
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)

    def response(self, result):
        return result.get_response() if self.name == "http" else self.told(result.get_response())


@pytest.fixture(scope="module", params=["http", "grpc"])
def kind(request) -> Kind:
    return Kind(request.param)


@pytest.fixture(scope="module")
def client(kind, colours):
    with kind.connect(colours) as client:
        yield client


@pytest.fixture(scope="module")
def matrix_client(kind, numbers):
    with kind.connect(numbers) as client:
        yield client


def inputs(kind, frame, binary=True):
    return [
        kind.input("x", frame["x"].fillna(0).to_numpy(np.float64), "FP64", binary),
        kind.input("count", frame["count"].to_numpy(np.int64), "INT64", binary),
        kind.input("flag", frame["flag"].to_numpy(bool), "BOOL", binary),
        kind.input("colour", frame["colour"].fillna("red").to_numpy(object), "BYTES", binary),
    ]


def rows(n=8):
    return (np.arange(n * 4).reshape(n, 4) % 97 / 10).astype(np.float32)


# What is told


def test_health_is_told(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colours")
    assert client.is_model_ready("colours", "1")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("colours", "9")


def test_metadata_describes_server_and_model(kind, client):
    server = kind.told(client.get_server_metadata())
    assert server["name"] == "tidemill"
    assert {"binary_tensor_data", "classification", "statistics", "model_repository"} <= set(server["extensions"])
    metadata = kind.told(client.get_model_metadata("colours"))
    assert (metadata["name"], metadata["versions"]) == ("colours", ["1"])
    assert [(i["name"], i["datatype"]) for i in metadata["inputs"]] == [
        ("x", "FP64"), ("count", "FP64"), ("flag", "BYTES"), ("colour", "BYTES"),
    ]
    described = {o["name"]: o["datatype"] for o in metadata["outputs"]}
    assert described["probability"] == "FP64" and described["prediction_id"] == "BYTES"
    assert kind.told(client.get_model_metadata("colours", "1")) == metadata
    with pytest.raises(InferenceServerException, match="no endpoint `nobody`; known: `colours`"):
        client.get_model_metadata("nobody")


def test_a_configuration_has_tritons_shape(kind, client):
    config = kind.told(client.get_model_config("colours"))
    config = config.get("config", config)
    assert config["name"] == "colours"
    assert [i["data_type"] for i in config["input"]] == ["TYPE_FP64", "TYPE_FP64", "TYPE_STRING", "TYPE_STRING"]
    assert not config["model_transaction_policy"]["decoupled"]


def test_statistics_count_what_was_answered(kind, matrix_client):
    def counted():
        stats = kind.told(matrix_client.get_inference_statistics("numbers"))["model_stats"]
        return int(stats[0]["inference_count"]), int(stats[0]["inference_stats"]["success"]["count"])

    count, success = counted()
    matrix_client.infer("numbers", [kind.input("rows", rows(5), "FP32")])
    assert counted() == (count + 5, success + 1)
    assert kind.told(matrix_client.get_inference_statistics())["model_stats"]
    with pytest.raises(InferenceServerException, match="version 7"):
        matrix_client.get_inference_statistics("numbers", "7")


def test_the_repository_is_listed_and_what_the_loop_serves_is_the_loops(kind, client):
    index = kind.told(client.get_model_repository_index())
    listed = index if isinstance(index, list) else index["models"]
    assert ("colours", "1", "READY") in [(m["name"], m["version"], m["state"]) for m in listed]
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="belongs to the loop"):
            change("colours")
    with pytest.raises(InferenceServerException, match="no endpoint `nobody`"):
        client.load_model("nobody")


def test_settings_are_told_and_are_the_operators(kind, client):
    trace = kind.told(client.get_trace_settings())
    assert "trace_level" in (trace.get("settings") or trace)
    with pytest.raises(InferenceServerException, match="`trace_level` cannot be changed"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    log = kind.told(client.get_log_settings())
    assert "log_verbose_level" in (log.get("settings") or log)
    with pytest.raises(InferenceServerException, match="cannot be changed"):
        client.update_log_settings({"log_format": "ISO8601"})


# Rows


@pytest.mark.parametrize("binary", [True, False])
def test_rows_are_answered_with_ids_and_versions(kind, client, frame, binary):
    sent = inputs(kind, frame.head(20), binary)
    wanted = [kind.output(name, binary) for name in ("probability", "prediction_id", "model_version", "role")]
    name = f"from-{kind.name}-{binary}"
    result = client.infer("colours", sent, outputs=wanted, request_id=name)
    probability = result.as_numpy("probability")
    assert probability.shape == (20,) and probability.dtype == np.float64
    assert ((probability > 0) & (probability < 1)).all()
    assert len(set(result.as_numpy("prediction_id"))) == 20
    assert (result.as_numpy("model_version") == 1).all()
    response = kind.response(result)
    assert (response["model_name"], response["model_version"], response["id"]) == ("colours", "1", name)

    again = client.infer("colours", sent, outputs=wanted, request_id=name)
    assert (again.as_numpy("prediction_id") == result.as_numpy("prediction_id")).all(), "a retry is answered once"
    other = client.infer("colours", sent, outputs=wanted, request_id=name + "-another")
    assert not set(other.as_numpy("prediction_id")) & set(result.as_numpy("prediction_id"))
    assert (other.as_numpy("probability") == probability).all()


def test_a_version_can_be_named(kind, client, frame):
    sent = inputs(kind, frame.head(3))
    assert client.infer("colours", sent, model_version="1").as_numpy("probability").shape == (3,)
    with pytest.raises(InferenceServerException, match="does not serve version 9"):
        client.infer("colours", sent, model_version="9")
    with pytest.raises(InferenceServerException, match="version `first` is not a number"):
        client.infer("colours", sent, model_version="first")


@pytest.mark.parametrize(
    ("numpy", "datatype"),
    [
        (np.float32, "FP32"), (np.float64, "FP64"), (np.float16, "FP16"), (np.int8, "INT8"), (np.int16, "INT16"),
        (np.int32, "INT32"), (np.int64, "INT64"), (np.uint8, "UINT8"), (np.uint16, "UINT16"), (np.uint32, "UINT32"),
        (np.uint64, "UINT64"),
    ],
)
def test_a_matrix_of_any_number_gives_the_same_answer(kind, matrix_client, numpy, datatype):
    whole = (rows().round() % 9).astype(numpy)
    answer = matrix_client.infer("numbers", [kind.input("rows", whole, datatype)]).as_numpy("probabilities")
    plain = matrix_client.infer("numbers", [kind.input("rows", whole.astype(np.float64), "FP64")])
    assert answer.shape == (8, 3)
    np.testing.assert_array_equal(answer, plain.as_numpy("probabilities"))
    np.testing.assert_allclose(answer.sum(axis=1), 1)


def test_bfloat16_travels_as_triton_writes_it(kind, matrix_client):
    whole = rows().round().astype(np.float32)
    answer = matrix_client.infer("numbers", [kind.input("rows", whole.astype(ml_dtypes.bfloat16), "BF16")]).as_numpy("probabilities")
    plain = matrix_client.infer("numbers", [kind.input("rows", whole, "FP32")]).as_numpy("probabilities")
    np.testing.assert_array_equal(answer, plain)


def test_a_missing_number_is_nan(kind, matrix_client):
    whole = rows(2)
    whole[1, 2] = np.nan
    assert matrix_client.infer("numbers", [kind.input("rows", whole, "FP32")]).as_numpy("label").shape == (2,)
    whole[1, 2] = np.inf
    with pytest.raises(InferenceServerException, match="field `c` row 1: `inf` is not a finite number"):
        matrix_client.infer("numbers", [kind.input("rows", whole, "FP32")])


def test_tensors_of_one_feature_each_are_the_matrix(kind, matrix_client):
    whole = rows()
    columns = [kind.input(name, whole[:, [i]], "FP32") for i, name in enumerate("abcd")]
    flat = [kind.input(name, whole[:, i].copy(), "FP32") for i, name in enumerate("abcd")]
    expected = matrix_client.infer("numbers", [kind.input("rows", whole, "FP32")]).as_numpy("probabilities")
    for sent in (columns, flat, columns[::-1]):
        np.testing.assert_array_equal(matrix_client.infer("numbers", sent).as_numpy("probabilities"), expected)


def test_classification_gives_the_largest_with_their_labels(kind, matrix_client):
    sent = [kind.input("rows", rows(2), "FP32")]
    plain = matrix_client.infer("numbers", sent).as_numpy("probabilities")
    label = matrix_client.infer("numbers", sent).as_numpy("label")
    wanted = [kind.output("probabilities", class_count=2)]
    top = matrix_client.infer("numbers", sent, outputs=wanted).as_numpy("probabilities")
    assert top.shape == (2, 2)
    for row in range(2):
        value, position, name = top[row, 0].decode().split(":")
        best = int(plain[row].argmax())
        assert (int(position), name) == (best, label[row].decode())
        assert value == f"{plain[row, best]:.6f}"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(kind, matrix_client, algorithm):
    sent = [kind.input("rows", rows(400), "FP32", binary=False)]
    plain = matrix_client.infer("numbers", sent).as_numpy("probabilities")
    if kind.name == "http":
        how = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    else:
        how = {"compression_algorithm": algorithm}
    np.testing.assert_array_equal(matrix_client.infer("numbers", sent, **how).as_numpy("probabilities"), plain)


def test_parameters_and_sequences_are_tolerated(kind, matrix_client):
    sent = [kind.input("rows", rows(1), "FP32")]
    result = matrix_client.infer(
        "numbers", sent, sequence_id=7, sequence_start=True, sequence_end=True, priority=1, timeout=5_000_000,
        parameters={"mine": "yes", "many": 3},
    )
    assert result.as_numpy("label").shape == (1,)


def test_an_answer_can_be_waited_for_elsewhere(kind, matrix_client):
    sent = [kind.input("rows", rows(3), "FP32")]
    if kind.name == "http":
        assert matrix_client.async_infer("numbers", sent).get_result().as_numpy("label").shape == (3,)
        return
    done, got = threading.Event(), []
    matrix_client.async_infer("numbers", sent, lambda result, error: (got.append((result, error)), done.set()))
    assert done.wait(30)
    assert got[0][1] is None and got[0][0].as_numpy("label").shape == (3,)


def test_tensors_go_by_shared_memory(kind, numbers, matrix_client):
    whole = rows(4)
    plain = matrix_client.infer("numbers", [kind.input("rows", whole, "FP32")]).as_numpy("probabilities")
    region, size = f"tidemill-{kind.name}-{numbers.process.pid}", whole.nbytes + plain.nbytes
    handle = shm.create_shared_memory_region(region, f"/{region}", size)
    try:
        shm.set_shared_memory_region(handle, [whole])
        matrix_client.register_system_shared_memory(region, f"/{region}", size)
        assert region in str(matrix_client.get_system_shared_memory_status())
        sent = kind.module.InferInput("rows", list(whole.shape), "FP32")
        sent.set_shared_memory(region, whole.nbytes)
        wanted = kind.module.InferRequestedOutput("probabilities")
        wanted.set_shared_memory(region, plain.nbytes, offset=whole.nbytes)
        matrix_client.infer("numbers", [sent], outputs=[wanted])
        back = shm.get_contents_as_numpy(handle, np.float64, plain.shape, offset=whole.nbytes)
        np.testing.assert_array_equal(back, plain)
        with pytest.raises(InferenceServerException, match="may|registered already"):
            matrix_client.register_system_shared_memory(region, f"/{region}", size)
        matrix_client.unregister_system_shared_memory(region)
        with pytest.raises(InferenceServerException, match="no shared memory region"):
            matrix_client.infer("numbers", [sent])
        with pytest.raises(InferenceServerException, match="no name of shared memory"):
            matrix_client.register_system_shared_memory("bad", "/../etc/passwd", 8)
    finally:
        matrix_client.unregister_system_shared_memory()
        shm.destroy_shared_memory_region(handle)


def test_shared_memory_is_off_without_its_option(kind, client):
    with pytest.raises(InferenceServerException, match="--shared-memory"):
        client.register_system_shared_memory("region", "/region", 8)
    with pytest.raises(InferenceServerException, match="no CUDA memory"):
        client.register_cuda_shared_memory("region", b"AAAA", 0, 8)


# What is refused


def test_what_is_wrong_is_said_in_the_protocols_own_way(kind, client, frame):
    with pytest.raises(InferenceServerException, match="no endpoint `nobody`"):
        client.infer("nobody", inputs(kind, frame.head(1)))
    with pytest.raises(InferenceServerException, match="`colour` is missing"):
        client.infer("colours", inputs(kind, frame.head(2))[:3])
    with pytest.raises(InferenceServerException, match="no output `answer`"):
        client.infer("colours", inputs(kind, frame.head(2)), outputs=[kind.output("answer")])
    wrong = [kind.input("x", np.array(["seven"], object), "BYTES"), *inputs(kind, frame.head(1))[1:]]
    with pytest.raises(InferenceServerException, match="`x` row 0: `seven`"):
        client.infer("colours", wrong)


def test_wrong_shapes_and_datatypes_are_refused_with_400(kind, matrix_client):
    for sent, expected in [
        (kind.input("rows", rows(2)[:, :3].copy(), "FP32"), r"expected \[rows, 4\]"),
        (kind.input("rows", rows(2).reshape(2, 2, 2), "FP32"), "shape|missing"),
        (kind.input("a", rows(2)[:, 0].copy(), "FP32"), "`b` is missing"),
        (kind.input("rows", np.array([["x"] * 4], object), "BYTES"), "is not a number"),
    ]:
        with pytest.raises(InferenceServerException, match=expected) as error:
            matrix_client.infer("numbers", [sent])
        assert error.value.status() == ("400" if kind.name == "http" else "StatusCode.INVALID_ARGUMENT")


def test_bytes_that_do_not_fit_their_shape_are_refused(kind, matrix_client):
    sent = kind.input("rows", rows(2), "FP32")
    sent.set_shape([3, 4])
    # The newest clients look by themselves; what they let through the server refuses.
    with pytest.raises(InferenceServerException, match="32 bytes, expected 48|data shape|byte size|elements"):
        matrix_client.infer("numbers", [sent])


def test_an_oversized_request_is_refused_and_the_server_lives(kind, matrix_client):
    large = np.zeros((4_500_000, 4), np.float32)
    with pytest.raises(InferenceServerException, match="64 MiB|message length too large|larger than max|Broken pipe|reset"):
        matrix_client.infer("numbers", [kind.input("rows", large, "FP32")])
    assert matrix_client.is_server_live()


def test_a_batch_of_many_rows_is_answered_as_one(kind, matrix_client):
    whole = rows(20_000)
    assert matrix_client.infer("numbers", [kind.input("rows", whole, "FP32")]).as_numpy("label").shape == (20_000,)


# HTTP alone


def post(project, body, headers=None, path="/v2/models/numbers/infer"):
    return requests.post(project.url + path, data=body, headers=headers or {}, timeout=30)


def test_malformed_bodies_are_the_clients_fault(numbers):
    for body, expected in [("{", "not valid JSON"), ("", "empty"), ('{"inputs": 3}', "does not fit"), ("[1]", "does not fit")]:
        answer = post(numbers, body)
        assert answer.status_code == 400, body
        assert expected in answer.json()["error"]
    answer = post(numbers, "x", {"Inference-Header-Content-Length": "many"})
    assert (answer.status_code, "Inference-Header-Content-Length" in answer.json()["error"]) == (400, True)
    assert requests.get(numbers.url + "/v2/models/numbers/infer", timeout=30).status_code == 405


def test_a_gzip_bomb_is_refused(numbers):
    import gzip

    bomb = gzip.compress(b" " * (65 << 20))
    answer = post(numbers, bomb, {"Content-Encoding": "gzip", "Content-Type": "application/json"})
    assert answer.status_code == 413


def test_prometheus_has_tritons_names_beside_ours(numbers):
    post(numbers, json.dumps({"inputs": [{"name": "rows", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}))
    page = requests.get(numbers.url + "/metrics", timeout=30).text
    for name in ("nv_inference_request_success", "nv_inference_count", "nv_inference_compute_infer_duration_us"):
        line = next(line for line in page.splitlines() if line.startswith(f'{name}{{model="numbers",version="1"}}'))
        assert float(line.split()[-1]) > 0, line
    assert 'nv_inference_request_failure{model="numbers",version="1",reason="BACKEND"}' in page
    assert "tidemill_requests_total" in page


# gRPC alone


def test_a_stream_answers_each_request_in_order_and_errors_do_not_end_it(numbers):
    kind, answers, done = Kind("grpc"), [], threading.Event()

    def take(result, error):
        answers.append((result, error))
        if len(answers) == 11:
            done.set()

    with kind.connect(numbers) as client:
        client.start_stream(take)
        for i in range(10):
            client.async_stream_infer("numbers", [kind.input("rows", rows(i + 1), "FP32")], request_id=str(i))
        client.async_stream_infer("nobody", [kind.input("rows", rows(1), "FP32")])
        assert done.wait(30)
        client.stop_stream()
    good = [result for result, error in answers if error is None]
    assert [result.get_response().id for result in good] == [str(i) for i in range(10)]
    assert [result.as_numpy("label").shape for result in good] == [(i + 1,) for i in range(10)]
    assert good[0].get_response().parameters["triton_final_response"].bool_param
    errors = [str(error) for _, error in answers if error is not None]
    assert len(errors) == 1 and "no endpoint `nobody`" in errors[0]


def test_grpc_has_a_port_of_its_own_where_one_is_asked_for(numbers, colours):
    assert numbers.grpc != numbers.host and colours.grpc == colours.host
    with tritonclient.grpc.InferenceServerClient(numbers.grpc) as client:
        assert client.is_model_ready("numbers")
    with tritonclient.http.InferenceServerClient(numbers.grpc) as client:
        assert client.is_model_ready("numbers"), "both ports speak both"


def test_codes_and_deadlines_are_grpcs(numbers):
    kind = Kind("grpc")
    with kind.connect(numbers) as client:
        with pytest.raises(InferenceServerException) as error:
            client.infer("nobody", [kind.input("rows", rows(1), "FP32")])
        assert error.value.status() == "StatusCode.NOT_FOUND"
        with pytest.raises(InferenceServerException) as error:
            client.infer("numbers", [kind.input("rows", rows(20_000), "FP32")], client_timeout=0.000001)
        assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_grpcs_own_health_protocol_answers(numbers):
    import grpc

    with grpc.insecure_channel(numbers.host) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01"
        missing = channel.unary_unary("/inference.GRPCInferenceService/Nothing")
        with pytest.raises(grpc.RpcError) as error:
            missing(b"", timeout=10)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_default_client_without_requested_outputs_gets_all_of_them(kind, client, frame):
    result = client.infer("colours", inputs(kind, frame.head(2)))
    assert result.as_numpy("probability").shape == (2,)
    assert result.as_numpy("role").tolist() == [b"champion", b"champion"]
