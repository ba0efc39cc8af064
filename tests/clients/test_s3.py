"""Artifacts in an S3-compatible object store: through the server, and beside it, by a stock MLflow client with boto3."""

import hashlib
import http.server
import ssl
import subprocess
import threading
import time
import uuid
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

import s3_server
import test_wandb
import tracking_server

MB = 1 << 20
BUCKET = "artifacts"


@pytest.fixture(scope="module")
def s3(tmp_path_factory) -> s3_server.S3:
    server = s3_server.launch(tmp_path_factory.mktemp("s3"))
    server.client().create_bucket(Bucket=BUCKET)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory, s3):
    """Clients send to the server, the server to the bucket."""
    folder = tmp_path_factory.mktemp("proxied")
    project = tracking_server.start(folder, "sqlite", "--artifacts-destination", f"s3://{BUCKET}/proxy", env=s3.env)
    yield project
    project.stop()


@pytest.fixture(scope="module")
def direct(tmp_path_factory, s3):
    """Clients send to the bucket, the server looks into it."""
    folder = tmp_path_factory.mktemp("direct")
    project = tracking_server.start(folder, "sqlite", "--default-artifact-root", f"s3://{BUCKET}/direct", env=s3.env)
    yield project
    project.stop()


@pytest.fixture(autouse=True)
def clean():
    yield
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def quick(monkeypatch):
    """A client that gives up soon where the server says that trying again may help."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


def at(project, monkeypatch, s3=None) -> MlflowClient:
    mlflow.set_tracking_uri(project.url)
    mlflow.set_registry_uri(project.url)
    for name, value in (s3.env if s3 else {}).items():
        monkeypatch.setenv(name, value)
    return MlflowClient(project.url, project.url)


def new_run(client: MlflowClient) -> str:
    experiment = client.create_experiment(f"s3-{uuid.uuid4().hex}")
    return client.create_run(experiment).info.run_id


def noise(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


def proxy(project, path: str) -> str:
    return f"{project.url}/api/2.0/mlflow-artifacts/artifacts/{path}"


@pytest.mark.parametrize("how", ["proxied", "direct"])
def test_files_come_back_as_they_were_and_lie_at_their_own_path(how, request, s3, monkeypatch, tmp_path):
    project = request.getfixturevalue(how)
    # Only who goes to the bucket by itself has its keys.
    client = at(project, monkeypatch, s3 if how == "direct" else None)
    run_id = new_run(client)
    files = {
        "plain.txt": b"hello\n",
        "empty": b"",
        "folder/deep/er/more.bin": noise(3 * MB),
        "large.bin": noise(20 * MB + 17),
        "names/with space and 50%.txt": b"odd",
        # s3s-fs lists `+` wrongly to boto3, and MLflow's rules refuse a proxied `#`.
        "names/grüße+2=[3].txt" if how == "proxied" else "names/grüße#1=[3].txt": "Grüße".encode(),
    }
    for name, content in files.items():
        local = tmp_path / name
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(content)
    client.log_artifacts(run_id, str(tmp_path))
    root = client.get_run(run_id).info.artifact_uri
    prefix = root.removeprefix(f"s3://{BUCKET}/") if how == "direct" else "proxy/" + root.removeprefix("mlflow-artifacts:/")
    assert s3.keys(BUCKET, prefix) == sorted(f"{prefix}/{name}" for name in files)

    listed = {item.path: item.file_size for item in client.list_artifacts(run_id)}
    assert listed == {"plain.txt": 6, "empty": 0, "folder": None, "large.bin": 20 * MB + 17, "names": None}
    by_server = requests.get(f"{project.url}/api/2.0/mlflow/artifacts/list", params={"run_id": run_id, "path": "names"}).json()
    assert {item["path"] for item in by_server["files"]} == {name for name in files if name.startswith("names/")}
    assert by_server["root_uri"] == root

    back = Path(mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(tmp_path.parent / f"back-{how}")))
    for name, content in files.items():
        assert (back / name).read_bytes() == content, name
    for name in ["plain.txt", "empty", "large.bin", "folder/deep/er/more.bin"]:
        got = requests.get(f"{project.url}/get-artifact", params={"run_id": run_id, "path": name})
        assert got.status_code == 200 and got.content == files[name], name
        assert int(got.headers["content-length"]) == len(files[name])
    assert requests.get(f"{project.url}/get-artifact", params={"run_id": run_id, "path": "none"}).status_code == 404


@pytest.mark.parametrize("how", ["proxied", "direct"])
def test_a_part_of_a_file_is_a_part_of_it(how, request, s3, monkeypatch, tmp_path):
    project = request.getfixturevalue(how)
    client = at(project, monkeypatch, s3 if how == "direct" else None)
    run_id = new_run(client)
    content = noise(9 * MB + 5)
    (tmp_path / "a.bin").write_bytes(content)
    client.log_artifact(run_id, str(tmp_path / "a.bin"))
    url, params = f"{project.url}/get-artifact", {"run_id": run_id, "path": "a.bin"}
    for spec, expected in [
        ("bytes=0-9", content[:10]),
        ("bytes=8388600-8388700", content[8388600:8388701]),
        ("bytes=-7", content[-7:]),
        (f"bytes={9 * MB}-", content[9 * MB :]),
    ]:
        got = requests.get(url, params=params, headers={"Range": spec})
        assert got.status_code == 206 and got.content == expected, spec
        assert got.headers["content-range"].endswith(f"/{len(content)}")
    whole = requests.get(url, params=params)
    assert whole.content == content
    again = requests.get(url, params=params, headers={"If-None-Match": whole.headers["etag"]})
    assert again.status_code == 304
    beyond = requests.get(url, params=params, headers={"Range": "bytes=99999999-"})
    assert beyond.status_code == 416
    (tmp_path / "a.bin").write_bytes(content[::-1])
    client.log_artifact(run_id, str(tmp_path / "a.bin"))
    changed = requests.get(url, params=params, headers={"If-None-Match": whole.headers["etag"]})
    assert changed.status_code == 200 and changed.content == content[::-1]


@pytest.mark.parametrize("how", ["proxied", "direct"])
def test_a_model_is_logged_registered_loaded_and_shown(how, request, s3, monkeypatch):
    project = request.getfixturevalue(how)
    client = at(project, monkeypatch, s3 if how == "direct" else None)
    mlflow.set_experiment(f"models-{uuid.uuid4().hex}")
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
    model = LogisticRegression().fit(frame, [0, 0, 1, 1])
    name = f"model-{how}"
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(model, name="model", registered_model_name=name, input_example=frame)
        mlflow.log_dict({"a": 1}, "notes/one.json")
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/1")
    assert list(loaded.predict(frame)) == list(model.predict(frame))
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/notes/one.json") == {"a": 1}
    version = client.get_model_version(name, "1")
    params = {"name": name, "version": "1", "path": "MLmodel"}
    shown = requests.get(f"{project.url}/model-versions/get-artifact", params=params)
    assert shown.status_code == 200 and "sklearn" in shown.text
    files = requests.get(f"{project.url}/api/2.0/mlflow/logged-models/{info.model_id}/artifacts/directories").json()
    assert "MLmodel" in {item["path"] for item in files["files"]}
    # The card is made from the MLmodel in the bucket.
    card = requests.get(f"{project.url}/api/v1/models/{name}/versions/1/card")
    assert card.status_code == 200 and "double" in card.text
    assert version.status == "READY"


@pytest.mark.parametrize("how", ["proxied", "direct"])
def test_what_is_deleted_for_good_leaves_the_bucket(how, request, s3, monkeypatch, tmp_path):
    project = request.getfixturevalue(how)
    client = at(project, monkeypatch, s3 if how == "direct" else None)
    run_id, neighbour = new_run(client), new_run(client)
    for number in range(25):
        (tmp_path / f"{number}.txt").write_text("x" * number)
    client.log_artifacts(run_id, str(tmp_path), "many")
    client.log_text(neighbour, "stays", "many/0.txt")
    root = client.get_run(run_id).info.artifact_uri
    prefix = root.removeprefix(f"s3://{BUCKET}/") if how == "direct" else "proxy/" + root.removeprefix("mlflow-artifacts:/")
    assert len(s3.keys(BUCKET, prefix)) == 25
    client.delete_run(run_id)
    purged = requests.post(f"{project.url}/api/v1/tracking/gc", json={"run_ids": [run_id]})
    assert purged.status_code == 200, purged.text
    assert purged.json()["bytes"] == sum(range(25))
    assert s3.keys(BUCKET, prefix) == []
    assert [item.path for item in client.list_artifacts(neighbour, "many")] == ["many/0.txt"]


def test_a_file_of_the_proxy_is_deleted_by_its_name(proxied, s3):
    for name in ["del/a.txt", "del/folder/b.txt", "delicate"]:
        assert requests.put(proxy(proxied, name), data=b"x").status_code == 200
    assert requests.delete(proxy(proxied, "del/a.txt")).status_code == 200
    assert requests.delete(proxy(proxied, "del/a.txt")).status_code == 404
    assert requests.delete(proxy(proxied, "del")).status_code == 200
    assert s3.keys(BUCKET, "proxy/del") == ["proxy/delicate"]


@pytest.mark.parametrize("chunk", [5 * MB, 6 * MB])
def test_a_large_file_goes_to_the_bucket_in_parts_and_comes_from_it(chunk, proxied, s3, monkeypatch, tmp_path):
    client = at(proxied, monkeypatch)
    run_id = new_run(client)
    content = noise(17 * MB + 3)
    (tmp_path / "large.bin").write_bytes(content)
    for name, value in {
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(5 * MB),
        "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(chunk),
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
        "MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE": str(MB),
        "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(4 * MB),
    }.items():
        monkeypatch.setenv(name, value)
    gone = []
    original = requests.Session.send

    def watched(self, request, **kwargs):
        gone.append((request.method, request.url.split("?")[0]))
        return original(self, request, **kwargs)

    monkeypatch.setattr(requests.Session, "send", watched)
    client.log_artifact(run_id, str(tmp_path / "large.bin"), "sub")
    back = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="sub/large.bin", dst_path=str(tmp_path / "back"))
    assert Path(back).read_bytes() == content
    sent = [url for method, url in gone if method == "PUT"]
    assert len(sent) == -(-len(content) // chunk) and all(url.startswith(s3.url) for url in sent), gone
    assert not [url for method, url in gone if method == "PUT" and url.startswith(proxied.url)]
    assert s3.open_uploads() == []


@pytest.mark.parametrize("where", ["bucket", "folder", "store"])
def test_an_upload_in_parts_outlives_the_server(where, s3, tmp_path):
    folder = tmp_path / "restarted"
    destinations = {"bucket": [f"s3://{BUCKET}/restart"], "folder": [str(tmp_path / "folder")], "store": []}
    destination = [arg for value in destinations[where] for arg in ("--artifacts-destination", value)]
    project = tracking_server.start(folder, "sqlite", *destination, env=s3.env)
    try:
        parts = [noise(5 * MB), b"the end"]
        base = f"{project.url}/api/2.0/mlflow-artifacts/mpu"
        created = requests.post(f"{base}/create/a", json={"path": "big.bin", "num_parts": 2}).json()
        sent = []
        for credential, content in zip(created["credentials"], parts):
            url = credential["url"]
            put = requests.put(url if where == "bucket" else project.url + url[url.index("/api") :], data=content)
            assert put.status_code == 200, put.text
            sent.append({"part_number": credential["part_number"], "etag": put.headers["ETag"]})
            if len(sent) == 1:
                project.process.kill()
                project.process.wait()
                project.up("--data", str(folder / "data"), *destination)
                base = f"{project.url}/api/2.0/mlflow-artifacts/mpu"
        body = {"path": "big.bin", "upload_id": created["upload_id"]}
        wrong = requests.post(f"{base}/complete/a", json=body | {"parts": sent[1:]})
        assert wrong.status_code == 400
        done = requests.post(f"{base}/complete/a", json=body | {"parts": sent})
        assert done.status_code == 200, done.text
        assert requests.get(proxy(project, "a/big.bin")).content == b"".join(parts)
        aborted = requests.post(f"{base}/create/a", json={"path": "no.bin", "num_parts": 1}).json()
        gone = requests.post(f"{base}/abort/a", json={"path": "no.bin", "upload_id": aborted["upload_id"]})
        assert gone.status_code == 200, gone.text
        assert requests.get(proxy(project, "a/no.bin")).status_code == 404
        assert [path for path in (folder / "data" / "uploads").rglob("*") if path.is_file()] == []
        assert s3.open_uploads() == []
    finally:
        project.stop()


def test_files_of_wandb_go_to_the_bucket_too(proxied, s3, tmp_path):
    (tmp_path / "note.txt").write_text("by wandb")
    script = """
        import wandb
        run = wandb.init(project="bucket")
        run.log({"a": 1})
        run.save("note.txt")
        run.finish()
    """
    test_wandb.run(proxied, tmp_path, script)
    kept = [key for key in s3.keys(BUCKET, "proxy/") if key.endswith("/note.txt")]
    assert len(kept) == 1
    client = MlflowClient(proxied.url)
    experiment = client.get_experiment_by_name("bucket")
    run_id = client.search_runs([experiment.experiment_id])[0].info.run_id
    assert "note.txt" in {item.path for item in client.list_artifacts(run_id)}
    shown = requests.get(f"{proxied.url}/get-artifact", params={"run_id": run_id, "path": "note.txt"})
    assert shown.text == "by wandb"


def test_all_bytes_pass_through_the_server_where_it_gives_no_urls_of_the_bucket(s3, tmp_path):
    destination = ["--artifacts-destination", f"s3://{BUCKET}/through", "--no-bucket-urls"]
    project = tracking_server.start(tmp_path / "through", "sqlite", *destination, env=s3.env)
    try:
        base = f"{project.url}/api/2.0/mlflow-artifacts"
        created = requests.post(f"{base}/mpu/create/a", json={"path": "big.bin", "num_parts": 2}).json()
        sent = []
        for credential, content in zip(created["credentials"], [b"one ", b"two"]):
            assert credential["url"].startswith(project.url)
            put = requests.put(credential["url"], data=content)
            sent.append({"part_number": credential["part_number"], "etag": put.headers["ETag"]})
        body = {"path": "big.bin", "upload_id": created["upload_id"], "parts": sent}
        assert requests.post(f"{base}/mpu/complete/a", json=body).status_code == 200
        signed = requests.get(f"{base}/presigned/a/big.bin").json()
        assert signed["url"].startswith(project.url) and signed["file_size"] == 7
        assert requests.get(signed["url"]).content == b"one two"
        assert s3.keys(BUCKET, "through/") == ["through/a/big.bin"]
    finally:
        project.stop()


def test_a_url_of_the_bucket_opens_one_file_and_no_other(proxied, direct, s3, monkeypatch):
    assert requests.put(proxy(proxied, "signed/a b.txt"), data=b"hello").status_code == 200
    signed = requests.get(f"{proxied.url}/api/2.0/mlflow-artifacts/presigned/signed/a b.txt").json()
    assert signed["url"].startswith(s3.url) and signed["file_size"] == 5
    assert requests.get(signed["url"]).content == b"hello"
    part = requests.get(signed["url"], headers={"Range": "bytes=1-2"})
    assert part.status_code == 206 and part.content == b"el"
    assert requests.get(signed["url"].replace("a%20b", "a%20c")).status_code == 403
    assert requests.put(signed["url"], data=b"x").status_code == 403
    assert requests.get(f"{proxied.url}/api/2.0/mlflow-artifacts/presigned/signed/none").status_code == 404

    client = at(direct, monkeypatch, s3)
    run_id = new_run(client)
    base = f"{direct.url}/api/2.0/mlflow/artifacts"
    up = requests.post(f"{base}/presigned-upload-url", json={"run_id": run_id, "path": "up/one.txt"}).json()
    assert requests.put(up["presigned_url"], data=b"by url").status_code == 200
    down = requests.post(f"{base}/presigned-download-url", json={"run_id": run_id, "path": "up/one.txt"}).json()
    assert requests.get(down["presigned_url"]).content == b"by url" and down["file_size"] == 6
    late = requests.post(f"{base}/presigned-download-url", json={"run_id": run_id, "path": "up/one.txt", "expiration": 700000})
    assert late.status_code == 400
    run_id = new_run(at(proxied, monkeypatch))
    none = requests.post(f"{proxied.url}/api/2.0/mlflow/artifacts/presigned-upload-url", json={"run_id": run_id, "path": "a"})
    assert none.status_code == 400


def endless(total: int, until: threading.Event):
    """A body that stops half-way for as long as nobody says so."""
    yield noise(total)
    until.wait(30)
    raise OSError("the client is gone")


def test_an_upload_that_breaks_off_leaves_nothing(proxied, s3):
    stop = threading.Event()

    def send():
        with pytest.raises(Exception):
            requests.put(proxy(proxied, "broken/large.bin"), data=endless(30 * MB, stop))

    thread = threading.Thread(target=send)
    thread.start()
    notes = proxied.folder / "data" / "uploads"
    wait(lambda: list(notes.glob("*.json")), "an upload in parts")
    assert s3.keys(BUCKET, "proxy/broken") == []
    stop.set()
    thread.join(30)
    wait(lambda: not list(notes.glob("*.json")), "the upload's end")
    assert s3.keys(BUCKET, "proxy/broken") == [] and s3.open_uploads() == []
    assert requests.get(proxy(proxied, "broken/large.bin")).status_code == 404


def wait(what, name: str, seconds: float = 30) -> None:
    for _ in range(int(seconds / 0.05)):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} did not come")


def test_what_a_killed_server_had_begun_is_ended_by_the_next(s3, tmp_path):
    folder = tmp_path / "killed"
    destination = ["--artifacts-destination", f"s3://{BUCKET}/killed"]
    project = tracking_server.start(folder, "sqlite", *destination, env=s3.env)
    stop = threading.Event()

    def send():
        with pytest.raises(Exception):
            requests.put(proxy(project, "large.bin"), data=endless(30 * MB, stop))

    thread = threading.Thread(target=send)
    thread.start()
    notes = folder / "data" / "uploads"
    wait(lambda: list(notes.glob("*.json")), "an upload in parts")
    project.process.kill()
    project.process.wait()
    stop.set()
    thread.join(30)
    assert list(notes.glob("*.json"))
    project.up("--data", str(folder / "data"), *destination)
    try:
        wait(lambda: not list(notes.glob("*.json")), "the upload's end")
        assert s3.open_uploads() == [] and s3.keys(BUCKET, "killed/") == []
    finally:
        project.stop()


def refused(project, monkeypatch, tmp_path) -> str:
    """What a client is told that logs a file; soon, for it would not help to try again."""
    client = at(project, monkeypatch)
    run_id = new_run(client)
    (tmp_path / "a.txt").write_text("a")
    begun = time.monotonic()
    with pytest.raises(Exception) as told:
        client.log_artifact(run_id, str(tmp_path / "a.txt"))
    assert time.monotonic() - begun < 20
    assert client.get_run(run_id).info.status == "RUNNING"
    return str(told.value)


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_wrong_credentials_are_told_with_bucket_and_endpoint(wrong, s3, monkeypatch, tmp_path):
    name = "AWS_ACCESS_KEY_ID" if wrong == "key" else "AWS_SECRET_ACCESS_KEY"
    project = tracking_server.start(
        tmp_path / "denied", "sqlite", "--artifacts-destination", f"s3://{BUCKET}/denied", env=s3.env | {name: "wrong"}
    )
    try:
        text = refused(project, monkeypatch, tmp_path)
        assert BUCKET in text and s3.url in text and "AWS_ACCESS_KEY_ID" in text, text
        answer = requests.put(proxy(project, "a.txt"), data=b"a")
        assert answer.status_code == 424 and answer.headers["x-tidemill-error"] == "store_bucket_denied"
        for got in [requests.get(proxy(project, "a.txt")), requests.get(f"{project.url}/api/2.0/mlflow-artifacts/artifacts?path=")]:
            assert got.status_code == 424 and got.headers["x-tidemill-error"] == "store_bucket_denied", got.text
        large = requests.put(proxy(project, "a.bin"), data=noise(9 * MB))
        assert large.status_code == 424, large.text
        assert s3.keys(BUCKET, "denied") == []
        assert "wrong" not in answer.text and s3_server.SECRET not in (tmp_path / "denied" / "server.log").read_text()
    finally:
        project.stop()


class Without(http.server.BaseHTTPRequestHandler):
    """What AWS and MinIO answer where there is no such bucket; s3s-fs makes it on the first write."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b"<?xml version='1.0'?><Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
        self.send_response(404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def log_message(self, *_):
        pass


def test_a_bucket_that_is_not_there_is_told_as_such(s3, monkeypatch, tmp_path):
    stand_in = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Without)
    threading.Thread(target=stand_in.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{stand_in.server_port}"
    env = s3.env | {"MLFLOW_S3_ENDPOINT_URL": url}
    project = tracking_server.start(tmp_path / "missing", "sqlite", "--artifacts-destination", "s3://nowhere/a", env=env)
    try:
        text = refused(project, monkeypatch, tmp_path)
        assert "no bucket `nowhere`" in text and url in text, text
        for answer in [
            requests.put(proxy(project, "a.bin"), data=noise(9 * MB)),
            requests.get(proxy(project, "a.txt")),
            requests.delete(proxy(project, "a.txt")),
            requests.get(f"{project.url}/api/2.0/mlflow-artifacts/artifacts?path="),
        ]:
            assert answer.status_code == 424, (answer.request.method, answer.text)
            assert answer.headers["x-tidemill-error"] == "store_bucket_missing"
        wait(lambda: "no bucket `nowhere`" in (project.folder / "server.log").read_text(), "the warning at the start")
    finally:
        project.stop()
        stand_in.shutdown()


class Empty(Without):
    """A bucket with nothing in it."""

    def answer(self):
        body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = answer


def test_a_store_behind_tls_is_believed_if_its_authority_is(s3, tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    extensions = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*command.split(), *extensions, "-keyout", key, "-out", cert], check=True, capture_output=True)
    stand_in = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    stand_in.socket = tls.wrap_socket(stand_in.socket, server_side=True)
    threading.Thread(target=stand_in.serve_forever, daemon=True).start()
    env = s3.env | {"MLFLOW_S3_ENDPOINT_URL": f"https://localhost:{stand_in.server_port}"}
    try:
        for more, status in [({"AWS_CA_BUNDLE": str(cert)}, 200), ({"MLFLOW_S3_IGNORE_TLS": "true"}, 200), ({}, 503)]:
            folder = tmp_path / f"tls-{len(more)}-{status}-{'-'.join(more)}"
            project = tracking_server.start(folder, "sqlite", "--artifacts-destination", "s3://b", env=env | more)
            try:
                answer = requests.get(f"{project.url}/api/2.0/mlflow-artifacts/artifacts?path=")
                assert answer.status_code == status, (more, answer.text)
                assert status == 200 or "AWS_CA_BUNDLE" in answer.text, answer.text
            finally:
                project.stop()
    finally:
        stand_in.shutdown()


def test_a_store_that_goes_away_is_told_as_such_and_loses_nothing(s3, monkeypatch, tmp_path, quick):
    own = s3_server.launch(tmp_path / "own")
    own.client().create_bucket(Bucket=BUCKET)
    project = tracking_server.start(tmp_path / "down", "sqlite", "--artifacts-destination", f"s3://{BUCKET}", env=own.env)
    try:
        client = at(project, monkeypatch)
        run_id = new_run(client)
        client.log_text(run_id, "before", "before.txt")
        own.stop()
        begun = time.monotonic()
        answer = requests.put(proxy(project, "while.txt"), data=b"a")
        assert answer.status_code == 503 and answer.headers["x-tidemill-error"] == "store_bucket_unreachable", answer.text
        assert own.url in answer.text and BUCKET in answer.text
        assert time.monotonic() - begun < 30
        assert requests.get(proxy(project, "while.txt")).status_code == 503
        # Metrics and all the rest go on.
        client.log_metric(run_id, "m", 1.0)
        own.start()
        assert requests.put(proxy(project, "while.txt"), data=b"a").status_code == 200
        assert mlflow.artifacts.load_text(f"runs:/{run_id}/before.txt") == "before"
        assert client.get_run(run_id).data.metrics == {"m": 1.0}
    finally:
        project.stop()
        own.stop()


def test_a_store_that_restarts_in_the_middle_of_an_upload_is_not_noticed(tmp_path):
    own = s3_server.launch(tmp_path / "own")
    own.client().create_bucket(Bucket=BUCKET)
    project = tracking_server.start(tmp_path / "restart", "sqlite", "--artifacts-destination", f"s3://{BUCKET}", env=own.env)
    content = noise(40 * MB)

    def body():
        yield content[: 20 * MB]
        own.stop()
        time.sleep(0.5)
        own.start()
        yield content[20 * MB :]

    try:
        put = requests.put(proxy(project, "large.bin"), data=body())
        assert put.status_code == 200, put.text
        digest = hashlib.sha256(requests.get(proxy(project, "large.bin")).content).hexdigest()
        assert digest == hashlib.sha256(content).hexdigest()
    finally:
        project.stop()
        own.stop()


def test_an_upload_takes_the_same_memory_whatever_its_size(proxied):
    def peak() -> int:
        text = Path(f"/proc/{proxied.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024

    requests.put(proxy(proxied, "memory/small.bin"), data=noise(30 * MB))
    requests.get(proxy(proxied, "memory/small.bin"))
    small, piece = peak(), noise(8 * MB)
    assert requests.put(proxy(proxied, "memory/large.bin"), data=(piece for _ in range(40))).status_code == 200
    size = 0
    with requests.get(proxy(proxied, "memory/large.bin"), stream=True) as got:
        for chunk in got.iter_content(MB):
            size += len(chunk)
    assert size == 320 * MB
    assert peak() - small < 64, (small, peak())
    assert requests.delete(proxy(proxied, "memory")).status_code == 200


def test_the_server_looks_into_those_buckets_that_it_was_given(direct, s3, monkeypatch, tmp_path):
    client = at(direct, monkeypatch, s3)
    s3.client().create_bucket(Bucket="private")
    s3.client().put_object(Bucket="private", Key="0/secret.txt", Body=b"secret")
    experiment = client.create_experiment(f"curious-{uuid.uuid4().hex}", artifact_location="s3://private/0")
    run_id = client.create_run(experiment).info.run_id
    answer = requests.get(f"{direct.url}/api/2.0/mlflow/artifacts/list", params={"run_id": run_id})
    assert answer.status_code == 403 and "s3://private" in answer.text, answer.text
    # Clients reach it by themselves all the same.
    client.log_text(run_id, "own", "own.txt")
    assert mlflow.artifacts.load_text(f"{client.get_run(run_id).info.artifact_uri}/own.txt") == "own"

    roots = ["--artifact-roots", "s3://private/a,s3://private/b"]
    project = tracking_server.start(tmp_path / "given", "sqlite", *roots, env=s3.env)
    try:
        client = at(project, monkeypatch, s3)
        for folder, status in [("a", 200), ("b/c", 200), ("ab", 403), ("", 403)]:
            location = f"s3://private/{folder}"
            experiment = client.create_experiment(f"given-{folder}", artifact_location=location)
            run_id = client.create_run(experiment).info.run_id
            client.log_text(run_id, folder, "own.txt")
            got = requests.get(f"{project.url}/get-artifact", params={"run_id": run_id, "path": "own.txt"})
            assert got.status_code == status and (got.text == folder or status == 403), (folder, got.text)
    finally:
        project.stop()
