"""The slots of the service: whatever a file does to a worker, it ends, and the next one is done."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import threading
import time

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'tellframe[serve]'")

from tellframe import isolation
from tellframe.errors import DecodeError, LimitError, OutOfMemoryError, TellframeError, WorkerError
from tellframe.isolation import Failure, Limits
from tellframe.process import WorkerProcess
from tellframe.recipe import Recipe
from tellframe.serve import problems
from tellframe.serve.jobs import State
from tellframe.serve.metrics import Metrics
from tellframe.serve.pool import Pool
from tellframe.serve.results import is_possible
from tellframe.serve.slot import Cancelled, Slot
from tellframe.serve.store import Store, new_id
from tellframe.serve.worker import Finding
from tellframe.types import Label, Media, Verdict
from tellframe.worker import Task

MEDIA = Media("v", 1, "f" * 64, "mov", "h264", 16, 16, 0, 1.0, 1, 1.0, False)


def do_nothing():
    return None


def fail():
    raise DecodeError("no such model")


def act(context, name, descriptor, progress):
    """Do what the name of the file says; runs in the worker."""
    match name.partition(".")[0]:
        case "exit":
            os._exit(1)
        case "hang":
            time.sleep(600)
        case "bad":
            raise DecodeError(f"{name}: is broken")
        case "odd":
            raise KeyError("k")
        case "large":
            raise MemoryError
        case "network":
            raise OutOfMemoryError("memory does not suffice to run rnet.onnx on {}")
    for step in (("reading", 0, 0), ("dancing", 1, 2), ("faces", -1, 2), ("faces", 1, 2)):
        progress(*step)
    return Finding((), MEDIA, {"pid": os.getpid(), "bytes": os.fstat(descriptor).st_size})


TASK = Task(act, do_nothing, (), 2**30, 60.0, confined=True, reports=True)


def never():
    return False


@pytest.fixture
def slot():
    slot = Slot(TASK, 30.0)
    yield slot
    slot.end()


@pytest.fixture
def ask(slot, tmp_path):
    """Return what has the slot judge a file of a name."""

    def ask(name, owner="", progress=lambda *_: None, cancelled=never):
        (tmp_path / name).write_bytes(b"12345")
        return slot.ask(tmp_path / name, owner, progress, cancelled)

    return ask


def test_a_file_is_judged_and_followed(ask):
    steps = []
    found = ask("good", progress=lambda *step: steps.append(step))
    assert (found.media, found.counters["bytes"]) == (MEDIA, 5)
    assert steps == [("reading", 0, 0), ("faces", 1, 2)]  # and nothing that there is not


@pytest.mark.parametrize(
    ("name", "reason", "seconds"), [("exit", "crash", 30.0), ("hang", "timeout", 1.0)]
)
def test_a_worker_that_does_not_come_back_is_replaced(
    slot, ask, name, reason, seconds, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(slot, "_seconds", seconds)
        assert ask(name) == Failure(reason, 1)
    assert isinstance(ask("good"), Finding)
    assert slot.starts == 2


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("bad", DecodeError, "bad: is broken"),
        ("odd", TellframeError, "KeyError"),
        ("large", LimitError, "more memory than 1 GiB"),
        ("network", LimitError, "more memory than 1 GiB"),
    ],
)
def test_what_a_worker_raises_is_raised(slot, ask, name, error, message):
    with pytest.raises(error, match=message):
        ask(name)
    assert isinstance(ask("good"), Finding)
    assert slot.starts == 1


def test_a_worker_lost_before_it_has_the_file_costs_nothing(slot, ask, monkeypatch):
    monkeypatch.setattr(WorkerProcess, "is_lost", lambda worker: False)
    worker = slot.start(never)
    worker.process.kill()
    worker.process.wait()
    assert isinstance(ask("good"), Finding)
    assert slot.starts == 2


def test_a_file_that_no_worker_takes_is_given_up(slot, ask, monkeypatch):
    real = WorkerProcess.ask

    def ask_a_dead_one(worker, seconds, kind, item=None, descriptor=None, **more):
        if item == "good":
            worker.process.kill()
            worker.process.wait()
        return real(worker, seconds, kind, item, descriptor, **more)

    monkeypatch.setattr(WorkerProcess, "ask", ask_a_dead_one)
    assert ask("good") == Failure("crash", 1)
    assert slot.starts == isolation.RECEIPT_ATTEMPTS


def test_a_worker_has_files_of_one_owner(ask):
    owners = ["alice", "alice", "bob"]
    first, second, third = (ask("good", owner).counters["pid"] for owner in owners)
    assert first == second != third


def test_work_that_nobody_wants_is_stopped(slot, ask):
    slot.start(never)
    unwanted = threading.Event()
    threading.Timer(0.2, unwanted.set).start()
    begin = time.monotonic()
    with pytest.raises(Cancelled):
        ask("hang", cancelled=unwanted.is_set)
    assert time.monotonic() - begin < 20
    assert isinstance(ask("good"), Finding)


def test_a_worker_that_cannot_begin_says_why():
    with pytest.raises(WorkerError, match="no such model"):
        Slot(dataclasses.replace(TASK, setup=fail), 30.0).start(never)


@pytest.mark.parametrize(
    "counted",
    [
        *({"num_asked": 6 * 32 + 1}, {"num_asked": 1, "num_decoded": 2}, {"num_packets": -1}),
        *({"num_declared": -1}, {"decode_errors": 2**63}, {"bytes": -1}, {"duration": -0.1}),
    ],
)
def test_counts_that_cannot_be_are_nonsense(counted):
    recipe = Recipe(num_frames=32)
    found = Finding((), MEDIA, {})
    assert is_possible(found, MEDIA.sha256, recipe)
    lie = dataclasses.replace(found, media=dataclasses.replace(MEDIA, **counted))
    assert not is_possible(lie, MEDIA.sha256, recipe)


class Work:
    """A pool with a store; jobs are named after what they do."""

    def __init__(self, folder):
        self.store, self.troubles, self.settled = Store(folder), [], []
        self.metrics = Metrics()
        self.pool = Pool(
            self.store,
            lambda job_id: folder / f"good.{job_id}",
            self.fetch,
            self.settled.append,
            lambda found, sha256: True,
            self.make_verdict,
            TASK,
            workers=1,
            limits=Limits(seconds=30, attempts=2),
            metrics=self.metrics,
        )
        self.folder = folder

    def fetch(self, job, progress, cancelled):
        if "fetch" in self.troubles:
            self.troubles.remove("fetch")
            raise sqlite3.OperationalError("database is locked")
        return job

    def make_verdict(self, found, seconds):
        if "verdict" in self.troubles:
            self.troubles.remove("verdict")
            raise ZeroDivisionError
        return Verdict("", Label.REAL, 0.1, (), (), seconds=seconds)

    def do(self, url=None):
        """Have a job done; return it as it ended."""
        job_id = new_id()
        (self.folder / f"good.{job_id}").touch()
        self.store.add("", "a.mp4", 1, "", job_id, job_id, url)
        self.pool.wake()
        end = time.monotonic() + 60
        while not (job := self.store.get(job_id)).state.is_final:
            assert time.monotonic() < end
            time.sleep(0.01)
        return job


@pytest.fixture
def work(tmp_path):
    work = Work(tmp_path)
    work.pool.start()
    yield work
    work.pool.close()
    work.store.close()


def test_a_job_that_could_not_be_written_down_is_begun_anew(work):
    work.troubles.append("fetch")
    job = work.do("http://example.org/a.mp4")
    assert (job.state, job.attempts) == (State.DONE, 1)


def test_a_failure_of_our_own_ends_the_job_and_not_the_slot(work):
    work.troubles.append("verdict")
    job = work.do()
    assert job.state is State.FAILED
    assert "ZeroDivisionError" in job.problem
    assert work.do().state is State.DONE


def test_a_job_that_comes_after_the_look_for_one_is_not_left_waiting(work):
    calls, begin = work.pool._calls, time.monotonic()
    work.pool.wake()
    work.pool._rest(60, calls)
    assert time.monotonic() - begin < 30


class Answer:
    """A slot that gives one answer, or raises it."""

    def __init__(self, answer):
        self.answer = answer

    def ask(self, *_):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


FOUND = Finding((), MEDIA, {})
URL = "http://example.org/a.mp4"
LOST = problems.ProblemError("not_fetched", "It is gone.")


@pytest.mark.parametrize(
    ("url", "fetched", "answer", "state", "ended", "analyses"),
    [
        (None, None, FOUND, "done", 1, 1),
        (None, None, DecodeError("no video"), "failed", 1, 1),
        (None, None, Failure("crash", 1), "queued", 0, 0),
        (None, None, Cancelled(), "running", 0, 0),
        (URL, State.RUNNING, FOUND, "done", 1, 1),
        (URL, State.QUEUED, FOUND, "running", 0, 0),  # as the store has it, which this one is not
        (URL, State.DONE, FOUND, "running", 0, 0),
        (URL, LOST, FOUND, "failed", 1, 0),
    ],
)
def test_what_ends_is_counted_and_what_was_analysed_timed(
    tmp_path, monkeypatch, url, fetched, answer, state, ended, analyses
):
    work = Work(tmp_path)

    def fetch(job, *_):
        time.sleep(0.5)
        if isinstance(fetched, Exception):
            raise fetched
        return dataclasses.replace(job, state=fetched)

    monkeypatch.setattr(work.pool, "_fetch", fetch)
    job_id = new_id()
    (tmp_path / f"good.{job_id}").touch()
    work.store.add("", "a.mp4", 1, "", job_id, job_id, url)
    work.pool._run(Answer(answer), work.store.claim())
    assert work.store.get(job_id).state == state
    assert sum(work.metrics._ended.values()) == ended
    assert work.metrics._analyses == analyses
    assert work.metrics.mean_seconds() < 0.4  # without the download
    assert work.settled == [job_id] * (state != "queued" and fetched is not State.QUEUED)
    work.store.close()


def test_a_job_that_is_deleted_before_it_is_begun_has_not_failed(tmp_path, caplog):
    work = Work(tmp_path)
    job_id = new_id()
    work.store.add("", "a.mp4", 1, "", job_id, job_id)
    job = work.store.claim()
    work.store.delete(job_id)
    with caplog.at_level("INFO"):
        work.pool._run(Answer(FOUND), job)
    assert (caplog.text, work.settled) == ("", [job_id])
    assert not work.metrics._ended
    assert work.metrics._analyses == 0
    work.store.close()
