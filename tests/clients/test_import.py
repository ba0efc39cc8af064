"""`tidemill import`: what a stock MLflow kept in a folder or a database is here afterwards, whole, whatever happened on the way."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType

import tracking_server
from conftest import binary


def fill(uri: str, artifacts: Path) -> None:
    """A small life: experiments, runs in every state, long histories, awkward names, models, versions, aliases."""
    # A version of a logged model is looked up at the global place.
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri, uri)
    place = lambda name: (artifacts / name).as_uri()
    wine = client.create_experiment("wine / größe", artifact_location=place("wine"), tags={"team": "red"})
    gone = client.create_experiment("to be deleted", artifact_location=place("gone"))
    run = client.create_run(wine, run_name="parent", tags={"a.b": "tag", "größe": "ü", "empty": ""}).info.run_id
    for begin in range(0, 12_000, 1000):
        points = [Metric("loss", 1 / (step + 1), 1_000 + step, step) for step in range(begin, begin + 1000)]
        client.log_batch(run, metrics=points)
    client.log_metric(run, "train/acc", 0.9, timestamp=7, step=-3)
    for name, value in [("nan", math.nan), ("inf", math.inf), ("ninf", -math.inf)]:
        client.log_metric(run, name, value, timestamp=9, step=1)
    client.log_batch(run, params=[Param("C", "1.0"), Param("long", "x" * 5000), Param("multi", "line one\nline two")])
    dataset = Dataset("wine", "acc77b49", "code", '{"tags": {}}', '{"schema": 1}', '{"rows": 60}')
    client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    client.log_text(run, "hello", "notes/hello.txt")
    client.log_dict(run, {"a": 1}, "d e/ü+%.json")
    big = artifacts.parent / "big.bin"
    big.write_bytes(np.random.default_rng(1).bytes(3_000_000))
    client.log_artifact(run, str(big), "deep/er")
    client.set_terminated(run, "FINISHED", end_time=1_700_000_000_123)
    failed = client.create_run(wine, run_name="failed").info.run_id
    client.set_terminated(failed, "FAILED")
    dead = client.create_run(wine, run_name="dead").info.run_id
    client.log_param(dead, "p", "1")
    client.delete_run(dead)
    running = client.create_run("0", run_name="running").info.run_id
    client.log_metric(running, "m", 1.5, timestamp=1_234_567_890_123, step=-3)
    client.set_terminated(client.create_run(gone).info.run_id)
    client.delete_experiment(gone)

    model = client.create_logged_model(wine, "classifier", run, tags={"k": "v"}, params={"depth": "3"}, model_type="sklearn")
    local = artifacts.parent / "model.txt"
    local.write_text("a model")
    client.log_model_artifact(model.model_id, str(local))
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model("wine model", tags={"t": "1"}, description="about wine")
    parent = client.get_run(run).info.artifact_uri
    client.create_model_version("wine model", f"{parent}/notes", run, tags={"v": "one"}, description="the first")
    client.create_model_version("wine model", f"models:/{model.model_id}", run, model_id=model.model_id)
    client.create_model_version("wine model", f"runs:/{run}/deep", run)
    client.delete_model_version("wine model", "3")
    client.transition_model_version_stage("wine model", "1", "Staging")
    client.set_registered_model_alias("wine model", "champion", "2")
    client.create_registered_model("empty model")
    for n in range(30):
        small = client.create_run(wine, run_name=f"small {n}", tags={"n": str(n)}).info.run_id
        client.log_batch(small, [Metric("m", n + s, 1_000 + s, s) for s in range(20)], [Param("n", str(n))], [RunTag("x", "y")])
        client.set_terminated(small)


def told(uri: str, folder: Path) -> dict:
    """Everything that a client can be told, without the ids and places that may differ."""
    client = MlflowClient(uri, uri)
    found = {"experiments": {}, "runs": {}, "logged models": {}, "models": {}}
    experiments = list(client.search_experiments(ViewType.ALL))
    for e in experiments:
        tags = {k: v for k, v in e.tags.items()}
        # SQLite's own default experiment has no tags and its own times.
        times = (e.creation_time, e.last_update_time) if e.experiment_id != "0" else None
        found["experiments"][e.name] = (e.lifecycle_stage, times, tags)
        for run in client.search_runs([e.experiment_id], run_view_type=ViewType.ALL, max_results=1000):
            found["runs"][run.info.run_id] = told_run(client, e, run, folder)
        for model in client.search_logged_models([e.experiment_id]):
            files = client.list_logged_model_artifacts(model.model_id)
            found["logged models"][model.model_id] = (
                model.name, model.model_type, model.source_run_id, str(model.status), model.params, model.tags,
                model.creation_timestamp, [(f.path, f.file_size) for f in files],
            )
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name='{model.name}'")
        found["models"][model.name] = (
            model.description or "", model.tags, {a: int(v) for a, v in model.aliases.items()}, model.creation_timestamp,
            {int(v.version): (v.description or "", v.tags, v.current_stage, v.run_id, v.status, v.creation_timestamp) for v in versions},
        )
    return found


def number(value: float) -> str:
    """Infinity is the largest number in a database, MLflow's too, but not in a folder."""
    return repr(max(-sys.float_info.max, min(sys.float_info.max, value)))


def told_run(client, experiment, run, folder):
    info = run.info
    history = {
        key: sorted((p.step, p.timestamp, number(p.value)) for p in client.get_metric_history(info.run_id, key))
        for key in run.data.metrics
    }
    files = {}
    target = folder / info.run_id
    target.mkdir(parents=True, exist_ok=True)
    if info.lifecycle_stage == "active" and info.run_name == "parent":
        root = Path(client.download_artifacts(info.run_id, "", str(target)))
        files = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    inputs = [
        (d.dataset.name, d.dataset.digest, d.dataset.source, d.dataset.schema, d.dataset.profile, sorted((t.key, t.value) for t in d.tags))
        for d in run.inputs.dataset_inputs
    ]
    return (
        experiment.name, info.run_name, info.status, info.lifecycle_stage, info.start_time, info.end_time, run.data.params,
        run.data.tags, {k: number(v) for k, v in run.data.metrics.items()}, history, files, inputs,
    )


def run_import(server, *args: str, code: int = 0) -> dict:
    command = [binary(), "import", *args, "--url", server.url, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)["tally"]


def same(a: dict, b: dict) -> None:
    for kind in a:
        assert sorted(a[kind]) == sorted(b[kind]), kind
        for key in a[kind]:
            assert a[kind][key] == b[kind][key], (kind, key)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict:
    """The same life in a folder and in a database."""
    folder = tmp_path_factory.mktemp("sources")
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    found = {"folder": f"file://{folder}/files/mlruns", "database": f"sqlite:///{folder}/sql/mlflow.db"}
    for name, below in [("folder", "files"), ("database", "sql")]:
        (folder / below).mkdir()
        fill(found[name], folder / below / "artifacts")
    return found


@pytest.fixture(params=tracking_server.DATABASES)
def server(request, tmp_path):
    project = tracking_server.start(tmp_path / "server", request.param)
    yield project
    project.stop()


@pytest.mark.parametrize("kind", ["folder", "database"])
def test_everything_of_a_source_is_here_afterwards_and_a_second_import_changes_nothing(sources, kind, server, tmp_path):
    tally = run_import(server, "mlflow", "--uri", sources[kind])
    assert tally["failures"] == []
    counts = {k: (c["found"], c["imported"]) for k, c in tally["kinds"].items()}
    assert counts["artifacts"] == (4, 4) and counts["model versions"] == (2, 2), counts
    assert counts["runs"] == (35, 35) and counts["metrics"][0] == 12_000 + 4 + 1 + 30 * 20, counts
    there, here = told(sources[kind], tmp_path / "there"), told(server.url, tmp_path / "here")
    same(there, here)
    client = MlflowClient(server.url, server.url)
    # A version follows its files, and a number that was given does not come back.
    where = client.get_model_version_download_uri("wine model", "1")
    assert where.startswith("mlflow-artifacts:/") and where.endswith("/artifacts/notes"), where
    again = run_import(server, "mlflow", "--uri", sources[kind])
    assert again["failures"] == [] and again["bytes"] == 0
    assert again["kinds"]["runs"]["already_there"] == 35
    assert {k: c["imported"] for k, c in again["kinds"].items()} == dict.fromkeys(again["kinds"], 0)
    same(here, told(server.url, tmp_path / "again"))
    run = next(iter(here["runs"]))
    assert client.create_model_version("wine model", f"runs:/{run}/x", run).version in ("4", 4)


def test_an_import_that_is_killed_ends_alike_when_it_is_started_again(sources, server, tmp_path):
    command = [binary(), "import", "mlflow", "--uri", sources["database"], "--url", server.url]
    for after in [0.05, 0.15, 0.3, 0.45]:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.wait()
    tally = run_import(server, "mlflow", "--uri", sources["database"])
    assert tally["failures"] == []
    same(told(sources["database"], tmp_path / "there"), told(server.url, tmp_path / "here"))


def test_a_broken_run_is_named_with_its_line_and_the_others_come(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    root = tmp_path / "mlruns"
    client = MlflowClient(f"file://{root}")
    experiment = client.create_experiment("e")
    runs = [client.create_run(experiment).info.run_id for _ in range(4)]
    for run in runs:
        client.log_batch(run, [Metric("m", s, s, s) for s in range(5)])
        client.set_terminated(run)
    metric = root / experiment / runs[0] / "metrics" / "m"
    metric.write_text("1 0.5 0\n2 half 1\n")
    meta = root / experiment / runs[1] / "meta.yaml"
    meta.write_text(meta.read_text().replace("status: 3", "status: [3"))
    (root / experiment / runs[2] / "meta.yaml").unlink()
    tally = run_import(server, "mlflow", "--uri", str(root), code=3)
    reasons = {f["id"]: f["reason"] for f in tally["failures"]}
    assert sorted(reasons) == sorted(runs[:3])
    assert f"{metric}:2: the value `half` is no number" in reasons[runs[0]]
    assert f"{meta}:" in reasons[runs[1]]
    assert "meta.yaml" in reasons[runs[2]]
    here = MlflowClient(server.url)
    found = here.search_runs([here.get_experiment_by_name("e").experiment_id], run_view_type=ViewType.ALL)
    assert [run.info.run_id for run in found] == [runs[3]]


def test_a_number_that_is_taken_is_told_and_a_dry_run_brings_nothing(sources, server):
    here = MlflowClient(server.url)
    taken = here.create_experiment("mine")
    dry = run_import(server, "mlflow", "--uri", sources["database"], "--dry-run")
    assert dry["kinds"]["runs"]["found"] == 35 and len(here.search_experiments()) == 2
    tally = run_import(server, "mlflow", "--uri", sources["database"], "--no-artifacts")
    assert tally["failures"] == [] and tally["bytes"] == 0
    assert any("its number was another's" in note for note in tally["notes"]), tally["notes"]
    wine = here.get_experiment_by_name("wine / größe").experiment_id
    assert wine != taken
    # What was left out comes with a later import.
    assert run_import(server, "mlflow", "--uri", sources["database"])["bytes"] > 3_000_000


def test_a_running_tidemill_is_a_source_too(sources, server, tmp_path):
    run_import(server, "mlflow", "--uri", sources["database"])
    second = tracking_server.start(tmp_path / "second", "sqlite")
    try:
        tally = run_import(second, "mlflow", "--uri", server.url)
        assert tally["failures"] == []
        same(told(server.url, tmp_path / "first"), told(second.url, tmp_path / "copy"))
    finally:
        second.stop()


def test_without_a_server_the_data_folder_is_opened_for_the_import(sources, tmp_path):
    done = subprocess.run(
        [binary(), "import", "mlflow", "--uri", sources["folder"], "--data", "data"],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "already there" in done.stdout
    rows = sqlite3.connect(tmp_path / "data" / "meta.db").execute("SELECT count(*) FROM tracked_runs").fetchone()
    assert rows == (35,)


OFFLINE = """
import wandb
run = wandb.init(project="wine", entity="team", id="abc12345", name="first", config={"lr": 0.1, "opt": {"name": "adam"}}, tags=["a"])
for step in range(3000):
    run.log({"loss": 1 / (step + 1), "nested": {"acc": step}})
run.log({"table": wandb.Table(columns=["a"], data=[[1]]), "text": "x"})
run.summary["best"] = 0.99
open("model.txt", "w").write("a model")
run.save("model.txt", policy="now")
run.finish(exit_code=3)
"""


def test_offline_runs_of_wandb_come_whole_and_a_torn_log_as_far_as_it_goes(server, tmp_path):
    pytest.importorskip("wandb")
    env = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    subprocess.run([sys.executable, "-c", OFFLINE], cwd=tmp_path, env=env, check=True, timeout=120)
    tally = run_import(server, "wandb", str(tmp_path))
    assert tally["failures"] == [] and tally["kinds"]["runs"]["imported"] == 1
    client = MlflowClient(server.url)
    [run] = client.search_runs([client.get_experiment_by_name("wine").experiment_id])
    assert (run.info.run_name, run.info.status) == ("first", "FAILED")
    assert run.data.params == {"lr": "0.1", "opt.name": "adam"}
    loss = client.get_metric_history(run.info.run_id, "loss")
    assert [p.step for p in loss] == list(range(3000)) and loss[-1].value == 1 / 3000
    assert run.data.metrics["nested.acc"] == 2999 and run.data.metrics["best"] == 0.99
    assert not any(key.startswith("table") for key in run.data.metrics)
    assert run.data.tags["wandb.run_id"] == "abc12345" and run.data.tags["wandb.summary.text"] == "x"
    assert "model.txt" in [file.path for file in client.list_artifacts(run.info.run_id)]
    assert run_import(server, "wandb", str(tmp_path))["kinds"]["runs"]["already_there"] == 1

    [log] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])
    assert run_import(server, "wandb", str(tmp_path))["failures"] == []
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 3000
    log.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    [failure] = run_import(server, "wandb", str(tmp_path), code=3)["failures"]
    assert "is damaged" in failure["reason"] and str(log) in failure["reason"]


def test_what_is_no_source_is_said_so(server, tmp_path):
    for uri in [str(tmp_path), str(tmp_path / "absent"), f"sqlite:///{tmp_path}/absent.db", "mysql://u@h/d"]:
        command = [binary(), "import", "mlflow", "--uri", uri, "--url", server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 3, (uri, done.returncode, done.stderr)
