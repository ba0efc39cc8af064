"""Vertex AI's prediction service as Google's own client speaks it over REST."""

import json

import pytest
from google.api import httpbody_pb2
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1.services.prediction_service import PredictionServiceClient
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceRestTransport
from google.protobuf import json_format, struct_pb2

ROWS = [[1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 0.5, 1.0]]


@pytest.fixture(scope="module")
def client(numbers):
    transport = PredictionServiceRestTransport(host=numbers.host, credentials=AnonymousCredentials(), url_scheme="http")
    return PredictionServiceClient(transport=transport)


def endpoint(name="numbers"):
    return f"projects/any/locations/europe-west1/endpoints/{name}"


def values(rows):
    return [json_format.ParseDict(row, struct_pb2.Value()) for row in rows]


def test_instances_are_predicted(client):
    answer = client.predict(endpoint=endpoint(), instances=values(ROWS))
    first = dict(answer.predictions[0])
    assert set(first["classes"]) == {"low", "middle", "high"} and abs(sum(first["scores"]) - 1) < 1e-9
    assert (answer.deployed_model_id, answer.model_version_id, answer.model_display_name) == ("1", "1", "numbers")
    assert answer.model == "projects/any/locations/europe-west1/models/numbers"
    named = [{"a": 1, "b": 2, "c": 3, "d": 4}]
    again = client.predict(endpoint=endpoint(), instances=values(named), parameters=values([{"k": 1}])[0])
    assert dict(again.predictions[0])["scores"] == first["scores"]


def test_raw_bodies_go_through(client):
    body = httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps({"instances": ROWS}).encode())
    answer = client.raw_predict(endpoint=endpoint(), http_body=body)
    assert answer.content_type == "application/json"
    assert len(json.loads(answer.data)["predictions"]) == 2
    csv = httpbody_pb2.HttpBody(content_type="text/csv", data=b"1,2,3,4\n")
    assert len(json.loads(client.raw_predict(endpoint=endpoint(), http_body=csv).data)["predictions"]) == 1


def test_a_raw_stream_is_read_piece_by_piece(client):
    body = httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps({"instances": ROWS}).encode())
    pieces = list(client.stream_raw_predict(request={"endpoint": endpoint(), "http_body": body}))
    assert len(pieces) == 1 and len(json.loads(pieces[0].data)["predictions"]) == 2


def test_errors_are_googles(client):
    with pytest.raises(exceptions.NotFound, match="no endpoint `nobody`"):
        client.predict(endpoint=endpoint("nobody"), instances=values(ROWS))
    with pytest.raises(exceptions.BadRequest, match="`far` is not a number"):
        client.predict(endpoint=endpoint(), instances=values([["far", 1, 2, 3]]))
    with pytest.raises(exceptions.BadRequest, match="`far` is not a number"):
        client.explain(endpoint=endpoint(), instances=values([["far", 1, 2, 3]]))
