"""Starts the server: checks, the port, what is said, and the application, in one process or in
several workers.

Workers are those of uvicorn's own process manager, which starts them again where they die. Each has
engines of its own, but for vLLM, whose process they share. What they are told lies in a folder that
only the server's user can read.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.errors import GateRefused, ResidencyError, UserError
from residency.core.files import write_once
from residency.core.own_server import end_shared
from residency.core.part import parse
from residency.core.types import Value
from residency.serve.settings import LocalKey, Serve

if TYPE_CHECKING:
    from fastapi import FastAPI

    from residency.serve.engines import ModelEngine, Served
    from residency.serve.limits import Limited
    from residency.serve.records.monitoring import Log

BACKLOG = 2048
PLACE = "RESIDENCY_SERVE_FOLDER"
"""Environment variable of workers: the folder with their plan."""
HEALTH_SECONDS = 30
"""Longest that a worker may be deaf to the process manager, e.g. while it imports libraries."""
Say = Callable[[str], None]


class WorkerPlan(Value, frozen=True):
    """What a worker is told."""

    settings: dict[str, Any]
    models: dict[str, str]
    ledger: str = ""
    """Folder of the model ledger, where there is one."""


def check(settings: Serve) -> None:
    """Raises ``GateRefused`` where other machines could ask without real authentication,
    ``UserError`` for what cannot work."""
    from residency.serve.auth.jwks import loopback

    if isinstance(settings.auth, LocalKey) and not loopback(settings.host):
        raise GateRefused(
            f"host: {settings.host} is reached from other machines, and auth is only the key of "
            "this one; set auth.kind: oidc with the hospital's identity provider, or host: "
            "127.0.0.1."
        )
    if settings.workers > 1 and not settings.limits.redis:
        raise UserError(
            f"limits.redis: {settings.workers} workers need a Redis to count requests together; "
            "give redis://HOST:PORT, or set workers to 1."
        )


def serve(
    models: Mapping[str, Path], settings: Serve, say: Say, ledger: Path | None = None
) -> None:
    """Serve models by their names until SIGTERM or SIGINT; running requests end first. ``ledger``:
    where other models can come from. Raises ``UserError`` where models cannot be loaded, or an
    engine is gone for good."""
    from residency.deid.loose import unreviewed

    check(settings)
    unreviewed()  # a tagger that was changed is refused before a port is open
    without_cores()
    if isinstance(settings.auth, LocalKey):
        from residency.serve.auth import local_key

        local_key(Path(settings.logs.folder))
    with listening(settings) as listen:
        run = serve_alone if settings.workers == 1 else serve_workers
        run(models, settings, listen, say, ledger)


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


# What is said at the start


def greeting(served: Mapping[str, Served], settings: Serve) -> list[str]:
    """The address, the models, and a command for each kind that works as it stands."""
    from residency.deid.loose import unreviewed

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{settings.port}"
    lines = [f"serving on {address}: {', '.join(served)}"]
    lines += [f"{one.name}: {one.erased}" for one in served.values() if one.erased]
    if not unreviewed():
        lines.append(
            "identifiers are found by rules alone, which find less: the tagger's weights are not "
            "installed; pip install 'residency[deid]' brings them."
        )
    key = "$TOKEN"
    if isinstance(settings.auth, LocalKey):
        key = f"$(cat '{(Path(settings.logs.folder) / 'key').resolve()}')"
    headers = f"-H \"Authorization: Bearer {key}\" -H 'Content-Type: application/json'"
    examples: dict[str, dict[str, Any]] = {}
    for one in served.values():
        path, body = EXAMPLES[one.routes[0]]
        examples.setdefault(path, {"model": one.name} | body)
    for path, body in examples.items():
        words = msgspec.json.encode(body).decode().replace("'", "'\\''")
        lines.append(f"curl -s {address}{path} {headers} -d '{words}'")
    return lines


TURN = {"role": "user", "content": "Triệu chứng của viêm phổi là gì?"}
EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [TURN], "max_tokens": 64}),
    "diagnose": ("/diagnose", {"patient_info": "Nam, 62 tuổi", "symptoms": "ho khan, sốt 38.5 độ"}),
    "extract": (
        "/extract",
        {"text": "Bệnh nhân ho khan, được điều trị bằng metformin 500mg."},
    ),
}


def memory_of_workers(models: Mapping[str, Path], settings: Serve) -> str:
    """What several workers take, by the sizes of the files with weights."""
    from residency.serve.engines import servers

    own = [path for path in models.values() if servers.refused(path, settings) is not None]
    each = sum(map(weights_bytes, own)) / 1e9
    shared = (
        "; the servers of their own (vLLM, llama.cpp) are shared by all"
        if len(own) < len(models)
        else ""
    )
    return (
        f"{settings.workers} workers, each with engines of its own: about {each:.2f} GB of weights "
        f"for each, {each * settings.workers:.2f} GB in all{shared}"
    )


def weights_bytes(folder: Path) -> int:
    """Bytes of the weights of an artefact, its base's included, or of an export."""
    from residency.models import artefact, onnx_encoder

    if (folder / onnx_encoder.FILE).is_file():
        return max((path.stat().st_size for path in folder.glob("*.onnx")), default=0)
    found = artefact.read(folder)
    if not found.tuning().needs_base:
        return sum((folder / name).stat().st_size for name in found.weights)
    base = Path(found.base.path)
    files = [*folder.glob("*.safetensors"), *base.glob("*.safetensors")]
    if not any(base.glob("*.safetensors")):
        files += base.glob("*.bin")
    return sum(path.stat().st_size for path in files)


# Engines


def load_all(
    models: Mapping[str, Path], settings: Serve, say: Say | None, shared: Path | None = None
) -> dict[str, ModelEngine]:
    """The engines of all models; where one cannot be loaded those before it are ended."""
    engines: dict[str, ModelEngine] = {}
    try:
        for name, path in models.items():
            engines[name] = load(path, name, settings, say, shared)
    except BaseException:
        end(engines.values())
        raise
    return engines


def load(
    folder: Path, name: str, settings: Serve, say: Say | None = None, shared: Path | None = None
) -> ModelEngine:
    """The engine of an artefact: vLLM where it can and is to be had, else this process; of a model
    in GGUF llama.cpp, of one in a model repository the Triton of the settings. ``say`` is told
    where it is not the one that the settings name, and how much memory llama.cpp takes; ``shared``:
    the folder through which several workers share vLLM. Raises ``UserError`` where it cannot be
    loaded, or where notes that it learned from were erased and the settings do not have that
    announced."""
    from residency.models import erased
    from residency.serve.engines import in_process, servers
    from residency.serve.engines.triton import TritonEngine

    if (warning := erased.warning(folder)) and settings.erased == "refuse":
        raise UserError(f"{name}: {warning} To serve it and have that said, set erased=announce.")
    why = servers.refused(folder, settings)
    engine: ModelEngine
    if servers.in_triton(folder, settings):
        engine = TritonEngine.of(folder, described(folder, name, settings), settings)
    elif why is None:
        if servers.exported(folder) and say is not None:
            weights, more = servers.planned(folder, settings)
            size = f"{weights / 1e9:.2f} GB of weights and {more / 1e9:.2f} GB beside them"
            say(f"{name}: llama.cpp takes about {size}")
        engine = servers.started(folder, name, settings, shared)
    else:
        if settings.engine == "vllm" and say is not None:
            say(f"{name}: served in process: {why}")
        engine = in_process.load(folder, name, settings)
    engine.served = msgspec.structs.replace(engine.served, erased=warning)
    return engine


def described(folder: Path, name: str, settings: Serve) -> Served:
    """What is known of a model that is not loaded yet."""
    from residency.serve.engines import in_process, servers

    if servers.exported(folder):
        return servers.described(folder, name, settings)
    served = in_process.served(folder, name)
    if servers.in_triton(folder, settings):
        return msgspec.structs.replace(served, kind="triton")
    return served


def end(engines: Iterable[ModelEngine]) -> None:
    """Close engines, outside of any event loop; one that is closed stays so."""

    async def every() -> None:
        for one in engines:
            await one.close()

    asyncio.run(every())


# The application


def assemble(
    settings: Serve,
    engines: Mapping[str, ModelEngine],
    log: Log,
    ledger: Path | None,
    place: Path | None = None,
    stopped: list[str] | None = None,
) -> Limited:
    """The application with everything that the settings ask for, within its limits. ``place``: of
    a worker, the folder that it shares with others; ``stopped`` gets the sentence of an engine
    that is gone for good, which ends the process in order."""
    from residency.deid.loose import unreviewed
    from residency.serve.app import ROUTES, create_app, limited
    from residency.serve.auth import make_tokens
    from residency.serve.auth.rate import Rate
    from residency.serve.guard import Guard
    from residency.serve.promote import ModelChanges
    from residency.serve.records.audit_chain import Audit
    from residency.serve.records.monitoring import Metrics, Users, log_key

    def stop(why: str) -> None:
        if not reasons:
            reasons.append(why)
            log.write("engine-gone", "error")
            os.kill(os.getpid(), signal.SIGTERM)

    reasons = stopped if stopped is not None else []
    folder, key = Path(settings.logs.folder), log_key(settings.logs)
    figures = Metrics(ROUTES, engines)
    for one in engines.values():
        if one.served.erased:
            log.write("erased-model", "warning", model=one.served.digest)
    if not unreviewed():
        log.write("rules-alone", "warning")
    guard = Guard(
        settings,
        engines,
        make_tokens(settings.auth, folder, told=figures.keys),
        Rate(settings.limits, settings.workers),
        Users(key, settings.logs.user),
        Audit.open(folder, os.getpid() if place is not None else 0, key),
        figures,
        log,
        stop=stop,
    )
    shared = place / "vllm" if place is not None else None
    changes = None
    if ledger is not None:
        changes = ModelChanges(
            guard, ledger, lambda path, name: load(path, name, settings, shared=shared)
        )
    return limited(create_app(guard, changes, end_in_order, owned=True))


def end_in_order(app: FastAPI) -> None:
    """Let the first SIGTERM refuse new requests and wait for those that run; the second ends at
    once. Called in the event loop of uvicorn, whose own handlers end the server right away."""
    at_once: Any = signal.getsignal(signal.SIGTERM)
    loop, told = asyncio.get_running_loop(), list[int]()
    tasks: list[asyncio.Task[None]] = []

    async def drain() -> None:
        await app.state.limited.drain()
        at_once.__self__.should_exit = True  # the server whose handler it is

    def handle(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if len(told) > 1:
            at_once(number, frame)
        else:
            loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(drain())))

    signal.signal(signal.SIGTERM, handle)
    # a keyboard's interruption reaches workers too, whose manager then tells them
    signal.signal(signal.SIGINT, signal.SIG_IGN if PLACE in os.environ else handle)


def uvicorn_options(settings: Serve) -> dict[str, Any]:
    """How uvicorn runs the application."""
    return {
        "http": "residency.serve.limits:HeadInTime",
        "log_config": None,
        "access_log": False,
        "lifespan": "on",
        "server_header": False,
        "date_header": True,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": int(settings.limits.drain) + 5,
        "proxy_headers": False,
    }


# One process, or several


def serve_alone(
    models: Mapping[str, Path],
    settings: Serve,
    listen: socket.socket,
    say: Say,
    ledger: Path | None,
) -> None:
    """Serve in this process. Raises ``UserError`` where an engine is gone for good."""
    import uvicorn

    from residency.serve.app import ROUTES
    from residency.serve.promote import current_models
    from residency.serve.records.monitoring import Log, silence

    stopped: list[str] = []
    engines = load_all(current_models(models, ledger), settings, say)
    try:
        log = Log(routes=ROUTES)
        silence(log)
        app = assemble(settings, engines, log, ledger, stopped=stopped)
        for line in greeting({name: one.served for name, one in engines.items()}, settings):
            say(line)
        uvicorn.Server(uvicorn.Config(app, **uvicorn_options(settings))).run(sockets=[listen])
    finally:
        end(engines.values())
    if stopped:
        raise UserError(
            f"serve: {stopped[0]}; the server ends with it. Start it again, or let what starts "
            "services on this machine do so (systemd, compose, Kubernetes)."
        )


def serve_workers(
    models: Mapping[str, Path],
    settings: Serve,
    listen: socket.socket,
    say: Say,
    ledger: Path | None,
) -> None:
    """Serve in several workers. Raises ``UserError`` where one cannot start."""
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    from residency.serve.app import ROUTES
    from residency.serve.engines import servers
    from residency.serve.promote import current_models
    from residency.serve.records.monitoring import Log, silence

    now = current_models(models, ledger)
    served = {name: described(path, name, settings) for name, path in now.items()}
    plan = WorkerPlan(
        settings=settings.model_dump(mode="json"),
        models={name: str(path) for name, path in models.items()},
        ledger=str(ledger or ""),
    )
    for name, path in now.items():
        if settings.engine == "vllm" and (why := servers.refused(path, settings)):
            say(f"{name}: served in process: {why}")
    say(memory_of_workers(now, settings))
    for line in greeting(served, settings):
        say(line)
    silence(Log(routes=ROUTES))
    with tempfile.TemporaryDirectory(prefix="residency-") as folder:  # mode 0700
        place = Path(folder)
        (place / "metrics").mkdir()
        write_once(place / "plan.json", msgspec.json.encode(plan))
        os.environ |= {PLACE: folder, "PROMETHEUS_MULTIPROC_DIR": str(place / "metrics")}
        config = uvicorn.Config(
            "residency.serve.launch:worker",
            factory=True,
            workers=settings.workers,
            timeout_worker_healthcheck=HEALTH_SECONDS,
            **uvicorn_options(settings),
        )
        manager = Multiprocess(config, sockets=[listen])
        try:
            manager.run()
        finally:
            end_shared(place / "vllm")
        if any(one.exitcode == STARTUP_FAILURE for one in manager.processes):
            raise UserError("serve: a worker could not start; the line above says why.")


def worker() -> Limited:
    """The application of one of several workers; uvicorn's process manager calls it in each."""
    from uvicorn.config import STARTUP_FAILURE

    from residency.serve.app import ROUTES
    from residency.serve.records.monitoring import Log, silence

    log = Log(routes=ROUTES)
    silence(log)
    in_order = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # who answers nothing yet may just end
    try:
        with ThreadPoolExecutor(1) as pool:  # engines begin in an event loop of their own
            return pool.submit(_worker, Path(os.environ[PLACE]), log).result()
    except ResidencyError as error:
        print(f"residency: {error}", file=sys.stderr)
    except Exception as error:
        log.failed("crash", error)
    finally:
        signal.signal(signal.SIGTERM, in_order)
    sys.exit(STARTUP_FAILURE)  # which ends the manager: it would fail again


def _worker(place: Path, log: Log) -> Limited:
    from residency.serve.promote import current_models
    from residency.serve.records.monitoring import forget_dead_workers

    _end_with_parent()
    forget_dead_workers()
    plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=WorkerPlan)
    settings: Serve = parse(Serve, plan.settings, "serve")
    ledger = Path(plan.ledger) if plan.ledger else None
    models = {name: Path(path) for name, path in plan.models.items()}
    engines = load_all(current_models(models, ledger), settings, None, place / "vllm")
    return assemble(settings, engines, log, ledger, place)


def _end_with_parent() -> None:
    """When the process manager is gone, however it ended, this worker ends in order."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
