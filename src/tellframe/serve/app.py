"""The application: API, page, and what holds for all answers."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.routing import Match

from tellframe.report import verdict_schema
from tellframe.report.rows import tellframe_version
from tellframe.report.words import finish
from tellframe.serve import about, api, page, problems
from tellframe.serve.guard import Guard, Rate, Tokens
from tellframe.serve.problems import Problem, ProblemError
from tellframe.serve.service import Service
from tellframe.serve.settings import Settings

_ROUTERS: Final = (api.router, about.router, page.router)
SQLITE_FULL: Final = 13  # sqlite3.h; the module has the name, type stubs do not


def create_app(settings: Settings) -> FastAPI:
    """Return the service as an ASGI application.

    Args:
        settings: what whoever runs the service decides.

    Raises:
        TellframeError: the model is missing or altered, or another server uses the folder.
    """
    service = Service(settings)

    @asynccontextmanager
    async def run(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="tellframe",
        version=tellframe_version(),
        description="Says who in a video is a deepfake, when, and how sure we can be.",
        root_path=settings.root_path,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=run,
    )
    app.state.service = service
    app.state.tokens = Tokens(settings.tokens)
    app.state.rate = Rate(settings.rate)
    for router in _ROUTERS:
        app.include_router(router)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(Guard, hosts=settings.hosts, metrics=service.metrics)
    return app


def _describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the schemas of verdicts and problems."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=[{"url": app.root_path}] if app.root_path else None,
        )
        schemas = found["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        body = _moved(verdict_schema())
        schemas |= body.pop("$defs") | {"Verdict": body}
        for name in ("$schema", "$id"):
            body.pop(name)
        # FastAPI's own shape of an error, which is never sent.
        for operation in (o for path in found["paths"].values() for o in path.values()):
            operation["responses"] = {
                status: response
                for status, response in operation["responses"].items()
                if "HTTPValidationError" not in str(response)
                and (status != "401" or app.state.tokens)
            }
            if not app.state.tokens:
                operation.pop("security", None)
        if not app.state.service.settings.allow_urls:
            upload = found["paths"]["/v1/jobs"]["post"]
            upload["requestBody"]["content"].pop(api.JSON_TYPE)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = found
    return app.openapi_schema


def _moved(schema: Any) -> Any:
    """Return a schema whose definitions are looked for among the document's schemas."""
    if isinstance(schema, dict):
        return {
            key: value.replace("#/$defs/", "#/components/schemas/")
            if key == "$ref"
            else _moved(value)
            for key, value in schema.items()
        }
    return [_moved(item) for item in schema] if isinstance(schema, list) else schema


def _answer(error: ProblemError) -> Response:
    return Response(
        error.problem.model_dump_json(),
        status_code=error.problem.status,
        headers=error.headers,
        media_type=problems.MEDIA_TYPE,
    )


def _on_problem(_request: Request, error: Any) -> Response:
    return _answer(error)


def _on_http(request: Request, error: Any) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    headers = dict(error.headers or {})
    if error.status_code == 405:  # by itself it names the methods of one route alone
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return _answer(ProblemError(code, finish(error.detail), headers))


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes that have the path of a request."""
    return {
        method
        for router in _ROUTERS
        for route in router.routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in getattr(route, "methods", ())
    }


def _on_invalid(_request: Request, error: Any) -> Response:
    if any(e["loc"][:2] == ("path", "job_id") for e in error.errors()):  # no job has such an id
        return _answer(ProblemError("not_found", problems.NO_JOB))
    texts = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
    return _answer(ProblemError("invalid_request", finish("; ".join(texts))))


def _on_database(_request: Request, error: Any) -> Response:
    problems.log.error("database: %s", error)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == SQLITE_FULL:
        return _answer(ProblemError("storage_full", "Nothing was kept. Try again later."))
    text = "Nothing was kept. Try again in a few seconds."
    return _answer(ProblemError("storage_busy", text, {"Retry-After": "5"}))


_HANDLERS: Final[dict[Any, Any]] = {
    ProblemError: _on_problem,
    HTTPException: _on_http,
    RequestValidationError: _on_invalid,
    sqlite3.OperationalError: _on_database,
}
