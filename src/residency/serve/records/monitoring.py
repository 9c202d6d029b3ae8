"""What the server says of itself: log lines and figures for Prometheus, neither with a word of a
request.

Log lines are JSON on stderr, from an allow-list of fields, each of a fixed shape. Libraries
log what they please, request and answer included; so a record's message, arguments and
traceback are dropped where it is made, before any handler can see them. What is left: who logged,
how grave, where in the code, and the class of an error.

Figures are in a registry of our own. No label holds a user, and each takes its values from a fixed
set. With several workers, ``PROMETHEUS_MULTIPROC_DIR`` names an empty folder before
``prometheus_client`` is first imported; any worker then answers for all of them.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

import msgspec

from residency.core.errors import UserError
from residency.core.files import process_alive, write_once
from residency.serve.engines import Served
from residency.serve.records.audit_chain import AuditEntry
from residency.serve.settings import Logs

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Level = Literal["debug", "info", "warning", "error"]

_WORD = r"[a-z][a-z0-9_.-]{0,39}"
_NUMBER = ""
FIELDS: dict[str, str] = {
    "request": r"[0-9a-f-]{1,36}",
    "route": r"other|(?:[A-Z]{3,7} )?/[A-Za-z0-9_/.{}-]{0,79}",
    "code": _WORD,
    "outcome": _WORD,
    "scope": _WORD,
    "user": r"[0-9a-f]{64}",
    "model": r"[0-9a-f]{64}",
    "alias": r"[A-Za-z0-9_.-]{1,64}",
    "engine": _WORD,
    "error": r"[A-Za-z_][A-Za-z0-9_.]{0,79}",
    "place": r"[A-Za-z0-9_/.<>-]{1,120}:[0-9]{1,7}",
    "logger": r"[A-Za-z_][A-Za-z0-9_.]{0,79}",
    "address": r"[0-9A-Fa-f:.\[\]]{2,48}",
    "version": r"[0-9][0-9A-Za-z.+-]{0,30}",
    **dict.fromkeys(
        [
            "status",
            "ms",
            "input_tokens",
            "output_tokens",
            "queue",
            "batch",
            "worker",
            "workers",
            "port",
            "pid",
            "signal",
            "waiting",
            "running",
            "seconds",
            "exit",
            "count",
            "retry_after",
        ],
        _NUMBER,
    ),
}
"""The fields of a line: the shape that a text must have, or none for numbers. ``route`` is a
template of ours, never a path of a request."""

_SHAPES = {name: re.compile(shape) for name, shape in FIELDS.items() if shape}
_EVENT = re.compile(_WORD)
KEY_FILE = "log.key"
OTHER = "other"
STATUSES = frozenset(
    {200, 204, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 499, 500, 502, 503, 504}
)
MOST_CODES = 64
LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Log:
    """Writes lines; a field that is not on the list, or has another shape, is left out and counted
    as ``dropped``.

    ``routes``: the server's templates; a ``route`` that is none of them is written as ``other``.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        routes: Iterable[str] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stream, self._clock, self._lock = stream, clock, threading.Lock()
        self._routes = frozenset(routes)

    def write(self, event: str, level: Level = "info", **fields: str | float | None) -> None:
        """One line. Never raises: what cannot be said is lost, not the request."""
        line: dict[str, str | float | bool] = {
            "at": self._clock().isoformat(timespec="milliseconds"),
            "level": level,
            "event": event if _EVENT.fullmatch(event) else "other",
        }
        given = {name: value for name, value in fields.items() if value is not None}
        if "route" in given and given["route"] not in self._routes:
            given["route"] = "other"
        kept = {name: value for name, value in given.items() if allowed(name, value)}
        line |= kept
        if len(kept) < len(given):
            line["dropped"] = len(given) - len(kept)
        with suppress(OSError, ValueError), self._lock:
            stream = self._stream or sys.stderr
            stream.write(msgspec.json.encode(line).decode() + "\n")
            stream.flush()

    def failed(
        self, event: str, error: BaseException, level: Level = "error", **fields: str | float | None
    ) -> None:
        """A line on an error: its class and the place in our code, never what it says."""
        self.write(
            event, level, error=class_of(type(error)), place=place(error.__traceback__), **fields
        )


def allowed(name: str, value: object) -> bool:
    """Whether a field may be written with a value."""
    if name not in FIELDS:
        return False
    if name in _SHAPES:
        return isinstance(value, str) and bool(_SHAPES[name].fullmatch(value))
    return isinstance(value, int | float)


def class_of(kind: type[BaseException]) -> str:
    """Name of an error's class, with its package."""
    package = (kind.__module__ or "").split(".")[0]
    return kind.__qualname__ if package in ("builtins", "") else f"{package}.{kind.__qualname__}"


def place(found: TracebackType | None) -> str | None:
    """``serve/app.py:81``: where an error rose, the last place in this package; else the last of
    all."""
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(found)]
    ours = [one for one in frames if "residency" in one[0].parts]
    return _short(*(ours or frames)[-1]) if frames else None


def _short(path: Path, line: int) -> str:
    parts = path.parts
    if "residency" in parts:
        last = len(parts) - 1 - parts[::-1].index("residency")
        return f"{'/'.join(parts[last + 1 :])}:{line}"
    return f"{'/'.join(parts[-2:]).lstrip('/')}:{line}"


class _Silent(logging.LogRecord):
    """A record without message, arguments and traceback."""

    residency_error: str | None = None
    residency_place: str | None = None

    def getMessage(self) -> str:  # noqa: N802 - logging's own name
        return "dropped"


def _record(
    name: str,
    level: int,
    path: str,
    line: int,
    message: object,
    arguments: object,
    raised: Any,
    *_: Any,
    **__: Any,
) -> logging.LogRecord:
    made = _Silent(name, level, path, line, "dropped", None, None)
    error = raised[1] if isinstance(raised, tuple) and len(raised) > 1 else raised
    if isinstance(error, BaseException):
        made.residency_error = class_of(type(error))
        made.residency_place = place(error.__traceback__)
    elif isinstance(message, BaseException):
        made.residency_error = class_of(type(message))
    return made


class _Handler(logging.Handler):
    """Every logger's records as lines of ours."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        grave = record.levelno
        warns: Level = "warning" if grave >= logging.WARNING else "info"
        where = getattr(record, "residency_place", None)
        self.log.write(
            "log",
            "error" if grave >= logging.ERROR else warns,
            logger=record.name,
            error=getattr(record, "residency_error", None),
            place=where or _short(Path(record.pathname), record.lineno),
        )


def silence(log: Log, level: int = logging.WARNING) -> None:
    """Make a process silent about requests: all loggers, warnings and uncaught errors go through
    ``log``. Once, first of all.

    Of a process that was started anew (``spawn``), call it again there. uvicorn is to be given
    ``log_config=None``.
    """
    logging.setLogRecordFactory(_record)
    logging.raiseExceptions = False
    logging.lastResort = None
    root = logging.getLogger()
    root.handlers[:] = [_Handler(log)]
    root.setLevel(level)
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)

    def uncaught(_: type[BaseException], error: BaseException, found: TracebackType | None) -> None:
        if not isinstance(error, KeyboardInterrupt):
            log.failed("crash", error.with_traceback(found))

    def in_thread(given: threading.ExceptHookArgs) -> None:
        if given.exc_value is not None and not isinstance(given.exc_value, SystemExit):
            log.failed("crash", given.exc_value)

    def unraisable(given: sys.UnraisableHookArgs) -> None:
        if given.exc_value is not None:
            log.failed("crash", given.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_thread, unraisable


def silence_loop(loop: asyncio.AbstractEventLoop, log: Log) -> None:
    """The same of errors that nobody awaits in an event loop."""

    def lost(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            log.failed("crash", error)
        else:
            log.write("crash", "error")

    loop.set_exception_handler(lost)


class Users:
    """Hashes of user ids: keyed, so that none is found by trying names; or plain, for sites whose
    rule wants SHA-256."""

    def __init__(self, key: bytes, how: Literal["keyed", "plain"] = "keyed") -> None:
        self._key = hmac.new(key, b"residency users 1", sha256).digest() if how == "keyed" else None

    def hashed(self, subject: str) -> str:
        """64 hexadecimal digits, always the same for a user under one key."""
        data = subject.encode("utf-8", "surrogatepass")
        return (
            sha256(data).hexdigest()
            if self._key is None
            else hmac.new(self._key, data, sha256).hexdigest()
        )


def log_key(logs: Logs) -> bytes:
    """The key of hashes and audit chains: from the environment, else from the folder, where it is
    made the first time (0600).

    Raises ``UserError`` where it is not 64 hexadecimal digits.
    """
    if given := os.environ.get(logs.key):
        return _parsed(given, f"environment variable {logs.key}")
    path = Path(logs.folder) / KEY_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            write_once(path, os.urandom(32).hex().encode() + b"\n")
        return _parsed(path.read_text("ascii"), str(path))
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"{path}: cannot be made or read; let the server's user write there, or set {logs.key}."
        ) from None


def log_keys(logs: Logs, folder: Path) -> list[bytes]:
    """The keys that may have signed a folder's chains: the environment's (also ``..._OLD``), and
    ``log.key*`` in the folder."""
    names = (logs.key, f"{logs.key}_OLD")
    named = [(os.environ.get(name), f"environment variable {name}") for name in names]
    paths = sorted(folder.glob(f"{KEY_FILE}*"))
    try:
        kept = [(path.read_text("ascii"), str(path)) for path in paths]
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"{folder}: its {KEY_FILE} cannot be read; verify as the server's user, or set "
            f"{logs.key}."
        ) from None
    found = [
        _parsed(one, where) for value, where in [*named, *kept] if value for one in value.split()
    ]
    if not found:
        raise UserError(
            f"{folder}: no key to verify with; set {logs.key}, or {logs.key}_OLD for chains of an "
            "earlier key."
        )
    return found


def _parsed(value: str, where: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value.strip()):
        raise UserError(
            f"{where}: is no key of 64 hexadecimal digits; make one with: openssl rand -hex 32."
        )
    return bytes.fromhex(value.strip())


# Figures


class Metrics:
    """The server's figures. ``routes``: templates of its paths; ``models``: the aliases that it
    serves."""

    def __init__(self, routes: Iterable[str], models: Iterable[str]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._routes, self._models, self._codes = frozenset(routes), frozenset(models), set[str]()
        self.registry = CollectorRegistry()
        self._shown: dict[str, tuple[str, ...]] = {}

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"residency_{name}", what, labels, registry=self.registry)

        def gauge(name: str, what: str, mode: Any, *labels: str) -> Gauge:
            made = f"residency_{name}", what, labels
            return Gauge(*made, registry=self.registry, multiprocess_mode=mode)

        def histogram(name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
            made = f"residency_{name}", what, labels
            return Histogram(*made, registry=self.registry, buckets=buckets)

        self._requests = counter("requests", "Requests that ended.", "route", "status", "model")
        whole = "Time from the first byte in to the last byte out."
        self._seconds = histogram("request_seconds", whole, LATENCIES, "route", "model")
        self._tokens = counter("tokens", "Tokens read and written.", "model", "direction")
        self._refusals = counter("refusals", "Requests that were refused.", "code")
        self._queue = gauge("queue", "Requests that wait for the model.", "livesum", "model")
        together = "Requests computed together."
        self._batch = histogram("batch_rows", together, BATCHES, "model")
        self._running = gauge("running", "Requests under way.", "livesum")
        good = "1 where the model gave its fixed answer when last asked."
        self._ready = gauge("ready", good, "livemin", "model")
        fetches = "Fetches of the identity provider's keys."
        self._keys = counter("key_fetches", fetches, "outcome")
        behind = "1 where the model ledger names another model than the one that answers."
        self._behind = gauge("model_behind", behind, "livemax", "model")
        changes = "Changes of models, in this process, by whether the new one was proved."
        self._changes = counter("model_changes", changes, "model", "outcome")
        named = "1 for the artefact that an alias names, 0 for one that it named before."
        labels = ("model", "digest", "base", "method", "kind")
        self._info = gauge("model_info", named, "livemostrecent", *labels)

    def ended(self, entry: AuditEntry, seconds: float, model: str, code: str) -> None:
        """A request ended; ``model`` is the name that it asked, ``code`` that of a refusal."""
        self._running.dec()
        self.request(entry.route, entry.status, seconds, model)
        if entry.status < 400:
            self.tokens(model, entry.input_tokens, entry.output_tokens)
        elif code:
            self.refused(code)

    def request(self, route: str, status: int, seconds: float, model: str = "") -> None:
        """A request that ended; ``route`` is a template, any other path is ``other``."""
        where, which = route if route in self._routes else OTHER, self._model(model)
        self._requests.labels(where, str(status) if status in STATUSES else OTHER, which).inc()
        self._seconds.labels(where, which).observe(seconds)

    def tokens(self, model: str, read: int, written: int) -> None:
        """Tokens of an answered request."""
        self._tokens.labels(self._model(model), "input").inc(read)
        self._tokens.labels(self._model(model), "output").inc(written)

    def refused(self, code: str) -> None:
        """A refusal, by its code."""
        if code not in self._codes and _CODE.fullmatch(code) and len(self._codes) < MOST_CODES:
            self._codes.add(code)
        self._refusals.labels(code if code in self._codes else OTHER).inc()

    def batches_of(self, model: str) -> Callable[[int, int], None]:
        """What an engine tells of: how many requests wait for it, how many it computes together."""
        which = self._model(model)
        queue, batch = self._queue.labels(which), self._batch.labels(which)

        def told(waiting: int, rows: int) -> None:
            queue.set(waiting)
            batch.observe(rows)

        return told

    def running(self, change: int) -> None:
        """A request begins (1) or ends (-1)."""
        self._running.inc(change)

    def ready(self, model: str, yes: bool) -> None:
        """What readiness found."""
        self._ready.labels(self._model(model)).set(1 if yes else 0)

    def keys(self, outcome: Literal["ok", "failed"]) -> None:
        """A fetch of the provider's keys."""
        self._keys.labels(outcome).inc()

    def changed(self, model: str, outcome: Literal["ok", "failed"]) -> None:
        """Another model took, or should have taken, a name over; where it was not proved this
        process is behind the ledger until it is."""
        self._changes.labels(self._model(model), outcome).inc()
        self._behind.labels(self._model(model)).set(outcome == "failed")

    def serves(self, served: Served) -> None:
        """Which artefact an alias names from now on."""
        labels = (self._model(served.name), served.digest, served.base, served.method, served.kind)
        before = self._shown.get(labels[0])
        if before is not None and before != labels:
            self._info.labels(*before).set(0)
        self._shown[labels[0]] = labels
        self._info.labels(*labels).set(1)

    def _model(self, name: str) -> str:
        return name if name in self._models else OTHER if name else ""

    def render(self) -> bytes:
        """The page of ``/metrics``, in ``CONTENT_TYPE``; of all workers where there are several."""
        from prometheus_client import generate_latest

        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if not folder:
            return generate_latest(self.registry)
        return generate_latest(_Workers(Path(folder)))


class _Workers:
    """The figures of all workers, as a registry. A file that a worker makes at this moment, or one
    that was killed at such a moment has left, is empty: the library cannot read it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterable[Metric]:
        """As of a registry."""
        from prometheus_client.multiprocess import MultiProcessCollector

        with os.scandir(self.folder) as found:
            files = [one.path for one in found if _size(one) and one.name.endswith(".db")]
        return MultiProcessCollector.merge(files)  # type: ignore[no-any-return, no-untyped-call]


def _size(file: os.DirEntry[str]) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # of a worker that is gone, forgotten meanwhile
        return 0


def forget_dead_workers() -> None:
    """Queues and readiness of workers that are gone count no more; called by those that begin,
    several of which may do so at once."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not process_alive(int(pid)):
            path.unlink(missing_ok=True)
