"""Serving beside its peers, in one run on one machine: `make bench-serving`.

Figures are printed with the targets, never judged by an exit code: these machines are shared, and a ratio means something only within
one run. Servers and load generator share the same cores. Rounds are interleaved, and the median round counts.

usage: bench.py TIDEMILL ECHO PYTHON PEERS_PYTHON PERF_ANALYZER [--secs 8] [--rounds 3] [--only http,grpc,…]
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = [f"x{i}" for i in range(10)]
ROW = [0.1, -0.2, 0.3, 1.4, -0.5, 0.6, -0.7, 0.8, 0.9, -1.0]

MAKE_MODELS = """
import pickle, sys
import numpy as np, pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from skl2onnx import to_onnx
rng = np.random.default_rng(0)
x = rng.normal(size=(20_000, 10))
y = (x[:, 0] * 1.5 + x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]) + rng.normal(size=len(x)) * 0.7) > 0
frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(10)])
frame["label"] = y
frame.to_parquet(sys.argv[1])
model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0).fit(x, y)
with open(sys.argv[2], "wb") as file:
    pickle.dump(model, file)
with open(sys.argv[3], "wb") as file:
    file.write(to_onnx(model, x[:1].astype(np.float32), options={"zipmap": False}).SerializeToString())
"""


def get(url: str, body=None, timeout=30):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return json.loads(response.read() or b"null")


def tensor(name: str, shape: list, data: list, datatype="FP64") -> dict:
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}


@contextlib.contextmanager
def process(command: list, environment=None, cwd=None):
    """A process, and the first line that it prints that is JSON, an address or a number."""
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=cwd, env={**os.environ, **(environment or {})}
    )
    try:
        said = ""
        for line in child.stdout:
            if re.match(r"^(\{|[\d.]+:?\d*$)", line.strip()):
                said = line.strip()
                break
        assert said, f"{command[0]} said nothing"
        drain = threading.Thread(target=lambda: [None for _ in child.stdout], daemon=True)
        drain.start()
        yield child, said
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def until_answers(url: str, body: dict, patience=60.0):
    end = time.monotonic() + patience
    while True:
        try:
            return get(url, body)
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.2)


def wrk(url: str, body: dict, seconds: float, connections=16) -> dict:
    """Requests a second and the 99th percentile in milliseconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            f"wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\nwrk.body = [==[{json.dumps(body)}]==]\n"
            "done = function(summary, latency)\n"
            "  local e = summary.errors\n"
            "  io.write(string.format('RESULT %d %d %d %d\\n', summary.requests, summary.duration, latency:percentile(99),\n"
            "    e.status + e.connect + e.read + e.write + e.timeout))\nend\n"
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, url]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests, micros, p99, errors = map(int, re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", out).groups())
    assert errors == 0, out
    return {"rate": requests / micros * 1e6, "p99_ms": p99 / 1e3}


def memory_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1)) / 1024


class Ours:
    """Our server with the loop's project in `folder`."""

    def __init__(self, args, folder: Path):
        self.args, self.folder = args, folder
        self.data = folder / "tidemill-data"

    def train(self):
        environment = {**os.environ, "BENCH_PYTHON": self.args.python, "BENCH_MODEL": str(self.folder / "model.txt")}
        subprocess.run([self.args.tidemill, "train"], cwd=self.folder, env=environment, check=True, stdout=subprocess.DEVNULL)

    def up(self):
        environment = {"TIDEMILL_PYTHON": self.args.python, "ORT_DYLIB_PATH": self.args.onnxruntime}
        return process([self.args.tidemill, "up", "--port", "0", "--json"], environment, self.folder)

    def run(self, *command):
        subprocess.run([self.args.tidemill, *map(str, command)], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)


def line(what: str, figure: str, target: str = ""):
    print(f"{what:58} {figure:>24}   {target}", flush=True)


def http(args, ours: Ours):
    print(f"\nHTTP, single-row JSON, 16 connections of wrk, {args.rounds} interleaved rounds of {args.secs:g} s; median (p99)")
    body = tensor("input", [1, 10], ROW)
    with contextlib.ExitStack() as stack:
        _, echo = stack.enter_context(process([args.echo]))
        child, said = stack.enter_context(ours.up())
        url = json.loads(said)["url"]
        line("idle memory with one model (PSS)", f"{memory_mb(child.pid):.1f} MB", "under 60")
        ours.run("deploy", ours.folder / "model.pkl", "--name", "pickle", "--method", "predict_proba", "--batch", "64")
        [described] = get(f"{url}/v2/models/pickle")["inputs"]
        runs = {
            "bare axum echo": (f"http://{echo}/", body),
            "tidemill: LightGBM, native, logged": (f"{url}/v2/models/bench/infer", body),
            "tidemill: scikit-learn pickle in a worker": (f"{url}/v2/models/pickle/infer", tensor(described["name"], [1, 10], ROW, described["datatype"])),
        }
        if args.peers:
            pickled = str(ours.folder / "peers.pkl")
            subprocess.run([args.peers, str(HERE / "peers.py"), "make", pickled], check=True)
            _, port = stack.enter_context(process([args.peers, str(HERE / "peers.py"), "triton", pickled]))
            for model in ("identity", "sklearn"):
                runs[f"Triton: {model}"] = (f"http://127.0.0.1:{port}/v2/models/{model}/infer", tensor("x", [1, 10], ROW))
            _, port = stack.enter_context(process([args.peers, str(HERE / "peers.py"), "bentoml", pickled]))
            runs["BentoML: scikit-learn"] = (f"http://127.0.0.1:{port}/predict", {"x": [ROW]})
        for address, sent in runs.values():
            until_answers(address, sent)
        found = {name: [] for name in runs}
        for _ in range(args.rounds):
            for name, (address, sent) in runs.items():
                found[name].append(wrk(address, sent, args.secs))
        line("memory after the load (PSS)", f"{memory_mb(child.pid):.1f} MB")
    rate = {name: statistics.median(r["rate"] for r in rounds) for name, rounds in found.items()}
    p99 = {name: statistics.median(r["p99_ms"] for r in rounds) for name, rounds in found.items()}
    for name in runs:
        line(name, f"{rate[name]:,.0f}/s ({p99[name]:.2f} ms)")
    native, worker = rate["tidemill: LightGBM, native, logged"], rate["tidemill: scikit-learn pickle in a worker"]
    line("native / bare echo", f"{native / rate['bare axum echo']:.2f}", "at least 0.4")
    line("native p99", f"{p99['tidemill: LightGBM, native, logged']:.2f} ms", "under 5")
    if args.peers:
        line("native / Triton's identity", f"{native / rate['Triton: identity']:.1f}", "at least 3")
        line("worker / Triton with dynamic batching", f"{worker / rate['Triton: sklearn']:.2f}", "at least 1")
        line("worker / BentoML", f"{worker / rate['BentoML: scikit-learn']:.1f}", "at least 8")


def grpc(args, ours: Ours):
    print("\ngRPC beside HTTP, perf_analyzer, single rows in binary tensors, 16 at once, the rounds interleaved")
    shapes = [part for name in NAMES for part in ("--shape", f"{name}:1")]
    with ours.up() as (_, said):
        host = json.loads(said)["url"].split("//")[1]
        found = {"http": [], "grpc": []}
        for _ in range(args.rounds):
            for protocol, rates in found.items():
                command = [args.perf_analyzer, "-m", "bench", "-u", host, "-i", protocol, *shapes, "--concurrency-range", "16",
                           "--measurement-interval", str(int(args.secs * 500)), "--stability-percentage", "30", "--max-trials", "4"]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                rates.append(float(re.search(r"throughput: ([\d.]+) infer/sec", out).group(1)))
    medians = {protocol: statistics.median(rates) for protocol, rates in found.items()}
    for protocol, value in medians.items():
        line(f"{protocol}", f"{value:,.0f}/s")
    line("gRPC / HTTP", f"{medians['grpc'] / medians['http']:.2f}", "at least 1")


def start(args, ours: Ours):
    print("\nFrom nothing to an answer")
    body = tensor("input", [1, 10], ROW)
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        with ours.up() as (_, said):
            get(json.loads(said)["url"] + "/v2/models/bench/infer", body)
            times.append(time.perf_counter() - begin)
    line("cold start: process start to first answer, median of 7", f"{statistics.median(times) * 1e3:.1f} ms", "under 50")
    with ours.up() as (_, said):
        url = json.loads(said)["url"]
        single = tensor("X", [1, 10], ROW, "FP32")
        deployments = [
            ("trees", [ours.folder / "model.txt"], "invocations", {"dataframe_split": {"columns": NAMES, "data": [ROW]}}, 10),
            ("onnx", [ours.folder / "model.onnx"], "infer", single, 10),
            ("function", [f"{HERE / 'app.py'}:echo"], "invocations", {"x": 1.0}, 300),
        ]
        for name, what, path, sent, target in deployments:
            ours.run("deploy", *what, "--name", name, "--idle", "1s")
            address = f"{url}/invocations/{name}" if path == "invocations" else f"{url}/v2/models/{name}/infer"
            get(address, sent)
            times = []
            for _ in range(5):
                asleep(url, name)
                begin = time.perf_counter()
                get(address, sent)
                times.append(time.perf_counter() - begin)
            line(f"scale from zero: {name}, median of 5", f"{statistics.median(times) * 1e3:.1f} ms", f"under {target}")


def asleep(url: str, name: str):
    end = time.monotonic() + 30
    while True:
        listed = get(f"{url}/api/v1/deployments/{name}")
        if listed.get("replicas", 1) == 0:
            return
        assert time.monotonic() < end, listed
        time.sleep(0.2)


def overload(args, ours: Ours):
    seconds = args.overload_secs
    print(f"\nOverload: a function of 20 ms in one worker, asked twice as often as it can answer, for {seconds} s")
    with ours.up() as (child, said):
        url = json.loads(said)["url"]
        ours.run("deploy", f"{HERE / 'app.py'}:slow", "--name", "slow")
        address = f"{url}/invocations/slow"
        quiet = closed(address, 1, 10)
        peak = closed(address, 2, 10)
        before = memory_mb(child.pid)
        hard = open_loop(address, 2 * peak["rate"], seconds)
        after = memory_mb(child.pid)
    line("unloaded p99", f"{quiet['p99_ms']:.1f} ms")
    line("peak", f"{peak['rate']:.1f}/s")
    line("goodput at twice the peak", f"{hard['rate']:.1f}/s ({hard['rate'] / peak['rate']:.0%})", "at least 90 %")
    line("p99 of those admitted", f"{hard['p99_ms']:.1f} ms ({hard['p99_ms'] / quiet['p99_ms']:.2f} ×)", "at most 2 ×")
    line("refused", f"{hard['refused']:,} of {hard['sent']:,}")
    line("memory before and after", f"{before:.1f} → {after:.1f} MB", "no growth")


def once(address: str):
    begin = time.perf_counter()
    try:
        get(address, {"x": 1.0})
        return time.perf_counter() - begin
    except urllib.error.HTTPError as error:
        assert error.code in (429, 503, 504), error
        return None


def closed(address: str, callers: int, seconds: float) -> dict:
    end = time.monotonic() + seconds

    def caller():
        times = []
        while time.monotonic() < end:
            taken = once(address)
            if taken is not None:
                times.append(taken)
        return times

    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        times = sorted(t for f in [pool.submit(caller) for _ in range(callers)] for t in f.result())
    return {"rate": len(times) / seconds, "p99_ms": times[int(len(times) * 0.99)] * 1e3}


def open_loop(address: str, rate: float, seconds: float) -> dict:
    begin, results = time.monotonic(), []
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        for i in range(int(rate * seconds)):
            time.sleep(max(0.0, begin + i / rate - time.monotonic()))
            results.append(pool.submit(once, address))
        taken = [result.result() for result in results]
    times = sorted(t for t in taken if t is not None)
    refused = len(taken) - len(times)
    return {"rate": len(times) / seconds, "p99_ms": times[int(len(times) * 0.99)] * 1e3, "refused": refused, "sent": len(taken)}


SECTIONS = {"http": http, "grpc": grpc, "start": start, "overload": overload}


def main():
    parser = argparse.ArgumentParser()
    for name in ("tidemill", "echo", "python", "onnxruntime", "peers", "perf_analyzer"):
        parser.add_argument(name)
    parser.add_argument("--secs", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload-secs", type=float, default=60)
    parser.add_argument("--only", default=",".join(SECTIONS))
    args = parser.parse_args()
    assert shutil.which("wrk"), "wrk is not there: apt-get install wrk"
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        folder = Path(folder)
        for file in ("tidemill.yaml", "train.py"):
            shutil.copy(HERE / file, folder)
        files = [str(folder / name) for name in ("data.parquet", "model.pkl", "model.onnx")]
        subprocess.run([args.python, "-c", MAKE_MODELS, *files], check=True)
        ours = Ours(args, folder)
        ours.train()
        for section in args.only.split(","):
            SECTIONS[section](args, ours)


if __name__ == "__main__":
    main()
