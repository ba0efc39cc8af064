#!/usr/bin/env python3
"""Start-up, idle memory and the replay of a year, each beside a baseline measured in the same run.

The baseline of the replay is the floor that durability sets on this disk: as many write+fdatasync calls as the replay has
acknowledged requests (a prediction batch, a label batch, a clock move), made by a bare loop. Only the standard library is used.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request


def memory_mb(pid: int, field: str) -> float:
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/{pid}/status")


def start_up(binary: str, project: str, repeats: int) -> tuple[float, float]:
    """Median seconds from exec to a ready server on an empty data folder, and its idle resident memory in MB."""
    seconds, idle = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as data:
            begin = time.perf_counter()
            server = subprocess.Popen(
                [binary, "--json", "up", "--port", "0", "--project", project, "--data", data],
                stdout=subprocess.PIPE, text=True,
            )
            try:
                url = json.loads(server.stdout.readline())["url"]
                with urllib.request.urlopen(url + "/v2/health/ready") as answer:
                    assert answer.status == 200
                seconds.append(time.perf_counter() - begin)
                time.sleep(1.0)
                idle.append(memory_mb(server.pid, "VmRSS"))
            finally:
                server.terminate()
                server.wait()
    return statistics.median(seconds), statistics.median(idle)


def fdatasync_ms(calls: int = 500) -> float:
    with tempfile.NamedTemporaryFile() as file:
        begin = time.perf_counter()
        for _ in range(calls):
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
        return (time.perf_counter() - begin) / calls * 1000


def process_floor(repeats: int) -> float:
    """Median seconds to run a process that does nothing: what any start-up costs here."""
    def once() -> float:
        begin = time.perf_counter()
        subprocess.run(["true"], check=True)
        return time.perf_counter() - begin
    return statistics.median(once() for _ in range(repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("--project", default="examples/flights")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--to", help="play only up to this time")
    args = parser.parse_args()

    ready, idle = start_up(args.binary, args.project, args.repeats)
    floor = process_floor(args.repeats)
    print(f"ready on an empty data folder  {ready * 1000:8.1f} ms   target   500 ms   ({ready / floor:.0f} x an empty process)")
    print(f"idle server                    {idle:8.1f} MB   target    60 MB")

    sync = fdatasync_ms()
    command = [args.binary, "demo", "--exit", "--json", "--port", "0", "--project", args.project]
    if args.to:
        command += ["--to", args.to]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    hours = 24 * 365 if not args.to else 1
    # One clock move an hour, and about one prediction batch and one label batch in each.
    durable = 3 * hours * sync / 1000
    print(f"replay of {result['predictions']} predictions  {result['wall_s']:8.1f} s    target   240 s    "
          f"({result['predictions'] / result['wall_s']:.0f} predictions/s; {result['wall_s'] / durable:.1f} x the floor of fdatasync, {sync:.2f} ms each)")
    print(f"peak memory of the replay      {result['peak_rss_mb']:8.1f} MB   target   700 MB")
    if not args.to:
        gain = {m["month"]: m["auc_champion"] - m["auc_frozen"] for m in result["months"]}
        summer = statistics.mean(gain[f"2013-{m:02}"] for m in range(6, 10))
        autumn = statistics.mean(gain[f"2013-{m:02}"] for m in range(10, 13))
        refused = sum(m["refused"] for m in result["months"])
        print(f"gain in AUC, June to September {summer:+8.4f}      target +0.0300")
        print(f"gain in AUC, Oct. to December  {autumn:+8.4f}      target -0.0100")
        print(f"challengers refused by a gate  {refused:8d}      target      1")
    json.dump({"ready_s": ready, "idle_mb": idle, "fdatasync_ms": sync, "replay": result}, sys.stderr)
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
