"""The prediction log: every call of a deployment is there after kill -9, told again bit by bit, and a table for whoever reads Delta."""

import json
import os
import signal
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from conftest import Project, rows, worker_env
from deltalake import DeltaTable

APP = '''
import os
import numpy as np
import pandas as pd
import tidemill

@tidemill.endpoint(batch=True, inputs={"x": ("FP64", [-1, 2])}, outputs={"y": ("FP64", [-1])})
def ratio(x: np.ndarray):
    return x[:, 0] / x[:, 1]

def table(rows: pd.DataFrame):
    return rows["a"] * 2 + rows["b"].str.len()

def pid():
    return os.getpid()

def count(upto: int):
    for i in range(upto):
        yield {"i": i}
'''


@pytest.fixture
def server(tmp_path):
    project = Project(tmp_path, "", worker_env())
    (tmp_path / "app.py").write_text(APP)
    project.up()
    yield project
    project.stop()


def kill(server):
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()


def deploy(server, what, *args):
    return json.loads(server.run("deploy", what, *args, "--json"))


def call(server, name, body):
    answer = requests.post(f"{server.url}/invocations/{name}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-tidemill-prediction-id"]


def shown(server, prediction):
    answer = requests.get(f"{server.url}/api/v1/predictions/{prediction}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def ratio(client, module, values):
    x = module.InferInput("x", [len(values), 2], "FP64")
    x.set_data_from_numpy(np.array(values))
    return client.infer("ratio", [x], request_id="mine")


def test_what_was_answered_survives_kill_9_and_is_answered_again_bit_by_bit(server):
    digest = deploy(server, "app.py:ratio")["versions"][0]["digest"]
    deploy(server, "app.py:table")
    deploy(server, "app.py:pid")
    values = [[1.0, 3.0], [0.1, 0.3], [1.0, 0.0], [0.0, 0.0]]
    with triton.InferenceServerClient(server.host) as client:
        by_http = ratio(client, triton, values).get_response()["parameters"]["prediction_id"]
    with triton_grpc.InferenceServerClient(server.grpc.removeprefix("http://")) as client:
        by_grpc = ratio(client, triton_grpc, values).get_response().parameters["prediction_id"].string_param
    split = {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"], [2, "yy"]]}}
    by_mlflow = call(server, "table", split)
    other = call(server, "pid", {})
    kill(server)

    server.up()
    for prediction in (by_http, by_grpc):
        found = shown(server, prediction)
        assert (found["kind"], found["endpoint"], found["version"], found["rows"]) == ("call", "ratio", 1, 4)
        assert (found["request_id"], found["bundle"], found["route"]) == ("mine", digest, "newest")
        assert found["inputs"]["tensors"][0]["shape"] == [4, 2]
        assert found["answers"][0]["tensors"][0]["data"][2:] in (["inf", "NaN"], ["inf", "-NaN"])
        assert found["latency_us"] >= found["compute_us"] > 0
    for prediction in (by_http, by_grpc, by_mlflow):
        replay = requests.post(f"{server.url}/api/v1/predictions/{prediction}/replay").json()
        assert (replay["same"], replay["differences"]) == (True, []), replay
    # A process of its own has another number after the restart.
    told = json.loads(server.run("predictions", "replay", other, "--json", code=4))
    assert told["same"] is False and told["differences"]
    assert "the same, bit by bit" in server.run("predictions", "replay", by_http)
    assert json.loads(server.run("predictions", "show", by_mlflow))["endpoint"] == "table"

    lineage = requests.get(f"{server.url}/api/v1/lineage/predictions/{by_http}").json()
    assert (lineage["version"]["deployment"], lineage["version"]["bundle"]) == ("ratio", digest)
    listed = requests.get(f"{server.url}/api/v1/predictions", params={"endpoint": "ratio"}).json()
    assert [one["prediction_id"] for one in listed] == [by_grpc, by_http]


def test_a_killed_server_has_recorded_every_call_that_was_answered(server):
    deploy(server, "app.py:ratio")
    told = []
    for life in range(3):
        with triton.InferenceServerClient(server.host) as client:
            for i in range(20):
                told.append(ratio(client, triton, [[float(i), 3.0]]).get_response()["parameters"]["prediction_id"])
        kill(server)
        server.up()
    listed = requests.get(f"{server.url}/api/v1/predictions", params={"endpoint": "ratio", "limit": 1000}).json()
    assert sorted(one["prediction_id"] for one in listed) == sorted(told)


def test_what_is_compacted_is_a_delta_table_and_stays_when_its_deployment_goes(server):
    deploy(server, "app.py:ratio")
    deploy(server, "app.py:count")
    begun = datetime.now(timezone.utc)
    with triton.InferenceServerClient(server.host) as client:
        ids = [ratio(client, triton, [[float(i), 3.0]]).get_response()["parameters"]["prediction_id"] for i in range(5)]
    with requests.post(f"{server.url}/v2/models/count/generate_stream", json={"upto": 3}, stream=True) as answer:
        assert len([line for line in answer.iter_lines() if line]) == 3
    middle = datetime.now(timezone.utc)
    server.stop()
    server.up()
    replay = requests.post(f"{server.url}/api/v1/predictions/{ids[0]}/replay").json()
    assert replay["same"] is True, replay
    streamed = requests.get(f"{server.url}/api/v1/predictions", params={"endpoint": "count"}).json()[0]
    assert streamed["streamed"] and len(streamed["answers"]) == 3

    time.sleep(0.01)
    with triton.InferenceServerClient(server.host) as client:
        ids.append(ratio(client, triton, [[6.0, 3.0]]).get_response()["parameters"]["prediction_id"])
    server.run("undeploy", "ratio")
    assert shown(server, ids[1])["endpoint"] == "ratio"
    gone = requests.post(f"{server.url}/api/v1/predictions/{ids[1]}/replay")
    assert (gone.status_code, gone.headers["x-tidemill-error"]) == (400, "replay_model_gone")
    # The name is used again: another version 1, which did not answer then.
    deploy(server, "app.py:ratio")
    again = requests.post(f"{server.url}/api/v1/predictions/{ids[1]}/replay")
    assert again.headers["x-tidemill-error"] == "replay_model_gone"
    server.stop()

    table = DeltaTable(server.folder / "tidemill-data" / "objects" / "predictions" / "ratio")
    assert table.version() == 1
    everything = table.to_pandas()
    assert sorted(everything["prediction_id"]) == sorted(ids)
    assert json.loads(everything["inputs"].iloc[0])["tensors"][0]["name"] == "x"
    early = table.to_pandas(filters=[("at", "<", middle), ("at", ">=", begun)])
    assert sorted(early["prediction_id"]) == sorted(ids[:5])
    assert table.to_pandas(filters=[("at", ">", middle + timedelta(days=1))]).empty
    server.up()


def test_what_may_not_be_recorded_is_not_and_such_a_call_cannot_be_replayed(server):
    (server.folder / "serving.yaml").write_text("log: { redact: [b] }")
    deploy(server, "app.py:table", "--serving", "serving.yaml")
    split = {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "a secret"]]}}
    prediction = call(server, "table", split)
    found = json.dumps(shown(server, prediction))
    assert "a secret" not in found and "redacted" in found
    refused = requests.post(f"{server.url}/api/v1/predictions/{prediction}/replay")
    assert (refused.status_code, refused.headers["x-tidemill-error"]) == (400, "replay_incomplete")
    server.stop()
    kept = [path for path in (server.folder / "tidemill-data").rglob("*") if path.is_file()]
    logs = [path for path in kept if "predictions" in path.parts or path.suffix == ".wal"]
    assert logs and not any(b"a secret" in path.read_bytes() for path in logs)
    server.up()


def test_rows_of_the_loop_are_a_delta_table_too_and_are_replayed(tmp_path):
    from conftest import SPEC

    (tmp_path / "tidemill.yaml").write_text(SPEC)
    rows().to_csv(tmp_path / "rows.csv", index=False)
    server = Project(tmp_path, "colours")
    server.run("train")
    server.up()
    body = {"inputs": {"x": [1.5, None], "count": [1, 2], "flag": ["true", "false"], "colour": ["red", None], "id": ["a", "b"]}}
    answer = requests.post(f"{server.url}/invocations", json=body).json()
    ids = answer["prediction_ids"]
    for prediction in ids:
        replay = requests.post(f"{server.url}/api/v1/predictions/{prediction}/replay").json()
        assert replay["same"] is True, replay
    assert shown(server, ids[0])["features"]["x"] == 1.5
    server.stop()
    table = DeltaTable(Path(tmp_path) / "tidemill-data" / "objects" / "predictions" / "colours").to_pandas()
    assert sorted(table["prediction_id"]) == sorted(ids)
    assert set(table["f:colour"].dropna()) == {"red"} and table["version"].tolist() == [1, 1]
