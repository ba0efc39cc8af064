"""A trainer of one's own: `training.run: python train.py` of examples/flights, with LightGBM, from training to serving."""

import json
import sys

import lightgbm as lgb
import numpy as np
import pandas as pd
import requests

from conftest import ROOT

sys.path.insert(0, str(ROOT / "examples" / "flights"))
from train import encode  # noqa: E402


def model_files(flights) -> dict[str, bytes]:
    """The files of version 1, out of the object store, by the name that its run gave them."""
    version = requests.get(f"{flights.url}/api/v1/models/flights/versions/1", timeout=30).json()
    found = {}
    for path in (flights.folder / "tidemill-data").rglob("*"):
        if path.is_file() and path.stat().st_size < 20_000_000:
            head = path.read_bytes()
            if head.startswith(b"tree\n"):
                found["model.txt"] = head
            elif head.startswith(b"{") and b'"lightgbm"' in head and b'"model.txt"' in head and b'"categories"' in head:
                found["model.json"] = head
    assert set(found) == {"model.txt", "model.json"}, (version, list(found))
    return found


def test_the_run_is_recorded_with_its_code_and_lock(flights):
    run = flights.trained["run"]
    assert run["state"] == "succeeded" and run["model_version"] == 1, run
    assert flights.trained["decision"]["verdict"] == "pass"
    assert 0.6 < run["metrics"]["auc"] < 0.95, run["metrics"]
    assert run["metrics"]["trees"] == 40, "what the script wrote into metrics.json, with its parameter"
    code = json.dumps(run["code"])
    assert "train.py" in code and "requirements.txt" in code or "lock" in code, run["code"]


def test_the_server_answers_exactly_as_lightgbm_does(flights):
    files = model_files(flights)
    manifest = json.loads(files["model.json"])
    booster = lgb.Booster(model_str=files["model.txt"].decode())
    frame = pd.read_parquet(flights.folder / "data" / "2013-01.parquet").head(3_000)
    names = [f["name"] for f in manifest["features"]]
    expected = booster.predict(encode(frame, manifest["features"]))

    rows = frame[names].astype(object).where(frame[names].notna(), None)
    answer = requests.post(
        f"{flights.url}/invocations/flights", json={"dataframe_split": rows.to_dict(orient="split")}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    served = np.array(answer.json()["predictions"])
    assert (served == expected).all(), f"largest difference {np.abs(served - expected).max()}"
    assert len(np.unique(served)) > 500

    # Categories that were never seen are missing, as in the script.
    strange = frame.head(20).assign(dest="???", carrier=None)
    rows = strange[names].astype(object).where(strange[names].notna(), None)
    answer = requests.post(
        f"{flights.url}/invocations/flights", json={"dataframe_records": rows.to_dict(orient="records")}, timeout=60
    )
    assert (np.array(answer.json()["predictions"]) == booster.predict(encode(strange, manifest["features"]))).all()


def test_lineage_leads_from_an_answer_to_the_script(flights):
    frame = pd.read_parquet(flights.folder / "data" / "2013-01.parquet").head(1)
    names = list(requests.get(f"{flights.url}/api/v1/spec", timeout=30).json()["features"])
    rows = frame[names].astype(object).where(frame[names].notna(), None)
    body = {"dataframe_records": rows.to_dict(orient="records")}
    answer = requests.post(f"{flights.url}/invocations/flights", json=body, timeout=60).json()
    lineage = requests.get(f"{flights.url}/api/v1/lineage/predictions/{answer['prediction_ids'][0]}", timeout=30).json()
    assert lineage["version"]["version"] == 1
    assert "train.py" in json.dumps(lineage["code"]), lineage["code"]
    assert lineage["validation"]["success"] is True


def test_the_version_is_reproduced_bit_for_bit_and_the_same_key_reuses_it(flights):
    flights.stop()
    again = json.loads(flights.run("reproduce", "flights/1", "--json"))
    assert again["identical"], again
    reused = json.loads(flights.run("train", "--json"))
    assert reused["run"]["state"] == "reused", reused["run"]

    # Another script is another key: it is trained, not reused.
    script = flights.folder / "train.py"
    script.write_text(script.read_text() + "\n# changed\n")
    other = json.loads(flights.run("reproduce", "flights/1", "--json", code=4))
    assert not other["identical"]
    (flights.folder / "train.py").write_text("import sys\nsys.exit('no luck today')\n")
    failed = json.loads(flights.run("train", "--json", code=1))
    assert "no luck today" in failed["run"]["error"], failed["run"]
