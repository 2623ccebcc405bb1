"""The page and the API: `tellframe serve`."""

from __future__ import annotations

import argparse
import dataclasses
import ipaddress
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tellframe.cli import status
from tellframe.cli.options import add_model_options, add_verb
from tellframe.cli.outputs import check_output
from tellframe.errors import MissingExtraError, UsageError

MAX_PORT: Final = 65535
MIB: Final = 2**20
TOKENS: Final = "TELLFRAME_TOKENS"


def add_serve(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_serve,
        "serve",
        "a page for videos in the browser, and an API for software",
        "tellframe serve --port 8000, then open http://127.0.0.1:8000/\n\n"
        "Without tokens it listens to this machine alone.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; default: %(default)s"
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="0 for any free one; default: %(default)s"
    )
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help='name under which the service is reached, beside localhost; "*" for any',
    )
    parser.add_argument("--root-path", default="", metavar="/PREFIX", help="path prefix at a proxy")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where jobs and results are kept"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="videos at once; default: %(default)s"
    )
    parser.add_argument(
        "--queue",
        type=int,
        default=32,
        metavar="N",
        help="videos that may wait; default: %(default)s",
    )
    parser.add_argument(
        "--max-mib",
        type=float,
        default=2048.0,
        metavar="N",
        help="largest upload in MiB; default: %(default)s",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0,
        metavar="N",
        help="uploads a minute of one client; default: no limit",
    )
    parser.add_argument(
        "--limit-seconds",
        type=float,
        default=600,
        metavar="N",
        help="seconds for one analysis; default: %(default)s",
    )
    parser.add_argument(
        "--limit-mib",
        type=int,
        default=4096,
        metavar="N",
        help="memory of one analysis in MiB; default: %(default)s",
    )
    parser.add_argument(
        "--keep-hours",
        type=float,
        default=24,
        metavar="N",
        help="age at which results go in hours; default: %(default)s",
    )
    parser.add_argument(
        "--keep-mib",
        type=int,
        default=1024,
        metavar="N",
        help="size of all results together in MiB; default: %(default)s",
    )
    parser.add_argument(
        "--keep-uploads", action="store_true", help="keep videos as long as their results"
    )
    parser.add_argument(
        "--allow-urls", action="store_true", help="also fetch videos from web links (see the docs)"
    )
    parser.add_argument(
        "--allow-private-addresses",
        action="store_true",
        help="with --allow-urls: also from this machine and private networks",
    )
    parser.add_argument(
        "--access-log",
        action="store_true",
        help="also a line on stderr for every request, without names of files",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"a bearer token a line; or separate them by commas in ${TOKENS}",
    )
    add_model_options(parser)


def run_serve(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    try:
        import uvicorn

        from tellframe.serve.app import create_app
    except ImportError as error:
        raise MissingExtraError(
            f"the service needs an extra ({error.name}); run: pip install 'tellframe[serve]'"
        ) from error
    from tellframe.serve.address import check_address
    from tellframe.serve.settings import LOOPBACK

    if not 0 <= options.port <= MAX_PORT:
        raise UsageError(f"--port {options.port}: give 0 to {MAX_PORT}")
    settings = read_settings(options)
    if not settings.tokens and f"{options.host}" not in (*LOOPBACK, "::1"):
        raise UsageError(
            f"--host {options.host}: other machines could use the service; give it tokens, with "
            f"--token-file or ${TOKENS}"
        )
    check_output("--folder", settings.folder, folder=True)
    check_address(options.host, options.port)
    _log_to_stderr(requests=options.access_log)
    config = uvicorn.Config(
        create_app(settings),
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,  # whose lines have the names of files; `guard` writes others
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = _make_server(config, options.host_name)
    try:
        server.run()
    except SystemExit as error:  # uvicorn has said why, such as a port that is taken
        return status.USAGE if error.code else status.DONE
    return status.DONE


def _log_to_stderr(*, requests: bool) -> None:
    """Have a line written for every job that ends, and where they are asked for, every request."""
    from tellframe.serve.guard import access_log
    from tellframe.serve.problems import log

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    access_log.setLevel(logging.INFO if requests else logging.WARNING)


def _make_server(config: Any, names: Sequence[str]) -> Any:
    """Return a server that says where it is, and lets go of those who follow jobs when it ends.

    Args:
        config: of uvicorn.
        names: under which the service is reached, "*" for any.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            for server in getattr(self, "servers", []):
                for socket in server.sockets:
                    host, port = socket.getsockname()[:2]
                    name = _shown_name(host, names)
                    print(f"http://{name}:{port}/  (Ctrl-C ends it)", file=sys.stderr, flush=True)

        def handle_exit(self, sig: int, frame: Any) -> None:
            self.config.app.state.service.closing.set()  # type: ignore[union-attr]
            super().handle_exit(sig, frame)

    return Server(config)


def _shown_name(address: str, names: Sequence[str]) -> str:
    """Return what a browser is pointed to, of a server that listens at an IP address."""
    if ipaddress.ip_address(address).is_unspecified:  # every address of the machine, and no name
        return next((name for name in names if name != "*"), "localhost")
    return f"[{address}]" if ":" in address else address


def read_settings(options: argparse.Namespace) -> Any:
    """Return the settings that the options ask for.

    Raises:
        UsageError: a value is out of range or needs another option, or the file of tokens holds
            none or cannot be read.
    """
    from tellframe.isolation import Limits
    from tellframe.serve.settings import LOOPBACK, Settings, default_folder
    from tellframe.webfetch import FetchLimits

    given = {"num_frames": options.frames, "face_detector": options.face_detector}
    tokens = os.environ.get(TOKENS, "").split(",")
    if options.token_file:
        tokens += _read_tokens(options.token_file)
    if not math.isfinite(options.max_mib):
        raise UsageError(f"--max-mib {options.max_mib:g}: give a finite number above 0")
    if options.allow_private_addresses and not options.allow_urls:
        raise UsageError("--allow-private-addresses: give --allow-urls as well")
    limits = dataclasses.replace(
        Limits(), seconds=options.limit_seconds, memory=options.limit_mib * MIB
    )
    return Settings(
        folder=options.folder or default_folder(),
        model=options.model,
        overrides={name: value for name, value in given.items() if value is not None},
        threads=options.threads,
        workers=options.workers,
        limits=limits,
        max_bytes=int(options.max_mib * MIB),
        max_queue=options.queue,
        keep_seconds=options.keep_hours * 3600,
        keep_bytes=options.keep_mib * MIB,
        keep_uploads=options.keep_uploads,
        tokens=tuple(token.strip() for token in tokens if token.strip()),
        rate=options.rate,
        allow_urls=options.allow_urls,
        fetch=FetchLimits(
            seconds=options.limit_seconds, allow_private=options.allow_private_addresses
        ),
        root_path=options.root_path.rstrip("/"),
        hosts=(*LOOPBACK, *options.host_name),
    )


def _read_tokens(path: Path) -> list[str]:
    """Return the tokens in a file, of which there is one at least: without, all would be let in.

    Raises:
        UsageError: there is none, or it is no text, or it cannot be read.
    """
    try:
        tokens = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--token-file {path}: is no text in UTF-8; write tokens in ASCII"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"--token-file {path}: {reason}; check the path and your rights"
        ) from error
    if not any(tokens):
        raise UsageError(f"--token-file {path}: holds no token; write one a line")
    return tokens
