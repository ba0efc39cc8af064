"""Models that stock mlflow logs are deployed from the registry and answer as mlflow's own scoring server does: every body goes to both."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import tritonclient.http as triton
from botocore.config import Config
from conftest import Project, binary, numbers_in, worker_env
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"

APP = """
import pandas as pd

def widths(rows: pd.DataFrame):
    return {"rows": len(rows), "columns": [f"{name}:{rows[name].dtype.kind}" for name in rows.columns]}
"""


# Workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Echo(mlflow.pyfunc.PythonModel):
    """Says what it was asked with: types, names and values."""

    def predict(self, context, model_input, params=None):
        def told(value):
            if isinstance(value, pd.DataFrame):
                return [f"{name}:{value[name].dtype}={value[name].tolist()!r}" for name in value.columns]
            if isinstance(value, dict):
                return {name: told(item) for name, item in value.items()}
            if isinstance(value, np.ndarray):
                return f"{value.dtype} {value.shape} {value.tolist()!r}"
            return f"{type(value).__name__} {value!r}"

        return [json.dumps({"input": told(model_input), "params": str(params)})]


class Answers(mlflow.pyfunc.PythonModel):
    """Gives every sort of answer."""

    def predict(self, context, model_input, params=None):
        kind = model_input["kind"].iloc[0]
        if kind == "raises":
            raise ZeroDivisionError("over nothing")
        return {
            "frame": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
            "one column": pd.DataFrame({"prediction": [2.0]}),
            "named series": pd.Series([1, 2.5], name="q"),
            "categories": pd.Series(pd.Categorical(["a", "b"])),
            "array": np.arange(4).reshape(2, 2),
            "dict of lists": {"a": [1], "b": np.array([2.0])},
            "list of dicts": [{"a": np.int64(1), "b": "x"}, {"a": 2}],
            "tuple": (1, [2]),
            "ragged": [np.array([1, 2]), np.array([3])],
            "bytes": [b"ab"],
            "dates": pd.DataFrame({"d": pd.to_datetime(["2024-01-01"])}),
            "scalar": 3,
            "text": "x",
            "nothing": None,
        }[kind]


class Dicts(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[dict[str, Any]]):
        return [sorted(row) for row in model_input]


def columns(*specs):
    return Schema([spec if isinstance(spec, ColSpec) else ColSpec(*spec) for spec in specs])


TYPED = columns(
    ("double", "x"), ("long", "n"), ("integer", "i"), ("float", "f"), ("string", "s"), ("boolean", "b"), ("datetime", "d"), ("binary", "by"),
)
NESTED = columns(
    (Array("double"), "l"), (Object([Property("a", "string"), Property("b", "long", required=False)]), "o"), (Map("double"), "m"), ("string", "s"),
)
PARAMS = ParamSchema([ParamSpec("n", "integer", 2), ParamSpec("names", "string", ["a"], shape=(-1,))])
MODELS = {
    "answers": (Answers(), ModelSignature(columns(("string", "kind")))),
    "typed": (Echo(), ModelSignature(TYPED)),
    "plain": (Echo(), None),
    "nested": (Echo(), ModelSignature(NESTED)),
    "unnamed": (Echo(), ModelSignature(Schema([ColSpec("double"), ColSpec("double")]))),
    "params": (Echo(), ModelSignature(columns(("double", "x")), params=PARAMS)),
    "words": (Echo(), ModelSignature(Schema([TensorSpec(np.dtype("str"), (-1, 2))]))),
    "dicts": (Dicts(), None),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow-models")
    project = Project(folder, "", worker_env()).up()
    mlflow.set_tracking_uri(project.url)
    mlflow.set_experiment("models")
    project.peers = {}
    for name, (model, signature) in MODELS.items():
        with mlflow.start_run():
            logged = mlflow.pyfunc.log_model(
                name="m", python_model=model, registered_model_name=name, pip_requirements=[], **({"signature": signature} if signature else {})
            )
        project.run("deploy", f"models:/{name}/1", "--name", name, "--json")
        project.peers[name] = mlflow.pyfunc.load_model(logged.model_uri)
    (folder / "app.py").write_text(APP)
    project.run("deploy", "app.py:widths", "--json")
    yield project
    project.stop()


def asked(server, name, body, content_type=JSON):
    """(status, answer or error) of Tidemill and of mlflow's own server."""
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    ours = requests.post(f"{server.url}/invocations/{name}", data=data, headers={"content-type": content_type})
    peer = server.peers[name]
    try:
        answer = scoring_server.invocations(data, content_type, peer, peer.metadata.get_input_schema())
        theirs = (answer.status, json.loads(answer.response) if answer.status == 200 else answer.response)
    except MlflowException as error:
        theirs = (error.get_http_status_code(), json.loads(error.serialize_as_json()))
    return (ours.status_code, ours.json()), theirs


def alike(server, name, body, content_type=JSON):
    ours, theirs = asked(server, name, body, content_type)
    if theirs[0] == 200:
        assert ours == theirs, body
    else:
        assert (ours[0], ours[1]["error_code"]) == (theirs[0], theirs[1]["error_code"]), (body, ours, theirs)
    return ours


KINDS = [
    "frame", "one column", "named series", "categories", "array", "dict of lists", "list of dicts", "tuple", "ragged", "bytes", "dates",
    "scalar", "text", "nothing",
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_keeps_the_shape_that_mlflow_gives_it(server, kind):
    status, _ = alike(server, "answers", {"dataframe_records": [{"kind": kind}]})
    assert status == 200


def test_an_answer_over_sagemaker_is_the_same(server):
    client = boto3.client(
        "sagemaker-runtime", endpoint_url=server.url, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b",
        config=Config(retries={"max_attempts": 1}),
    )

    def answer(body, kind=JSON, accept=JSON):
        got = client.invoke_endpoint(EndpointName="answers", Body=body, ContentType=kind, Accept=accept)
        return got["Body"].read().decode()

    rows = json.dumps({"dataframe_records": [{"kind": "one column"}]})
    assert json.loads(answer(rows)) == {"predictions": [{"prediction": 2.0}]}
    assert json.loads(answer("kind\none column\n", CSV)) == {"predictions": [{"prediction": 2.0}]}
    assert json.loads(answer("one column\n", CSV)) == {"predictions": [{"prediction": 2.0}]}
    assert json.loads(answer('["one column"]')) == {"predictions": [{"prediction": 2.0}]}
    assert answer(rows, accept=CSV) == "2.0\n"


def test_structures_in_tensors_of_texts_are_json(server):
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
        def texts(kind):
            rows = triton.InferInput("kind", [1], "BYTES")
            rows.set_data_from_numpy(np.array([kind.encode()], dtype=object))
            return [json.loads(text) for text in client.infer("answers", [rows]).as_numpy("output")]

        assert texts("list of dicts") == [{"a": 1, "b": "x"}, {"a": 2}]
        assert texts("ragged") == [[1, 2], [3]]


ROW = {
    "x": 1.5, "n": 3, "i": 4, "f": 0.25, "s": "é", "b": True, "d": "2024-02-03T04:05:06", "by": base64.b64encode(b"\0\x01\xffabc").decode(),
}
CHANGES = [
    {}, {"x": 1}, {"n": 3.0}, {"n": 3.5}, {"i": 2**40}, {"x": None}, {"n": None}, {"s": None}, {"s": 5}, {"b": 1}, {"b": "true"},
    {"d": "2024-02-03"}, {"d": "2024-02-03T04:05:06Z"}, {"d": None}, {"d": "nope"}, {"by": None}, {"extra": 1}, {"x": "1.5"}, {"n": True},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_values_are_cast_to_a_signatures_types_as_mlflow_casts_them(server, change):
    alike(server, "typed", {"dataframe_records": [ROW | change]})


def test_bytes_reach_a_model_as_bytes(server):
    _, answer = alike(server, "typed", {"dataframe_records": [ROW]})
    assert r"b'\\x00\\x01\\xffabc'" in answer["predictions"][0]
    table = pd.DataFrame([ROW | {"by": b"\0\xff", "d": pd.Timestamp(ROW["d"])}]).astype({"i": "int32", "f": "float32"})
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    _, answer = alike(server, "typed", buffer.getvalue(), PARQUET)
    assert r"b'\\x00\\xff'" in answer["predictions"][0]


BODIES = [
    {"inputs": [[1, 2], [3, 4]]}, {"inputs": {"a": [1, 2], "b": ["x", "y"]}}, {"instances": [1, 2]}, {"instances": [{"a": 1}, {"a": 2}]},
    {"inputs": "hello"}, {"inputs": [{"a": 1}]}, {"dataframe_split": {"columns": ["a"], "data": [[1.5]]}}, {"dataframe_split": {"data": [[1, "x"]]}},
    {"dataframe_split": [[1]]}, {"dataframe_records": {"a": 1}}, {"foo": 1}, {"inputs": [1], "instances": [2]}, {}, [1, 2],
    {"messages": [{"role": "user", "content": "hi"}]}, {"prompt": "hello", "max_tokens": 3}, {"inputs": []},
]


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_a_model_without_a_signature_is_asked_as_mlflow_asks_it(server, body):
    alike(server, "plain", body)


def test_a_model_without_a_signature_takes_csv_and_parquet(server):
    alike(server, "plain", 'a,b\n1,"x, z"\n,y\n', CSV)
    buffer = io.BytesIO()
    pd.DataFrame({"a": [1, 2], "s": ["x", "y"], "c": pd.Categorical(["u", "v"])}).to_parquet(buffer)
    alike(server, "plain", buffer.getvalue(), PARQUET)
    alike(server, "plain", "not parquet", PARQUET)


def test_a_function_of_a_data_frame_takes_csv_and_parquet(server):
    def answer(data, kind):
        return requests.post(f"{server.url}/invocations/widths", data=data, headers={"content-type": kind}).json()["predictions"]

    expected = {"rows": 2, "columns": ["a:i", "b:f"]}
    assert answer("a,b\n1,0.5\n2,\n", CSV) == expected
    buffer = io.BytesIO()
    pd.DataFrame({"a": [1, 2], "b": [0.5, None]}).to_parquet(buffer)
    assert answer(buffer.getvalue(), PARQUET) == expected


def test_what_a_model_raises_is_told_with_its_place_and_counts_against_the_model(server):
    status, error = alike(server, "answers", {"dataframe_records": [{"kind": "raises"}]})
    assert (status, error["error_code"]) == (400, "BAD_REQUEST")
    assert "ZeroDivisionError: over nothing" in error["message"]
    assert "in predict" in error["stack_trace"]
    status, error = alike(server, "answers", {"dataframe_records": [{"other": "x"}]})
    assert status == 400 and error["stack_trace"] is None
    # Other protocols say whose fault it is.
    rows = {"inputs": [{"name": "kind", "datatype": "BYTES", "shape": [1], "data": ["raises"]}]}
    assert requests.post(f"{server.url}/v2/models/answers/infer", json=rows).status_code == 500


NESTED_ROW = {"l": [1.0, 2.5], "o": {"a": "x", "b": 2}, "m": {"k": 1.5}, "s": "t"}
NESTED_BODIES = [
    {"dataframe_records": [NESTED_ROW]}, {"dataframe_records": [NESTED_ROW, NESTED_ROW | {"l": [3.0]}]}, {"inputs": [NESTED_ROW]},
    {"dataframe_split": {"columns": list(NESTED_ROW), "data": [list(NESTED_ROW.values())]}}, {"dataframe_records": [NESTED_ROW | {"o": {"b": 1}}]},
    {"dataframe_records": [NESTED_ROW | {"l": ["x"]}]},
]


@pytest.mark.parametrize("body", NESTED_BODIES, ids=str)
def test_objects_maps_and_ragged_arrays_of_a_signature_are_taken(server, body):
    alike(server, "nested", body)


def test_unnamed_columns_texts_in_tensors_params_and_type_hints_are_taken(server):
    for body in [
        {"inputs": [[1, 2]]}, {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}, {"dataframe_split": {"data": [[1, 2]]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [1, 2]}},
    ]:
        alike(server, "unnamed", body)
    for params in [None, {"n": 7}, {"n": 7.0}, {"names": ["x", "y"]}, {"n": "x"}, {"n": 1.5}, {"unknown": 1}]:
        alike(server, "params", {"dataframe_split": {"columns": ["x"], "data": [[1.0]]}} | ({"params": params} if params else {}))
    alike(server, "words", {"inputs": [["a", "bcd"]]})
    for body in [{"inputs": [{"a": 1, "b": [1, 2]}]}, {"inputs": [{"a": None}]}, {"inputs": [1]}, {"instances": [{"a": 1}]}]:
        alike(server, "dicts", body)



def test_boosters_that_the_engine_refuses_and_those_that_answer_otherwise_run_in_python(server):
    import lightgbm
    import xgboost

    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(200, 3)), columns=["a", "b", "c"])
    matrix = xgboost.DMatrix(table, label=(table["a"] > 0).astype(int) + (table["b"] > 0).astype(int))
    signature = ModelSignature(columns(("double", "a"), ("double", "b"), ("double", "c")))
    body = {"dataframe_split": table[:5].to_dict(orient="split", index=False)}
    linear = xgboost.train({"booster": "gblinear"}, matrix, 3)
    softmax = xgboost.train({"objective": "multi:softmax", "num_class": 3}, matrix, 3)
    trees = lightgbm.train({"verbose": -1}, lightgbm.Dataset(table, label=table["a"]), 5)
    leaves = lightgbm.train({"verbose": -1, "linear_tree": True}, lightgbm.Dataset(table, label=table["a"]), 5)
    for name, module, model, kind in [
        ("linear", mlflow.xgboost, linear, "mlflow"), ("softmax", mlflow.xgboost, softmax, "mlflow"),
        ("leaves", mlflow.lightgbm, leaves, "mlflow"), ("trees", mlflow.lightgbm, trees, "native"),
    ]:
        with mlflow.start_run():
            found = module.log_model(model, name="m", registered_model_name=name, pip_requirements=[], signature=signature)
        told = json.loads(server.run("deploy", f"models:/{name}/1", "--json"))
        assert told["versions"][0]["manifest"]["model"]["kind"] == kind, name
        answer = requests.post(f"{server.url}/invocations/{name}", json=body).json()["predictions"]
        expected = mlflow.pyfunc.load_model(found.model_uri).predict(table[:5])
        assert np.array_equal(np.asarray(answer, dtype=expected.dtype), expected), name


def test_what_a_run_logged_is_deployed_and_options_are_taken_or_refused(server):
    with mlflow.start_run() as run:
        found = mlflow.pyfunc.log_model(name="echo", python_model=Echo(), pip_requirements=[])
    for source in [f"runs:/{run.info.run_id}/echo", f"models:/{found.model_id}"]:
        told = json.loads(server.run("deploy", source, "--name", "sourced", "--env", "HOW=well", "--json"))
        version = told["versions"][-1]
        assert version["source"] == source
        assert version["manifest"]["python"]["environment"] == {"HOW": "***"}
        assert requests.post(f"{server.url}/invocations/sourced", json={"inputs": [1]}).status_code == 200
    for options in [["--include", "app.py"], ["--method", "predict_proba"], ["--inputs", "a:FP64"]]:
        server.run("deploy", "models:/plain/1", *options, code=3)
    failed = server.run("deploy", "models:/plain/1", "--python", "/no/such/python", code=1)
    assert failed == ""


def test_a_manifest_takes_its_file_along_and_categories_of_any_type_are_known(server):
    import lightgbm
    import xgboost

    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "k": pd.Categorical(rng.integers(0, 5, 400)), "h": pd.Categorical(rng.integers(0, 3, 400) + 0.5),
        "t": pd.Categorical(rng.integers(0, 2, 400).astype(bool)), "x": rng.normal(size=400),
    })
    label = table["k"].astype(int) + table["t"].astype(int) + table["h"].astype(float)
    booster = lightgbm.train({"verbose": -1, "min_data_in_leaf": 5}, lightgbm.Dataset(table, label=label), 20)
    folder = server.folder / "booster"
    folder.mkdir()
    booster.save_model(folder / "booster.txt")
    (folder / "model.json").write_text(json.dumps({"file": "booster.txt", "format": "lightgbm"}))
    expected = booster.predict(table)
    plain = table.astype({"k": int, "h": float, "t": bool})
    bodies = [plain, plain.astype({"k": str, "h": str, "t": str})]
    for what in ["booster", "booster/model.json"]:
        server.run("deploy", what, "--name", "booster", "--json")
        for rows in bodies:
            body = {"dataframe_split": rows.to_dict(orient="split", index=False)}
            answer = requests.post(f"{server.url}/invocations/booster", json=body)
            assert answer.status_code == 200, answer.text
            assert np.array_equal(answer.json()["predictions"], expected)
    # XGBoost knows categories of texts and integers alone.
    matrix = xgboost.DMatrix(table[["k", "x"]], label=label, enable_categorical=True)
    booster = xgboost.train({}, matrix, 5)
    booster.save_model(server.folder / "counted.json")
    server.run("deploy", "counted.json", "--json")
    body = {"dataframe_records": plain[["k", "x"]].to_dict(orient="records")}
    answer = requests.post(f"{server.url}/invocations/counted", json=body).json()["predictions"]
    assert np.array_equal(np.asarray(answer, dtype=np.float32), booster.predict(matrix))


def test_a_version_of_the_loop_is_deployed_like_any_other(tmp_path):
    project = numbers_in(tmp_path).up()
    try:
        project.run("deploy", "models:/numbers@champion", "--name", "copy", "--json")
        rows = {"dataframe_split": {"columns": list("abcd"), "data": [[1.0, 2.0, 3.0, 4.0], [9.0, 8.0, 7.0, 6.0]]}}
        loops = requests.post(f"{project.url}/invocations/numbers", json=rows).json()
        copys = requests.post(f"{project.url}/invocations/copy", json=rows).json()
        assert copys["predictions"] == loops["probabilities"]
    finally:
        project.stop()


def test_a_command_whose_reader_has_left_ends_quietly():
    done = subprocess.Popen([binary(), "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    done.stdout.read(100)
    done.stdout.close()
    assert done.stderr.read() == b""
    assert done.wait(timeout=60) == 0


def test_a_python_that_lacks_what_a_model_needs_says_what_to_install(server):
    from sklearn.linear_model import LinearRegression

    bare = Path(sys.executable).resolve()
    if subprocess.run([bare, "-c", "import sklearn"], capture_output=True).returncode == 0:
        pytest.skip(f"{bare} has scikit-learn")
    with mlflow.start_run():
        mlflow.sklearn.log_model(LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0]), name="m", registered_model_name="lacking", pip_requirements=[])
    asked = {"source": "models:/lacking/1", "python": {"interpreter": str(bare)}}
    answer = requests.post(f"{server.url}/api/v1/deployments", json=asked)
    assert answer.status_code != 201
    assert "add `scikit-learn` to the environment's requirements" in answer.json()["error"]["message"]
