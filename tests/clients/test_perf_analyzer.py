"""Triton's load generator: it asks for metadata, configuration and statistics, and sends binary tensors."""

import csv
import platform
import subprocess
from pathlib import Path

import pytest
from conftest import Project, worker_env

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="perf_analyzer is there for Linux on x86_64 only"
)


@pytest.fixture(scope="module")
def program() -> str:
    done = subprocess.run([ROOT / "scripts" / "perf-analyzer.sh"], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_perf_analyzer_measures_an_endpoint(numbers, program, tmp_path, protocol):
    report = tmp_path / "report.csv"
    shapes = [argument for name in "abcd" for argument in ("--shape", f"{name}:1")]
    done = subprocess.run(
        [
            program, "-m", "numbers", "-u", numbers.host, "-i", protocol, *shapes, "--concurrency-range", "2",
            "--measurement-mode", "count_windows", "--measurement-request-count", "50", "--stability-percentage", "999",
            "--max-trials", "6", "-f", report,
        ],
        capture_output=True, text=True, timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(csv.DictReader(report.open()))
    assert float(row["Inferences/Second"]) > 0
    assert float(row["Server Compute Infer"]) > 0, "its statistics were read"


FUNCTION = '''
import numpy as np
import tidemill

@tidemill.endpoint(inputs={"upto": ("INT32", [1])}, outputs={"i": ("INT64", [1])})
def count(upto: np.ndarray):
    yield {"i": np.array([int(upto[0])], np.int64)}
'''


def test_perf_analyzer_measures_a_stream_of_a_model_that_answers_in_pieces(program, tmp_path):
    (tmp_path / "app.py").write_text(FUNCTION)
    server = Project(tmp_path, "", worker_env()).up()
    try:
        server.run("deploy", "app.py:count", "--json")
        report = tmp_path / "report.csv"
        done = subprocess.run(
            [
                program, "-m", "count", "-u", server.host, "-i", "grpc", "--streaming", "--async", "--concurrency-range", "2",
                "--measurement-mode", "count_windows", "--measurement-request-count", "50", "--stability-percentage", "999",
                "--max-trials", "6", "-f", report,
            ],
            capture_output=True, text=True, timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        row = next(csv.DictReader(report.open()))
        assert float(row["Inferences/Second"]) > 0
        assert float(row["Server Compute Infer"]) > 0, "its statistics were read"
    finally:
        server.stop()
