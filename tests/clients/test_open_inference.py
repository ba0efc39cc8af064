"""The Open Inference Protocol as NVIDIA's own client speaks it."""

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

FEATURES = ["x", "count", "flag", "colour"]


@pytest.fixture(scope="module")
def client(colours):
    with triton.InferenceServerClient(colours.host) as client:
        yield client


def tensor(name: str, values: np.ndarray, datatype: str) -> triton.InferInput:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=False)
    return made


def inputs(frame) -> list[triton.InferInput]:
    return [
        tensor("x", frame["x"].fillna(0).to_numpy(np.float64), "FP64"),
        tensor("count", frame["count"].to_numpy(np.int64), "INT64"),
        tensor("flag", frame["flag"].to_numpy(bool), "BOOL"),
        tensor("colour", frame["colour"].fillna("red").to_numpy(object), "BYTES"),
    ]


def outputs(*names: str) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name, binary_data=False) for name in names]


def test_health_is_told(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colours")
    assert client.is_model_ready("colours", "1")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("colours", "9")


def test_metadata_describes_server_and_model(client):
    assert client.get_server_metadata()["name"] == "tidemill"
    metadata = client.get_model_metadata("colours")
    assert (metadata["name"], metadata["versions"]) == ("colours", ["1"])
    assert [(i["name"], i["datatype"]) for i in metadata["inputs"]] == [
        ("x", "FP64"), ("count", "FP64"), ("flag", "BYTES"), ("colour", "BYTES"),
    ]
    described = {o["name"]: o["datatype"] for o in metadata["outputs"]}
    assert described["probability"] == "FP64" and described["prediction_id"] == "BYTES"


def test_rows_are_answered_with_ids_and_versions(client, frame):
    rows = frame.head(20)
    wanted = outputs("probability", "prediction_id", "model_version", "role")
    result = client.infer("colours", inputs(rows), outputs=wanted, request_id="from-triton")
    probability = result.as_numpy("probability")
    assert probability.shape == (20,) and probability.dtype == np.float64
    assert ((probability > 0) & (probability < 1)).all()
    assert len(set(result.as_numpy("prediction_id"))) == 20
    assert (result.as_numpy("model_version") == 1).all()
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("colours", "1", "from-triton")

    again = client.infer("colours", inputs(rows), outputs=wanted, request_id="from-triton")
    assert (again.as_numpy("prediction_id") == result.as_numpy("prediction_id")).all(), "a retry is answered once"
    other = client.infer("colours", inputs(rows), outputs=wanted, request_id="another")
    assert not set(other.as_numpy("prediction_id")) & set(result.as_numpy("prediction_id"))
    assert (other.as_numpy("probability") == probability).all()


def test_a_version_can_be_named(client, frame):
    result = client.infer("colours", inputs(frame.head(3)), model_version="1", outputs=outputs("probability"))
    assert result.as_numpy("probability").shape == (3,)
    with pytest.raises(InferenceServerException, match="does not serve version 9"):
        client.infer("colours", inputs(frame.head(3)), model_version="9", outputs=outputs("probability"))


def test_what_is_wrong_is_said_in_the_protocols_own_way(client, frame):
    with pytest.raises(InferenceServerException, match="`colour` is missing"):
        client.infer("colours", inputs(frame.head(2))[:3], outputs=outputs("probability"))
    with pytest.raises(InferenceServerException, match="no output `answer`"):
        client.infer("colours", inputs(frame.head(2)), outputs=outputs("answer"))
    wrong = [tensor("x", np.array(["seven"], object), "BYTES"), *inputs(frame.head(1))[1:]]
    with pytest.raises(InferenceServerException, match="`x` row 0: `seven`"):
        client.infer("colours", wrong, outputs=outputs("probability"))
    # Triton's binary extension is not offered, and the refusal says what to do.
    binary = triton.InferInput("x", [1], "FP64")
    binary.set_data_from_numpy(np.array([1.0]))
    with pytest.raises(InferenceServerException, match="binary_data=False"):
        client.infer("colours", [binary], outputs=outputs("probability"))


def test_a_default_client_without_requested_outputs_says_what_is_answered(client, frame):
    # Without `outputs` the client asks for all outputs in binary; JSON is what it gets, and it reads that too.
    result = client.infer("colours", inputs(frame.head(2)))
    assert result.as_numpy("probability").shape == (2,)
