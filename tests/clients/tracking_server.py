"""A tracking server: the real binary in a folder without a project, on SQLite or on PostgreSQL."""

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from conftest import Project

DATABASES = ["sqlite", "postgres"]


def fresh_database(kind: str) -> str:
    """The `--database` of an empty database. PostgreSQL's server is named by TIDEMILL_TEST_POSTGRES (scripts/with-postgres.sh)."""
    if kind == "sqlite":
        return "sqlite"
    server = os.environ.get("TIDEMILL_TEST_POSTGRES")
    if not server:
        pytest.exit("TIDEMILL_TEST_POSTGRES is not set: run by `make test-python`, or under scripts/with-postgres.sh", returncode=2)
    name = f"clients_{uuid.uuid4().hex}"
    subprocess.run(["psql", "-q", f"{server}/postgres", "-c", f"CREATE DATABASE {name}"], check=True)
    return f"{server}/{name}"


def start(folder: Path, kind: str, *args: str, env: dict | None = None) -> Project:
    """A server in `folder`, its data below it."""
    folder.mkdir(parents=True, exist_ok=True)
    project = Project(folder, "tracking", env=env or {})
    return project.up("--data", str(folder / "data"), "--database", fresh_database(kind), *args)
