"""Tracking beside a stock MLflow server, in one run on one machine: `make bench-tracking`.

Both servers get the same load from the workshop's own script, shared/conformance/mlflow/bench_mlflow.py (plain HTTP, eight clients,
every acknowledgement at once on both sides). Then, on ours alone: the first page of a very large experiment, and one large artifact
beside a plain copy of the same bytes. Figures are printed, never judged.

usage: tracking.py TIDEMILL MLFLOW [--secs 6] [--runs 10000] [--large 1000000] [--gigabytes 5] [--skip-stock]
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def conformance() -> Path:
    folder = Path(os.environ.get("TIDEMILL_CONFORMANCE", ROOT / ".." / "shared" / "conformance"))
    script = folder / "mlflow" / "bench_mlflow.py"
    if not script.is_file():
        sys.exit(f"{script} is not there: set TIDEMILL_CONFORMANCE to the folder that holds mlflow/bench_mlflow.py")
    return script


def load(script: Path, command: str, args: argparse.Namespace) -> dict:
    """The script's figures for a server started by `command`."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run(
            [sys.executable, str(script), "--start", command, "--conc", "8", "--quickack", "--secs", str(args.secs),
             "--runs", str(args.runs), "--json", out.name],
            check=True,
        )
        return json.loads(Path(out.name).read_text())


class Server:
    """Ours, on a free port, its data in a folder."""

    def __init__(self, binary: str, folder: Path):
        self.process = subprocess.Popen(
            [binary, "up", "--port", "0", "--json", "--data", str(folder / "data")],
            cwd=folder, stdout=subprocess.PIPE, text=True,
        )
        self.port = int(json.loads(self.process.stdout.readline())["url"].rsplit(":", 1)[1])
        self.peak = 0.0
        self.watching = True
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def _watch(self):
        while self.watching:
            try:
                for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        self.peak = max(self.peak, int(line.split()[1]) / 1024)
            except (OSError, ProcessLookupError):
                return
            time.sleep(0.05)

    def stop(self):
        self.watching = False
        self.watcher.join()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def connection(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def call(connection, method: str, path: str, body=None) -> dict:
    connection.request(method, f"/api/2.0/mlflow/{path}", json.dumps(body) if body is not None else None,
                       {"Content-Type": "application/json"} if body is not None else {})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
    return json.loads(text)


def percentile(values: list[float], share: float) -> float:
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def large_experiment(server: Server, runs: int) -> dict:
    """Time to the first page of an experiment with so many runs."""
    experiment = call(server.connection(), "POST", "experiments/create", {"name": "large"})["experiment_id"]
    start = time.perf_counter()

    def fill(worker: int):
        connection = server.connection()
        for i in range(worker, runs, 8):
            call(connection, "POST", "runs/create", {"experiment_id": experiment, "start_time": 1_700_000_000_000 + i})

    workers = [threading.Thread(target=fill, args=(worker,)) for worker in range(8)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    filled = time.perf_counter() - start
    connection = server.connection()
    times = {}
    for name, body in {
        "first page of 100": {"max_results": 100},
        "first page of 1000": {"max_results": 1000},
    }.items():
        taken = []
        for _ in range(15):
            begin = time.perf_counter()
            call(connection, "POST", "runs/search", {"experiment_ids": [experiment], **body})
            taken.append((time.perf_counter() - begin) * 1e3)
        times[f"{name}, p50 ms"] = round(percentile(taken, 0.5), 2)
    return {"runs": runs, "created_per_s": round(runs / filled), **times, "peak_pss_MiB": round(server.peak, 1)}


def large_artifact(server: Server, folder: Path, gigabytes: float, rounds: int = 3) -> dict:
    """One large file up and down, beside plain copies of the same bytes that are synced too."""
    size = int(gigabytes * (1 << 30))
    source, copy = folder / "source.bin", folder / "copy.bin"
    with source.open("wb") as out:
        block = os.urandom(8 << 20)
        for i in range(0, size, len(block)):
            # No two blocks alike: nothing may be saved by finding them equal.
            out.write(i.to_bytes(8, "little") + block[8 : min(len(block), size - i)])
    size = source.stat().st_size

    def rate(work) -> float:
        begin = time.perf_counter()
        work()
        return round(size / (1 << 20) / (time.perf_counter() - begin), 1)

    def plain():
        with source.open("rb") as a, copy.open("wb") as b:
            shutil.copyfileobj(a, b, 1 << 20)
            b.flush()
            os.fsync(b.fileno())

    def put():
        connection = server.connection()
        # Pieces as large as those of the plain copy.
        connection.blocksize = 1 << 20
        with source.open("rb") as body:
            connection.request("PUT", "/api/2.0/mlflow-artifacts/artifacts/bench/source.bin", body,
                               {"Content-Length": str(size), "Content-Type": "application/octet-stream"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()

    def get():
        connection = server.connection()
        connection.request("GET", "/api/2.0/mlflow-artifacts/artifacts/bench/source.bin")
        answer = connection.getresponse()
        buffer, got = bytearray(1 << 20), 0
        with copy.open("wb") as out:
            while read := answer.readinto(buffer):
                out.write(memoryview(buffer)[:read])
                got += read
            out.flush()
            os.fsync(out.fileno())
        assert got == size, (got, size)

    # Interleaved, since the disk's own speed drifts: each transfer is compared with the copies before and after it.
    rates: dict[str, list[float]] = {"copy": [], "put": [], "get": []}

    def measure(name, work):
        rates[name].append(rate(work))
        copy.unlink(missing_ok=True)

    for _ in range(rounds):
        for name, work in (("copy", plain), ("put", put), ("copy", plain), ("get", get)):
            measure(name, work)
    measure("copy", plain)
    source.unlink()

    def share(name: str, first: int) -> float:
        beside = [(rates["copy"][i] + rates["copy"][i + 1]) / 2 for i in range(first, 2 * rounds, 2)]
        return round(percentile([own / copied for own, copied in zip(rates[name], beside)], 0.5), 2)

    return {"GiB": gigabytes, **{f"{name}_MiB_s": all for name, all in rates.items()},
            "put_of_copy": share("put", 0), "get_of_copy": share("get", 1), "peak_pss_MiB": round(server.peak, 1)}


def number(value) -> float | None:
    if not isinstance(value, dict):
        return None
    for key in ("metrics_per_s", "per_s", "MB_per_s"):
        if value.get(key):
            return value[key]
    for key in ("p50_ms", "secs"):
        if value.get(key):
            return -value[key]
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidemill")
    parser.add_argument("mlflow")
    parser.add_argument("--secs", type=float, default=6)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--skip-stock", action="store_true")
    args = parser.parse_args()
    script = conformance()
    tidemill = str(Path(args.tidemill).resolve())
    print("== tidemill", flush=True)
    ours = load(script, f"{tidemill} up --port {{port}} --data {{dir}}/data", args)
    stock = {}
    if not args.skip_stock:
        print("== stock mlflow server", flush=True)
        stock = load(
            script,
            f"{args.mlflow} server --host 127.0.0.1 --port {{port}} --backend-store-uri sqlite:///{{dir}}/m.db"
            " --artifacts-destination {dir}/artifacts",
            args,
        )
    print(f"\n{'':46} {'tidemill':>12} {'mlflow':>12} {'ratio':>8}")
    for name, value in ours.items():
        own, other = number(value), number(stock.get(name))
        if own is None:
            continue
        # Rates are better the larger, times (negative here) the smaller.
        ratio = "" if other is None else f"{own / other if own > 0 else other / own:.1f}"
        shown = "" if other is None else f"{abs(other):g}"
        print(f"{name + (' (ms or s)' if own < 0 else ' (per s)'):46} {abs(own):>12g} {shown:>12} {ratio:>8}")
    for name in ("startup", "rss_idle", "rss_after"):
        print(f"{name:46} {json.dumps(ours.get(name))} | {json.dumps(stock.get(name))}")
    with tempfile.TemporaryDirectory(prefix="bench-tracking-") as folder:
        server = Server(tidemill, Path(folder))
        try:
            if args.gigabytes:
                print("large artifact", json.dumps(large_artifact(server, Path(folder), args.gigabytes)), flush=True)
            if args.large:
                print("large experiment", json.dumps(large_experiment(server, args.large)), flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
