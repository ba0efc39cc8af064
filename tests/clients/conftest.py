"""Servers for the client tests: each fixture starts the real binary on a free port, in a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


def binary() -> str:
    path = os.environ.get("TIDEMILL_BIN") or str(
        Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "tidemill"
    )
    if not Path(path).is_file():
        pytest.exit(f"{path} is not there: run `cargo build -p tidemill` first, or set TIDEMILL_BIN", returncode=2)
    return path


def worker_env() -> dict:
    """What a server needs whose Python, uv and ONNX Runtime are those of these tests."""
    env = {"TIDEMILL_PYTHON": os.environ.get("TIDEMILL_PYTHON") or sys.executable}
    env["TIDEMILL_UV"] = str(Path(sys.executable).with_name("uv"))
    if runtime := list(Path(pd.__file__).parents[1].glob("onnxruntime/capi/libonnxruntime.so.*")):
        env["TIDEMILL_ONNXRUNTIME"] = str(runtime[0])
    return env


@dataclass
class Project:
    """A project folder, and the server behind it once it is up."""

    folder: Path
    name: str
    env: dict = field(default_factory=dict)
    process: subprocess.Popen | None = None
    url: str = ""
    grpc: str = ""

    def run(self, *args: str, code: int = 0) -> str:
        done = subprocess.run(
            [binary(), *args], cwd=self.folder, env=os.environ | self.env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def up(self, *args: str) -> "Project":
        self.process = subprocess.Popen(
            [binary(), "up", "--port", "0", "--json", *args],
            cwd=self.folder,
            env=os.environ | self.env,
            stdout=subprocess.PIPE,
            stderr=open(self.folder / "server.log", "w"),
            text=True,
        )
        line = self.process.stdout.readline()
        assert line, f"the server did not start:\n{(self.folder / 'server.log').read_text()}"
        told = json.loads(line)
        self.url, self.grpc = told["url"], told["grpc"]
        return self

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=60)
            self.process = None

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")


SPEC = """\
name: colours
data:
  source: rows.csv
  time: at
  key: id
label:
  name: y
  task: binary
features:
  x: numeric
  count: numeric
  flag: categorical
  colour: categorical
training:
  budget: 0.1
  iterations: 10
"""


def rows() -> pd.DataFrame:
    """Numbers with gaps, integers, booleans and texts: what a notebook's data frame holds."""
    n = 300
    frame = pd.DataFrame({
        "id": [f"row-{i}" for i in range(n)],
        "at": pd.date_range("2024-01-01", periods=n, freq="h").strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x": [None if i % 11 == 0 else (i * 37 % 100) / 10 for i in range(n)],
        "count": [i % 7 for i in range(n)],
        "flag": [i % 2 == 0 for i in range(n)],
        "colour": [None if i % 13 == 0 else ["red", "green", "blue"][i % 3] for i in range(n)],
    })
    frame["y"] = (frame["x"].fillna(5) + frame["count"] > 7) ^ (frame["colour"] == "red")
    return frame


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    return rows()


@pytest.fixture(scope="session")
def colours(tmp_path_factory, frame) -> Project:
    """A small trained project with numbers, integers, booleans and texts."""
    folder = tmp_path_factory.mktemp("colours")
    frame.to_csv(folder / "rows.csv", index=False)
    (folder / "tidemill.yaml").write_text(SPEC)
    project = Project(folder, "colours")
    project.run("train")
    yield project.up()
    project.stop()


NUMBERS = """\
name: numbers
data:
  source: rows.csv
  time: at
label:
  name: y
  task: multiclass
features:
  a: numeric
  b: numeric
  c: numeric
  d: numeric
training:
  budget: 0.1
  iterations: 10
"""


def numbers_in(folder: Path) -> Project:
    """A small trained project of three classes that takes only numbers."""
    n = 300
    frame = pd.DataFrame({"at": pd.date_range("2024-01-01", periods=n, freq="h").strftime("%Y-%m-%dT%H:%M:%SZ")})
    for i, name in enumerate("abcd"):
        frame[name] = [(row * (31 + 2 * i)) % 100 / 10 for row in range(n)]
    frame["y"] = pd.cut(frame["a"] + frame["b"], 3, labels=["low", "middle", "high"])
    frame.to_csv(folder / "rows.csv", index=False)
    (folder / "tidemill.yaml").write_text(NUMBERS)
    project = Project(folder, "numbers")
    project.run("train")
    return project


@pytest.fixture(scope="session")
def numbers(tmp_path_factory) -> Project:
    """The same, served with a port for gRPC and with shared memory."""
    project = numbers_in(tmp_path_factory.mktemp("numbers"))
    yield project.up("--grpc-port", "0", "--shared-memory")
    project.stop()


@pytest.fixture(scope="session")
def numbers_folder(tmp_path_factory) -> Path:
    """Another one that no server uses."""
    return numbers_in(tmp_path_factory.mktemp("more-numbers")).folder


@pytest.fixture(scope="session")
def flights(tmp_path_factory) -> Project:
    """One month of flights, trained by the example's own `train.py` with LightGBM."""
    folder = tmp_path_factory.mktemp("flights")
    example = ROOT / "examples" / "flights"
    (folder / "data").mkdir()
    shutil.copy(example / "data" / "2013-01.parquet", folder / "data")
    shutil.copy(example / "train.py", folder)
    shutil.copy(example / "requirements.txt", folder)
    spec = (example / "tidemill.yaml").read_text()
    commented = "  # run: python train.py\n  # lock: requirements.txt\n"
    plain = "  run: python train.py\n  code: [train.py]\n  lock: requirements.txt\n  params: {num_trees: 40}\n"
    # A window counts from now, and these rows are of 2013.
    for old, new in [(commented, plain), ("holdout: 14d", "holdout: 7d"), ("  window: 120d\n", "")]:
        assert spec.count(old) == 1, old
        spec = spec.replace(old, new)
    (folder / "tidemill.yaml").write_text(spec)
    # `python` is the one that runs these tests, as in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    project = Project(folder, "flights", env={"PATH": path})
    project.trained = json.loads(project.run("train", "--json"))
    yield project.up()
    project.stop()
