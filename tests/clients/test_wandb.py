"""W&B's own client against our server: what it logs is there for MLflow's clients, and comes back through its own.

Each script runs in a process of its own, as a user's does, without any network but ours.
"""

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest
import requests

from conftest import Project


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Project:
    """A server for tracking alone."""
    folder = tmp_path_factory.mktemp("tracking")
    project = Project(folder, "tracking")
    yield project.up("--data", str(folder / "data"))
    project.stop()


def environment(server: Project, **more: str) -> dict:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "MLFLOW_"))}
    return kept | {
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": "local-" + "0" * 40,
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_X_STATS_SAMPLING_INTERVAL": "0.5",
        "NO_PROXY": "*",
    } | more


def run(server: Project, folder, script: str, code: int = 0, timeout: int = 120, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=folder,
        env=environment(server, **env),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    return done.stdout


def api(server: Project, path: str, **query) -> dict:
    answer = requests.get(f"{server.url}{path}", params=query, timeout=30)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


def run_id(server: Project, project: str, name: str, entity: str = "tidemill") -> str:
    """The tracked run of a W&B run, found as a user of MLflow would: by its tag."""
    experiment = api(server, "/api/2.0/mlflow/experiments/get-by-name", experiment_name=project)["experiment"]
    found = requests.post(
        f"{server.url}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": [experiment["experiment_id"]], "filter": f"tags.`wandb.run_id` = '{name}'"},
        timeout=30,
    )
    assert found.status_code == 200, found.text
    runs = found.json()["runs"]
    assert len(runs) == 1, runs
    return runs[0]["info"]["run_id"]


def tracked(server: Project, project: str, name: str) -> dict:
    run = api(server, "/api/2.0/mlflow/runs/get", run_id=run_id(server, project, name))["run"]
    data = run["data"]
    return {
        "info": run["info"],
        "metrics": {m["key"]: m["value"] for m in data.get("metrics", [])},
        "params": {p["key"]: p["value"] for p in data.get("params", [])},
        "tags": {t["key"]: t["value"] for t in data.get("tags", [])},
    }


def history(server: Project, run: str, key: str) -> list[dict]:
    return api(server, "/api/2.0/mlflow/metrics/get-history", run_id=run, metric_key=key)["metrics"]


def test_a_whole_run_is_a_tracked_run(server, tmp_path):
    started = time.time()
    run(server, tmp_path, """
        import time, math, wandb
        with wandb.init(project="whole", id="first", name="my run", config={"lr": 0.1, "net": {"layers": [1, 2], "act": "relu"}},
                        tags=["a", "b"], notes="a note", group="g", job_type="train") as run:
            print("hello from the console")
            for step in range(2000):
                run.log({"loss": 1 / (step + 1), "nested": {"acc": step / 2000}, "odd/name": step % 7})
            run.log({"bad": float("nan"), "big": float("inf")})
            run.log({"table": wandb.Table(columns=["x", "y"], data=[[1, "a"], [2, "b"]])})
            run.config.update({"late": "yes"})
            run.summary["best"] = 0.25
            run.summary["verdict"] = "good"
            artifact = wandb.Artifact("model", type="model", metadata={"k": 1})
            with artifact.new_file("weights.txt") as f:
                f.write("w" * 1000)
            run.log_artifact(artifact, aliases=["latest", "prod"])
            run.alert(title="Look", text="here", level=wandb.AlertLevel.WARN)
            time.sleep(2)
    """)
    print(f"whole run: {time.time() - started:.1f} s")
    found = tracked(server, "whole", "first")
    assert found["info"]["status"] == "FINISHED"
    assert found["info"]["run_name"] == "my run"
    assert found["params"] == {"lr": "0.1", "net.layers": "[1,2]", "net.act": "relu", "late": "yes"}
    assert found["metrics"]["loss"] == pytest.approx(1 / 2000)
    # MLflow's own server keeps infinity as the largest number.
    assert found["metrics"]["bad"] == "NaN" and found["metrics"]["big"] == sys.float_info.max
    assert found["metrics"]["best"] == 0.25
    assert found["tags"]["wandb.summary.verdict"] == "good"
    assert "table-file" in found["tags"]["wandb.summary.table"]
    assert json.loads(found["tags"]["wandb.tags"]) == ["a", "b"]
    assert found["tags"]["mlflow.note.content"] == "a note"
    assert found["tags"]["wandb.job_type"] == "train"
    assert any(key.startswith("system/") for key in found["metrics"]), sorted(found["metrics"])

    run_id = found["info"]["run_id"]
    for key in ["loss", "nested.acc", "odd/name"]:
        points = history(server, run_id, key)
        assert [p["step"] for p in points] == list(range(2000)), key
    assert abs(points[0]["timestamp"] / 1000 - started) < 60

    files = api(server, "/api/2.0/mlflow/artifacts/list", run_id=run_id)["files"]
    assert {"output.log", "config.yaml", "wandb-summary.json"} <= {f["path"] for f in files}, files
    log = requests.get(f"{server.url}/get-artifact", params={"run_id": run_id, "path": "output.log"}, timeout=30)
    assert "hello from the console" in log.text
    lines = api(server, "/api/v1/tracking/console", run_id=run_id)["lines"]
    assert "hello from the console" in lines[0]["text"]

    events = api(server, "/api/v1/events", limit=1000)["events"]
    alert = next(e for e in events if e["kind"] == "tracked_run.alert")
    assert run_id in alert["subject"] and alert["payload"]["title"] == "Look"


def test_a_run_goes_on_where_it_ended(server, tmp_path):
    for part in range(2):
        run(server, tmp_path, f"""
            import wandb
            with wandb.init(project="resumed", id="again", resume="allow") as run:
                assert run.starting_step == {part * 50}, run.starting_step
                assert run.resumed == {part == 1}
                if {part}:
                    assert run.summary["x"] == 49, dict(run.summary)
                run.config.update({{"part{part}": {part}}})
                for step in range(50):
                    run.log({{"x": {part} * 50 + step}})
        """)
    found = tracked(server, "resumed", "again")
    assert found["params"] == {"part0": "0", "part1": "1"}
    points = history(server, found["info"]["run_id"], "x")
    assert [(p["step"], p["value"]) for p in points] == [(i, i) for i in range(100)]


def test_a_failed_run_is_failed(server, tmp_path):
    run(server, tmp_path, """
        import sys, wandb
        run = wandb.init(project="failed", id="bad")
        run.log({"x": 1})
        sys.exit(3)
    """, code=3)
    found = tracked(server, "failed", "bad")
    assert found["info"]["status"] == "FAILED"
    assert found["tags"]["wandb.state"] == "failed"


def test_an_offline_run_is_synchronized_once_however_often_it_is_sent(server, tmp_path):
    run(server, tmp_path, """
        import wandb
        with wandb.init(project="offline", id="later", config={"a": 1}) as run:
            for step in range(300):
                run.log({"x": step})
            artifact = wandb.Artifact("notes", type="text")
            with artifact.new_file("n.txt") as f:
                f.write("hello")
            run.log_artifact(artifact)
    """, WANDB_MODE="offline")
    folders = list((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 1
    wandb = [sys.executable, "-m", "wandb", "sync", str(folders[0])]
    for _ in range(2):
        for mark in folders[0].glob("*.synced"):
            mark.unlink()
        done = subprocess.run(wandb, cwd=tmp_path, env=environment(server), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    found = tracked(server, "offline", "later")
    assert found["params"] == {"a": "1"}
    assert found["info"]["status"] == "FINISHED"
    points = history(server, found["info"]["run_id"], "x")
    assert [p["step"] for p in points] == list(range(300))


def test_artifacts_have_versions_aliases_and_lineage(server, tmp_path):
    log = """
        import wandb
        with wandb.init(project="lineage", id="{name}") as run:
            artifact = wandb.Artifact("data", type="dataset", metadata={{"rows": {rows}}})
            with artifact.new_file("same.txt") as f:
                f.write("the same in each version")
            with artifact.new_file("rows/part.txt") as f:
                f.write("x" * {rows})
            run.log_artifact(artifact).wait()
            print(artifact.version)
    """
    assert run(server, tmp_path, log.format(name="w0", rows=10)).strip().endswith("v0")
    assert run(server, tmp_path, log.format(name="w1", rows=20)).strip().endswith("v1")
    # The same contents are the same version.
    assert run(server, tmp_path, log.format(name="w2", rows=20)).strip().endswith("v1")
    out = run(server, tmp_path, """
        import wandb, os
        with wandb.init(project="lineage", id="reader") as run:
            artifact = run.use_artifact("data:latest")
            assert artifact.version == "v1", artifact.version
            folder = artifact.download(root="fetched")
            assert open(os.path.join(folder, "rows/part.txt")).read() == "x" * 20
            assert open(os.path.join(folder, "same.txt")).read() == "the same in each version"
            old = run.use_artifact("data:v0", type="dataset")
            assert old.metadata == {"rows": 10}, old.metadata
            old.aliases.append("golden")
            old.save()
            assert run.use_artifact("data:golden").version == "v0"
            try:
                run.use_artifact("data:nothing")
            except Exception as e:
                print("refused:", type(e).__name__)
    """)
    assert "refused:" in out
    read = api(server, "/api/v1/tracking/artifact-lineage", run_id=run_id(server, "lineage", "reader"))
    assert sorted(a["version"] for a in read["inputs"]) == ["v0", "v1"]
    newest = next(a for a in read["inputs"] if a["version"] == "v1")
    writers = {run_id(server, "lineage", "w1"), run_id(server, "lineage", "w2")}
    assert set(newest["written_by"]) == writers
    wrote = api(server, "/api/v1/tracking/artifact-lineage", run_id=run_id(server, "lineage", "w1"))
    assert wrote["outputs"][0]["read_by"] == [run_id(server, "lineage", "reader")]


def test_an_agent_runs_a_sweep(server, tmp_path):
    out = run(server, tmp_path, """
        import wandb
        from wandb.agents.pyagent import Agent
        Agent.HEARTBEAT_SLEEP_SECONDS = 0.5
        sweep = wandb.sweep({
            "method": "bayes", "metric": {"name": "loss", "goal": "minimize"},
            "parameters": {"lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}, "layers": {"values": [1, 2, 3]}},
        }, project="swept")
        def train():
            with wandb.init() as run:
                for step in range(3):
                    run.log({"loss": run.config.lr * run.config.layers + 1 / (step + 1)})
        wandb.agent(sweep, function=train, count=5, project="swept")
        print("sweep", sweep)
    """, timeout=240)
    sweep_id = out.strip().split()[-1]
    sweep = api(server, f"/api/v1/sweeps/{sweep_id}")
    done = [t for t in sweep["trials"] if t["state"] == "finished"]
    assert len(done) == 5, sweep["trials"]
    for trial in done:
        found = tracked(server, "swept", trial["run"])
        assert float(found["params"]["lr"]) == pytest.approx(trial["params"]["lr"])
        assert trial["value"] == pytest.approx(trial["params"]["lr"] * trial["params"]["layers"] + 1 / 3)
        assert found["tags"]["wandb.sweep"] == sweep_id
    best = min(done, key=lambda trial: trial["value"])
    run(server, tmp_path, f"""
        import wandb
        sweep = wandb.Api().sweep("tidemill/swept/{sweep_id}")
        assert sweep.config["method"] == "bayes" and sweep.state.lower() in ("running", "finished"), (sweep.config, sweep.state)
        assert len(sweep.runs) == 5 and {{run.id for run in sweep.runs}} == {set(t["run"] for t in done)!r}
        assert sweep.best_run().id == {best["run"]!r}, sweep.best_run().id
    """)


def test_any_program_can_ask_for_trials(server):
    config = {
        "method": "grid",
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {"a": {"values": [1, 2]}, "b": {"min": 0, "max": 2}},
    }
    made = requests.post(f"{server.url}/api/v1/sweeps", json={"project": "grid", "config": config}, timeout=30)
    assert made.status_code == 201, made.text
    url = f"{server.url}/api/v1/sweeps/{made.json()['sweep_id']}"
    seen = []
    while trial := requests.post(f"{url}/next", json={}, timeout=30).json()["trial"]:
        seen.append((trial["params"]["a"], trial["params"]["b"]))
        report = {"value": trial["params"]["a"] + trial["params"]["b"], "state": "finished"}
        answer = requests.post(f"{url}/trials/{trial['number']}/report", json=report, timeout=30)
        assert answer.json() == {"stop": False}, answer.text
    assert sorted(seen) == [(a, b) for a in (1, 2) for b in (0, 1, 2)]
    assert requests.get(url, timeout=30).json()["state"] == "FINISHED"


def rows(server: Project, **query) -> dict:
    answer = requests.get(f"{server.url}/api/v1/tracking/tables/rows", params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask(server: Project, run: str, sql: str, **more) -> dict:
    answer = requests.post(f"{server.url}/api/v1/tracking/tables/query", json={"run_id": run, "sql": sql} | more, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_tables_are_parquet_and_answer_questions(server, tmp_path):
    run(server, tmp_path, """
        import math, wandb
        with wandb.init(project="tables", id="t") as run:
            rows = [[i, f"name {i}", i / 100, i % 2 == 0, {"k": i}, math.nan if i == 7 else 1.0] for i in range(300)]
            table = wandb.Table(columns=["id", "name", "score", "even", "nested", "odd"], data=rows, allow_mixed_types=True)
            run.log({"preds": table, "loss": 1})
            run.log({"empty": wandb.Table(columns=["a", "b"], data=[])})
            picture = wandb.Table(columns=["id", "picture"])
            import numpy
            picture.add_data(1, wandb.Image(numpy.zeros((2, 2, 3), dtype="uint8")))
            run.log({"pictures": picture})
            artifact = wandb.Artifact("scored", type="dataset")
            artifact.add(wandb.Table(columns=["key", "value"], data=[["a", 1], ["b", 2]]), "inner")
            run.log_artifact(artifact).wait()
    """)
    id = run_id(server, "tables", "t")
    listed = {table["name"]: table for table in api(server, "/api/v1/tracking/tables", run_id=id)["items"]}
    assert {"preds", "empty", "pictures", "inner"} <= set(listed), listed
    deadline = time.time() + 20
    while any(table["state"] == "waiting" for table in listed.values()) and time.time() < deadline:
        time.sleep(0.2)
        listed = {table["name"]: table for table in api(server, "/api/v1/tracking/tables", run_id=id)["items"]}
    assert {table["state"] for table in listed.values()} == {"ready"}, listed
    assert listed["preds"]["rows"] == 300
    types = {column["name"]: column["type"] for column in listed["preds"]["columns"]}
    assert types == {"id": "integer", "name": "text", "score": "float", "even": "boolean", "nested": "json", "odd": "float"}
    assert listed["empty"]["rows"] == 0 and [c["name"] for c in listed["empty"]["columns"]] == ["a", "b"]

    answer = ask(server, id, "SELECT even, count(*) AS n, max(score) AS best FROM preds GROUP BY even ORDER BY even")
    assert answer["rows"] == [[False, 150, 2.99], [True, 150, 2.98]], answer
    answer = ask(server, id, 'SELECT p.name, i.value FROM preds p JOIN "inner" i ON i.value = p.id ORDER BY p.id')
    assert answer["rows"] == [["name 1", 1], ["name 2", 2]], answer
    assert json.loads(ask(server, id, "SELECT picture FROM pictures")["rows"][0][0])["_type"] == "image-file"

    own = next(t for t in api(server, "/api/v1/tracking/tables", run_id=id)["items"] if t["artifact"] is None and "preds" in t["name"])
    page = rows(server, run_id=id, path=own["path"], columns=["id", "score"], filter="score > 2.9", order_by="id DESC", offset=1, limit=2)
    assert page["rows"] == [[298, 2.98], [297, 2.97]] and page["total"] == 9 and page["next_offset"] == 3, page
    for format, magic in [("parquet", b"PAR1"), ("arrow", b"\xff\xff\xff\xff")]:
        query = {"run_id": id, "path": own["path"], "format": format, "limit": 1000}
        got = requests.get(f"{server.url}/api/v1/tracking/tables/rows", params=query, timeout=30)
        assert got.status_code == 200 and got.content.startswith(magic), got.text[:200]
    # The file itself is what the client sent.
    file = requests.get(f"{server.url}/get-artifact", params={"run_id": id, "path": own["path"]}, timeout=30).json()
    assert file["columns"] == ["id", "name", "score", "even", "nested", "odd"] and len(file["data"]) == 300
    in_artifact = api(server, "/api/v1/tracking/artifact-tables", artifact="tidemill/tables/scored:v0")["items"]
    assert [table["path"] for table in in_artifact] == ["inner.table.json"]

    for sql, code in [
        ("DROP TABLE preds", "query_invalid"), ("SELECT * FROM '/etc/passwd'", "query_invalid"), ("SELECT nope FROM preds", "column_not_found"),
        ("COPY preds TO '/tmp/x.csv'", "query_invalid"), ("SELECT * FROM other", "query_invalid"),
    ]:
        refused = requests.post(f"{server.url}/api/v1/tracking/tables/query", json={"run_id": id, "sql": sql}, timeout=30)
        assert refused.status_code == 400 and refused.json()["error"]["code"] == code, (sql, refused.text)


def test_tables_of_mlflow_answer_questions_too(server, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(server.url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    experiment = client.create_experiment("logged tables")
    id = client.create_run(experiment).info.run_id
    client.log_table(id, {"question": ["q1", "q2"], "score": [0.5, 1.5]}, "eval/results.json")
    client.log_table(id, {"x": [1, 2, 3]}, "more.parquet")
    listed = {table["name"]: table["path"] for table in api(server, "/api/v1/tracking/tables", run_id=id)["items"]}
    assert listed == {"eval_results": "eval/results.json", "more": "more.parquet"}
    answer = ask(server, id, "SELECT question FROM eval_results WHERE score > 1")
    assert answer["rows"] == [["q2"]]
    assert ask(server, id, "SELECT sum(x) FROM more")["rows"] == [[6]]
    assert rows(server, run_id=id, path="more.parquet", offset=2)["rows"] == [[3]]


def test_the_addresses_that_the_client_prints_lead_to_our_pages(server, tmp_path):
    out = run(server, tmp_path, """
        import wandb
        with wandb.init(entity="ada", project="printed urls", id="u1") as run:
            run.log({"x": 1})
            artifact = wandb.Artifact("thing", type="dataset")
            with artifact.new_file("a.txt") as f:
                f.write("a")
            run.log_artifact(artifact).wait()
            print(run.url)
            print(run.project_url)
            print(artifact.url)
    """)
    run_url, project_url, artifact_url = out.strip().splitlines()[-3:]
    id = run_id(server, "printed urls", "u1")
    experiment = api(server, "/api/2.0/mlflow/experiments/get-by-name", experiment_name="printed urls")["experiment"]["experiment_id"]
    led = lambda url: requests.get(url, allow_redirects=False, timeout=30)  # noqa: E731
    for url, page in [
        (run_url, f"/experiments/{experiment}/runs/{id}"),
        (run_url + "/overview", f"/experiments/{experiment}/runs/{id}"),
        (project_url, f"/experiments/{experiment}"),
        (artifact_url, f"/experiments/{experiment}/runs/{id}"),
    ]:
        answer = led(url)
        assert (answer.status_code, answer.headers.get("location")) == (302, page), (url, answer.status_code)
    # What is not there is the page, which says so.
    assert led(f"{server.url}/ada/printed%20urls/runs/other").status_code == 200
    sweep = requests.post(f"{server.url}/api/v1/sweeps", json={
        "project": "printed urls", "config": {"method": "grid", "parameters": {"a": {"values": [1]}}}}, timeout=30).json()["sweep_id"]
    answer = led(f"{server.url}/ada/printed%20urls/sweeps/{sweep}")
    assert answer.headers["location"].startswith(f"/experiments/{experiment}?filter=tags.") and sweep in answer.headers["location"]


def test_the_api_of_the_client_reads_what_was_logged(server, tmp_path):
    run(server, tmp_path, """
        import wandb
        for i in range(3):
            with wandb.init(project="read", id=f"r{i}", name=f"run {i}", config={"lr": 0.1 * (i + 1), "net": {"act": "relu"}}, tags=["t", f"t{i}"], group="g") as run:
                if i == 2:
                    run.use_artifact("data:latest")
                for step in range(20):
                    run.log({"loss": 1 / (step + 1 + i), "only_even": step} if step % 2 == 0 else {"loss": 1 / (step + 1 + i)})
                run.summary["verdict"] = f"v{i}"
                if i == 0:
                    artifact = wandb.Artifact("data", type="dataset")
                    with artifact.new_file("a.txt") as f:
                        f.write("hello")
                    run.log_artifact(artifact).wait()
                    print("said by the run")
    """)
    out = run(server, tmp_path, """
        import wandb
        api = wandb.Api()
        run = api.run("tidemill/read/r1")
        assert run.name == "run 1" and run.state == "finished" and run.group == "g", (run.name, run.state, run.group)
        assert run.config == {"lr": 0.2, "net": {"act": "relu"}}, run.config
        assert run.summary["verdict"] == "v1" and abs(run.summary["loss"] - 1 / 21) < 1e-9, dict(run.summary)
        assert run.lastHistoryStep == 19
        history = run.history(pandas=False)
        assert len(history) == 20 and history[3]["_step"] == 3 and history[3]["loss"] == 0.2, history[:4]
        assert [row["only_even"] for row in run.history(keys=["only_even"], pandas=False)] == list(range(0, 20, 2))
        assert len(run.history(samples=5, pandas=False)) == 5
        scanned = list(run.scan_history())
        assert [row["_step"] for row in scanned] == list(range(20)), scanned
        assert [row["_step"] for row in run.scan_history(page_size=7, min_step=3, max_step=18)] == list(range(3, 18))
        assert [row["loss"] for row in run.scan_history(keys=["loss"], page_size=7)] == [1 / (s + 2) for s in range(20)]
        names = [file.name for file in run.files()]
        assert {"config.yaml", "wandb-summary.json"} <= set(names), names
        assert len(run.files(pattern="%.yaml")) == 1
        run.file("config.yaml").download(root="fetched", replace=True)
        assert "relu" in open("fetched/config.yaml").read()
        said = list(api.run("tidemill/read/r0").console_logs())
        assert [line.content.strip() for line in said] == ["said by the run"], said

        runs = api.runs("tidemill/read", order="-config.lr.value")
        assert len(runs) == 3 and [r.id for r in runs] == ["r2", "r1", "r0"]
        assert [r.id for r in api.runs("tidemill/read", per_page=1)] == ["r0", "r1", "r2"]
        found = lambda filters: sorted(r.id for r in api.runs("tidemill/read", filters=filters))
        assert found({"config.lr": {"$gt": 0.15}}) == ["r1", "r2"]
        assert found({"$or": [{"display_name": "run 0"}, {"tags": "t2"}]}) == ["r0", "r2"]
        assert found({"summary_metrics.verdict": {"$in": ["v1"]}}) == ["r1"]
        assert found({"state": "running"}) == []
        assert "read" in [project.name for project in api.projects("tidemill")]

        wrote, read = api.run("tidemill/read/r0"), api.run("tidemill/read/r2")
        assert [a.name for a in wrote.logged_artifacts()] == ["data:v0"]
        assert [a.name for a in read.used_artifacts()] == ["data:v0"]
        artifact = api.artifact("tidemill/read/data:latest")
        assert artifact.type == "dataset" and open(artifact.download(root="a") + "/a.txt").read() == "hello"
        assert artifact.logged_by().id == "r0" and [r.id for r in artifact.used_by()] == ["r2"]
        assert [a.version for a in api.artifacts("dataset", "tidemill/read/data")] == ["v0"]
        assert [c.name for c in api.artifact_type("dataset", "tidemill/read").collections()] == ["data"]
        assert "dataset" in [t.name for t in api.artifact_types("tidemill/read")]
        assert api.artifact_exists("tidemill/read/data:v0") and not api.artifact_exists("tidemill/read/data:v7")

        run.config["late"] = 7
        run.tags.append("changed")
        run.name = "renamed"
        run.summary["best"] = 0.5
        run.update()
        again = wandb.Api().run("tidemill/read/r1")
        assert again.config["late"] == 7 and "changed" in again.tags and again.name == "renamed", (again.config, again.tags, again.name)
        assert again.summary["best"] == 0.5
        api.run("tidemill/read/r0").delete()
        assert sorted(r.id for r in wandb.Api().runs("tidemill/read")) == ["r1", "r2"]
        try:
            wandb.Api().run("tidemill/read/r0")
        except Exception as e:
            print("gone:", type(e).__name__)
    """)
    assert "gone:" in out
    found = tracked(server, "read", "r1")
    assert found["params"]["late"] == "7" and found["info"]["run_name"] == "renamed"


def test_versions_of_artifacts_are_tagged_drafted_and_deleted(server, tmp_path):
    run(server, tmp_path, """
        import datetime, wandb
        with wandb.init(project="edited", id="e") as run:
            for i in range(3):
                artifact = wandb.Artifact("data", type="dataset", metadata={"i": i})
                with artifact.new_file("same.txt") as f:
                    f.write("the same")
                with artifact.new_file("part.txt") as f:
                    f.write(str(i))
                if i == 2:
                    artifact.ttl = datetime.timedelta(hours=5)
                run.log_artifact(artifact, aliases=["held"] if i == 1 else []).wait()
                assert artifact.ttl == (datetime.timedelta(hours=5) if i == 2 else None), artifact.ttl
            draft = run.use_artifact("data:v2").new_draft()
            draft.remove("part.txt")
            with draft.new_file("more.txt") as f:
                f.write("more")
            run.log_artifact(draft).wait()
            assert draft.version == "v3" and sorted(draft.manifest.entries) == ["more.txt", "same.txt"], sorted(draft.manifest.entries)
        api = wandb.Api()
        assert api.artifact("tidemill/edited/data:v2").ttl == datetime.timedelta(hours=5)
        first = api.artifact("tidemill/edited/data:v0")
        first.tags = ["gold", "small"]
        first.ttl = datetime.timedelta(days=30)
        first.description = "the first"
        first.aliases.append("one")
        first.save()
        again = wandb.Api().artifact("tidemill/edited/data:one")
        assert (sorted(again.tags), again.ttl, again.description, again.version) == (["gold", "small"], datetime.timedelta(days=30), "the first", "v0")
        again.tags.remove("small")
        again.aliases.remove("one")
        again.ttl = None
        again.save()
        again = wandb.Api().artifact("tidemill/edited/data:v0")
        assert again.tags == ["gold"] and again.ttl is None, (again.tags, again.ttl)
        held = api.artifact("tidemill/edited/data:held")
        try:
            held.delete()
            raise SystemExit("an artifact with an alias was deleted")
        except Exception as e:
            assert "delete_aliases" in str(e), e
        held.delete(delete_aliases=True)
        api.artifact("tidemill/edited/data:v3").delete()
        api = wandb.Api()
        assert [a.version for a in api.artifacts("dataset", "tidemill/edited/data")] == ["v2", "v0"]
        latest = api.artifact("tidemill/edited/data:latest")
        assert latest.version == "v2" and open(latest.download(root="d") + "/same.txt").read() == "the same"
    """)


def test_an_incremental_artifact_adds_to_the_newest_version(server, tmp_path):
    run(server, tmp_path, """
        import os, wandb
        with wandb.init(project="incremental", id="i") as run:
            for i in range(3):
                artifact = wandb.Artifact("grows", type="dataset", incremental=i > 0)
                with artifact.new_file(f"part{i}.txt") as f:
                    f.write(f"part {i}")
                with artifact.new_file("last.txt") as f:
                    f.write(str(i))
                run.log_artifact(artifact).wait()
            whole = run.use_artifact("grows:latest")
            assert whole.version == "v2" and sorted(whole.manifest.entries) == ["last.txt", "part0.txt", "part1.txt", "part2.txt"], whole.manifest.entries
            folder = whole.download(root="d")
            assert open(folder + "/part0.txt").read() == "part 0" and open(folder + "/last.txt").read() == "2"
            assert whole.manifest.digest() == whole.digest, (whole.manifest.digest(), whole.digest)
            # What was in the first version is not taken for it, and by itself it is.
            for incremental, version in [(True, "v3"), (True, "v3"), (False, "v0")]:
                artifact = wandb.Artifact("grows", type="dataset", incremental=incremental)
                for name, text in [("part0.txt", "part 0"), ("last.txt", "0")]:
                    with artifact.new_file(name) as f:
                        f.write(text)
                run.log_artifact(artifact).wait()
                assert artifact.version == version, (artifact.version, version)
            assert sorted(wandb.Api().artifact("tidemill/incremental/grows:v3").manifest.entries) == sorted(whole.manifest.entries)
    """)


def test_artifacts_are_linked_into_a_registry(server, tmp_path):
    run(server, tmp_path, """
        import wandb
        with wandb.init(project="linked", id="l") as run:
            for i in range(2):
                artifact = wandb.Artifact("weights", type="model")
                with artifact.new_file("w.txt") as f:
                    f.write(f"weights {i}")
                run.log_artifact(artifact).wait()
                linked = run.link_artifact(artifact, "wandb-registry-model/best", aliases=["staging"])
                assert linked.version == f"v{i}" and linked.is_link and linked.source_name == f"weights:v{i}", (linked.version, linked.source_name)
        with wandb.init(project="linked", id="reader") as run:
            staged = run.use_artifact("wandb-registry-model/best:staging")
            assert staged.version == "v1" and open(staged.download(root="d") + "/w.txt").read() == "weights 1"
        api = wandb.Api()
        source = api.artifact("tidemill/linked/weights:v1")
        assert [a.qualified_name for a in source.linked_artifacts] == ["tidemill/wandb-registry-model/best:v1"]
        first = api.artifact("tidemill/wandb-registry-model/best:v0")
        first.aliases.append("old")
        first.save()
        assert sorted(wandb.Api().artifact("tidemill/wandb-registry-model/best:old").aliases) == ["old"]
        assert wandb.Api().artifact("tidemill/linked/weights:v0").aliases == []
        api.artifact("tidemill/wandb-registry-model/best:staging").unlink()
        api = wandb.Api()
        assert api.artifact("tidemill/wandb-registry-model/best:latest").version == "v0"
        assert not api.artifact_exists("tidemill/wandb-registry-model/best:v1") and api.artifact_exists("tidemill/linked/weights:v1")
    """)


def test_what_is_not_known_here_is_refused_and_holds_nothing_up(server, tmp_path):
    query = {"query": "query Nonsense { nonsense }", "variables": {}}
    client = {"X-Wandb-Username": ""}
    answer = requests.post(f"{server.url}/graphql", json=query, headers=client, timeout=30).json()
    assert answer["data"] is None and "Nonsense" in answer["errors"][0]["message"]
    run(server, tmp_path, """
        import wandb
        with wandb.init(project="unknown", id="u") as run:
            run.log({"x": 1})
            try:
                wandb.Api(timeout=5).run("tidemill/unknown/u")
            except Exception as e:
                print(type(e).__name__)
    """, timeout=60)
    assert tracked(server, "unknown", "u")["info"]["status"] == "FINISHED"
