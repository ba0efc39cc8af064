"""The SageMaker runtime as boto3 speaks it."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError

def connect(project, key="AKIAEXAMPLE"):
    return boto3.client(
        "sagemaker-runtime", endpoint_url=project.url, region_name="eu-west-1",
        aws_access_key_id=key, aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=30),
    )


@pytest.fixture(scope="module")
def runtime(numbers):
    return connect(numbers)


ROWS = [[1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 0.5, 1.0]]


def test_an_endpoint_is_invoked_with_json(runtime):
    answer = runtime.invoke_endpoint(
        EndpointName="numbers", ContentType="application/json", Body=json.dumps({"instances": ROWS}),
        CustomAttributes="trace=7",
    )
    body = json.loads(answer["Body"].read())
    assert len(body["predictions"]) == 2 and set(body["classes"]) == {"low", "middle", "high"}
    assert answer["ContentType"] == "application/json"
    assert (answer["InvokedProductionVariant"], answer["CustomAttributes"]) == ("champion", "trace=7")


def test_csv_and_lines_of_json_give_the_same_answer(runtime):
    def ask(content_type, body, accept):
        answer = runtime.invoke_endpoint(EndpointName="numbers", ContentType=content_type, Accept=accept, Body=body)
        assert answer["ContentType"] == accept
        return answer["Body"].read().decode()

    csv = "\n".join(",".join(map(str, row)) for row in ROWS)
    lines = "\n".join(map(json.dumps, ROWS))
    expected = json.loads(ask("application/json", json.dumps(ROWS), "application/json"))["predictions"]
    assert ask("text/csv", csv, "text/csv").splitlines() == expected
    assert ask("text/csv", "a,b,c,d\n" + csv, "text/csv").splitlines() == expected
    answer = ask("application/jsonlines", lines, "application/jsonlines")
    assert [json.loads(line) for line in answer.splitlines()] == expected


def test_a_variant_is_a_version_or_a_role(runtime):
    def ask(**more):
        return runtime.invoke_endpoint(
            EndpointName="numbers", ContentType="application/json", Body=json.dumps(ROWS), **more
        )

    for variant in ("1", "champion", "AllTraffic"):
        assert ask(TargetVariant=variant)["InvokedProductionVariant"] == "champion"
    for refused in ({"TargetVariant": "green"}, {"TargetVariant": "9"}, {"TargetModel": "a.tar.gz"}):
        with pytest.raises(ClientError) as error:
            ask(**refused)
        assert error.value.response["Error"]["Code"] in ("ValidationError", "ValidationErrorException")
    first, second = ask(InferenceId="i-1"), ask(InferenceId="i-1")
    assert first["Body"].read() == second["Body"].read(), "a retry is answered once"
    assert ask(SessionId="NEW_SESSION")["NewSessionId"]


def test_errors_have_the_runtimes_names(runtime):
    with pytest.raises(runtime.exceptions.ModelError) as error:
        runtime.invoke_endpoint(EndpointName="numbers", ContentType="application/json", Body='[["far", 1, 2, 3]]')
    answer = error.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert answer["OriginalStatusCode"] == 400 and "`far` is not a number" in answer["OriginalMessage"]
    with pytest.raises(ClientError, match="no endpoint `nobody`") as error:
        runtime.invoke_endpoint(EndpointName="nobody", ContentType="application/json", Body="[]")
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_an_answer_comes_as_an_event_stream(runtime):
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName="numbers", ContentType="application/json", Body=json.dumps(ROWS)
    )
    assert answer["ContentType"] == "application/json"
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert len(json.loads(b"".join(parts))["predictions"]) == 2


def test_an_asynchronous_request_needs_a_place_that_the_server_may_read(runtime):
    with pytest.raises(ClientError, match="may not read"):
        runtime.invoke_endpoint_async(EndpointName="numbers", InputLocation="s3://elsewhere/in.json")


def test_an_asynchronous_request_is_answered_into_a_file(tmp_path, numbers_folder):
    from conftest import Project

    files = tmp_path / "files"
    files.mkdir()
    (files / "in.json").write_text(json.dumps(ROWS))
    project = Project(numbers_folder, "numbers").up("--artifacts-destination", str(files))
    try:
        answer = connect(project).invoke_endpoint_async(
            EndpointName="numbers", ContentType="application/json", InputLocation=f"file://{files}/in.json",
            InferenceId="job-1",
        )
        assert answer["InferenceId"] == "job-1"
        output = answer["OutputLocation"].removeprefix("file://")
        for _ in range(300):
            try:
                body = json.loads(open(output).read())
                break
            except FileNotFoundError:
                time.sleep(0.1)
        assert len(body["predictions"]) == 2
        assert answer["FailureLocation"].endswith("job-1.error")
    finally:
        project.stop()


def test_accepted_requests_are_answered_though_the_server_is_killed(tmp_path, numbers_folder):
    from conftest import Project

    files = tmp_path / "files"
    files.mkdir()
    (files / "in.json").write_text(json.dumps(ROWS))
    project = Project(numbers_folder, "numbers").up("--artifacts-destination", str(files))
    try:
        client = connect(project)

        def ask(i):
            answer = client.invoke_endpoint_async(
                EndpointName="numbers", ContentType="application/json", InputLocation=f"file://{files}/in.json",
                InferenceId=f"kill-{i}", RequestTTLSeconds=60, InvocationTimeoutSeconds=60,
            )
            return answer["OutputLocation"].removeprefix("file://")

        with ThreadPoolExecutor(16) as pool:
            outputs = list(pool.map(ask, range(64)))
        project.process.kill()
        project.process.wait()
        there = sum(os.path.exists(path) for path in outputs)
        project.up("--artifacts-destination", str(files))
        for path in outputs:
            for _ in range(300):
                if os.path.exists(path):
                    break
                time.sleep(0.1)
            assert len(json.loads(open(path).read())["predictions"]) == 2
        print(f"{there} of {len(outputs)} were answered when the server was killed")
        # What is answered is forgotten.
        for _ in range(100):
            items = requests.get(f"{project.url}/api/v1/batch-jobs?kind=invoke").json()["items"]
            if not items:
                break
            time.sleep(0.1)
        assert not items
        refused = requests.post(
            f"{project.url}/endpoints/numbers/async-invocations",
            headers={
                "X-Amzn-SageMaker-InputLocation": f"file://{files}/in.json", "X-Amzn-SageMaker-RequestTTLSeconds": "30",
            },
        )
        assert refused.status_code == 400 and "expected 60 to 21600 seconds" in refused.json()["Message"]
    finally:
        project.stop()
