"""Starts the server: checks, the port, what is said, and the application in one process; several
are the supervisor's."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.errors import GateRefused, UserError
from residency.serve.settings import LocalKey, Serve
from residency.serve.types import Served

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from residency.serve.limits import Limited
    from residency.serve.types import Engine

BACKLOG = 2048


def check(settings: Serve) -> None:
    """Raises ``GateRefused`` where other machines could ask without real authentication,
    ``UserError`` for what cannot work."""
    from residency.serve.auth.addresses import loopback

    if isinstance(settings.auth, LocalKey) and not loopback(settings.host):
        raise GateRefused(
            f"host: {settings.host} is reached from other machines, and auth is only the key of "
            "this one; set auth.kind: oidc "
            "with the hospital's identity provider, or host: 127.0.0.1."
        )
    if settings.workers > 1 and not settings.limits.redis:
        raise UserError(
            f"limits.redis: {settings.workers} workers need a Redis to count requests together; "
            "give redis://HOST:PORT, or set "
            "workers to 1."
        )


def serve(
    models: Mapping[str, Path],
    settings: Serve,
    say: Callable[[str], None],
    ledger: Path | None = None,
) -> None:
    """Serve models by their names until SIGTERM or SIGINT; running requests end first. ``ledger``:
    where other models can come from."""
    check(settings)
    without_cores()
    folder = Path(settings.logs.folder)
    if isinstance(settings.auth, LocalKey):
        from residency.serve.auth.bearer import local_key

        local_key(folder)
    with listening(settings) as listen:
        if settings.workers == 1:
            _alone(models, settings, listen, say, ledger)
        else:
            from residency.serve.supervisor import Supervisor

            Supervisor(models, settings, listen, say, ledger).run()


def without_cores() -> None:
    """A crash of this process, or of one that it starts, writes no image of its memory: requests
    would be in it."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def listening(settings: Serve) -> socket.socket:
    """The port, opened; raises ``UserError`` where it cannot be."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        made.close()
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "no such address"
        raise UserError(
            f"port: {settings.host}:{settings.port} cannot be opened ({reason}); give another one."
        ) from None
    made.listen(BACKLOG)
    made.set_inheritable(True)
    return made


def greeting(served: Mapping[str, Served], settings: Serve) -> list[str]:
    """What is said at the start: the address, the models, and a command for each kind that works as
    it stands."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{settings.port}"
    lines = [f"serving on {address}: {', '.join(served)}"]
    local = isinstance(settings.auth, LocalKey)
    key = f"$(cat '{(Path(settings.logs.folder) / 'key').resolve()}')" if local else "$TOKEN"
    shown: set[str] = set()
    for one in served.values():
        kind = "words" if one.output == "text" else one.card.family
        if kind in shown:
            continue
        shown.add(kind)
        path, body = _example(one)
        words = msgspec.json.encode(body).decode().replace("'", "'\\''")
        lines.append(
            f'curl -s {address}{path} -H "Authorization: Bearer {key}" -H \'Content-Type: '
            f"application/json' -d '{words}'"
        )
    return lines


def _example(served: Served) -> tuple[str, dict[str, Any]]:
    if served.output == "text":
        question = "Triệu chứng của viêm phổi là gì?"
        return "/v1/chat/completions", {
            "model": served.name,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 64,
        }
    if served.card.family == "labels":
        return "/diagnose", {
            "model": served.name,
            "patient_info": "Nam, 62 tuổi",
            "symptoms": "ho khan, sốt 38.5 độ",
        }
    return "/extract", {
        "model": served.name,
        "text": "Bệnh nhân ho khan, được điều trị bằng metformin 500mg.",
    }


# One process


def _alone(
    models: Mapping[str, Path],
    settings: Serve,
    listen: socket.socket,
    say: Callable[[str], None],
    ledger: Path | None,
) -> None:
    from residency.serve.app import ROUTES
    from residency.serve.engines.choose import ended, load, load_all
    from residency.serve.records.server_log import Log, silence
    from residency.serve.routes.admin import Admin

    engines = load_all(models, settings, say)
    log = Log(routes=ROUTES)
    silence(log)
    with ended(engines.values()):
        admin = (
            Admin(ledger, lambda path, name: load(path, name, settings))
            if ledger is not None
            else None
        )
        _answer(settings, engines, log, listen, say, admin)


def _answer(
    settings: Serve,
    engines: Mapping[str, Engine],
    log: Any,
    listen: socket.socket,
    say: Callable[[str], None],
    admin: Any,
) -> None:
    app = application(settings, engines, log, 0, admin)
    for line in greeting({name: engine.served for name, engine in engines.items()}, settings):
        say(line)
    run(app, settings, listen)


def application(
    settings: Serve, engines: Mapping[str, Engine], log: Any, worker: int, admin: Any = None
) -> FastAPI:
    """The application with everything that the settings ask for."""
    from residency.serve.app import ROUTES, create_app
    from residency.serve.auth.bearer import make_tokens
    from residency.serve.auth.rate import Rate
    from residency.serve.guard import Gate
    from residency.serve.records.audit_chain import Audit
    from residency.serve.records.metrics import Metrics
    from residency.serve.records.server_log import Users, log_key

    folder = Path(settings.logs.folder)
    key = log_key(settings.logs)
    figures = Metrics(ROUTES, engines)
    gate = Gate(
        settings,
        engines,
        make_tokens(settings.auth, folder, told=figures.keys),
        Rate(settings.limits, settings.workers),
        Users(key, settings.logs.user),
        Audit.open(folder, worker, key),
        figures,
        log,
    )
    return create_app(gate, owned=True, admin=admin)


def run(app: FastAPI, settings: Serve, listen: socket.socket) -> None:
    """Answer on an open port until the process is told to end."""
    import uvicorn

    from residency.serve.app import limited

    inner = limited(app, settings)
    options: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "lifespan": "on",
        "server_header": False,
        "date_header": True,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": int(settings.limits.drain) + 5,
        "proxy_headers": False,
    }
    _draining(uvicorn.Config(inner, **options), inner).run(sockets=[listen])


def _draining(config: uvicorn.Config, inner: Limited) -> uvicorn.Server:
    import uvicorn

    class Draining(uvicorn.Server):
        """Told to end, it first refuses new requests and lets running ones end; told twice, it ends
        at once."""

        told = False

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.told:
                super().handle_exit(sig, frame)
                return
            self.told = True
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(lambda: setattr(self, "end", loop.create_task(self.drain())))

        async def drain(self) -> None:
            await inner.drain()
            self.should_exit = True

    return Draining(config)
