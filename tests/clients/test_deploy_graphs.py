"""Graphs are deployed like models, version after version; what a bandit has learnt survives the end of the server."""

import json

import pytest
import requests
from conftest import Project, worker_env

APP = """
def one(x: float):
    return {"y": x + 1}

def two(x: float):
    return {"y": x + 2}
"""

GRAPH = """
inputs: {x: {datatype: FP64}}
nodes:
  twice: {transform: [{scale: {x: {mean: 0, std: SPREAD}}}]}
outputs: {y: twice.x}
serving: {timeout: 5s}
"""


@pytest.fixture
def server(tmp_path):
    project = Project(tmp_path, "", worker_env())
    (tmp_path / "app.py").write_text(APP)
    project.up()
    yield project
    project.stop()


def ask(server, name, x):
    tensor = {"name": "x", "datatype": "FP64", "shape": [2], "data": [x, x + 1]}
    answer = requests.post(f"{server.url}/v2/models/{name}/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"][0]["data"]


def restart(server):
    server.process.kill()
    server.process.wait()
    server.up()


def test_a_graph_in_a_file_is_deployed_replaced_and_there_after_a_restart(server, tmp_path):
    file = tmp_path / "scaled.yaml"
    file.write_text(GRAPH.replace("SPREAD", "0.5"))
    deployed = json.loads(server.run("deploy", "scaled.yaml", "--json"))
    assert (deployed["name"], deployed["version"], deployed["state"]) == ("scaled", 1, "READY")
    assert deployed["versions"][0]["manifest"]["model"]["kind"] == "graph"
    assert ask(server, "scaled", 3.0) == [6.0, 8.0]
    file.write_text(GRAPH.replace("SPREAD", "0.1"))
    assert json.loads(server.run("deploy", "scaled.yaml", "--json"))["version"] == 2
    assert ask(server, "scaled", 3.0) == [30.0, 40.0]
    nodes = requests.get(f"{server.url}/api/v1/deployments/scaled/routing").json()["nodes"]
    assert [(node["name"], node["kind"]) for node in nodes] == [("twice", "transform")]
    restart(server)
    assert ask(server, "scaled", 3.0) == [30.0, 40.0]
    assert "graph" in server.run("deployments")
    server.run("undeploy", "scaled")
    assert requests.get(f"{server.url}/v2/models/scaled/ready").status_code == 400


def test_a_graph_that_does_not_hang_together_is_refused_with_its_line(server, tmp_path):
    (tmp_path / "odd.yaml").write_text(GRAPH.replace("SPREAD", "1").replace("twice.x", "thrice.x"))
    assert server.run("deploy", "odd.yaml", code=3) == ""
    graph = {"inputs": {"x": {"datatype": "FP64"}}, "nodes": {"a": {"transfrom": []}}, "outputs": {"y": "a.x"}}
    for body, part in [({"graph": graph, "name": "odd"}, "transfrom"), ({"graph": graph}, "send it as `name`"), ({}, "`source`")]:
        answer = requests.post(f"{server.url}/api/v1/deployments", json=body)
        assert answer.status_code == 400 and part in answer.json()["error"]["message"], answer.text


def test_what_a_bandit_has_learnt_survives_the_end_of_the_server(server, tmp_path):
    server.run("deploy", "app.py:one", "--name", "ads", "--json")
    (tmp_path / "serving.yaml").write_text("versions: all\nrouting: {bandit: {versions: [1, 2], min_share: 0.1}}\n")
    server.run("deploy", "app.py:two", "--name", "ads", "--serving", "serving.yaml", "--json")
    path = f"{server.url}/api/v1/deployments/ads"
    for at in range(30):
        for version, outcome in [(1, 0), (2, 1)]:
            told = {"version": version, "outcome": outcome, "prediction_id": f"p{version}-{at}"}
            assert requests.post(f"{path}/outcomes", json=told).status_code == 200
    again = requests.post(f"{path}/outcomes", json={"version": 1, "outcome": 0, "prediction_id": "p1-3"}).json()
    state = again["bandit"]
    assert not again["counted"] and state["outcomes"] == 60
    assert [arm["failures"] for arm in state["arms"]] == [30, 0]
    restart(server)
    path = f"{server.url}/api/v1/deployments/ads"
    after = requests.get(f"{path}/routing").json()["statistics"]["arms"]
    assert after["outcomes"] == 60
    assert [(arm["version"], arm["successes"], arm["failures"]) for arm in after["arms"]] == [(1, 0, 30), (2, 30, 0)]
    assert after["arms"][1]["share"] == 0.9
    # The log knows which version gave an answer.
    answer = requests.post(f"{server.url}/invocations/ads", json={"x": 1.0})
    prediction = answer.headers["x-tidemill-prediction-id"]
    version = 1 if answer.json()["predictions"]["y"] == 2 else 2
    told = requests.post(f"{path}/outcomes", json={"prediction_id": prediction, "outcome": 0.5}).json()
    assert told["counted"] and told["bandit"]["outcomes"] == 61
    assert told["bandit"]["arms"][version - 1]["successes"] == (0.5 if version == 1 else 30.5)
    assert requests.post(f"{path}/outcomes", json={"outcome": 1}).status_code == 400
