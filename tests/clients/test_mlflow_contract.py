"""What a stock MLflow 3.17.2 server answers to requests that are wrong in some way, as facts: HTTP status, error code, and the part of
the text that tells a reader what is wrong. Each was looked up by sending the request to both servers. Where this server refuses what
the stock one swallows or breaks on, the comment says so."""

import json

import pytest
import requests

import tracking_server

API = "/api/2.0/mlflow/"
API3 = "/api/3.0/mlflow/"
INVALID = (400, "INVALID_PARAMETER_VALUE")
MISSING = (404, "RESOURCE_DOES_NOT_EXIST")
TAKEN = (400, "RESOURCE_ALREADY_EXISTS")
NOBODY = "f" * 32


@pytest.fixture(scope="module", params=tracking_server.DATABASES)
def house(request, tmp_path_factory):
    """A server with one of each thing, and their ids."""
    env = {"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
    project = tracking_server.start(tmp_path_factory.mktemp("contract"), request.param, env=env)

    def make(path: str, body: dict) -> dict:
        answer = requests.post(project.url + path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    experiment = make(API + "experiments/create", {"name": "e"})["experiment_id"]
    make(API + "experiments/create", {"name": "other"})
    run = make(API + "runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]
    make(API + "runs/log-parameter", {"run_id": run, "key": "p", "value": "1"})
    make(API + "runs/log-metric", {"run_id": run, "key": "m", "value": 1, "timestamp": 1})
    gone = make(API + "runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]
    make(API + "runs/delete", {"run_id": gone})
    model = make(API + "logged-models", {"experiment_id": experiment, "name": "lm"})["model"]["info"]["model_id"]
    make(API + "registered-models/create", {"name": "m"})
    make(API + "registered-models/create", {"name": "n"})
    make(API + "model-versions/create", {"name": "m", "source": "s3://bucket/m"})
    dataset = make(API3 + "datasets/create", {"name": "d", "experiment_ids": [experiment]})["dataset"]["dataset_id"]
    ids = {"experiment": experiment, "run": run, "gone": gone, "model": model, "dataset": dataset}
    yield project, ids
    project.stop()


def filled(value, ids: dict):
    """`<run>` and the like become ids."""
    text = json.dumps(value)
    for name, identifier in ids.items():
        text = text.replace(f"<{name}>", identifier)
    return json.loads(text)


def metrics(count: int) -> list:
    return [{"key": "x", "value": i, "timestamp": 1, "step": i} for i in range(count)]


def pairs(count: int) -> list:
    return [{"key": f"k{i}", "value": "1"} for i in range(count)]


EXPERIMENTS = [
    ("POST", "experiments/create", {}, INVALID, "Missing value for required parameter 'name'"),
    ("POST", "experiments/create", {"name": "e"}, TAKEN, "Experiment(name=e) already exists"),
    ("POST", "experiments/create", {"name": 12}, INVALID, "Invalid value 12 for parameter 'name' supplied"),
    ("POST", "experiments/create", {"name": "x" * 501}, INVALID, "'name' exceeds the maximum length of 500 characters"),
    ("POST", "experiments/create", {"name": "y", "tags": "x"}, INVALID, "Invalid value \"x\" for parameter 'tags' supplied"),
    ("POST", "experiments/create", {"name": "y", "artifact_location": "s3://b/x#f"}, INVALID, "can't include fragments or params"),
    (
        "POST",
        "experiments/create",
        {"name": "y", "artifactLocation": "s3://a", "artifact_location": "s3://b"},
        INVALID,
        "Request specifies both 'artifact_location' and 'artifactLocation'; provide only one of them.",
    ),
    ("GET", "experiments/get", {"experiment_id": "99"}, MISSING, "No Experiment with id=99 exists"),
    ("GET", "experiments/get", {"experiment_id": "abc"}, INVALID, "Experiment ID must be a valid integer"),
    ("GET", "experiments/get-by-name", {"experiment_name": "nope"}, MISSING, "Could not find experiment with name 'nope'"),
    # Stock says BAD_REQUEST with a sentence of its database's.
    ("POST", "experiments/update", {"experiment_id": "<experiment>", "new_name": "other"}, TAKEN, "already exists"),
    ("POST", "experiments/update", {"experiment_id": "<experiment>"}, INVALID, "Missing value for required parameter 'new_name'"),
    (
        "POST",
        "experiments/set-experiment-tag",
        {"experiment_id": "<experiment>", "key": "a?b", "value": "v"},
        INVALID,
        "Names may only contain alphanumerics",
    ),
    (
        "POST",
        "experiments/set-experiment-tag",
        {"experiment_id": "<experiment>", "key": "../x", "value": "v"},
        INVALID,
        "must not resolve to other names",
    ),
    (
        "POST",
        "experiments/set-experiment-tag",
        {"experiment_id": "<experiment>", "key": "k", "value": "v" * 20_001},
        INVALID,
        "'value' exceeds the maximum length of 20000 characters",
    ),
    ("POST", "experiments/delete-experiment-tag", {"experiment_id": "<experiment>", "key": "zz"}, MISSING, "No tag with name: zz"),
    ("POST", "experiments/restore", {"experiment_id": "<experiment>"}, MISSING, "No Experiment with id="),
    ("POST", "experiments/search", {"max_results": 0}, INVALID, "It must be a positive integer"),
    ("POST", "experiments/search", {"max_results": 50_001}, INVALID, "Invalid value 50001 for parameter 'max_results' supplied"),
    ("POST", "experiments/search", {"max_results": 1, "filter": "name = e"}, INVALID, "not quoted"),
    ("POST", "experiments/search", {"max_results": 1, "filter": "foo = 'a'"}, INVALID, "Invalid attribute key 'foo' specified"),
    ("POST", "experiments/search", {"max_results": 1, "order_by": ["nope"]}, INVALID, "Invalid attribute key 'nope' specified"),
    ("POST", "experiments/search", {"max_results": 1, "page_token": "zzz"}, INVALID, "Invalid page token"),
]

RUNS = [
    ("POST", "runs/create", {"experiment_id": "99"}, MISSING, "No Experiment with id=99 exists"),
    ("POST", "runs/create", {"experiment_id": "0", "start_time": "x"}, INVALID, "Invalid value \"x\" for parameter 'start_time' supplied"),
    (
        "POST",
        "runs/create",
        {"experiment_id": "0", "run_name": "a", "tags": [{"key": "mlflow.runName", "value": "b"}]},
        INVALID,
        "Both 'run_name' argument and 'mlflow.runName' tag are specified",
    ),
    ("GET", "runs/get", {}, INVALID, "Missing value for required parameter 'run_id'"),
    ("GET", "runs/get", {"run_id": NOBODY}, MISSING, f"Run with id={NOBODY} not found"),
    ("POST", "runs/log-metric", {"run_id": "<run>", "key": "m", "timestamp": 1}, INVALID, "Missing value for required parameter 'value'"),
    ("POST", "runs/log-metric", {"run_id": "<run>", "key": "m", "value": 1}, INVALID, "Missing value for required parameter 'timestamp'"),
    ("POST", "runs/log-metric", {"run_id": "<run>", "key": "a?b", "value": 1, "timestamp": 1}, INVALID, "Names may only contain"),
    ("POST", "runs/log-metric", {"run_id": "<run>", "key": "k" * 251, "value": 1, "timestamp": 1}, INVALID, "exceeds the maximum length of 250"),
    ("POST", "runs/log-metric", {"run_id": "<run>", "key": "m", "value": "x", "timestamp": 1}, INVALID, "for parameter 'value' supplied"),
    (
        "POST",
        "runs/log-metric",
        {"run_id": "<run>", "key": "m", "value": 1, "timestamp": 1, "dataset_name": "d"},
        INVALID,
        "Both dataset_name and dataset_digest must be provided if one is provided",
    ),
    # Stock says BAD_REQUEST with a sentence of its database's.
    (
        "POST",
        "runs/log-metric",
        {"run_id": "<run>", "key": "m", "value": 1, "timestamp": 1, "model_id": "m-" + "0" * 32},
        MISSING,
        "Logged model with ID",
    ),
    ("POST", "runs/log-metric", {"run_id": "<gone>", "key": "m", "value": 1, "timestamp": 1}, INVALID, "must be in the 'active' state"),
    ("POST", "runs/log-parameter", {"run_id": "<run>", "key": "p", "value": "2"}, INVALID, "Changing param values is not allowed"),
    ("POST", "runs/log-parameter", {"run_id": "<run>", "value": "2"}, INVALID, "Missing value for required parameter 'key'"),
    ("POST", "runs/set-tag", {"run_id": "<run>", "key": "t", "value": 3}, INVALID, "Invalid value 3 for parameter 'value' supplied"),
    ("POST", "runs/delete-tag", {"run_id": "<run>", "key": "zz"}, MISSING, "No tag with name: zz in run with id"),
    ("POST", "runs/log-batch", {"run_id": "<run>", "metrics": metrics(1_001)}, INVALID, "at most 1000 metrics"),
    ("POST", "runs/log-batch", {"run_id": "<run>", "params": pairs(101)}, INVALID, "at most 100 params"),
    ("POST", "runs/log-batch", {"run_id": "<run>", "tags": pairs(101)}, INVALID, "at most 100 tags"),
    (
        "POST",
        "runs/log-batch",
        {"run_id": "<run>", "metrics": metrics(950), "params": pairs(51)},
        INVALID,
        "at most 1000 metrics, params, and tags",
    ),
    (
        "POST",
        "runs/log-batch",
        {"run_id": "<run>", "params": [{"key": "d", "value": "1"}, {"key": "d", "value": "1"}]},
        INVALID,
        "Duplicate parameter keys have been submitted",
    ),
    ("POST", "runs/log-batch", {"run_id": "<run>", "metrics": [{"key": "m", "timestamp": 1}]}, INVALID, "'metrics[0].value'"),
    ("POST", "runs/log-batch", {"run_id": "<run>", "metrics": "x"}, INVALID, "Invalid value \"x\" for parameter 'metrics' supplied"),
    ("POST", "runs/log-batch", {"run_id": NOBODY}, MISSING, "not found"),
    ("GET", "metrics/get-history", {"run_id": "<run>"}, INVALID, "Missing value for required parameter 'metric_key'"),
    ("GET", "metrics/get-history", {"run_id": "<run>", "metric_key": "m", "max_results": 0}, INVALID, "It must be a positive integer."),
    (
        "GET",
        "metrics/get-history",
        {"run_id": "<run>", "metric_key": "m", "max_results": 1, "page_token": "x"},
        INVALID,
        "Invalid page token, could not base64-decode",
    ),
    ("GET", "metrics/get-history-bulk-interval", {"run_ids": ["<run>"], "metric_key": "m", "max_results": 2_501}, INVALID, "between 1 and 2500"),
    ("POST", "runs/search", {"experiment_ids": ["0"], "filter": "metrics.m > 'x'"}, INVALID, "Expected numeric value type for metric"),
    ("POST", "runs/search", {"experiment_ids": ["0"], "filter": "foo.m > 1"}, INVALID, "Invalid entity type 'foo'"),
    ("POST", "runs/search", {"experiment_ids": ["0"], "filter": "a = 1 OR b = 2"}, INVALID, "Invalid clause(s) in filter string"),
    ("POST", "runs/log-inputs", {"run_id": "<run>", "datasets": "x"}, INVALID, "for parameter 'datasets' supplied"),
    ("POST", "runs/log-model", {"run_id": "<run>", "model_json": "{}"}, INVALID, "Model json is missing mandatory fields"),
    ("POST", "logged-models", {"experiment_id": "0", "name": "a/b"}, INVALID, "Invalid model name ('a/b') provided"),
    ("POST", "logged-models", {"experiment_id": "99", "name": "x"}, MISSING, "No Experiment with id=99 exists"),
    ("GET", "logged-models/m-" + NOBODY, {}, MISSING, f"Logged model with ID 'm-{NOBODY}' not found"),
    ("POST", "logged-models/search", {"experiment_ids": ["0"], "order_by": [{"field_name": "foo"}]}, INVALID, "Invalid order by field name: foo"),
    (
        "POST",
        "logged-models/search",
        {"experiment_ids": ["0"], "order_by": [{"field_name": "params.a"}]},
        INVALID,
        "Invalid order by field name: params.a. Only metrics are supported.",
    ),
]

REGISTRY = [
    ("POST", "registered-models/create", {"name": "m"}, TAKEN, "Registered Model (name=m) already exists"),
    ("POST", "registered-models/create", {"name": " "}, INVALID, "Missing value for required parameter 'name'."),
    ("POST", "registered-models/create", {"name": "a/b"}, INVALID, "Names cannot contain '/' or ':'."),
    ("POST", "registered-models/create", {"name": "a:b"}, INVALID, "Names cannot contain '/' or ':'."),
    ("POST", "registered-models/create", {"name": ".."}, INVALID, "This name would resolve to '..'"),
    ("POST", "registered-models/rename", {"name": "m", "new_name": "a/b"}, INVALID, "Names cannot contain '/' or ':'."),
    ("POST", "registered-models/rename", {"name": "m", "new_name": "n"}, TAKEN, "Registered Model (name=n) already exists"),
    ("POST", "registered-models/rename", {"name": "zz", "new_name": "y"}, MISSING, "Registered Model with name=zz not found"),
    ("GET", "registered-models/get", {"name": "zz"}, MISSING, "Registered Model with name=zz not found"),
    ("POST", "registered-models/set-tag", {"name": "m", "key": "t", "value": "v" * 100_001}, INVALID, "maximum length of 100000 characters"),
    ("GET", "registered-models/alias", {"name": "m", "alias": "zz"}, INVALID, "Registered model alias zz not found."),
    ("POST", "registered-models/alias", {"name": "m", "alias": "v1", "version": "1"}, INVALID, "Version alias name 'v1' is reserved."),
    ("POST", "registered-models/alias", {"name": "m", "alias": "latest", "version": "1"}, INVALID, "'latest' alias name"),
    ("POST", "registered-models/alias", {"name": "m", "alias": "a b", "version": "1"}, INVALID, "Invalid alias name: 'a b'"),
    ("POST", "registered-models/alias", {"name": "m", "alias": "c", "version": "99"}, MISSING, "Model Version (name=m, version=99) not found"),
    ("GET", "registered-models/search", {"max_results": 1_001}, INVALID, "1001"),
    ("GET", "registered-models/search", {"filter": "foo = 'm'"}, INVALID, "Invalid attribute key 'foo' specified"),
    ("POST", "model-versions/create", {"name": "m", "source": "/etc"}, INVALID, "To use a local path as a model version source"),
    ("POST", "model-versions/create", {"name": "m", "source": "s3://b/../m"}, INVALID, "Invalid model version source"),
    # A Windows share: an internal error, on both.
    ("POST", "model-versions/create", {"name": "m", "source": "file://host/x"}, (500, "INTERNAL_ERROR"), "is not a valid remote uri"),
    ("GET", "model-versions/get", {"name": "m", "version": "99"}, MISSING, "Model Version (name=m, version=99) not found"),
    ("GET", "model-versions/get", {"name": "m", "version": "x"}, INVALID, "Parameter 'version' must be an integer, got 'x'."),
    (
        "POST",
        "model-versions/transition-stage",
        {"name": "m", "version": "1", "stage": "X", "archive_existing_versions": False},
        INVALID,
        "Invalid Model Version stage: X",
    ),
    ("GET", "model-versions/search", {"filter": "run_id > 'a'"}, INVALID, "Invalid comparator"),
    ("POST", "webhooks", {"name": "w", "url": "https://localhost/x"}, INVALID, "events"),
    (
        "POST",
        "webhooks",
        {"name": "-w", "url": "https://localhost/x", "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]},
        INVALID,
        "Webhook name '-w' is invalid",
    ),
    ("GET", "webhooks/nope", {}, MISSING, "Webhook with ID nope not found"),
]

DATASETS = [
    ("POST", "datasets/create", {}, INVALID, "Missing value for required parameter 'name'"),
    ("GET", "datasets/d-" + NOBODY, {}, MISSING, f"Evaluation dataset with id 'd-{NOBODY}' not found"),
    ("PATCH", "datasets/d-" + NOBODY + "/tags", {"tags": "{}"}, MISSING, "Could not find evaluation dataset with ID"),
    ("POST", "datasets/d-" + NOBODY + "/add-experiments", {"experiment_ids": ["0"]}, MISSING, f"Dataset 'd-{NOBODY}' not found"),
    ("POST", "datasets/<dataset>/add-experiments", {"experiment_ids": ["99"]}, MISSING, "No Experiment with id=99"),
    ("POST", "datasets/<dataset>/records", {}, INVALID, "Missing value for required parameter 'records'"),
    (
        "POST",
        "datasets/<dataset>/records",
        {"records": json.dumps([{"inputs": {"q": 1}, "source": {"source_type": "X"}}])},
        INVALID,
        "Invalid dataset record source type: X.",
    ),
    ("POST", "datasets/search", {"filter_string": "foo = 'd'"}, INVALID, "Invalid attribute key 'foo' specified"),
    ("POST", "datasets/search", {"max_results": -1}, INVALID, "It must be a positive integer"),
]


def cases() -> list:
    found = []
    for prefix, table in [(API, EXPERIMENTS), (API, RUNS), (API, REGISTRY), (API3, DATASETS)]:
        for method, path, body, expected, text in table:
            name = f"{method} {path} {json.dumps(body)[:60]}"
            found.append(pytest.param(method, prefix + path, body, expected, text, id=name))
    return found


@pytest.mark.parametrize(("method", "path", "body", "expected", "text"), cases())
def test_a_wrong_request_is_refused_as_stock_refuses_it(house, method, path, body, expected, text):
    project, ids = house
    body, url = filled(body, ids), project.url + filled(path, ids)
    answer = requests.get(url, params=body) if method == "GET" else requests.request(method, url, json=body)
    said = answer.json()
    assert (answer.status_code, said["error_code"]) == expected, answer.text
    assert text in said["message"], answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        # More than 1e6 bytes: MLflow documents the limit, its server does not hold it, and its client does not count.
        ("runs/log-batch", {"run_id": "<run>", "tags": [{"key": f"big{i}", "value": "v" * 8_000} for i in range(100)],
                            "params": [{"key": f"big{i}", "value": "v" * 6_000} for i in range(60)]}),
        ("runs/log-batch", {"run_id": "<run>"}),
        ("runs/log-parameter", {"run_id": "<run>", "key": "long", "value": "v" * 6_001}),
        ("runs/set-tag", {"run_id": "<run>", "key": "long", "value": "v" * 8_001}),
        ("runs/log-metric", {"run_id": "<run>", "key": "inf", "value": "-Infinity", "timestamp": 1}),
        ("experiments/set-experiment-tag", {"experiment_id": "<experiment>", "key": "empty"}),
        ("experiments/create", {"name": "fields that nobody knows", "nope": 1}),
        ("logged-models/search", {"experiment_ids": ["0"], "order_by": [{"field_name": "metrics.m", "dataset_digest": "1"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:60],
)
def test_a_request_that_stock_takes_is_taken(house, path, body):
    project, ids = house
    answer = requests.post(project.url + API + path, json=filled(body, ids))
    assert answer.status_code == 200, answer.text


def test_an_evaluation_dataset_of_the_stock_client_keeps_its_records(house, monkeypatch):
    import mlflow
    import mlflow.genai.datasets as datasets

    project, ids = house
    monkeypatch.setenv("MLFLOW_TRACKING_URI", project.url)
    mlflow.set_tracking_uri(project.url)
    dataset = datasets.create_dataset(name="questions", experiment_id=[ids["experiment"]], tags={"team": "ml"})
    dataset.merge_records([
        {"inputs": {"question": "what"}, "expectations": {"answer": "this"}},
        {"inputs": {"question": "why"}},
    ])
    dataset.merge_records([{"inputs": {"question": "what"}, "expectations": {"more": 1}, "tags": {"seen": "twice"}}])
    again = datasets.get_dataset(dataset_id=dataset.dataset_id)
    frame = again.to_df().set_index(again.to_df()["inputs"].map(lambda inputs: inputs["question"]))
    assert len(frame) == 2
    assert frame.loc["what", "expectations"] == {"answer": "this", "more": 1}
    assert frame.loc["what", "source_type"] == "HUMAN" and frame.loc["why", "source_type"] == "CODE"
    assert json.loads(again.schema)["inputs"] == {"question": "string"}
    assert json.loads(again.profile) == {"num_records": 2}
    assert again.experiment_ids == [ids["experiment"]]

    datasets.set_dataset_tags(dataset_id=dataset.dataset_id, tags={"state": "ready"})
    found = datasets.search_datasets(experiment_ids=[ids["experiment"]], filter_string="tags.state = 'ready'")
    assert [d.name for d in found] == ["questions"]
    moved = datasets.add_dataset_to_experiments(dataset_id=dataset.dataset_id, experiment_ids=["0"])
    assert sorted(moved.experiment_ids) == sorted(["0", ids["experiment"]])
    moved = datasets.remove_dataset_from_experiments(dataset_id=dataset.dataset_id, experiment_ids=["0"])
    assert moved.experiment_ids == [ids["experiment"]]
    assert again.delete_records([frame.loc["why", "dataset_record_id"]]) == 1
    datasets.delete_dataset(dataset_id=dataset.dataset_id)
    with pytest.raises(Exception, match="not found"):
        datasets.get_dataset(dataset_id=dataset.dataset_id)
