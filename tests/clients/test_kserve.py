"""KServe's SDK. Its pins contradict those of the other clients, so it runs in an environment of its own."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_kserves_client_predicts_over_rest_and_grpc(numbers):
    venv = subprocess.run(
        [ROOT / "scripts" / "test-venv.sh", "kserve"], check=True, capture_output=True, text=True
    ).stdout.strip()
    check = Path(__file__).parent / "kserve_sdk" / "check.py"
    done = subprocess.run(
        [f"{venv}/bin/python", check, numbers.host], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("ok")
