"""Throughput and memory of `facegender serve`, compared with `predict` on the same images.

    python -m benchmarks.serve.load faces --images 960 --rounds 5 -o benchmarks/results/serve.json

Everything runs on one machine: the server, its clients, and `predict` between, in rounds, so that
other load on the machine affects all of them. The ratio counts, not the rates.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from facegender.inference.classifier import Classifier
from facegender.inference.pipeline import TIMEOUT_SECONDS, predict_files
from facegender.inference.worker_pool import WorkerPool
from facegender.inputs.paths import collect_inputs
from facegender.model.runtime import count_cores

BOUNDARY = "a-boundary-of-the-benchmark"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
SINGLE_FILE_CLIENTS = 32
BUNDLE_CLIENTS = 4
FILES_PER_BUNDLE = 32
CROWD_CLIENTS = 200
SOAK_REQUESTS = 3600  # an hour at one per second
SOAK_STEPS = 10


def multipart_body(files: Sequence[bytes]) -> bytes:
    head = '--{}\r\nContent-Disposition: form-data; name="files"; filename="{}.jpg"\r\n\r\n'
    parts = [head.format(BOUNDARY, i).encode() + data for i, data in enumerate(files)]
    return b"\r\n".join(parts) + f"\r\n--{BOUNDARY}--\r\n".encode()


def bundle_bodies(files: Sequence[bytes]) -> list[bytes]:
    starts = range(0, len(files), FILES_PER_BUNDLE)
    return [multipart_body(files[start : start + FILES_PER_BUNDLE]) for start in starts]


class Client:
    """Sends requests over one connection, and counts their statuses."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.rows = 0

    def send(self, bodies: Sequence[bytes]) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=300)
        for body in bodies:
            started = time.perf_counter()
            try:
                connection.request("POST", "/predict", body, HEADERS)
                response = connection.getresponse()
                text = response.read()
                self.statuses[str(response.status)] += 1
                if response.status == 200:
                    self.rows += len(json.loads(text)["images"])
                elif not response.getheader("Retry-After"):
                    self.statuses["without Retry-After"] += 1
            except OSError as error:
                self.statuses[f"lost: {type(error).__name__}"] += 1
                connection.close()
            self.seconds.append(time.perf_counter() - started)
        connection.close()


def send_all(address: str, bodies: Sequence[bytes], count: int) -> dict[str, Any]:
    """Send all bodies, distributed over ``count`` clients that run at the same time."""
    clients = [Client(address) for _ in range(count)]
    threads = [
        threading.Thread(target=client.send, args=(bodies[i::count],))
        for i, client in enumerate(clients)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - started
    seconds = sorted(second for client in clients for second in client.seconds)
    images = sum(client.rows for client in clients)
    return {
        "clients": count,
        "requests": len(bodies),
        "statuses": dict(sum((client.statuses for client in clients), Counter())),
        "images": images,
        "images_per_second": round(images / wall, 2),
        "seconds_p50": round(seconds[len(seconds) // 2], 3),
        "seconds_p99": round(seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))], 3),
    }


def predict_rate(folder: Path, classifier: Classifier, pool: WorkerPool) -> float:
    """Measure images per second of `predict` with running worker processes, as the server has."""
    started = time.perf_counter()
    count = sum(1 for _ in predict_files(collect_inputs([folder]), classifier, pool=pool))
    return count / (time.perf_counter() - started)


def memory(process: int) -> dict[str, float]:
    """Measure the resident megabytes of the server and of its worker processes."""
    found = {"server": 0.0, "workers": 0.0}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            values = dict(re.findall(r"^(\w+):\s+(\d+)", status.read_text(), re.M))
        except OSError:
            continue
        if int(values.get("Pid", 0)) == process:
            found["server"] += int(values["VmRSS"]) / 1000
        elif int(values.get("PPid", 0)) == process:
            found["workers"] += int(values.get("VmRSS", 0)) / 1000
    return {name: round(value, 1) for name, value in found.items()}


def soak(address: str, process: int, singles: Sequence[bytes], requests: int) -> dict[str, Any]:
    """Send requests as fast as they are answered; measure the server's memory after each tenth.

    One in ten is damaged; one in fifty disconnects before its answer.
    """
    damaged = multipart_body([b"\xff\xd8 no image"])
    measured = [{"requests": 0} | memory(process)]
    started, statuses = time.perf_counter(), Counter[str]()
    for step in range(SOAK_STEPS):
        first, last = (requests * i // SOAK_STEPS for i in (step, step + 1))
        bodies = [damaged if i % 10 == 9 else singles[i % len(singles)] for i in range(first, last)]
        statuses.update(send_all(address, bodies, SINGLE_FILE_CLIENTS)["statuses"])
        for body in singles[: len(bodies) // 50]:
            send_and_disconnect(address, body)
        measured.append({"requests": last} | memory(process))
        print(f"memory: {json.dumps(measured[-1])}", file=sys.stderr)
    growth = {
        name: round(measured[-1][name] - measured[1][name], 1) for name in ("server", "workers")
    }
    return {
        "requests": requests,
        "seconds": round(time.perf_counter() - started),
        "statuses": dict(statuses),
        "growth_megabytes_after_first_tenth": growth,
        "memory_megabytes": measured,
    }


def send_and_disconnect(address: str, body: bytes) -> None:
    """Send a request and disconnect before its answer."""
    connection = http.client.HTTPConnection(address, timeout=300)
    connection.request("POST", "/predict", body, HEADERS)
    connection.close()


def count_lost(result: dict[str, Any]) -> int:
    """Count requests without an answer, and refusals without a Retry-After."""
    return sum(
        count
        for status, count in result["statuses"].items()
        if status.startswith(("lost", "without"))
    )


def start_server(*options: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "facegender", "serve", "--port", "0", "--quiet", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = re.search(r"http://(\S+)", process.stdout.readline())
    assert address, "the server did not start"
    return process, address[1]


def run_rounds(
    files: Sequence[bytes], address: str, classifier: Classifier, count: int
) -> list[dict[str, Any]]:
    """Measure `predict` and the server in turns, on the same files."""
    singles = [multipart_body([data]) for data in files]
    bundles = bundle_bodies(files)
    rounds: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as name,
        WorkerPool(count_cores(), timeout=TIMEOUT_SECONDS) as pool,
    ):
        folder = Path(name)
        for number, data in enumerate(files):
            (folder / f"{number:05}.jpg").write_bytes(data)
        send_all(address, bundles[:1], 1)
        predict_rate(folder, classifier, pool)
        for number in range(count):
            rounds.append(
                {
                    "predict_images_per_second": round(predict_rate(folder, classifier, pool), 2),
                    "bundles": send_all(address, bundles, BUNDLE_CLIENTS),
                    "singles": send_all(address, singles, SINGLE_FILE_CLIENTS),
                }
            )
            print(f"round {number + 1} of {count}: {json.dumps(rounds[-1])}", file=sys.stderr)
    return rounds


def summarize(
    rounds: Sequence[dict[str, Any]],
    crowd: dict[str, Any],
    overload: dict[str, Any],
    soaked: dict[str, Any],
) -> dict[str, Any]:
    def ratio(kind: str) -> float:
        ratios = [
            one[kind]["images_per_second"] / one["predict_images_per_second"] for one in rounds
        ]
        return round(float(median(ratios)), 3)

    def p99(kind: str) -> float:
        return round(float(median(one[kind]["seconds_p99"] for one in rounds)), 3)

    results = [one[kind] for one in rounds for kind in ("bundles", "singles")]
    return {
        "ratio_to_predict_32_files": ratio("bundles"),
        "ratio_to_predict_one_file": ratio("singles"),
        "seconds_p99_32_files": p99("bundles"),
        "seconds_p99_one_file": p99("singles"),
        "seconds_p99_200_clients": crowd["seconds_p99"],
        "lost": sum(map(count_lost, (*results, crowd, overload, soaked))),
        "growth_megabytes": soaked["growth_megabytes_after_first_tenth"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="JPEG files to send, repeated as needed")
    parser.add_argument("--images", type=int, default=320, help="images per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--soak", type=int, default=SOAK_REQUESTS, help="requests over which memory is measured"
    )
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    given = [path.read_bytes() for path in sorted(options.folder.glob("*.jpg"))]
    files = [given[i % len(given)] for i in range(options.images)]
    singles = [multipart_body([data]) for data in files]
    classifier = Classifier.load()
    process, address = start_server()
    rounds = run_rounds(files, address, classifier, options.rounds)
    bodies = [singles[i % len(singles)] for i in range(CROWD_CLIENTS)]
    crowd = send_all(address, bodies, CROWD_CLIENTS)
    soaked = soak(address, process.pid, singles, options.soak)
    process.terminate()
    process.wait(60)
    small, address = start_server("--queue", "64", "--max-images", str(FILES_PER_BUNDLE))
    overload = send_all(address, bundle_bodies(files) * 4, 40)
    small.terminate()
    small.wait(60)
    summary = summarize(rounds, crowd, overload, soaked)
    result = {
        "command": " ".join(["python -m benchmarks.serve.load", *sys.argv[1:]]),
        "cores": os.cpu_count(),
        "load_average_at_end": os.getloadavg()[0],
        "model": classifier.digest,
        **summary,
        "rounds": rounds,
        "crowd_of_200_clients": crowd,
        "queue_of_64_and_40_clients_with_32_files": overload,
        "soak": soaked,
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
