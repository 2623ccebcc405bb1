"""Fixtures of the data tests: an S3 server, and a place of one's own in it."""

from __future__ import annotations

import itertools

import pytest

from s3_server import S3Server, s3_server

__all__ = ["s3_server"]

BUCKET = "tests"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def _bucket_server(s3_server: S3Server) -> S3Server:
    s3_server.create_bucket(BUCKET)
    return s3_server


@pytest.fixture
def bucket(_bucket_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an empty place such as s3://tests/7, and set the environment to reach it."""
    for name, value in _bucket_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{next(_numbers)}"
