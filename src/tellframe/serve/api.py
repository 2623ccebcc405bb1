"""The HTTP API: what every path does, and what the OpenAPI document says of it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect

from tellframe import report
from tellframe.report.html import single_page
from tellframe.serve import problems
from tellframe.serve.parts import FormFile
from tellframe.serve.problems import ProblemError
from tellframe.serve.service import Service
from tellframe.serve.uploads import awaited
from tellframe.serve.views import (
    JobList,
    JobView,
    Pictures,
    ResultView,
    view_pictures,
)

EVENT_SECONDS: Final = 0.25
"""How often a followed job is looked at."""
KEEP_ALIVE: Final = 15.0
"""Seconds after which a comment is sent where nothing happens, for proxies."""
REPORT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Id of a job.")]
bearer = HTTPBearer(auto_error=False, description="Where the service was started with tokens.")


def service_of(request: Request) -> Service:
    """Return the service."""
    found: Service = request.app.state.service
    return found


def owner_of(request: Request, _token: Annotated[Any, Depends(bearer)]) -> str:
    """Return who asks; "" where no tokens are needed."""
    owner: str = request.app.state.tokens.owner(request.headers.get("authorization", ""))
    return owner


Caller = Annotated[str, Depends(owner_of)]
Used = Annotated[Service, Depends(service_of)]


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of problems."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in ("invalid_request", "unauthorized", *codes, "storage_busy"):
        status, title = problems.TITLES[code]
        text = f"{found[status]['description']}; {code}" if status in found else f"{title}: {code}"
        schema = {"$ref": "#/components/schemas/Problem"}
        found[status] = {"description": text, "content": {problems.MEDIA_TYPE: {"schema": schema}}}
    return found


router = APIRouter(prefix="/v1", tags=["jobs"])
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
MAX_JSON: Final = 64 * 2**10
"""Bytes of a body that names an address."""
_LINK: Final = {
    "schema": {
        "type": "object",
        "properties": {
            "url": {
                "type": "string",
                "pattern": "^[hH][tT][tT][pP][sS]?://",
                "description": "Direct link of a video file; a page that shows one is refused.",
            }
        },
        "required": ["url"],
        "additionalProperties": False,
    }
}
JSON_TYPE: Final = "application/json"
_FORM: Final = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}},
        "required": ["file"],
    }
}


@router.post(
    "/jobs",
    status_code=202,
    response_model=JobView,
    responses={
        202: {"headers": {"Location": {"schema": {"type": "string"}, "description": "The job."}}},
        **documented(
            "upload_stalled",
            "urls_refused",
            "too_large",
            "not_a_video",
            "refused_address",
            "queue_full",
            "rate_limited",
            "storage_full",
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": _BINARY,
                "multipart/form-data": _FORM,
                JSON_TYPE: _LINK,
            },
        }
    },
)
async def create_job(
    request: Request,
    response: Response,
    caller: Caller,
    service: Used,
    name: Annotated[str, Query(max_length=1000, description="File name, of a raw body.")] = "",
) -> JobView:
    """Upload a video: as the body itself, or as the file of a form; or, as JSON, link to one.

    The answer comes when the video is safely stored. Where the same bytes were analysed before,
    the job is done at once. A link is noted, and fetched when its turn has come; only a server
    that was started with --allow-urls takes one.
    """
    client = caller or (request.client.host if request.client else "")
    request.app.state.rate.check(client)
    length = request.headers.get("content-length", "")
    try:
        async with service.admission(int(length) if length.isascii() and length.isdigit() else 0):
            kind = request.headers.get("content-type", "")
            if kind.partition(";")[0].strip().lower() == JSON_TYPE:
                url = await _read_link(awaited(request.stream()))
                job = await to_thread.run_sync(service.accept_url, caller, url)
            elif kind.lower().startswith("multipart/form-data"):
                form = FormFile(request.stream(), kind)
                job = await service.accept(caller, lambda: form.name or name, aiter(form))
            else:
                job = await service.accept(caller, lambda: name, request.stream())
    except ClientDisconnect as error:
        raise ProblemError("invalid_request", "The client went away.") from error
    view = await to_thread.run_sync(service.view, job)
    response.headers["Location"] = view.links.self
    return view


async def _read_link(chunks: AsyncIterator[bytes]) -> str:
    """Return the address that a body of JSON names.

    Raises:
        ProblemError: invalid_request or upload_stalled.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_JSON:
            raise ProblemError("invalid_request", f"The JSON has more than {MAX_JSON} bytes.")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError("invalid_request", "The body is no JSON.") from error
    if not (isinstance(found, dict) and found.keys() == {"url"} and isinstance(found["url"], str)):
        raise ProblemError("invalid_request", 'Send {"url": "https://..."} and nothing else.')
    return str(found["url"])


@router.get("/jobs", responses=documented())
def list_jobs(
    caller: Caller, service: Used, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> JobList:
    """List the newest jobs."""
    jobs = service.store.list_jobs(caller, limit)
    return JobList(jobs=[service.view(job) for job in jobs])


@router.get("/jobs/{job_id}", responses=documented("not_found"))
def get_job(job_id: JobId, caller: Caller, service: Used) -> ResultView:
    """Return a job: its place in the queue, its progress, its verdict, or why there is none."""
    return service.view_full(service.find(job_id, caller))


@router.delete("/jobs/{job_id}", status_code=204, responses=documented("not_found"))
def delete_job(job_id: JobId, caller: Caller, service: Used) -> None:
    """Delete a job with its video and its result; an analysis that runs is stopped."""
    service.delete(service.find(job_id, caller))


_EVENT: Final = {
    "type": "object",
    "properties": {"event": {"enum": ["job", "gone"]}, "data": {"type": "string"}},
    "required": ["event", "data"],
}


@router.get(
    "/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `job`, with the job without its result as data, at "
            "once and whenever something changes; the stream ends when the job has ended. "
            "`gone`, where it was deleted.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        **documented("not_found"),
    },
)
async def follow_job(job_id: JobId, caller: Caller, service: Used) -> StreamingResponse:
    """Follow a job."""
    await to_thread.run_sync(service.find, job_id, caller)
    headers = {"X-Accel-Buffering": "no"}  # a proxy would hold the events back
    stream = _events(service, job_id, caller)
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _events(service: Service, job_id: str, caller: str) -> AsyncIterator[str]:
    def look() -> JobView | None:
        job = service.store.get(job_id, caller)
        return service.view(job) if job else None

    before, silent = "", 0.0
    while not service.closing.is_set():
        view = await to_thread.run_sync(look)
        if view is None:
            yield "event: gone\ndata: {}\n\n"
            return
        data = view.model_dump_json(by_alias=True)
        if data != before:
            yield f"event: job\ndata: {data}\n\n"
            before, silent = data, 0.0
        if view.state.is_final:
            return
        await asyncio.sleep(EVENT_SECONDS)
        silent += EVENT_SECONDS
        if silent >= KEEP_ALIVE:
            yield ": still here\n\n"
            silent = 0.0


_VERDICT: Final = {"$ref": "#/components/schemas/Verdict"}
_NO_RESULT: Final = ("not_found", "not_finished", "undecodable")


@router.get("/jobs/{job_id}/moments", responses=documented(*_NO_RESULT))
def get_moments(job_id: JobId, caller: Caller, service: Used) -> Pictures:
    """Return the most and least suspicious moments as pictures, with heat maps."""
    return view_pictures(service.verdict(service.find(job_id, caller), pictures=True))


@router.get(
    "/jobs/{job_id}/report.html",
    response_class=HTMLResponse,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
        **documented(*_NO_RESULT),
    },
)
def get_report(job_id: JobId, caller: Caller, service: Used) -> HTMLResponse:
    """Return the report as one page that is complete in itself."""
    verdict = service.verdict(service.find(job_id, caller), pictures=True)
    return HTMLResponse(single_page(verdict), headers={"Content-Security-Policy": REPORT_POLICY})


@router.get(
    "/jobs/{job_id}/report.json",
    response_class=JSONResponse,
    responses={
        200: {"content": {"application/json": {"schema": _VERDICT}}},
        **documented(*_NO_RESULT),
    },
)
def get_json(job_id: JobId, caller: Caller, service: Used) -> Response:
    """Return the verdict as `tellframe detect --json` writes it."""
    buffer = io.StringIO()
    report.write_json(service.verdict(service.find(job_id, caller)), buffer)
    return Response(buffer.getvalue(), media_type="application/json")
