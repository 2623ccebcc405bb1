"""Work in isolation: whatever an item does to its process, the others come back, in order."""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tellframe import isolation
from tellframe.errors import StoreError, WorkerError
from tellframe.isolation import Failure, Limits, map_isolated

QUICK = Limits(seconds=60, memory=2**30, attempts=1)


def do_nothing():
    return "context"


def echo(context, item):
    return item


def act(context, item):
    """Do what the item says: its worker must bear it."""
    match item:
        case "exit":
            os._exit(3)
        case "leave":
            sys.exit("on my own")
        case "segv":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "hang":
            time.sleep(600)
        case "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(600)
        case "eat":
            kept = []
            try:
                while True:
                    kept.append(bytearray(2**24))
            except MemoryError:
                return "full"
        case "kill":  # as the system does when memory is short
            os.kill(os.getpid(), signal.SIGKILL)
        case "chatty":
            print("\0" * 100_000, file=sys.stdout, flush=True)
    return (context, item)


def run(function, items, setup=do_nothing, workers=2, limits=QUICK, **more):
    return list(map_isolated(function, items, setup=setup, workers=workers, limits=limits, **more))


def children(process: int | None = None) -> set[int]:
    """Return the living and the undead children, without the one that multiprocessing keeps."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (path / "cmdline").read_text()
        except OSError:  # it ended meanwhile
            continue
        if parent == (process or os.getpid()) and "resource_tracker" not in command:
            found.add(int(path.name))
    return found


@pytest.fixture(autouse=True)
def others():
    """The processes of other tests' detectors; a test adds none."""
    before, threads = children(), threading.active_count()
    yield before
    assert children() == before
    assert threading.active_count() == threads


@pytest.mark.parametrize(("workers", "count"), [(1, 0), (1, 3), (2, 40), (3, 2)])
def test_results_are_in_order(workers, count):
    items = [(n, "x" * n) for n in range(count)]
    assert run(echo, iter(items), workers=workers) == [(i, i) for i in items]


def sleep_some(context, item):
    time.sleep(item % 3 * 0.02)
    return item


def test_results_are_in_order_though_they_end_in_another():
    assert run(sleep_some, range(20)) == [(n, n) for n in range(20)]


def test_items_are_taken_as_they_are_needed():
    taken = []
    results = map_isolated(
        echo, (taken.append(n) or n for n in range(1000)), setup=do_nothing, workers=2, limits=QUICK
    )
    assert [next(results)[0] for _ in range(10)] == list(range(10))
    assert len(taken) <= 10 + isolation.AHEAD * 2
    results.close()


ENDS = {
    **dict.fromkeys(("exit", "leave", "segv", "abort", "kill"), "crash"),
    **dict.fromkeys(("hang", "deaf"), "timeout"),
}


def test_fifty_items_of_which_many_are_bad():
    bad = dict(enumerate((*ENDS, "eat", "chatty"), 5)) | {30: "kill", 31: "exit"}
    items = [bad.get(n, n) for n in range(50)]
    limits = Limits(seconds=1.5, memory=2**28, attempts=2)
    results = run(act, items, workers=3, limits=limits)
    assert [item for item, _ in results] == items
    for number, (item, result) in enumerate(results):
        if item in ENDS:
            assert result == Failure(ENDS[item], 2), number
        else:
            assert result == ("full" if item == "eat" else ("context", item)), number


def count_and_exit(context, item):
    """Append a line to the item's file; end the worker unless that was the `wanted` line."""
    path, wanted = item
    with open(path, "a") as file:  # noqa: PTH123
        file.write("x")
    if Path(path).stat().st_size < wanted:
        os._exit(1)
    return "done"


@pytest.mark.parametrize(
    ("attempts", "wanted", "tries", "result"),
    [(1, 9, 1, Failure("crash", 1)), (3, 9, 3, Failure("crash", 3)), (3, 3, 3, "done")],
)
def test_attempts_are_counted(tmp_path, attempts, wanted, tries, result):
    item = (str(tmp_path / "tries"), wanted)
    limits = Limits(seconds=60, attempts=attempts)
    assert run(count_and_exit, [item], workers=1, limits=limits) == [(item, result)]
    assert (tmp_path / "tries").stat().st_size == tries


@pytest.fixture
def crew():
    """One worker that is ready, and a file that ends it is not tried again."""
    crew = isolation.Crew(isolation.Job(echo, do_nothing), 1, QUICK)
    crew.start().result()
    yield crew
    crew.close()


def kill_idle(crew) -> subprocess.Popen:
    (worker,) = crew._workers
    worker.process.kill()
    return worker.process


def test_a_worker_killed_while_idle_costs_the_next_item_nothing(crew):
    for number in range(10):
        kill_idle(crew)
        assert crew.submit(number).result() == number


def test_a_worker_whose_end_is_noticed_late_costs_the_next_item_nothing(crew, monkeypatch):
    """Dead when it is given the item, and when it was asked whether it is."""
    monkeypatch.setattr(isolation.WorkerProcess, "is_lost", lambda worker: False)
    kill_idle(crew).wait(30)
    assert crew.submit("a").result() == "a"


def test_a_worker_that_ends_before_it_has_begun_costs_the_item_nothing(crew, monkeypatch):
    """It has been given the item, and is killed before it says so."""
    ask, killed = isolation.WorkerProcess.ask, []

    def ask_a_stopped_one(worker, seconds, kind, item=None, descriptor=None):
        if item == "a" and len(killed) < 1:
            killed.append(worker.process.pid)
            worker.process.send_signal(signal.SIGSTOP)
            threading.Timer(0.2, worker.process.kill).start()
        return ask(worker, seconds, kind, item, descriptor)

    monkeypatch.setattr(isolation.WorkerProcess, "ask", ask_a_stopped_one)
    assert crew.submit("a").result() == "a"
    assert len(killed) == 1


def test_an_item_whose_workers_never_begin_is_given_up(crew, monkeypatch):
    ask, killed = isolation.WorkerProcess.ask, []

    def ask_a_dead_one(worker, seconds, kind, item=None, descriptor=None):
        if item == "a":
            killed.append(worker.process.pid)
            worker.process.kill()
            worker.process.wait()
        return ask(worker, seconds, kind, item, descriptor)

    monkeypatch.setattr(isolation.WorkerProcess, "ask", ask_a_dead_one)
    assert crew.submit("a").result() == Failure("crash", 1)
    assert len(set(killed)) == isolation.RECEIPT_ATTEMPTS
    assert crew.submit("b").result() == "b"


class OddError(Exception):
    """Cannot be unpickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail(context, item):
    raise {
        "missing": StoreError("a: gone", missing=True),
        "timeout": TimeoutError("the network's, not ours"),
        "pipe": BrokenPipeError("the function's, not ours"),
        "eof": EOFError("the function's, not ours"),
        "odd": OddError("one", "two"),
        "key": KeyError("k"),
    }[item]


@pytest.mark.parametrize(
    ("item", "kind", "text"),
    [
        ("missing", StoreError, "a: gone"),
        ("timeout", TimeoutError, "the network's"),
        ("pipe", BrokenPipeError, "not ours"),
        ("eof", EOFError, "not ours"),
        ("odd", RuntimeError, "OddError: one and two"),
        ("key", KeyError, "k"),
    ],
)
def test_what_the_function_raises_is_raised(item, kind, text):
    with pytest.raises(kind, match=text) as caught:
        run(fail, [item, "key"], workers=1)
    assert getattr(caught.value, "missing", item == "missing") == (item == "missing")
    assert item == "odd" or "in fail" in caught.value.__notes__[0]  # where it happened


def return_a_lambda(context, item):
    return lambda: item


def test_a_result_that_cannot_be_pickled_is_named():
    with pytest.raises(Exception, match="return_a_lambda"):
        run(return_a_lambda, [1])


def fail_to_begin(text):
    raise StoreError(text)


def crash_to_begin():
    os._exit(7)


def test_what_setup_raises_is_raised():
    with pytest.raises(StoreError, match="no such model"):
        run(echo, [1, 2], setup=fail_to_begin, arguments=("no such model",))


def test_a_worker_that_cannot_begin_is_no_failure_of_an_item():
    with pytest.raises(WorkerError, match=r"exit status 7.*--workers"):
        run(echo, [1, 2], setup=crash_to_begin)


def test_setup_that_hangs(monkeypatch):
    monkeypatch.setattr(isolation, "START_SECONDS", 0.1)
    monkeypatch.setattr(isolation, "START_ATTEMPTS", 1)
    with pytest.raises(WorkerError, match="timeout"):
        run(echo, [1], setup=functools.partial(time.sleep, 600))


def make_counter():
    return Counter()


def count(context, item):
    context["calls"] += 1
    return context["calls"], os.getpid()


def test_setup_is_called_once_a_worker():
    found = [result for _, result in run(count, range(12), setup=make_counter)]
    workers = {pid for _, pid in found}
    assert len(workers) <= 2
    assert sum(number == 1 for number, _ in found) == len(workers)


def allocate(context, item):
    return len(bytearray(item))


def test_memory_is_limited():
    limits = Limits(seconds=60, memory=2**30)
    assert run(allocate, [2**20], limits=limits)[0][1] == 2**20
    with pytest.raises(MemoryError):
        run(allocate, [2**30], limits=limits)


def hog_and_return(context, item):
    free = item - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return bytearray(free * 2 // 3)


def test_a_result_too_large_for_the_memory_ends_the_worker():
    limits = Limits(seconds=60, memory=2**28, attempts=1)
    assert run(hog_and_return, [2**28], limits=limits)[0][1] == Failure("crash", 1)


def test_a_large_result_arrives():
    assert run(allocate_bytes, [2**24]) == [(2**24, bytes(2**24))]


def allocate_bytes(context, item):
    return bytes(item)


@pytest.mark.parametrize("seconds", [1e9, 1e18])
def test_a_limit_longer_than_the_system_can_count(seconds):
    assert run(echo, [1], limits=Limits(seconds=seconds)) == [(1, 1)]


def test_closing_ends_the_workers_at_once():
    results = map_isolated(
        act, ["a", *["hang"] * 9], setup=do_nothing, workers=2, limits=Limits(memory=2**30)
    )
    assert next(results)[0] == "a"
    before = time.monotonic()
    results.close()
    assert time.monotonic() - before < 5


def test_an_error_of_the_items_ends_the_workers():
    def items():
        yield from ("hang", "hang")
        raise StoreError("the list ends here")

    with pytest.raises(StoreError, match="the list ends here"):  # after the results before it
        run(act, items(), limits=Limits(seconds=1, memory=2**30, attempts=1))


def test_a_loop_left_early_ends_the_workers(others):
    for item, _ in map_isolated(act, range(100), setup=do_nothing, workers=2, limits=QUICK):
        if item == 3:
            break
    assert children() == others


def test_workers_killed_at_any_moment_cost_nothing_but_time(monkeypatch, others):
    """As when memory is short: also workers that have nothing to do, or are just starting."""
    monkeypatch.setattr(isolation, "START_ATTEMPTS", 100)
    limits = Limits(seconds=60, attempts=100)
    items = [4_000_000 + n for n in range(32)]
    results = map_isolated(allocate_bytes, items, setup=do_nothing, workers=2, limits=limits)
    for number, (item, result) in enumerate(results):
        assert (len(result), item) == (item, items[number])
        if number % 8 == 0:
            for pid in children() - others:
                os.kill(pid, signal.SIGKILL)


ORPHANS = """
import sys
sys.path.insert(0, {folder!r})
from test_isolation import act, do_nothing, QUICK
from tellframe.isolation import map_isolated
if __name__ == "__main__":
    results = map_isolated(act, ["a", *["hang"] * 30], setup=do_nothing, workers=3, limits=QUICK)
    print(next(results)[0], flush=True)
    next(results)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_their_parent(tmp_path, how):
    script = tmp_path / "main.py"
    script.write_text(ORPHANS.format(folder=str(Path(__file__).parent)))
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        deadline = time.monotonic() + 60
        while len(workers := children(parent.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        parent.send_signal(how)
        parent.wait(30)
    deadline = time.monotonic() + 10
    while left := {pid for pid in workers if Path(f"/proc/{pid}").exists()}:
        assert time.monotonic() < deadline, f"still living: {left}"
        time.sleep(0.05)
    assert len(workers) == 3
