"""How much `facegender serve` answers, beside `predict` on the same pictures, and what it holds.

Everything runs on one machine: the server, its clients, and `predict` in between, turn by turn, so
that other work on the machine meets all of them. The ratio is what counts, not the rates.

    python benchmarks/serve/load.py faces -o benchmarks/results/serve.json
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
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
ONE_AT_ONCE = 32
MANY_AT_ONCE = 4
FILES = 32
CLIENTS = 200
HOUR = 3600  # requests: one a second
PARTS = 10


def body(files: Sequence[bytes]) -> bytes:
    head = '--{}\r\nContent-Disposition: form-data; name="files"; filename="{}.jpg"\r\n\r\n'
    parts = [head.format(BOUNDARY, at).encode() + data for at, data in enumerate(files)]
    return b"\r\n".join(parts) + f"\r\n--{BOUNDARY}--\r\n".encode()


class Client:
    """Sends requests over one connection, and keeps what became of them."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.rows = 0

    def send(self, bodies: Sequence[bytes]) -> None:
        line = http.client.HTTPConnection(self.address, timeout=300)
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        for one in bodies:
            started = time.perf_counter()
            try:
                line.request("POST", "/predict", one, kind)
                response = line.getresponse()
                text = response.read()
                self.statuses[str(response.status)] += 1
                if response.status == 200:
                    self.rows += len(json.loads(text)["pictures"])
                elif not response.getheader("Retry-After"):
                    self.statuses["without Retry-After"] += 1
            except OSError as error:
                self.statuses[f"lost: {type(error).__name__}"] += 1
                line.close()
            self.seconds.append(time.perf_counter() - started)
        line.close()


def load(address: str, bodies: Sequence[bytes], clients: int) -> dict[str, Any]:
    """Send all bodies, shared out among clients that run side by side."""
    made = [Client(address) for _ in range(clients)]
    threads = [
        threading.Thread(target=one.send, args=(bodies[at::clients],))
        for at, one in enumerate(made)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - started
    seconds = sorted(second for one in made for second in one.seconds)
    images = sum(one.rows for one in made)
    return {
        "clients": clients,
        "requests": len(bodies),
        "statuses": dict(sum((one.statuses for one in made), Counter())),
        "pictures": images,
        "pictures_per_second": round(images / wall, 2),
        "seconds_p50": round(seconds[len(seconds) // 2], 3),
        "seconds_p99": round(seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))], 3),
    }


def predict_rate(folder: Path, classifier: Classifier, pool: WorkerPool) -> float:
    """Pictures a second of `predict`, whose processes are up already, as the server's are."""
    started = time.perf_counter()
    count = sum(1 for _ in predict_files(collect_inputs([folder]), classifier, pool=pool))
    return count / (time.perf_counter() - started)


def memory(process: int) -> dict[str, float]:
    """Resident megabytes of the server and of the processes that read for it."""
    found = {"server": 0.0, "readers": 0.0}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            values = dict(re.findall(r"^(\w+):\s+(\d+)", status.read_text(), re.M))
        except OSError:
            continue
        if int(values.get("Pid", 0)) == process:
            found["server"] += int(values["VmRSS"]) / 1000
        elif int(values.get("PPid", 0)) == process:
            found["readers"] += int(values.get("VmRSS", 0)) / 1000
    return {name: round(value, 1) for name, value in found.items()}


def soak(address: str, process: int, singles: Sequence[bytes], requests: int) -> dict[str, Any]:
    """Send requests as fast as they are answered, and see what memory the server has after each
    tenth: one in ten is damaged, one in fifty leaves before its answer.
    """
    damaged = body([b"\xff\xd8 no picture"])
    held = [{"requests": 0} | memory(process)]
    started, statuses = time.perf_counter(), Counter[str]()
    for part in range(PARTS):
        first, last = (requests * at // PARTS for at in (part, part + 1))
        sent = [
            damaged if at % 10 == 9 else singles[at % len(singles)] for at in range(first, last)
        ]
        statuses.update(load(address, sent, ONE_AT_ONCE)["statuses"])
        for one in singles[: len(sent) // 50]:
            leave(address, one)
        held.append({"requests": last} | memory(process))
        print(f"memory: {json.dumps(held[-1])}", file=sys.stderr)
    grown = {name: round(held[-1][name] - held[1][name], 1) for name in ("server", "readers")}
    return {
        "requests": requests,
        "seconds": round(time.perf_counter() - started),
        "statuses": dict(statuses),
        "grown_megabytes_after_the_first_tenth": grown,
        "memory_megabytes": held,
    }


def leave(address: str, body: bytes) -> None:
    """Send a request and go away without its answer."""
    line = http.client.HTTPConnection(address, timeout=300)
    line.request(
        "POST", "/predict", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    )
    line.close()


def lost(result: dict[str, Any]) -> int:
    """Requests that got no answer, or a refusal that does not say when to come again."""
    named = ("lost", "without")
    return sum(count for said, count in result["statuses"].items() if said.startswith(named))


def start_server(*options: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "facegender", "serve", "--port", "0", "--quiet", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = re.search(r"http://(\S+)", process.stdout.readline())
    assert said, "the server did not start"
    return process, said[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="pictures to send, again and again")
    parser.add_argument("--pictures", type=int, default=320, help="of one turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--soak", type=int, default=HOUR, help="requests that memory is held over")
    parser.add_argument("--output", "-o", type=Path, required=True)
    options = parser.parse_args()
    given = [path.read_bytes() for path in sorted(options.folder.glob("*.jpg"))]
    files = [given[at % len(given)] for at in range(options.images)]
    singles = [body([one]) for one in files]
    bundles = [body(files[at : at + FILES]) for at in range(0, len(files), FILES)]
    classifier = Classifier.load()
    process, address = start_server()
    turns: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as name,
        WorkerPool(count_cores(), seconds=TIMEOUT_SECONDS) as pool,
    ):
        for at, data in enumerate(files):
            (Path(name) / f"{at:05}.jpg").write_bytes(data)
        load(address, bundles[:1], 1)
        predict_rate(Path(name), classifier, pool)
        for at in range(options.turns):
            rate = predict_rate(Path(name), classifier, pool)
            turns.append(
                {
                    "predict_pictures_per_second": round(rate, 2),
                    "bundles": load(address, bundles, MANY_AT_ONCE),
                    "singles": load(address, singles, ONE_AT_ONCE),
                }
            )
            print(f"turn {at + 1} of {options.turns}: {json.dumps(turns[-1])}", file=sys.stderr)
        shutil.rmtree(name, ignore_errors=True)
        Path(name).mkdir()
    crowd = load(address, [singles[at % len(singles)] for at in range(CLIENTS)], CLIENTS)
    hour = soak(address, process.pid, singles, options.soak)
    process.terminate()
    process.wait(60)
    small, small_address = start_server("--queue", "64", "--max-files", str(FILES))
    overload = load(small_address, bundles * 4, 40)
    small.terminate()
    small.wait(60)

    def ratio(kind: str) -> float:
        shares = [
            turn[kind]["pictures_per_second"] / turn["predict_pictures_per_second"]
            for turn in turns
        ]
        return round(median(shares), 3)

    def p99(kind: str) -> float:
        return round(median(turn[kind]["seconds_p99"] for turn in turns), 3)

    told = {
        "share_of_predict_32_files": ratio("bundles"),
        "share_of_predict_one_file": ratio("singles"),
        "seconds_p99_32_files": p99("bundles"),
        "seconds_p99_one_file": p99("singles"),
        "seconds_p99_200_clients": crowd["seconds_p99"],
        "lost": sum(
            lost(one)
            for one in (
                *(turn[kind] for turn in turns for kind in ("bundles", "singles")),
                *(crowd, overload, hour),
            )
        ),
        "grown_megabytes": hour["grown_megabytes_after_the_first_tenth"],
    }
    result = {
        "command": " ".join(["python benchmarks/serve/load.py", *sys.argv[1:]]),
        "cores": os.cpu_count(),
        "load_average_at_end": os.getloadavg()[0],
        "model": classifier.digest,
        **told,
        "turns": turns,
        "crowd_of_200_clients": crowd,
        "queue_of_64_and_40_clients_with_32_files": overload,
        "soak": hour,
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
