"""Stores: one contract, kept by a folder, a folder without unnamed files, and a real S3 server."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tellframe import store as store_module
from tellframe.errors import MissingExtraError, StoreError, UsageError
from tellframe.store import (
    MULTIPART,
    FolderStore,
    is_remote,
    open_store,
    split_location,
)

FOLDERS = ("folder", "plain folder", "relative folder")
KINDS = (*FOLDERS, "s3")


def forbid_unnamed_files(monkeypatch, code=errno.EOPNOTSUPP):
    """Behave like NFS, which has no O_TMPFILE."""

    def fail(path, flags, *rest, original=os.open, **more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(code, os.strerror(code))
        return original(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", fail)


@pytest.fixture
def place(request, tmp_path, monkeypatch):
    """A place of the kind that the test is called with."""
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    if request.param == "relative folder":
        monkeypatch.chdir(tmp_path)
    if request.param != "folder":
        forbid_unnamed_files(monkeypatch)
    return "place" if request.param == "relative folder" else str(tmp_path / "place")


every_kind = pytest.mark.parametrize("place", KINDS, indirect=True)
every_folder = pytest.mark.parametrize("place", FOLDERS, indirect=True)


@every_kind
def test_a_file_is_written_once(place):
    store = open_store(place)
    assert not store.exists("a/b.bin")
    assert store.put_if_absent("a/b.bin", b"first")
    assert not store.put_if_absent("a/b.bin", b"second, longer")
    assert not store.put_if_absent("a/b.bin", io.BytesIO(b"third"))
    assert (store.exists("a/b.bin"), store.size("a/b.bin")) == (True, 5)
    assert store.get("a/b.bin") == open_store(place).get("a/b.bin") == b"first"
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    store.delete("a/b.bin")
    assert store.put_if_absent("a/b.bin", b"")
    assert (store.size("a/b.bin"), store.get("a/b.bin")) == (0, b"")
    assert store.list_files() == {"a/b.bin": 0}


@every_kind
def test_ranges_end_with_the_file(place):
    store, data = open_store(place), bytes(range(256))
    store.put_if_absent("a", data)
    store.put_if_absent("empty", b"")
    for start, length in [(0, 256), (10, 5), (250, 99), (255, 1), (256, 1), (999, 9), (0, 0)]:
        assert store.get_range("a", start, length) == data[start : start + length], (start, length)
    assert store.get_range("empty", 0, 10) == b""


@every_kind
def test_listing_is_sorted_and_of_whole_folders(place):
    store = open_store(place)
    assert store.list_files() == store.list_files("none") == {}
    keys = ["units/1.json", "units/0.json", "units2/0.json", "z", "b/c/d", "units.txt"]
    for key in keys:
        store.put_if_absent(key, key.encode())
    found = store.list_files()
    assert list(found.items()) == sorted((key, len(key)) for key in keys)
    for prefix in ("units", "units/"):
        assert list(store.list_files(prefix)) == ["units/0.json", "units/1.json"]
    assert store.list_files("unit") == {}
    assert list(open_store(f"{place}/b").list_files()) == ["c/d"]
    assert open_store(f"{place}/b/").get("c/d") == b"b/c/d"


@every_kind
@pytest.mark.parametrize("key", ["sp ace", "é/ü", "a+b", "100%", "%41", "q?x#y", "&=", "~x", "*"])
def test_keys_stay_as_they_are(place, key):
    store = open_store(place)
    assert store.put_if_absent(key, b"x")
    assert store.list_files() == {key: 1}
    assert not store.put_if_absent(key, b"y")
    assert open_store(place).get(key) == b"x"


@every_kind
def test_what_is_missing(place):
    store = open_store(place)
    store.put_if_absent("a", b"x")
    for call in (store.size, store.get, lambda key: store.get_range(key, 0, 9)):
        with pytest.raises(StoreError, match=r"/b.*cannot be read") as caught:
            call("b")
        assert caught.value.missing


@every_kind
def test_of_eight_writers_at_once_one_wins(place):
    contents = [bytes([65 + n]) * 1_000_000 for n in range(8)]

    def write(content):
        return open_store(place).put_if_absent("units/a", content)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, contents))
    assert won.count(True) == 1
    assert open_store(place).get("units/a") == contents[won.index(True)]
    assert list(open_store(place).list_files()) == ["units/a"]


@every_kind
@pytest.mark.parametrize("size", [MULTIPART - 1, 2 * MULTIPART + 12345])
def test_large_files(place, size, tmp_path):
    store, data = open_store(place), os.urandom(2**20) * (size // 2**20 + 1)
    data = data[:size]
    (tmp_path / "large").write_bytes(data)
    with (tmp_path / "large").open("rb") as file:
        assert store.put_if_absent("large", file)
    assert store.bytes_written == size
    assert not store.put_if_absent("large", data)
    assert store.get("large") == data
    assert store.get_range("large", size - 3, 99) == data[-3:]


@every_kind
def test_counters(place):
    store = open_store(place)
    store.put_if_absent("a", b"12345")
    store.put_if_absent("a", b"1234567")
    assert (store.requests, store.bytes_written, store.bytes_read) == (2, 5, 0)
    store.get("a")
    store.get_range("a", 3, 99)
    assert (store.bytes_written, store.bytes_read) == (5, 7)
    requests = store.requests
    for call in (store.list_files, lambda: store.exists("b"), lambda: store.delete("a")):
        call()
        assert store.requests == requests + 1
        requests = store.requests


SLOW_PUT = """
import io, sys, time
from tellframe import store
{patch}

class Slow(io.BytesIO):
    def read(self, size=-1):
        data = super().read(size)
        if not data or self.tell() == 3 * store.MULTIPART:
            print("reading", flush=True)
            time.sleep(600)
        return data

store.open_store(sys.argv[1]).put_if_absent("a", Slow(bytes(3 * store.MULTIPART)))
"""


@every_kind
def test_a_writer_killed_half_way_leaves_nothing_to_see(place, request):
    plain = "plain" in request.node.callspec.id or "relative" in request.node.callspec.id
    patch = "store._open_tmpfile = lambda folder: None" if plain else ""
    command = [sys.executable, "-c", SLOW_PUT.format(patch=patch), place]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"reading\n"
        assert open_store(place).list_files() == {}
        process.send_signal(signal.SIGKILL)
    store = open_store(place)
    assert (store.list_files(), store.exists("a")) == ({}, False)
    if not is_remote(place):
        # Where files without a name are unknown, one of a hidden name stays, seen by nobody.
        assert len(list(Path(place).rglob("*"))) == plain
    assert store.put_if_absent("a", b"x")


@every_folder
def test_a_full_disk_leaves_no_file(place):
    store, limits = open_store(place), resource.getrlimit(resource.RLIMIT_FSIZE)
    store.put_if_absent("b", b"x")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"a: cannot be written \(File too large\)") as caught:
            store.put_if_absent("a", bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not caught.value.missing
    assert [p.name for p in Path(place).rglob("*")] == ["b"]
    assert store.bytes_written == 1
    assert store.put_if_absent("a", bytes(200_000))


@pytest.mark.parametrize("code", [errno.EISDIR, errno.EINVAL, errno.EOPNOTSUPP])
def test_systems_without_unnamed_files(tmp_path, monkeypatch, code):
    forbid_unnamed_files(monkeypatch, code)
    store = FolderStore(tmp_path)
    assert store.put_if_absent("a", b"x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_an_error_of_the_folder_is_told(tmp_path, monkeypatch, code):
    forbid_unnamed_files(monkeypatch, code)
    with pytest.raises(StoreError, match=rf"a: cannot be written \({os.strerror(code)}\)"):
        FolderStore(tmp_path).put_if_absent("a", b"x")


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file/b/a: cannot be written"):
        FolderStore(tmp_path).put_if_absent("file/b/a", b"x")
    with pytest.raises(StoreError, match="cannot be written"):
        FolderStore(tmp_path / "file").put_if_absent("a", b"x")


def test_half_written_files_of_others_are_not_listed(tmp_path):
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / ".part-abc").write_text("x")
    (tmp_path / "units" / "a").write_text("x")
    assert FolderStore(tmp_path).list_files() == {"units/a": 1}


@pytest.mark.parametrize("location", ["s3n://a/b", "http://host/x", "file:///tmp"])
def test_an_unknown_kind_of_place(location):
    with pytest.raises(UsageError, match=r"unknown kind of place; known: a folder, s3://"):
        open_store(location)


@pytest.mark.parametrize("location", ["s3://", "s3:///a", "gs://"])
def test_no_bucket(location):
    with pytest.raises(UsageError, match="names no bucket"):
        open_store(location)


@pytest.mark.parametrize(
    ("location", "parts"),
    [
        ("s3://bucket/a/b.zip", ("s3://bucket", "a/b.zip")),
        ("gs://bucket/q?x#y", ("gs://bucket", "q?x#y")),
        ("/data/a/b.zip", ("/data/a", "b.zip")),
        ("b.zip", (".", "b.zip")),
    ],
)
def test_split_location(location, parts):
    assert split_location(location) == parts


def test_without_obstore(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tellframe\[data\]'"):
        open_store("s3://bucket/x")


BAD_ENDPOINTS = (
    *("nonsense", "http://", "http://a b", "http://h:99999", "http://h:port", "ftp://h"),
    *("http://[::1", "http://h?x=1", " http://h"),
)


@pytest.mark.parametrize("endpoint", BAD_ENDPOINTS)
def test_a_bad_endpoint(endpoint, monkeypatch):
    """Obstore panics at these, with an exception that is no Exception."""
    pytest.importorskip("obstore")
    with pytest.raises(UsageError, match="is no endpoint"):
        open_store("s3://bucket/x", endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UsageError, match="is no endpoint"):
        open_store("s3://bucket/x")


@pytest.mark.parametrize(
    "endpoint", ["", "http://h:1", "https://h/x", "http://[::1]:80", "http://h/"]
)
def test_a_good_endpoint(endpoint):
    pytest.importorskip("obstore")
    assert open_store("s3://bucket/x", endpoint).url == "s3://bucket/x"


def calls_of(store):
    """Return one call of every kind."""
    return {
        "put": lambda: store.put_if_absent("a", b"x"),
        "put large": lambda: store.put_if_absent("large", bytes(MULTIPART)),
        "size": lambda: store.size("a"),
        "get": lambda: store.get_range("a", 0, 1),
        "list": store.list_files,
    }


@pytest.mark.parametrize("name", ["put", "put large", "size", "get", "list"])
def test_a_wrong_secret(bucket, monkeypatch, name):
    open_store(bucket).put_if_absent("a", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match=r"access denied.*AWS_SECRET_ACCESS_KEY") as caught:
        calls_of(open_store(bucket))[name]()
    assert not caught.value.missing
    with pytest.raises(StoreError, match="access denied"):
        open_store(bucket).exists("a")


@pytest.mark.parametrize(
    ("url", "rights", "place"),
    [
        ("s3://b/x", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and", "--endpoint and AWS_REGION"),
        ("gs://b/x", "GOOGLE_APPLICATION_CREDENTIALS and", "and GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://b/x", "AZURE_STORAGE_ACCOUNT_NAME, AZURE_", "and AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_what_to_check_is_that_of_the_scheme(url, rights, place, monkeypatch):
    obstore = pytest.importorskip("obstore")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    kinds = obstore.exceptions
    for error, hint in ((kinds.PermissionDeniedError, rights), (kinds.GenericError, place)):

        def fail(*_, error=error):
            raise error("no")

        monkeypatch.setattr(obstore, "head", fail)
        with pytest.raises(StoreError) as caught:
            open_store(url).size("a")
        assert hint in str(caught.value)
        assert ("AWS" in str(caught.value)) == url.startswith("s3")
        assert caught.value.denied == (error is kinds.PermissionDeniedError)


@pytest.mark.parametrize("name", ["put", "put large", "size", "get", "list"])
def test_a_bucket_that_is_not_there(bucket, name):
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/x.*no such key or bucket") as caught:
        calls_of(open_store("s3://no-such-bucket/x"))[name]()
    assert caught.value.missing


@pytest.mark.parametrize("name", ["put", "put large", "size", "get", "list"])
def test_a_server_that_does_not_answer(bucket, monkeypatch, name):
    monkeypatch.setattr(store_module, "RETRY_SECONDS", 1)
    store = open_store(bucket, "http://127.0.0.1:1")
    with pytest.raises(StoreError, match=r"s3://tests/.*check the address, --endpoint") as caught:
        calls_of(store)[name]()
    assert not caught.value.missing


def test_a_server_that_comes_back_is_waited_for(bucket, s3_server):
    store = open_store(bucket)
    store.put_if_absent("a", b"kept")
    s3_server.kill()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(store.get, "a")
        try:
            with pytest.raises(TimeoutError):
                answer.result(timeout=3)
        finally:
            s3_server.start()
        assert answer.result(timeout=60) == b"kept"
