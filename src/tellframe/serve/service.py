"""The service behind the API: store, uploads and pool together."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from anyio import to_thread

from tellframe.bundle import load_bundle
from tellframe.errors import AddressError, MediaError
from tellframe.extract import leaves_out
from tellframe.faces import fetch_weights
from tellframe.report.words import number_of
from tellframe.runtime import usable_cores
from tellframe.scoring import judge_video
from tellframe.serve import problems, results, uploads
from tellframe.serve.jobs import Job, State
from tellframe.serve.metrics import Metrics
from tellframe.serve.pool import Pool
from tellframe.serve.problems import ProblemError
from tellframe.serve.settings import Settings
from tellframe.serve.slot import Cancelled
from tellframe.serve.store import Store, new_id
from tellframe.serve.views import JobView, ResultView, view_job, view_result
from tellframe.serve.worker import Finding, analyse, prepare
from tellframe.types import Verdict
from tellframe.weblink import check_link, show_link
from tellframe.worker import Progress, Task

EXPIRE_SECONDS: Final = 10.0
"""How often old results are looked for."""
FIRST_GUESS: Final = 3.0
"""Seconds that an analysis is thought to take before there was one."""


class Service:
    """All that the API does, without HTTP.

    Args:
        settings: what whoever runs the service decides.

    Raises:
        TellframeError: the model is missing or altered, a setting is wrong, another server uses
            the folder, or a file has to be fetched and cannot be.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bundle = load_bundle(settings.model)
        self.recipe = self.bundle.apply(settings.overrides)
        fetch_weights(self.recipe)  # a worker may not: it neither connects nor writes
        self.metrics = Metrics()
        self.store = Store(settings.folder)
        self.uploads = uploads.Folder(settings.folder / "uploads")
        self._arriving: set[str] = set()
        self._places = 0
        self.closing = asyncio.Event()
        """Set when the server is about to stop, so that nobody is kept waiting."""
        self._expiry: asyncio.Task[None] | None = None
        self.pool = Pool(
            self.store,
            self.uploads.path,
            self._fetch,
            self._settle,
            lambda found, sha256: results.is_possible(found, sha256, self.recipe),
            self._make_verdict,
            Task(
                function=analyse,
                setup=prepare,
                arguments=(settings.model, settings.threads, settings.overrides),
                memory=settings.limits.memory,
                processor=settings.limits.seconds * usable_cores(),
                confined=True,
                reports=True,
            ),
            workers=settings.workers,
            limits=settings.limits,
            metrics=self.metrics,
        )

    def start(self) -> None:
        """Take up what an earlier server left, and begin; call it in the event loop."""
        for job in self.store.list_running():
            # A file that takes the whole server down must not do so for ever.
            if job.attempts >= self.settings.limits.attempts:
                problem = problems.given_up("crash", 0)
                self.store.fail(job.id, problem.model_dump_json())
                self.metrics.count("failed")
                problems.log.info("job %s: %s, at a restart", job.id, problem.code)
        self.store.requeue()
        self.uploads.sweep(self._with_uploads)
        self.pool.start()
        self._expiry = asyncio.create_task(self._expire_for_ever())

    async def close(self) -> None:
        """Stop; what is under way goes on at the next start."""
        if self._expiry is not None:
            self._expiry.cancel()
        await to_thread.run_sync(self.pool.close)
        self.store.requeue(refund=True)
        self.store.close()

    async def accept(
        self, owner: str, name: Callable[[], str], chunks: AsyncIterator[bytes]
    ) -> Job:
        """Take an upload and make a job of it.

        Args:
            owner: who may see it.
            name: returns the file name as the client gave it; asked when all has come.
            chunks: of the file.

        Raises:
            ProblemError: too_large, not_a_video, storage_full or upload_stalled.
            sqlite3.OperationalError: the job could not be written down; the upload is gone.
        """
        job_id = new_id()
        self._arriving.add(job_id)
        try:
            upload = await self.uploads.receive(
                job_id, uploads.awaited(chunks), self.settings.max_bytes
            )
            try:
                job = await to_thread.run_sync(self._add, job_id, owner, name(), upload)
            except BaseException:
                self.uploads.remove(job_id)
                raise
        finally:
            self._arriving.discard(job_id)
        self.metrics.receive(upload.bytes)
        if job.state.is_final:  # and accepted: nothing from here on may fail the request
            self._note_known(job)
            if not self.settings.keep_uploads:
                self.uploads.remove(job.id)
        self.pool.wake()
        return job

    def _add(self, job_id: str, owner: str, name: str, upload: uploads.Upload) -> Job:
        key = results.result_key(upload.sha256, self.bundle, self.recipe)
        cleaned = results.clean_name(name)
        return self.store.add(owner, cleaned, upload.bytes, upload.sha256, key, job_id)

    def accept_url(self, owner: str, url: str) -> Job:
        """Make a job of a video that is to be fetched from the web.

        Args:
            owner: who may see it.
            url: of the file.

        Raises:
            ProblemError: urls_refused, or refused_address as far as that can be told at once.
            sqlite3.OperationalError: the job could not be written down.
        """
        if not self.settings.allow_urls:
            raise ProblemError("urls_refused", "Fetch the video, and upload it.")
        try:
            check_link(url, allow_private=self.settings.fetch.allow_private)
        except AddressError as error:
            raise ProblemError.again(problems.unfetched(error, show_link(url))) from error
        job_id = new_id()
        job = self.store.add(owner, show_link(url), 0, "", f"url:{job_id}", job_id, url)
        self.pool.wake()
        return job

    def _fetch(self, job: Job, progress: Progress, cancelled: Callable[[], bool]) -> Job:
        """Get the file of a job that has an address; return the job as it is then.

        Raises:
            sqlite3.OperationalError: it could not be written down.
            Cancelled: so `cancelled` said, or the job was deleted.
            ProblemError: it cannot be had.
        """
        limits = dataclasses.replace(self.settings.fetch, bytes=self.settings.max_bytes)
        try:
            upload = self.uploads.fetch(
                job.id,
                job.url or "",
                limits,
                lambda done, total: progress("fetching", done, total),
                cancelled,
            )
        except MediaError as error:
            if cancelled():
                raise Cancelled from error
            raise ProblemError.again(problems.unfetched(error, job.name)) from error
        key = results.result_key(upload.sha256, self.bundle, self.recipe)
        found = self.store.fetched(job.id, upload.bytes, upload.sha256, key)
        if found is None:
            raise Cancelled
        self.metrics.receive(upload.bytes)
        if found.state.is_final:
            self._note_known(found)
        return found

    @asynccontextmanager
    async def admission(self, announced: int) -> AsyncIterator[None]:
        """Hold a place in the queue for an upload.

        Args:
            announced: bytes that the client says it will send, 0 where it does not.

        Raises:
            ProblemError: queue_full, too_large or storage_full.
        """
        if announced > self.settings.max_bytes + uploads.BLOCK:  # a form is larger than its file
            raise uploads.too_large(self.settings.max_bytes)
        self.uploads.check_space(announced)
        waiting = (await to_thread.run_sync(self.store.count))[State.QUEUED] + self._places
        if waiting >= self.settings.max_queue:
            raise ProblemError(
                "queue_full",
                f"Waiting already: {number_of(waiting, 'video')}. Try again later.",
                {"Retry-After": str(self.retry_after(waiting))},
            )
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1

    def retry_after(self, waiting: int) -> int:
        """Return in how many seconds a place in the queue may be free: when a few have moved up."""
        each = self.metrics.mean_seconds() or FIRST_GUESS
        ahead = max(1, waiting // 4) * each / self.settings.workers
        return min(300, max(1, math.ceil(ahead)))

    def find(self, job_id: str, owner: str) -> Job:
        """Return a job.

        Raises:
            ProblemError: not_found.
        """
        job = self.store.get(job_id, owner)
        if job is None:
            raise ProblemError("not_found", problems.NO_JOB)
        return job

    def view(self, job: Job) -> JobView:
        """Return a job as the API shows it, without its result."""
        verdict = self._known_verdict(job)
        return view_job(job, self.settings.root_path, *self._moving(job), verdict)

    def view_full(self, job: Job) -> ResultView:
        """Return a job as the API shows it, with its result."""
        verdict = self._known_verdict(job)
        return view_result(job, self.settings.root_path, *self._moving(job), verdict)

    def _known_verdict(self, job: Job) -> Verdict | None:
        text = self._known_text(job)
        return results.unpack(text, job.name) if text else None

    def _note_known(self, job: Job) -> None:
        """Count and log a job whose result was known."""
        self.metrics.count("done")
        problems.log.info("job %s: done, as the same bytes before", job.id)

    def _known_text(self, job: Job) -> str | None:
        return self.store.verdict(job.key) if job.state is State.DONE else None

    def _moving(self, job: Job) -> tuple[int | None, tuple[str, int, int]]:
        position = self.store.position(job) if job.state is State.QUEUED else None
        return position, self.pool.progress(job.id)

    def verdict(self, job: Job, *, pictures: bool = False) -> Verdict:
        """Return the verdict of a job.

        Raises:
            ProblemError: not_finished; or, where it failed, why.
        """
        if job.problem is not None:
            raise ProblemError.again(problems.Problem.model_validate_json(job.problem))
        text = self._known_text(job)
        if text is None:
            raise ProblemError("not_finished", "Follow its events, and ask again when it is done.")
        evidence = self.store.evidence(job.key) if pictures else None
        return results.unpack(text, job.name, evidence)

    def _make_verdict(self, found: Finding, seconds: float) -> Verdict:
        """Apply the rule to what a worker found."""
        label, probability, reasons = judge_video(
            found.people,
            self.bundle.decision,
            partial=found.media.partial,
            left_out=leaves_out(found.counters),
        )
        return Verdict(
            video="",
            label=label,
            probability=probability,
            reasons=reasons,
            people=found.people,
            media=found.media,
            model=self.bundle.info(self.recipe),
            counters=found.counters,
            sandbox=self.pool.sandbox,
            seconds=seconds,
        )

    def delete(self, job: Job) -> None:
        """Forget a job, its upload and its result; stop it where it runs."""
        self.store.delete(job.id)
        self.pool.cancel(job.id)
        self.uploads.remove(job.id)
        problems.log.info("job %s: deleted", job.id)

    def _settle(self, job_id: str) -> None:
        """Clear up after a job that has ended, or was deleted while it ran."""
        if not self.settings.keep_uploads or self.store.get(job_id) is None:
            self.uploads.remove(job_id)

    def _with_uploads(self) -> set[str]:
        """Return the ids of the jobs whose uploads are to be there."""
        # In this order: a job leaves the first set only when it is in the second.
        return self._arriving | self.store.ids(final=self.settings.keep_uploads)

    def expire(self) -> None:
        """Forget what is too old or too much."""
        oldest = time.time() - self.settings.keep_seconds
        self.store.expire(oldest, self.settings.keep_bytes)
        self.uploads.sweep(self._with_uploads)

    async def _expire_for_ever(self) -> None:
        while True:
            await asyncio.sleep(min(EXPIRE_SECONDS, self.settings.keep_seconds))
            try:
                await to_thread.run_sync(self.expire)
            except Exception as error:  # a full disk or a locked database: next time
                problems.log.error("expiry: %s", error)
