"""The S3 server of the tests behaves like S3 where tellframe relies on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
from datetime import timedelta
from pathlib import Path

import pytest

from s3_server import S3Server

obstore = pytest.importorskip("obstore")
from_url = pytest.importorskip("obstore.store").from_url

RETRY = {"max_retries": 1, "retry_timeout": timedelta(seconds=5)}


def open_url(url: str, **given: object):
    return from_url(url, retry_config=RETRY, **given)


def test_put_get_range_and_list(bucket):
    store = open_url(bucket)
    obstore.put(store, "a/b.bin", bytes(range(256)))
    assert bytes(obstore.get(store, "a/b.bin").bytes()) == bytes(range(256))
    assert bytes(obstore.get_range(store, "a/b.bin", start=10, length=5)) == bytes(range(10, 15))
    assert obstore.head(store, "a/b.bin")["size"] == 256
    assert [item["path"] for chunk in obstore.list(store) for item in chunk] == ["a/b.bin"]
    obstore.delete(store, "a/b.bin")
    with pytest.raises(FileNotFoundError):
        obstore.get(store, "a/b.bin")


def test_each_test_has_a_place_of_its_own(bucket):
    assert list(obstore.list(open_url(bucket))) == []


def test_only_one_of_two_creates(bucket):
    store = open_url(bucket)
    obstore.put(store, "a", b"first", mode="create", use_multipart=False)
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, "a", b"second", mode="create", use_multipart=False)
    assert bytes(obstore.get(store, "a").bytes()) == b"first"


def test_large_files_go_in_parts(bucket):
    store, data = open_url(bucket), os.urandom(12 * 2**20)
    result = obstore.put(store, "large", data, use_multipart=True, chunk_size=5 * 2**20)
    assert result["e_tag"].strip('"').endswith("-3")  # S3 marks what came in three parts
    assert bytes(obstore.get(store, "large").bytes()) == data


def test_a_wrong_secret_is_refused(bucket):
    store = open_url(bucket, secret_access_key="wrong")
    with pytest.raises(obstore.exceptions.PermissionDeniedError, match="SignatureDoesNotMatch"):
        obstore.put(store, "a", b"1")


def test_a_missing_bucket_is_not_made(bucket):
    with pytest.raises(FileNotFoundError, match="NoSuchBucket"):
        obstore.put(open_url("s3://no-such-bucket"), "a", b"1")


def test_a_bucket_is_made_once(s3_server, bucket):
    with pytest.raises(urllib.error.HTTPError, match="409"):
        s3_server.create_bucket("tests")


def test_kill_and_restart_keep_the_data(s3_server, bucket):
    store, endpoint = open_url(bucket), s3_server.endpoint
    obstore.put(store, "a", b"kept")
    s3_server.kill()
    try:
        with pytest.raises(obstore.exceptions.GenericError):
            obstore.get(store, "a")
    finally:
        s3_server.restart()
    assert s3_server.endpoint == endpoint
    assert bytes(obstore.get(store, "a").bytes()) == b"kept"
    obstore.put(store, "b", b"new")
    assert bytes(obstore.get(store, "b").bytes()) == b"new"


def test_the_server_ends_with_the_process_that_started_it(s3_server, tmp_path):
    script = (
        "import os, pathlib, sys\n"
        "from s3_server import S3Server\n"
        "server = S3Server(pathlib.Path(sys.argv[1]))\n"
        "server._wait_until_ready = lambda: None\n"
        "server.start()\n"
        "print(server._process.pid, flush=True)\n"
        "os._exit(1)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    folder = Path(sys.modules[S3Server.__module__].__file__).parent
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=False)
    process = Path("/proc") / done.stdout.decode().strip()
    deadline = time.monotonic() + 10
    while process.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.exists()
