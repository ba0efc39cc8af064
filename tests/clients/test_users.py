"""Users, roles and grants as MLflow's own clients manage them, and what is refused, against the running binary."""

import contextlib
import os
import subprocess

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.server.auth.client import AuthServiceClient

import tracking_server
from conftest import Project, binary

ADMIN = ("root", "the password of root")
PASSWORD = "a password of ours"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    env = {"TIDEMILL_ADMIN_USERNAME": ADMIN[0], "TIDEMILL_ADMIN_PASSWORD": ADMIN[1]}
    folder = tmp_path_factory.mktemp("users")
    config = folder / "auth.ini"
    config.write_text("[mlflow]\ndefault_permission = NO_PERMISSIONS\n")
    project = tracking_server.start(folder / "server", "sqlite", "--auth", "--auth-config", str(config), env=env)
    yield project
    project.stop()


@contextlib.contextmanager
def signed_in(name: str, password: str = PASSWORD):
    """As a notebook signs in: by the environment."""
    before = {key: os.environ.get(key) for key in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")}
    os.environ.update({"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password})
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


@pytest.fixture
def auth(server) -> AuthServiceClient:
    """The client of those who manage users, signed in as the administrator."""
    with signed_in(*ADMIN):
        yield AuthServiceClient(server.url)


@pytest.fixture
def client(server, monkeypatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return MlflowClient(server.url, server.url)


def added(auth: AuthServiceClient, name: str) -> str:
    assert auth.create_user(name, PASSWORD).username == name
    return name


def refused(call, *args, **kwargs) -> int:
    with pytest.raises(MlflowException) as error:
        call(*args, **kwargs)
    return error.value.get_http_status_code()


def test_without_credentials_nothing_is_answered_but_whether_the_server_runs(server, client):
    assert requests.get(f"{server.url}/health").status_code == 200
    for path in ["/", "/api/2.0/mlflow/experiments/get?experiment_id=0", "/api/v1/status", "/metrics", "/graphql"]:
        answer = requests.get(server.url + path)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"].startswith("Basic"), path
    with pytest.raises(MlflowException, match="You are not authenticated"):
        client.search_experiments()
    with signed_in(ADMIN[0], "guessed"), pytest.raises(MlflowException, match="You are not authenticated"):
        client.search_experiments()


def test_users_are_added_changed_and_removed(auth, client):
    user = auth.create_user("ursula", PASSWORD)
    assert (user.username, user.is_admin) == ("ursula", False)
    assert auth.get_user("ursula").id == user.id
    with pytest.raises(RestException, match="already exists"):
        auth.create_user("ursula", PASSWORD)
    with signed_in("ursula"):
        assert refused(auth.create_user, "friend", PASSWORD) == 403
    auth.update_user_admin("ursula", True)
    assert auth.get_user("ursula").is_admin
    with signed_in("ursula"):
        auth.create_user("friend", PASSWORD)
        auth.delete_user("friend")
    auth.update_user_password("ursula", "another password")
    with signed_in("ursula", "another password"):
        assert client.get_experiment("0").name == "Default"
    with signed_in("ursula"), pytest.raises(MlflowException, match="You are not authenticated"):
        client.get_experiment("0")
    auth.delete_user("ursula")
    with pytest.raises(RestException, match="not found"):
        auth.get_user("ursula")


def test_a_role_gives_what_it_permits_to_those_who_have_it(auth, client):
    name = added(auth, "rolf")
    experiment = client.create_experiment("roles")
    hidden = client.create_experiment("hidden")
    with signed_in(name):
        assert refused(client.get_experiment, experiment) == 403
        assert client.search_experiments() == []
    role = auth.create_role("default", "readers", description="look, do not touch")
    assert auth.get_role(role.id).name == "readers"
    permission = auth.add_role_permission(role.id, "experiment", experiment, "READ")
    assert [p.id for p in auth.list_role_permissions(role.id)] == [permission.id]
    auth.assign_role(name, role.id)
    assert [r.id for r in auth.list_user_roles(name)] == [role.id]
    assert len(auth.list_role_users(role.id)) == 1
    with signed_in(name):
        assert [e.experiment_id for e in client.search_experiments()] == [experiment]
        assert refused(client.create_run, experiment) == 403
        assert refused(client.get_experiment, hidden) == 403
        assert refused(auth.assign_role, name, role.id) == 403
    auth.update_role_permission(permission.id, "EDIT")
    with signed_in(name):
        run = client.create_run(experiment)
        client.log_metric(run.info.run_id, "loss", 0.5)
        assert len(client.search_runs([experiment, hidden])) == 1
        assert refused(client.delete_experiment, experiment) == 403
    assert auth.update_role(role.id, name="writers").name == "writers"
    assert "writers" in [r.name for r in auth.list_roles("default")]
    assert "writers" in [r.name for r in auth.list_all_roles()]
    auth.unassign_role(name, role.id)
    with signed_in(name):
        assert refused(client.get_run, run.info.run_id) == 403
    auth.remove_role_permission(permission.id)
    auth.delete_role(role.id)
    assert "writers" not in [r.name for r in auth.list_roles("default")]


def test_a_single_user_is_granted_something_and_it_is_taken_back(auth, client):
    name = added(auth, "greta")
    client.create_registered_model("granted")
    for word in ["READ", "EDIT", "MANAGE"]:
        auth.grant_user_permission(name, "registered_model", "granted", word)
        assert auth.get_user_permission(name, "registered_model", "granted").permission == word
        auth.revoke_user_permission(name, "registered_model", "granted")
    auth.grant_user_permission(name, "registered_model", "granted", "MANAGE")
    with pytest.raises(RestException, match="already exists"):
        auth.grant_user_permission(name, "registered_model", "granted", "READ")
    # A refusal that would not be heard is not taken.
    with pytest.raises(RestException, match="DENY"):
        auth.grant_user_permission(name, "run", "*", "DENY")
    with signed_in(name):
        client.set_registered_model_tag("granted", "team", "a")
        assert [m.name for m in client.search_registered_models()] == ["granted"]
        # Who manages something says who may do what.
        auth.revoke_user_permission(name, "registered_model", "granted")
    auth.grant_user_permission(name, "registered_model", "granted", "READ")
    with signed_in(name):
        assert refused(client.set_registered_model_tag, "granted", "team", "b") == 403
    auth.revoke_user_permission(name, "registered_model", "granted")
    with signed_in(name):
        assert refused(client.get_registered_model, "granted") == 403
        assert client.search_registered_models() == []


def test_whoever_makes_something_may_do_everything_to_it(auth, client):
    added(auth, "otto"), added(auth, "olga")
    with signed_in("otto"):
        own = client.create_experiment("otto's")
        client.rename_experiment(own, "all otto's")
        auth.grant_user_permission("olga", "experiment", own, "READ")
    with signed_in("olga"):
        assert client.get_experiment(own).name == "all otto's"
        assert refused(client.rename_experiment, own, "olga's") == 403
    with signed_in("otto"):
        client.delete_experiment(own)


def test_a_token_stands_for_its_user_in_either_header(server, auth, client, monkeypatch):
    name = added(auth, "theo")
    made = requests.post(f"{server.url}/api/v1/tokens", json={"name": "laptop"}, auth=(name, PASSWORD))
    assert made.status_code == 201, made.text
    token, number = made.json()["token"], made.json()["id"]
    assert token.startswith("tm_")
    current = f"{server.url}/api/2.0/mlflow/users/current"
    for headers in [{"Authorization": f"Bearer {token}"}, None]:
        answer = requests.get(current, headers=headers, auth=None if headers else ("api", token))
        assert answer.json()["user"]["username"] == name
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    assert client.create_experiment("by token")
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    revoked = requests.delete(f"{server.url}/api/v1/tokens/{number}", auth=(name, PASSWORD))
    assert revoked.status_code == 204
    assert requests.get(current, headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_a_page_elsewhere_cannot_use_a_browser_that_is_signed_in(server):
    create = f"{server.url}/api/2.0/mlflow/experiments/create"
    for headers in [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]:
        answer = requests.post(create, json={"name": "foreign"}, headers=headers, auth=ADMIN)
        assert (answer.status_code, answer.text) == (403, "Cross-origin request blocked"), headers
    own = requests.post(create, json={"name": "own"}, headers={"Origin": server.url}, auth=ADMIN)
    assert own.status_code == 200
    form = requests.post(f"{server.url}/api/2.0/mlflow/users/create-ui", data={"username": "x", "password": PASSWORD}, auth=ADMIN)
    assert "CSRF token is missing" in form.text


def test_a_name_that_was_pointed_at_this_machine_is_refused(server):
    for path in ["/", "/api/2.0/mlflow/experiments/get?experiment_id=0", "/api/v1/status"]:
        answer = requests.get(server.url + path, headers={"Host": "evil.example"}, auth=ADMIN)
        assert answer.status_code == 403, path
        assert answer.text.startswith("Invalid Host header"), path


def test_guessing_a_password_has_to_wait(server, auth):
    name = added(auth, "guessed")
    current = f"{server.url}/api/2.0/mlflow/users/current"
    for _ in range(10):
        assert requests.get(current, auth=(name, "wrong")).status_code == 401
    answer = requests.get(current, auth=(name, "wrong"))
    assert answer.status_code == 429
    assert answer.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert requests.get(current, auth=ADMIN).status_code == 200


def test_no_password_stands_in_the_log_or_in_the_database(server):
    assert ADMIN[1] not in (server.folder / "server.log").read_text()
    for file in (server.folder / "data").rglob("*"):
        if file.is_file():
            assert PASSWORD.encode() not in file.read_bytes(), file


def test_the_command_line_signs_in(server, tmp_path):
    """`tidemill import` to a server that lets only users in: by Tidemill's own variables, since MLflow's are for the source."""
    source = tracking_server.start(tmp_path / "source", "sqlite")
    try:
        MlflowClient(source.url).create_experiment("brought by the command line")
        arguments = ["import", "mlflow", "--uri", source.url, "--url", server.url]
        nobody = Project(tmp_path, "nobody")
        refused = subprocess.run(
            [binary(), *arguments], cwd=tmp_path, env=os.environ | nobody.env, capture_output=True, text=True, timeout=120
        )
        assert refused.returncode == 3 and "TIDEMILL_USERNAME" in refused.stderr, refused
        with signed_in(*ADMIN):
            # The source's credentials stay with the source.
            refused = subprocess.run([binary(), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120)
            assert refused.returncode == 3, refused
        user = {"TIDEMILL_USERNAME": ADMIN[0], "TIDEMILL_PASSWORD": ADMIN[1]}
        Project(tmp_path, "root", env=user).run(*arguments)
        answer = requests.post(f"{server.url}/api/v1/tokens", json={"name": "cli"}, auth=ADMIN)
        assert answer.status_code == 201, answer.text
        Project(tmp_path, "token", env={"TIDEMILL_TOKEN": answer.json()["token"]}).run(*arguments)
        with signed_in(*ADMIN):
            assert MlflowClient(server.url).get_experiment_by_name("brought by the command line")
    finally:
        source.stop()
