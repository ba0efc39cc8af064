"""Explanations: contributions as LightGBM and XGBoost count them themselves, and Shapley values of any other model, by the stock clients."""

import itertools
import json
import math

import boto3
import lightgbm
import numpy as np
import pytest
import requests
import xgboost
from botocore.config import Config
from conftest import Project, worker_env
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1.services.prediction_service import PredictionServiceClient
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceRestTransport
from google.cloud.aiplatform_v1.types import ExplainRequest, ExplanationSpecOverride
from google.protobuf import json_format, struct_pb2
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier

APP = '''
import numpy as np
import tidemill

@tidemill.endpoint(batch=True, inputs={"x": ("FP64", [-1, 2])}, outputs={"y": ("FP64", [-1])})
def product(x: np.ndarray):
    return x[:, 0] * x[:, 1]
'''

X, Y = load_iris(return_X_y=True)
NAMES = ["a", "b", "c", "d"]
ROWS = X[::25]


@pytest.fixture(scope="module")
def models():
    table = lightgbm.Dataset(X, Y, feature_name=NAMES, free_raw_data=False)
    quiet = {"verbose": -1, "num_leaves": 7, "min_data_in_leaf": 5, "num_threads": 1}
    classes = lightgbm.train(quiet | {"objective": "multiclass", "num_class": 3}, table, 15)
    binary = lightgbm.train(quiet | {"objective": "binary"}, lightgbm.Dataset(X, Y == 1, feature_name=NAMES), 15)
    matrix = xgboost.DMatrix(X, X[:, 0] * X[:, 1], feature_names=NAMES)
    boosted = xgboost.train({"objective": "reg:squarederror", "max_depth": 4, "nthread": 1}, matrix, 20)
    perceptron = MLPClassifier((8,), random_state=0, max_iter=800).fit(X.astype(np.float32), Y)
    return {"classes": classes, "binary": binary, "boosted": boosted, "perceptron": perceptron}


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("explain")
    project = Project(folder, "", worker_env())
    (folder / "app.py").write_text(APP)
    models["classes"].save_model(folder / "classes.txt")
    models["binary"].save_model(folder / "binary.txt")
    models["boosted"].save_model(folder / "boosted.json")
    onnx = to_onnx(models["perceptron"], X[:1].astype(np.float32), options={"zipmap": False}, target_opset=17)
    (folder / "perceptron.onnx").write_bytes(onnx.SerializeToString())
    project.up()
    for what in ["classes.txt", "binary.txt", "boosted.json", "perceptron.onnx", "app.py:product"]:
        name = what.split(":")[-1].split(".")[0]
        project.run("deploy", what, "--name", name, "--json")
    yield project
    project.stop()


def explain(server, name, body, noun="deployments"):
    answer = requests.post(f"{server.url}/api/v1/{noun}/{name}/explain", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def table(answer, names=NAMES):
    """Rows x outputs x (features, base), as LightGBM's and XGBoost's own."""
    of = lambda one: [one["attributions"][name] for name in names] + [one["base"]]
    return np.array([[of(one) for one in row] for row in answer["explanations"]])


@pytest.mark.parametrize("name", ["classes", "binary"])
def test_contributions_are_lightgbms_own(server, models, name):
    answer = explain(server, name, {"instances": ROWS.tolist()})
    assert (answer["method"], answer["explains"], answer["version"]) == ("tree_shap", "raw", 1)
    own = models[name].predict(ROWS, pred_contrib=True).reshape(len(ROWS), -1, 5)
    np.testing.assert_allclose(table(answer), own, rtol=0, atol=1e-9)
    raw = models[name].predict(ROWS, raw_score=True).reshape(len(ROWS), -1)
    values = [[one["value"] for one in row] for row in answer["explanations"]]
    np.testing.assert_allclose(values, raw, rtol=0, atol=1e-9)


def test_contributions_are_xgboosts_own(server, models):
    answer = explain(server, "boosted", {"dataframe_split": {"columns": NAMES, "data": ROWS.tolist()}})
    own = models["boosted"].predict(xgboost.DMatrix(ROWS, feature_names=NAMES), pred_contribs=True)
    np.testing.assert_allclose(table(answer)[:, 0], own, rtol=0, atol=1e-4)


def shapley(answer, row, base):
    """By the definition, over all combinations."""
    n = len(row)
    mixed = lambda own: answer(np.where([i in own for i in range(n)], row, base))
    values = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        total = 0
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            total += sum(weight * (mixed({*s, i}) - mixed(set(s))) for s in itertools.combinations(others, size))
        values.append(total)
    return np.array(values)


def test_a_network_in_onnx_has_the_shapley_values_of_its_probabilities(server, models):
    baseline = X.mean(axis=0).astype(np.float32)
    options = {"baseline": {"X": baseline.tolist()}, "method": "exact"}
    answer = explain(server, "perceptron", {"instances": ROWS.tolist(), "explain": options})
    assert (answer["method"], answer["explains"], answer["output"]) == ("exact", "answer", "probabilities")
    probabilities = lambda x: models["perceptron"].predict_proba(x[None].astype(np.float32))[0]
    for row, told in zip(ROWS, answer["explanations"]):
        expected = shapley(probabilities, row.astype(np.float32), baseline)
        got = np.array([one["attributions"]["X"] for one in told]).T
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    # Samples are the same for a seed, add up, and come close.
    options |= {"method": "sampling", "samples": 64, "seed": 3}
    body = {"instances": ROWS.tolist(), "explain": options}
    sampled = explain(server, "perceptron", body)
    assert sampled == explain(server, "perceptron", body)
    for row, exact, near in zip(ROWS, answer["explanations"], sampled["explanations"]):
        np.testing.assert_allclose([one["value"] for one in near], probabilities(row), atol=1e-5)
        for one, other in zip(exact, near):
            distance = np.subtract(one["attributions"]["X"], other["attributions"]["X"])
            assert np.linalg.norm(distance) <= 5 * other["error"] + 1e-6


def test_a_python_function_that_declares_its_tensors_is_explained(server):
    answer = explain(server, "product", {"instances": [[3, 4], [1, 0]]})
    assert [row[0]["attributions"]["x"] for row in answer["explanations"]] == [[6.0, 6.0], [0.0, 0.0]]


@pytest.fixture(scope="module")
def vertex(server):
    transport = PredictionServiceRestTransport(host=server.host, credentials=AnonymousCredentials(), url_scheme="http")
    return PredictionServiceClient(transport=transport)


def endpoint(name):
    return f"projects/any/locations/europe-west1/endpoints/{name}"


def values(rows):
    return [json_format.ParseDict(row, struct_pb2.Value()) for row in rows]


def test_vertex_explains_the_class_that_is_predicted(vertex, models):
    rows = ROWS.tolist()
    answer = vertex.explain(endpoint=endpoint("classes"), instances=values(rows))
    own = models["classes"].predict(ROWS, pred_contrib=True).reshape(len(ROWS), 3, 5)
    predicted = models["classes"].predict(ROWS).argmax(axis=1)
    assert len(answer.predictions) == len(answer.explanations) == len(ROWS) and answer.deployed_model_id == "1"
    for row, explanation in enumerate(answer.explanations):
        (one,) = explanation.attributions
        assert list(one.output_index) == [predicted[row]] and one.output_name == "output"
        told = [dict(one.feature_attributions)[name] for name in NAMES]
        np.testing.assert_allclose([*told, one.baseline_output_value], own[row, predicted[row]], rtol=0, atol=1e-9)
        assert abs(one.instance_output_value - own[row, predicted[row]].sum()) < 1e-9
    every = ExplanationSpecOverride(parameters={"top_k": -1, "sampled_shapley_attribution": {"path_count": 10}})
    request = ExplainRequest(endpoint=endpoint("perceptron"), explanation_spec_override=every)
    request.instances.extend(values(rows))
    answer = vertex.explain(request=request)
    attributions = answer.explanations[0].attributions
    assert len(attributions) == 3 and len(list(dict(attributions[0].feature_attributions)["X"])) == 4
    assert attributions[0].instance_output_value >= attributions[1].instance_output_value
    request.explanation_spec_override = {"parameters": {"integrated_gradients_attribution": {"step_count": 10}}}
    with pytest.raises(exceptions.BadRequest, match="sampledShapleyAttribution"):
        vertex.explain(request=request)


def test_sagemakers_client_gets_clarifys_answer(server, models):
    runtime = boto3.client(
        "sagemaker-runtime", endpoint_url=server.url, region_name="eu-west-1", aws_access_key_id="k",
        aws_secret_access_key="s", config=Config(retries={"max_attempts": 1}),
    )
    body = "\n".join(",".join(map(str, row)) for row in ROWS)
    answer = runtime.invoke_endpoint(
        EndpointName="binary", ContentType="text/csv", Accept="text/csv", Body=body, EnableExplanations="`true`"
    )
    told = json.loads(answer["Body"].read())
    data = np.array([float(line) for line in told["predictions"]["data"].split()])
    np.testing.assert_allclose(data, models["binary"].predict(ROWS), rtol=0, atol=1e-12)
    records = told["explanations"]["kernel_shap"]
    got = [[feature["attributions"][0]["attribution"][0] for feature in record] for record in records]
    np.testing.assert_allclose(got, models["binary"].predict(ROWS, pred_contrib=True)[:, :4], rtol=0, atol=1e-9)
    assert [feature["feature_header"] for feature in records[0]] == NAMES


def test_an_endpoint_of_the_loop_explains_its_champion(numbers):
    rows = [[1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 0.5, 1.0]]
    answer = explain(numbers, "numbers", {"instances": rows}, "endpoints")
    assert (answer["method"], answer["version"]) == ("tree_shap", 1)
    assert {one["label"] for one in answer["explanations"][0]} == {"low", "middle", "high"}
    # The same row against what its training data usually was, by asking.
    answer = explain(numbers, "numbers", {"instances": rows, "explain": {"method": "exact"}}, "endpoints")
    predicted = requests.post(f"{numbers.url}/invocations/numbers", json={"instances": rows}, timeout=60).json()
    for told, probabilities in zip(answer["explanations"], predicted["probabilities"]):
        np.testing.assert_allclose([one["value"] for one in told], probabilities, atol=1e-9)
        bases = [one["base"] for one in told]
        assert abs(sum(bases) - 1) < 1e-9
