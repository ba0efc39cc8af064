"""MLflow's scoring protocol: its own client, and the payloads that its documentation makes with pandas."""

import json

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

FEATURES = ["x", "count", "flag", "colour"]


def nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """JSON has no NaN: a missing value is null."""
    return frame.astype(object).where(frame.notna(), None)


def score(project, body, content_type="application/json"):
    data = body if isinstance(body, str) else json.dumps(body, allow_nan=False)
    return requests.post(
        f"{project.url}/invocations/{project.name}", data=data, headers={"Content-Type": content_type}, timeout=30
    )


@pytest.fixture(scope="module")
def expected(colours, frame) -> list[float]:
    answer = score(colours, {"dataframe_split": nulls(frame[FEATURES].head(30)).to_dict(orient="split")})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def test_mlflows_own_client_scores_a_data_frame(colours, frame, expected):
    host, port = colours.host.split(":")
    client = ScoringServerClient(host, int(port))
    client.wait_server_ready(timeout=10)
    # Its JSON has `NaN` for a missing value, which is not JSON (see below); so: the rows without one.
    whole = frame[FEATURES].head(30).dropna()
    predictions = client.invoke(whole).get_predictions()
    assert predictions.iloc[:, 0].tolist() == [expected[i] for i in whole.index]


def test_the_four_payloads_of_the_manual_give_the_same_answer(colours, frame, expected):
    rows = nulls(frame[FEATURES].head(30))
    for body in [
        {"dataframe_split": rows.to_dict(orient="split")},
        {"dataframe_split": {k: v for k, v in rows.to_dict(orient="split").items() if k != "index"}},
        {"dataframe_records": rows.to_dict(orient="records")},
        {"inputs": rows.to_dict(orient="list")},
        {"instances": rows.to_dict(orient="records")},
        {"dataframe_split": rows.sample(frac=1, axis=1, random_state=1).to_dict(orient="split")},
    ]:
        answer = score(colours, body)
        assert answer.status_code == 200, (list(body), answer.text)
        assert answer.json()["predictions"] == expected, list(body)


def test_csv_gives_the_same_answer(colours, frame, expected):
    answer = score(colours, frame[FEATURES].head(30).to_csv(index=False), "text/csv")
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == expected


def test_a_charset_beside_the_content_type_is_no_obstacle(colours, frame):
    body = {"dataframe_records": nulls(frame[FEATURES].head(1)).to_dict(orient="records")}
    assert score(colours, body, "application/json; charset=utf-8").status_code == 200
    refused = score(colours, body, "text/plain")
    assert refused.status_code == 415
    assert refused.json()["error_code"] == "BAD_REQUEST"


def test_the_answer_carries_ids_that_lead_everywhere(colours, frame):
    answer = score(colours, {"dataframe_records": nulls(frame[FEATURES].head(3)).to_dict(orient="records")}).json()
    assert answer["model_versions"] == [1, 1, 1] and len(set(answer["prediction_ids"])) == 3
    first = answer["prediction_ids"][0]
    told = requests.post(f"{colours.url}/api/v1/feedback", json={"prediction_id": first, "value": True}, timeout=30)
    assert told.status_code == 201 and told.json()["outcomes"][0]["joined"]
    lineage = requests.get(f"{colours.url}/api/v1/lineage/predictions/{first}", timeout=30).json()
    assert lineage["prediction"]["scores"] == [answer["predictions"][0]]
    assert lineage["labels"][0]["value"] is True


def test_pandas_nan_written_by_json_dumps_is_refused_with_the_cure(colours):
    body = json.dumps({"dataframe_split": {"columns": FEATURES, "data": [[float("nan"), 1, True, "red"]]}})
    answer = score(colours, body)
    assert answer.status_code == 400
    assert "a missing value is `null`" in answer.json()["message"]


def test_errors_have_mlflows_shape(colours, frame):
    missing = score(colours, {"dataframe_split": frame[["count"]].head(1).to_dict(orient="split")})
    assert missing.status_code == 400
    assert set(missing.json()) >= {"error_code", "message"} and "`x` is missing" in missing.json()["message"]
    assert score(colours, {"rows": []}).status_code == 400
    wrong = score(colours, {"inputs": {"x": ["seven"], "count": [1], "flag": [True], "colour": ["red"]}})
    assert wrong.status_code == 400 and "`x` row 0: `seven`" in wrong.json()["message"]


def test_health_is_told_where_mlflow_tells_it(colours):
    for path, text in [("/ping", ""), ("/health", "OK")]:
        answer = requests.get(colours.url + path, timeout=5)
        assert (answer.status_code, answer.text.strip()) == (200, text)
    assert requests.get(colours.url + "/version", timeout=5).status_code == 200


def test_numpy_numbers_survive_to_the_last_bit(colours):
    values = np.nextafter(np.arange(1, 6) / 3, 10)
    body = {"inputs": {"x": values.tolist(), "count": [1] * 5, "flag": [True] * 5, "colour": ["red"] * 5}}
    ids = score(colours, body).json()["prediction_ids"]
    lineage = requests.get(f"{colours.url}/api/v1/lineage/predictions/{ids[3]}", timeout=30).json()
    assert lineage["prediction"]["features"]["x"] == values[3]
