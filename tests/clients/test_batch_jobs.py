"""Batch jobs in a bucket: SageMaker's batch transform by boto3, Vertex AI's batch prediction by Google's client, and our own."""

import json
import os
import signal
import time

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.services.job_service import JobServiceClient
from google.cloud.aiplatform_v1.services.job_service.transports import JobServiceRestTransport

import s3_server
from conftest import Project, numbers_in

BUCKET = "data"
ROLE = "arn:aws:iam::123456789012:role/transform"
ROWS = [[i * 37 % 100 / 10, i * 53 % 100 / 10, i % 7, i % 3] for i in range(300)]


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    server = s3_server.launch(tmp_path_factory.mktemp("s3"))
    server.client().create_bucket(Bucket=BUCKET)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory, s3):
    project = numbers_in(tmp_path_factory.mktemp("batch"))
    project.env = s3.env
    project.up("--artifact-roots", f"s3://{BUCKET}", "--gs-bucket", f"google=s3://{BUCKET}/google")
    yield project
    project.stop()


@pytest.fixture(scope="module")
def sagemaker(server):
    return boto3.client(
        "sagemaker", endpoint_url=server.url, region_name="eu-west-1",
        aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=30),
    )


@pytest.fixture(scope="module")
def expected(server):
    """What the same rows get online."""
    body = requests.post(f"{server.url}/invocations/numbers", json={"instances": ROWS}).json()
    return body["predictions"]


def put(s3, key, text):
    s3.client().put_object(Bucket=BUCKET, Key=key, Body=text.encode())


def got(s3, key):
    return s3.client().get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()


def csv(rows):
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def transform(sagemaker, name, source, output, wait=True, **more):
    asked = {
        "TransformJobName": name,
        "ModelName": "numbers",
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": "text/csv", "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": output, "Accept": "text/csv", "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    for key, value in more.items():
        if isinstance(value, dict) and key in asked:
            asked[key] = asked[key] | value
        else:
            asked[key] = value
    answer = sagemaker.create_transform_job(**asked)
    if wait:
        waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
        waiter.wait(TransformJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    return answer


def test_every_file_below_a_prefix_gets_its_answers_beside_its_own_path(sagemaker, s3, expected):
    put(s3, "in/many/a.csv", csv(ROWS[:100]))
    put(s3, "in/many/deep/b.csv", csv(ROWS[100:]))
    put(s3, "in/manyother.csv", csv(ROWS[:1]))
    answer = transform(sagemaker, "many", f"s3://{BUCKET}/in/many/", f"s3://{BUCKET}/out/many")
    assert answer["TransformJobArn"] == "arn:aws:sagemaker:eu-west-1:000000000000:transform-job/many"
    assert s3.keys(BUCKET, "out/many") == ["out/many/a.csv.out", "out/many/deep/b.csv.out"]
    assert got(s3, "out/many/a.csv.out").splitlines() == expected[:100]
    assert got(s3, "out/many/deep/b.csv.out").splitlines() == expected[100:]
    described = sagemaker.describe_transform_job(TransformJobName="many")
    assert described["TransformJobStatus"] == "Completed" and described["ModelName"] == "numbers"
    assert described["TransformStartTime"] <= described["TransformEndTime"]
    assert described["TransformInput"]["SplitType"] == "Line"


def test_a_prefix_is_what_keys_begin_with_and_a_key_is_one_file(sagemaker, s3, expected):
    put(s3, "in/pre/part-1.csv", csv(ROWS[:2]))
    put(s3, "in/pre/part-2.csv", csv(ROWS[2:4]))
    put(s3, "in/pre/other.csv", csv(ROWS[:1]))
    transform(sagemaker, "prefix", f"s3://{BUCKET}/in/pre/part", f"s3://{BUCKET}/out/pre/")
    assert s3.keys(BUCKET, "out/pre") == ["out/pre/part-1.csv.out", "out/pre/part-2.csv.out"]
    transform(sagemaker, "key", f"s3://{BUCKET}/in/pre/part-2.csv", f"s3://{BUCKET}/out/key")
    assert got(s3, "out/key/part-2.csv.out").splitlines() == expected[2:4]


@pytest.mark.parametrize("strategy", ["MultiRecord", "SingleRecord"])
def test_records_are_filtered_joined_and_kept(sagemaker, s3, expected, strategy):
    rows = [[f"id-{i}", *row] for i, row in enumerate(ROWS[:20])]
    put(s3, "in/joined.csv", csv(rows))
    processing = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    name = f"joined-{strategy}"
    transform(
        sagemaker, name, f"s3://{BUCKET}/in/joined.csv", f"s3://{BUCKET}/out/{name}",
        DataProcessing=processing, BatchStrategy=strategy, MaxConcurrentTransforms=4,
    )
    lines = got(s3, f"out/{name}/joined.csv.out").splitlines()
    assert lines == [f"id-{i},{label}" for i, label in enumerate(expected[:20])]
    lines = "".join(json.dumps({"id": i, "features": row}) + "\n" for i, row in enumerate(ROWS[:20]))
    put(s3, "in/joined.jsonl", lines)
    transform(
        sagemaker, f"{name}-json", f"s3://{BUCKET}/in/joined.jsonl", f"s3://{BUCKET}/out/{name}-json",
        TransformInput={"ContentType": "application/jsonlines"}, TransformOutput={"Accept": "application/jsonlines"},
        DataProcessing={"InputFilter": "$.features", "JoinSource": "Input"}, BatchStrategy=strategy,
    )
    found = [json.loads(line) for line in got(s3, f"out/{name}-json/joined.jsonl.out").splitlines()]
    assert found == [
        {"id": i, "features": row, "SageMakerOutput": label}
        for i, (row, label) in enumerate(zip(ROWS, expected[:20], strict=False))
    ]


def test_a_file_is_one_request_where_it_is_not_split(sagemaker, s3, expected):
    put(s3, "in/whole.json", json.dumps({"instances": ROWS[:3]}))
    transform(
        sagemaker, "whole", f"s3://{BUCKET}/in/whole.json", f"s3://{BUCKET}/out/whole",
        TransformInput={"ContentType": "application/json", "SplitType": "None"},
        TransformOutput={"Accept": "application/json", "AssembleWith": "None"},
    )
    assert json.loads(got(s3, "out/whole/whole.json.out"))["predictions"] == expected[:3]


def test_a_bad_file_fails_the_job_and_not_the_other_files(sagemaker, s3, expected):
    put(s3, "in/bad/a.csv", csv(ROWS[:3]) + "1,far,3,4\n")
    put(s3, "in/bad/b.csv", csv(ROWS[:3]))
    with pytest.raises(WaiterError, match="terminal failure"):
        transform(sagemaker, "bad", f"s3://{BUCKET}/in/bad/", f"s3://{BUCKET}/out/bad")
    described = sagemaker.describe_transform_job(TransformJobName="bad")
    assert described["TransformJobStatus"] == "Failed"
    assert "a.csv" in described["FailureReason"] and "`far`" in described["FailureReason"]
    assert "from line 4" in described["FailureReason"]
    assert s3.keys(BUCKET, "out/bad") == ["out/bad/b.csv.out"]
    too_large = {"SplitType": "None"}
    put(s3, "in/large.csv", "1,2,3,4\n" * 200_000)
    with pytest.raises(WaiterError):
        transform(
            sagemaker, "large", f"s3://{BUCKET}/in/large.csv", f"s3://{BUCKET}/out/large",
            TransformInput=too_large, MaxPayloadInMB=1,
        )
    reason = sagemaker.describe_transform_job(TransformJobName="large")["FailureReason"]
    assert "MaxPayloadInMB" in reason and not s3.keys(BUCKET, "out/large")


def test_what_cannot_be_done_is_refused_in_awss_shape(sagemaker):
    source, output = f"s3://{BUCKET}/in/many/", f"s3://{BUCKET}/out/refused"
    refused = [
        ({"ModelName": "nobody"}, "ResourceNotFound", "no endpoint `nobody`"),
        ({"TransformInput": {"CompressionType": "Gzip"}}, "ValidationException", "Gzip"),
        ({"TransformInput": {"SplitType": "RecordIO"}}, "ValidationException", "RecordIO"),
        ({"DataProcessing": {"InputFilter": "$..x"}}, "ValidationException", "every depth"),
        ({"DataProcessing": {"JoinSource": "Input"}, "TransformOutput": {"AssembleWith": "None"}}, "ValidationException", "AssembleWith"),
        ({"Environment": {"A": "b"}}, "ValidationException", "Environment"),
        ({"TransformJobName": "many"}, "ResourceInUse", "already"),
    ]
    for more, code, words in refused:
        with pytest.raises(ClientError, match=words) as error:
            name = more.pop("TransformJobName", "refused")
            transform(sagemaker, name, source, output, wait=False, **more)
        assert error.value.response["Error"]["Code"] == code, more
    with pytest.raises(sagemaker.exceptions.ResourceNotFound):
        sagemaker.describe_transform_job(TransformJobName="never")
    with pytest.raises(ClientError, match="not answered here"):
        sagemaker.list_endpoints()
    with pytest.raises(ClientError, match="cannot be stopped"):
        sagemaker.stop_transform_job(TransformJobName="many")


def test_jobs_are_listed_by_name_status_and_page(sagemaker):
    listed = sagemaker.list_transform_jobs(NameContains="joined", SortBy="Name", SortOrder="Ascending", MaxResults=3)
    names = [job["TransformJobName"] for job in listed["TransformJobSummaries"]]
    rest = sagemaker.list_transform_jobs(
        NameContains="joined", SortBy="Name", SortOrder="Ascending", MaxResults=3, NextToken=listed["NextToken"],
    )
    names += [job["TransformJobName"] for job in rest["TransformJobSummaries"]]
    assert names == ["joined-MultiRecord", "joined-MultiRecord-json", "joined-SingleRecord", "joined-SingleRecord-json"]
    failed = sagemaker.list_transform_jobs(StatusEquals="Failed")["TransformJobSummaries"]
    assert {job["TransformJobName"] for job in failed} == {"bad", "large"}


def test_a_model_is_an_endpoint(sagemaker):
    model = sagemaker.create_model(ModelName="numbers", PrimaryContainer={"Image": "any"}, ExecutionRoleArn=ROLE)
    assert model["ModelArn"].endswith(":model/numbers")
    assert sagemaker.describe_model(ModelName="numbers")["ModelArn"] == model["ModelArn"]
    with pytest.raises(ClientError, match="deploy it first"):
        sagemaker.create_model(ModelName="nobody", PrimaryContainer={"Image": "any"}, ExecutionRoleArn=ROLE)


def test_a_job_is_stopped_and_one_that_a_crash_cut_short_goes_on(tmp_path, s3):
    project = numbers_in(tmp_path)
    project.env = s3.env
    roots = ("--artifact-roots", f"s3://{BUCKET}")
    project.up(*roots)

    def client():
        return boto3.client(
            "sagemaker", endpoint_url=project.url, region_name="eu-west-1",
            aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="secret", config=Config(retries={"max_attempts": 5}),
        )

    try:
        for i in range(8):
            put(s3, f"in/crash/{i}.csv", csv(ROWS * 3))
        one_by_one = {"BatchStrategy": "SingleRecord", "wait": False}
        transform(client(), "stopped", f"s3://{BUCKET}/in/crash/", f"s3://{BUCKET}/out/stopped", **one_by_one)
        client().stop_transform_job(TransformJobName="stopped")
        client().get_waiter("transform_job_completed_or_stopped").wait(
            TransformJobName="stopped", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        assert client().describe_transform_job(TransformJobName="stopped")["TransformJobStatus"] == "Stopped"
        transform(client(), "crash", f"s3://{BUCKET}/in/crash/", f"s3://{BUCKET}/out/crash", **one_by_one)
        for _ in range(2_000):
            if s3.keys(BUCKET, "out/crash"):
                break
            time.sleep(0.005)
        os.kill(project.process.pid, signal.SIGKILL)
        project.process.wait()
        done = s3.keys(BUCKET, "out/crash")
        assert done, "it was killed before anything was there"
        first = {key: os.stat(s3.folder / BUCKET / key).st_mtime_ns for key in done}
        project.up(*roots)
        client().get_waiter("transform_job_completed_or_stopped").wait(
            TransformJobName="crash", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
        assert s3.keys(BUCKET, "out/crash") == [f"out/crash/{i}.csv.out" for i in range(8)]
        texts = {got(s3, f"out/crash/{i}.csv.out") for i in range(8)}
        assert len(texts) == 1 and len(texts.pop().splitlines()) == 900
        again = [key for key, at in first.items() if os.stat(s3.folder / BUCKET / key).st_mtime_ns != at]
        assert len(again) <= 1, f"only the last could have been written again: {again}"
    finally:
        project.stop()


# Vertex AI

PARENT = "projects/any/locations/europe-west1"


@pytest.fixture(scope="module")
def jobs(server):
    transport = JobServiceRestTransport(host=server.host, credentials=AnonymousCredentials(), url_scheme="http")
    return JobServiceClient(transport=transport)


def batch(jobs, uris, prefix, format="jsonl", model="numbers", wait=True, **more):
    job = {
        "display_name": prefix.rsplit("/", 1)[-1],
        "model": f"{PARENT}/models/{model}",
        "input_config": {"instances_format": format, "gcs_source": {"uris": uris}},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": prefix}},
        **more,
    }
    made = jobs.create_batch_prediction_job(parent=PARENT, batch_prediction_job=job)
    for _ in range(600):
        if not wait or made.state.name in ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_FAILED"):
            return made
        time.sleep(0.1)
        made = jobs.get_batch_prediction_job(name=made.name)
    raise AssertionError(made.state)


def results(s3, made):
    folder = made.output_info.gcs_output_directory.removeprefix("gs://google/")
    keys = s3.keys(BUCKET, f"google/{folder}/")
    return {key.rsplit("/", 1)[-1]: [json.loads(line) for line in got(s3, key).splitlines()] for key in keys}


def test_instances_are_predicted_into_googles_files(jobs, s3, expected):
    put(s3, "google/in/a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS[:100]))
    named = [dict(zip("abcd", row, strict=True)) for row in ROWS[100:]]
    put(s3, "google/in/b.jsonl", "".join(json.dumps(row) + "\n" for row in named))
    made = batch(jobs, ["gs://google/in/*.jsonl"], "gs://google/out/first", model="numbers@1")
    assert made.state.name == "JOB_STATE_SUCCEEDED", made
    assert (made.completion_stats.successful_count, made.completion_stats.failed_count) == (300, 0)
    directory = made.output_info.gcs_output_directory
    assert directory.startswith("gs://google/out/first/prediction-numbers-")
    found = results(s3, made)
    assert sorted(found) == [
        "prediction.errors_stats-00000-of-00001",
        "prediction.results-00000-of-00002", "prediction.results-00001-of-00002",
    ]
    lines = found["prediction.results-00000-of-00002"] + found["prediction.results-00001-of-00002"]
    assert [line["instance"] for line in lines] == ROWS[:100] + named

    def label(prediction):
        return max(zip(prediction["scores"], prediction["classes"], strict=True))[1]

    assert [label(line["prediction"]) for line in lines] == expected
    assert made.name.startswith(PARENT) and made.display_name == "first"
    listed = list(jobs.list_batch_prediction_jobs(parent=PARENT))
    assert made.name in [job.name for job in listed]
    assert not list(jobs.list_batch_prediction_jobs(parent=PARENT.replace("any", "other")))


def test_a_bad_instance_has_its_error_and_the_others_their_predictions(jobs, s3):
    put(s3, "google/in/mixed.csv", "a,b,c,d\n" + csv(ROWS[:3]) + "1,far,3,4\n" + csv(ROWS[3:5]) + "1,2\n")
    made = batch(
        jobs, ["gs://google/in/mixed.csv"], "gs://google/out/mixed", format="csv",
        manual_batch_tuning_parameters={"batch_size": 4},
    )
    assert made.state.name == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert (made.completion_stats.successful_count, made.completion_stats.failed_count) == (5, 2)
    found = results(s3, made)
    errors = found["prediction.errors_stats-00000-of-00001"]
    assert [error["instance"] for error in errors] == [[1, "far", 3, 4], "1,2"]
    assert "`far`" in errors[0]["error"]["message"] and "line 8 has 2 values" in errors[1]["error"]["message"]
    assert len(found["prediction.results-00000-of-00001"]) == 5
    names = [job.display_name for job in jobs.list_batch_prediction_jobs(request={
        "parent": PARENT, "filter": 'state="JOB_STATE_PARTIALLY_SUCCEEDED"',
    })]
    assert names == ["mixed"]


def test_googles_errors_and_the_end_of_a_job(jobs, s3):
    missing = batch(jobs, ["gs://google/nothing.jsonl"], "gs://google/out/missing")
    assert missing.state.name == "JOB_STATE_FAILED" and "nothing.jsonl" in missing.error.message
    refused = [
        (dict(uris=["gs://elsewhere/x"], prefix="gs://google/out/x"), exceptions.Forbidden, "--gs-bucket"),
        (dict(uris=["gs://google/x"], prefix="gs://google/out/x", format="bigquery"), exceptions.BadRequest, "bigquery"),
        (dict(uris=["gs://google/x"], prefix="gs://google/out/x", format="tf-record"), exceptions.BadRequest, "tf-record"),
        (dict(uris=["gs://google/x"], prefix="gs://google/out/x", model="nobody"), exceptions.NotFound, "nobody"),
        (dict(uris=["gs://google/x"], prefix="gs://google/out/x", generate_explanation=True), exceptions.MethodNotImplemented, "generateExplanation"),
    ]
    for asked, kind, words in refused:
        with pytest.raises(kind, match=words):
            batch(jobs, wait=False, **asked)
    jobs.cancel_batch_prediction_job(name=missing.name)
    assert jobs.get_batch_prediction_job(name=missing.name).state.name == "JOB_STATE_FAILED", "it has ended before"
    jobs.delete_batch_prediction_job(name=missing.name).result(timeout=10)
    with pytest.raises(exceptions.NotFound):
        jobs.get_batch_prediction_job(name=missing.name)
    assert aiplatform_v1.JobState.JOB_STATE_FAILED == 5


# Our own, in a bucket


def test_a_job_of_rows_reads_and_writes_a_bucket(server: Project, s3, expected):
    header = "id,a,b,c,d\n"
    put(s3, "rows/in/1.csv", header + csv([i, *row] for i, row in enumerate(ROWS[:150])))
    put(s3, "rows/in/2.csv", header + csv([i + 150, *row] for i, row in enumerate(ROWS[150:])))
    asked = {"input": f"s3://{BUCKET}/rows/in", "output": f"s3://{BUCKET}/rows/out", "part_rows": 100, "format": "jsonl"}
    job = requests.post(f"{server.url}/api/v1/batch-jobs", json=asked).json()
    for _ in range(600):
        job = requests.get(f"{server.url}/api/v1/batch-jobs/{job['id']}").json()
        if job["state"] in ("succeeded", "failed"):
            break
        time.sleep(0.1)
    assert job["state"] == "succeeded", job
    keys = s3.keys(BUCKET, "rows/out")
    assert keys == ["rows/out/_SUCCESS", "rows/out/_job.json"] + [
        f"rows/out/part-0000{file}-0000{part}.jsonl" for file in (0, 1) for part in (0, 1)
    ]
    lines = [json.loads(line) for key in keys[2:] for line in got(s3, key).splitlines()]
    assert [line["id"] for line in lines] == list(range(300))
    assert [line["prediction"] for line in lines] == expected
    denied = requests.post(f"{server.url}/api/v1/batch-jobs", json=asked | {"input": "/etc/passwd"})
    assert denied.status_code == 403
