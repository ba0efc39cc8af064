"""The classic flow of a stock MLflow client, from the first experiment to a loaded model version, against the running binary."""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import tracking_server


@pytest.fixture(scope="module", params=tracking_server.DATABASES)
def server(request, tmp_path_factory):
    hook = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
    project = tracking_server.start(tmp_path_factory.mktemp("tracking"), request.param, env=hook)
    yield project
    project.stop()


@pytest.fixture(autouse=True)
def at_server(server, monkeypatch):
    mlflow.set_tracking_uri(server.url)
    mlflow.set_registry_uri(server.url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    yield
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def client(server) -> MlflowClient:
    return MlflowClient(server.url, server.url)


@pytest.fixture(scope="module")
def iris() -> pd.DataFrame:
    frame = load_iris(as_frame=True).frame
    return frame.rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))


def test_an_empty_server_has_the_default_experiment(client):
    assert client.get_experiment("0").name == "Default"
    assert client.get_experiment_by_name("nothing like it") is None


def test_an_experiment_lives_dies_and_comes_back(client):
    identity = client.create_experiment("life", tags={"team": "a"})
    client.set_experiment_tag(identity, "team", "b")
    client.rename_experiment(identity, "second life")
    assert client.get_experiment_by_name("second life").tags["team"] == "b"
    client.delete_experiment(identity)
    assert client.get_experiment(identity).lifecycle_stage == "deleted"
    with pytest.raises(MlflowException, match="already exists"):
        client.create_experiment("second life")
    client.restore_experiment(identity)
    found = client.search_experiments(filter_string="name LIKE 'second%' AND tags.team = 'b'")
    assert [e.experiment_id for e in found] == [identity]
    with pytest.raises(MlflowException, match="already exists"):
        client.create_experiment("second life")


def test_a_run_keeps_what_is_logged_to_the_last_bit(client):
    experiment = client.create_experiment("bits")
    run = client.create_run(experiment, run_name="one", tags={"kind": "test"})
    run_id = run.info.run_id
    values = [0.1, 1 / 3, 1e-300, -0.0, 2**53 + 0.0, float("inf"), float("-inf"), float("nan")]
    for step, value in enumerate(values):
        client.log_metric(run_id, "value", value, timestamp=1_700_000_000_000 + step, step=step)
    history = sorted(client.get_metric_history(run_id, "value"), key=lambda m: m.step)
    assert [m.value for m in history[:5]] == values[:5]
    assert history[5].value >= 1.7976931348623157e308 and history[6].value <= -1.7976931348623157e308
    assert np.isnan(history[7].value)
    client.log_param(run_id, "lr", 0.1)
    client.log_param(run_id, "lr", "0.1")
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        client.log_param(run_id, "lr", 0.2)
    client.set_terminated(run_id, "FINISHED", end_time=1_700_000_009_000)
    back = client.get_run(run_id)
    assert (back.info.status, back.info.end_time, back.info.run_name) == ("FINISHED", 1_700_000_009_000, "one")
    assert back.data.params == {"lr": "0.1"} and back.data.tags["kind"] == "test"


def test_batches_are_stored_whole_or_not_at_all(client):
    run_id = client.create_run(client.create_experiment("batches")).info.run_id
    points = [Metric(f"m{i % 10}", i, 1_700_000_000_000, i) for i in range(1_000)]
    client.log_batch(run_id, metrics=points)
    assert len(client.get_metric_history(run_id, "m3")) == 100
    assert client.get_run(run_id).data.metrics["m9"] == 999
    with pytest.raises(MlflowException):
        client.log_batch(run_id, params=[Param("a", "1"), Param("a", "2")], tags=[RunTag("t", "1")])
    assert client.get_run(run_id).data.params == {} and "t" not in client.get_run(run_id).data.tags
    many = {"run_id": run_id, "metrics": [{"key": "m", "value": 1, "timestamp": 1, "step": i} for i in range(1_001)]}
    answer = requests.post(f"{mlflow.get_tracking_uri()}/api/2.0/mlflow/runs/log-batch", json=many, timeout=30)
    assert answer.status_code == 400 and answer.json()["error_code"] == "INVALID_PARAMETER_VALUE", answer.text
    assert "m" not in client.get_run(run_id).data.metrics


def test_asynchronous_logging_from_many_threads_arrives(client):
    mlflow.set_experiment("asynchronous")
    with mlflow.start_run() as run:
        def work(worker: int):
            for step in range(50):
                mlflow.log_metric(f"w{worker}", step, step=step, synchronous=False, run_id=run.info.run_id)

        workers = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        [worker.start() for worker in workers]
        [worker.join() for worker in workers]
        mlflow.flush_async_logging()
    for worker in range(4):
        assert len(client.get_metric_history(run.info.run_id, f"w{worker}")) == 50


def test_search_finds_by_the_whole_grammar_and_pages_through(client):
    experiment = client.create_experiment("search")
    for i in range(25):
        run = client.create_run(experiment, start_time=1_700_000_000_000 + i, tags={"parity": "odd" if i % 2 else "even"})
        client.log_metric(run.info.run_id, "acc", i / 25)
        client.log_param(run.info.run_id, "depth", str(i % 5))
        client.set_terminated(run.info.run_id)

    def find(text, **more):
        return [round(r.data.metrics["acc"] * 25) for r in client.search_runs([experiment], text, **more)]

    assert find("metrics.acc > 0.5 AND params.depth = '3' AND tags.parity = 'odd'") == [23, 13]
    assert find("attributes.status = 'FINISHED' AND metrics.acc <= 0.08", order_by=["metrics.acc ASC"]) == [0, 1, 2]
    assert find("tags.parity ILIKE 'EV%' and tag.parity LIKE 'ev%'", order_by=["params.depth DESC", "metrics.acc"])[0] == 4
    seen, token = [], None
    while True:
        page = client.search_runs([experiment], max_results=10, page_token=token, order_by=["metrics.acc DESC"])
        seen += [r.data.metrics["acc"] * 25 for r in page]
        token = page.token
        if not token:
            break
    assert [round(v) for v in seen] == list(range(24, -1, -1))
    with pytest.raises(MlflowException, match="Expected numeric value type for metric. Found 'many'"):
        find("metrics.acc > 'many'")
    frame = mlflow.search_runs([experiment], "metrics.acc >= 0.8")
    assert len(frame) == 5 and set(frame["params.depth"]) == {"0", "1", "2", "3", "4"}
    deleted = client.search_runs([experiment])[0].info.run_id
    client.delete_run(deleted)
    assert len(client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)) == 1
    client.restore_run(deleted)
    assert len(client.search_runs([experiment])) == 25


def test_artifacts_come_back_as_they_were(client, tmp_path):
    mlflow.set_experiment("artifacts")
    with mlflow.start_run() as run:
        mlflow.log_text("héllo", "notes/a.txt")
        mlflow.log_dict({"a": [1, 2]}, "b.json")
        (tmp_path / "folder").mkdir()
        blob = os.urandom(3 << 20)
        (tmp_path / "folder" / "blob.bin").write_bytes(blob)
        mlflow.log_artifacts(str(tmp_path / "folder"), "raw")
        mlflow.log_table({"x": [1, 2], "y": ["a", "b"]}, "table.json")
    run_id = run.info.run_id
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes/a.txt") == "héllo"
    assert {f.path: f.file_size for f in client.list_artifacts(run_id, "raw")} == {"raw/blob.bin": len(blob)}
    assert {f.path for f in client.list_artifacts(run_id)} == {"notes", "b.json", "raw", "table.json"}
    local = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="raw", dst_path=str(tmp_path / "back"))
    assert (Path(local) / "blob.bin").read_bytes() == blob
    assert mlflow.load_table("table.json", run_ids=[run_id])["y"].tolist() == ["a", "b"]
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(run.info.artifact_uri).delete_artifacts("b.json")
    assert "b.json" not in {f.path for f in client.list_artifacts(run_id)}
    with pytest.raises(MlflowException):
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="b.json")


def test_autolog_log_model_registry_and_evaluate(client, iris, tmp_path):
    mlflow.set_experiment("flow")
    mlflow.sklearn.autolog(log_input_examples=True, silent=True)
    try:
        with mlflow.start_run(run_name="fit") as run:
            dataset = mlflow.data.from_pandas(iris, name="iris", targets="target")
            mlflow.log_input(dataset, context="training")
            model = LogisticRegression(max_iter=300).fit(iris.drop(columns="target"), iris["target"])
    finally:
        mlflow.sklearn.autolog(disable=True)
    data = client.get_run(run.info.run_id)
    assert data.data.params["max_iter"] == "300" and data.data.metrics["training_score"] > 0.9
    assert any(i.dataset.name == "iris" for i in data.inputs.dataset_inputs)
    assert data.outputs.model_outputs, "autolog's model is an output of the run"
    by_dataset = client.search_runs([run.info.experiment_id], "dataset.name = 'iris' AND dataset.context = 'training'")
    assert [r.info.run_id for r in by_dataset] == [run.info.run_id]

    signature = mlflow.models.infer_signature(iris.drop(columns="target"), model.predict(iris.drop(columns="target")))
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            model, name="classifier", signature=signature, registered_model_name="iris", params={"kind": "linear"}
        )
        evaluated = mlflow.models.evaluate(
            info.model_uri, iris, targets="target", model_type="classifier", evaluator_config={"log_explainer": False}
        )
        assert evaluated.metrics["accuracy_score"] > 0.9
    logged = client.get_logged_model(info.model_id)
    assert logged.status.value in ("READY", 2) and logged.params["kind"] == "linear"
    assert {m.key for m in client.get_logged_model(info.model_id).metrics or []} >= {"accuracy_score"}
    found = client.search_logged_models([logged.experiment_id], "name = 'classifier'")
    assert [m.model_id for m in found] == [info.model_id]

    version = client.get_model_version("iris", "1")
    assert version.status == "READY" and version.run_id == info.run_id
    client.set_registered_model_alias("iris", "best", "1")
    client.set_model_version_tag("iris", "1", "checked", "yes")
    client.update_model_version("iris", "1", description="the first")
    client.transition_model_version_stage("iris", "1", "Production")
    assert client.get_model_version_by_alias("iris", "best").tags == {"checked": "yes"}
    assert [v.version for v in client.search_model_versions("name = 'iris' AND tags.checked = 'yes'")] == ["1"]
    assert [m.name for m in client.search_registered_models("name ILIKE 'IR%'")] == ["iris"]
    features = iris.drop(columns="target")
    for uri in ["models:/iris/1", "models:/iris@best", "models:/iris/Production", f"runs:/{info.run_id}/classifier"]:
        loaded = mlflow.pyfunc.load_model(uri)
        assert (loaded.predict(features) == model.predict(features)).all(), uri
    copied = client.copy_model_version("models:/iris/1", "iris-copy")
    assert (mlflow.pyfunc.load_model(f"models:/iris-copy/{copied.version}").predict(features) == model.predict(features)).all()
    client.rename_registered_model("iris-copy", "iris-renamed")
    client.delete_model_version("iris-renamed", "1")
    client.delete_registered_model("iris-renamed")
    with pytest.raises(MlflowException, match="not found"):
        client.get_registered_model("iris-renamed")


def test_system_metrics_are_logged(client):
    mlflow.set_experiment("system")
    mlflow.set_system_metrics_sampling_interval(0.2)
    mlflow.set_system_metrics_samples_before_logging(1)
    with mlflow.start_run(log_system_metrics=True) as run:
        time.sleep(1.5)
    metrics = client.get_run(run.info.run_id).data.metrics
    assert any(key.startswith("system/cpu") for key in metrics), metrics


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps what webhooks deliver."""

    received: list = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Hook.received.append((self.headers, json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_webhooks_are_delivered_and_signed(client):
    from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent

    Hook.received.clear()
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{listener.server_port}/hook"
        hook = client.create_webhook(
            "created", url, [WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED)], secret="s3cret"
        )
        assert hook.webhook_id in {h.webhook_id for h in client.list_webhooks()}
        client.create_registered_model("hooked", description="by hand")
        deadline = time.monotonic() + 20
        while not Hook.received and time.monotonic() < deadline:
            time.sleep(0.05)
        headers, body = Hook.received[0]
        assert body["entity"] == "registered_model" and body["data"]["name"] == "hooked", body
        assert headers["X-MLflow-Signature"].startswith("v1,")
        assert client.test_webhook(hook.webhook_id).success
        client.delete_webhook(hook.webhook_id)
        client.delete_registered_model("hooked")
    finally:
        listener.shutdown()


def test_the_command_line_speaks_to_it(server):
    def mlflow_cli(*args: str) -> str:
        env = os.environ | {"MLFLOW_TRACKING_URI": server.url}
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", *args], env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    mlflow_cli("experiments", "create", "--experiment-name", "from the shell")
    assert "from the shell" in mlflow_cli("experiments", "search")
    experiment = mlflow.get_experiment_by_name("from the shell")
    run_id = MlflowClient().create_run(experiment.experiment_id, run_name="seen").info.run_id
    assert run_id in mlflow_cli("runs", "list", "--experiment-id", experiment.experiment_id)
    mlflow_cli("runs", "delete", "--run-id", run_id)
    mlflow_cli("runs", "restore", "--run-id", run_id)
