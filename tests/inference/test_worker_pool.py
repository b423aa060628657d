"""Tasks in other processes: one that crashes costs only itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facegender.errors import MissingExtraError, UnreadableImageError
from facegender.images.decode import decode
from facegender.inference.worker_pool import WorkerDiedError, WorkerPool


def test_work_is_done_in_other_processes_side_by_side() -> None:
    with WorkerPool(2, timeout=60) as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        assert pool.submit(os.getpid).result() != os.getpid()
        started = time.monotonic()
        for nap in [pool.submit(time.sleep, 1.0) for _ in range(2)]:
            nap.result()
        assert time.monotonic() - started < 1.9


def test_an_error_comes_back_as_it_was() -> None:
    with WorkerPool(1, timeout=60) as pool, pytest.raises(UnreadableImageError, match="empty"):
        pool.submit(decode, b"").result()


def test_what_dies_or_hangs_takes_nothing_with_it() -> None:
    with WorkerPool(1, timeout=2.0) as pool:
        first, dead, hung, last = (
            pool.submit(function, *arguments)
            for function, arguments in (
                (abs, (-1,)),
                (os.abort, ()),
                (time.sleep, (600,)),
                (abs, (-2,)),
            )
        )
        assert (first.result(), last.result()) == (1, 2)
        with pytest.raises(WorkerDiedError, match="SIGABRT"):
            dead.result()
        with pytest.raises(WorkerDiedError, match="longer than 2 seconds"):
            hung.result()


def do(what: str, more: int) -> int:
    """A task that succeeds, raises or dies."""
    if what == "die":
        os.abort()
    return int(what) + more


@pytest.mark.parametrize("at", [0, 2, 4])
def test_what_dies_takes_nothing_of_its_group_with_it(at: int) -> None:
    tasks = ["1", "2", "3", "4"]
    tasks.insert(at, "die")
    with WorkerPool(1, timeout=60) as pool:
        found = pool.submit_group(do, tasks, 10).result()
    died = found.pop(at)
    assert found == [11, 12, 13, 14]
    assert isinstance(died, WorkerDiedError) and "SIGABRT" in str(died)


@pytest.mark.parametrize("at", [0, 3])
def test_what_hangs_takes_nothing_of_its_group_with_it(at: int) -> None:
    naps = [0.0, 0.0, 0.0]
    naps.insert(at, 600.0)
    with WorkerPool(1, timeout=2.0) as pool:
        found = pool.submit_group(time.sleep, naps).result()
    hung = found.pop(at)
    assert found == [None, None, None]
    assert isinstance(hung, WorkerDiedError) and "longer than 2 seconds" in str(hung)


def test_a_group_with_several_bad_ones_has_an_answer_for_each() -> None:
    with WorkerPool(1, timeout=60) as pool:
        found = pool.submit_group(do, ["die", "1", "die", "no number", "2", "die"], 0).result()
        assert pool.submit_group(do, [], 0).result() == []
    kinds = [type(one) for one in found]
    assert kinds == [WorkerDiedError, int, WorkerDiedError, ValueError, int, WorkerDiedError]


def test_a_process_that_died_while_it_had_nothing_to_do_costs_nothing() -> None:
    with WorkerPool(1, timeout=60) as pool:
        child = pool.submit(os.getpid).result()
        os.kill(child, signal.SIGKILL)
        assert pool.submit_group(do, ["1", "2"], 10).result() == [11, 12]
        assert pool.submit(os.getpid).result() != child


def miss() -> None:
    raise MissingExtraError("opencv", "cv2")


def test_a_missing_library_is_said_as_it_is_here() -> None:
    with (
        WorkerPool(1, timeout=60) as pool,
        pytest.raises(MissingExtraError, match="'opencv' extra"),
    ):
        pool.submit(miss).result()


def test_each_of_a_group_has_the_whole_time() -> None:
    with WorkerPool(1, timeout=2.0) as pool:
        assert pool.submit_group(time.sleep, [0.9] * 3).result() == [None] * 3


def test_what_prints_does_not_speak_in_between() -> None:
    with WorkerPool(1, timeout=60) as pool:
        assert pool.submit(os.write, 1, b"hello").result() == 5
        assert pool.submit(abs, -3).result() == 3


def test_the_processes_end_with_the_one_that_began_them(tmp_path: Path) -> None:
    """Also where that was killed; and its script needs no guard around its main part."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from facegender.inference.worker_pool import WorkerPool\n"
        "pool = WorkerPool(1, timeout=60)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
