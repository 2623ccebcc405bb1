"""The table of jobs: what is accepted stays, and is done once."""

from __future__ import annotations

import sqlite3
import time

import pytest

from tellframe.errors import UsageError
from tellframe.serve import store as store_module
from tellframe.serve.jobs import State
from tellframe.serve.store import Store, new_id


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "jobs")
    yield found
    found.close()


def add(store, key="k1", owner="", name="a.mp4"):
    return store.add(owner, name, 10, "f" * 64, key, new_id())


def test_a_job_goes_from_queued_to_done(store):
    job = add(store)
    assert (job.state, job.attempts, store.position(job)) == (State.QUEUED, 0, 1)
    taken = store.claim()
    assert (taken.id, taken.state, taken.attempts) == (job.id, State.RUNNING, 1)
    assert store.position(job) == 1  # who has read it before shows it as the next one
    assert store.claim() is None
    assert store.finish("k1", '{"a": 1}', b"pictures") == [job.id]
    ended = store.get(job.id)
    assert ended.state is State.DONE
    assert ended.finished >= ended.started >= ended.created
    assert (store.verdict("k1"), store.evidence("k1")) == ('{"a": 1}', b"pictures")
    assert store.count() == {"queued": 0, "running": 0, "done": 1, "failed": 0}


def test_a_job_fails_with_its_problem(store):
    job = add(store)
    store.claim()
    assert store.fail(job.id, '{"code": "undecodable"}')
    assert store.get(job.id).problem == '{"code": "undecodable"}'
    assert store.get(job.id).state.is_final


def test_a_job_that_is_done_does_not_fail_any_more(store):
    """The same bytes were judged by another worker meanwhile."""
    job = add(store)
    store.claim()
    store.finish("k1", "{}", b"")
    assert not store.fail(job.id, "{}")
    assert store.get(job.id).state is State.DONE


def test_the_oldest_job_comes_first(store):
    jobs = [add(store, key) for key in "abc"]
    assert [store.position(job) for job in jobs] == [1, 2, 3]
    assert [store.claim().id for _ in jobs] == [job.id for job in jobs]
    assert [job.id for job in store.list_jobs("", 2)] == [jobs[2].id, jobs[1].id]


def test_the_same_bytes_are_analysed_once(store):
    first, second = add(store, "same"), add(store, "same")
    other = add(store, "other")
    assert store.claim().id == first.id
    assert store.claim().id == other.id
    assert store.claim() is None
    assert set(store.finish("same", "{}", b"")) == {first.id, second.id}
    assert add(store, "same").state is State.DONE


def test_the_same_bytes_that_were_fetched_are_analysed_once(store):
    first, second = add(store, "url:1"), add(store, "url:2")
    store.claim()
    store.claim()
    running = store.fetched(first.id, 10, "f" * 64, "same")
    assert (running.state, running.attempts) == (State.RUNNING, 1)
    waiting = store.fetched(second.id, 10, "f" * 64, "same")
    assert (waiting.state, waiting.attempts, waiting.started) == (State.QUEUED, 0, None)
    assert store.claim() is None
    assert store.fail(first.id, "{}")  # which says nothing of the second
    again = store.claim()
    assert (again.id, again.attempts, again.url) == (second.id, 1, None)
    assert store.finish("same", "{}", b"") == [second.id]


def test_a_restart_queues_what_was_cut_off(store):
    job, later = add(store, "a"), add(store, "b")
    store.claim()
    store.requeue()
    again = store.claim()
    assert (again.id, again.attempts) == (job.id, 2)
    store.requeue(job.id, refund=True)
    assert store.claim().attempts == 2
    assert store.get(later.id).state is State.QUEUED


def test_jobs_are_seen_by_their_owner_alone(store):
    job = add(store, owner="alice")
    assert store.get(job.id, "alice")
    assert store.get(job.id, "bob") is None
    assert store.list_jobs("bob", 10) == []


def test_a_result_stays_as_long_as_one_of_its_jobs(store):
    jobs = [add(store, "same"), add(store, "same")]
    store.claim()
    store.finish("same", "{}", b"x")
    store.delete(jobs[0].id)
    assert store.verdict("same")
    store.delete(jobs[1].id)
    assert store.verdict("same") is None


def test_a_result_that_nobody_wants_any_more_is_not_kept(store):
    job = add(store)
    store.claim()
    store.delete(job.id)
    assert store.finish("k1", "{}", b"x") == []
    assert store.verdict("k1") is None


def test_results_expire_by_age_and_by_size(store):
    jobs = []
    for key in "abcd":
        jobs.append(add(store, key))
        store.claim()
        store.finish(key, "{}", bytes(98))
    waiting = add(store, "e")
    assert store.expire(time.time() - 60, 10_000) == 0
    assert store.expire(time.time() - 60, 250) == 2
    assert store.ids(final=True) == {jobs[2].id, jobs[3].id, waiting.id}
    assert store.expire(time.time() + 1, 10_000) == 2
    assert store.ids(final=True) == {waiting.id}
    assert store.verdict("d") is None


def test_all_is_there_after_the_folder_is_opened_again(tmp_path):
    first = Store(tmp_path)
    job = add(first)
    first.close()
    second = Store(tmp_path)
    assert second.get(job.id) == job
    second.close()


def test_one_server_at_a_time_uses_a_folder(tmp_path):
    first = Store(tmp_path)
    with pytest.raises(UsageError, match="another server uses it"):
        Store(tmp_path)
    first.close()
    Store(tmp_path).close()


def test_a_locked_database_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.05)
    store = Store(tmp_path)
    job = add(store)
    other = sqlite3.connect(tmp_path / "jobs.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        add(store, "k2")
    assert store.get(job.id) == job  # to read is possible all the same
    other.execute("ROLLBACK")
    other.close()
    assert add(store, "k2").state is State.QUEUED
    store.close()
