"""A real S3 server (s3s-fs) on a free port of 127.0.0.1, with its objects as files in a folder. It checks signatures."""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

KEY, SECRET = "tidemill-tests", "not-a-secret-at-all"


def binary() -> str:
    target = Path(os.environ.get("CARGO_TARGET_DIR") or Path(__file__).resolve().parents[2] / "target")
    path = os.environ.get("TIDEMILL_S3_SERVER") or str(target / "tools" / "bin" / "s3s-fs")
    if not Path(path).is_file():
        pytest.exit(f"{path} is not there: run scripts/test-tools.sh first, or set TIDEMILL_S3_SERVER", returncode=2)
    return path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclass
class S3:
    folder: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict:
        """What Tidemill, MLflow and boto3 need to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "MLFLOW_S3_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def start(self) -> "S3":
        log = open(self.folder.parent / "s3.log", "a")
        command = [binary(), "--host", "127.0.0.1", "--port", str(self.port), "--access-key", KEY, "--secret-key", SECRET]
        self.process = subprocess.Popen([*command, str(self.folder)], stdout=log, stderr=log)
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                assert self.process.poll() is None, (self.folder.parent / "s3.log").read_text()
                time.sleep(0.02)
        raise AssertionError("the S3 server does not answer")

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=30)
            self.process = None

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}),
        )

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """What lies in the bucket, from the disk: s3s-fs lists `+` wrongly to boto3."""
        root = self.folder / bucket
        keys = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        return sorted(key for key in keys if key.startswith(prefix))

    def open_uploads(self) -> list[str]:
        """Uploads in parts that nobody has ended."""
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith(".upload"))


def launch(folder: Path) -> S3:
    root = folder / "s3"
    root.mkdir(parents=True)
    return S3(root, free_port()).start()
