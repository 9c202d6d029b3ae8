"""Figures for Prometheus, in a registry of our own. No label holds a user, and each takes its
values from a fixed set.

With several workers, ``PROMETHEUS_MULTIPROC_DIR`` names an empty folder before
``prometheus_client`` is first imported; any worker then answers for all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Literal

from residency.serve.types import Served

OTHER = "other"
STATUSES = frozenset(
    {200, 204, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 499, 500, 502, 503, 504}
)
MOST_CODES = 64
LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The server's figures. ``routes``: templates of its paths; ``models``: the aliases that it
    serves."""

    def __init__(self, routes: Iterable[str], models: Iterable[str]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._routes, self._models, self._codes = frozenset(routes), frozenset(models), set[str]()
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "residency_requests",
            "Requests that ended.",
            ("route", "status", "model"),
            registry=registry,
        )
        self._seconds = Histogram(
            "residency_request_seconds",
            "Time from the first byte in to the last byte out.",
            ("route", "model"),
            buckets=LATENCIES,
            registry=registry,
        )
        self._tokens = Counter(
            "residency_tokens",
            "Tokens read and written.",
            ("model", "direction"),
            registry=registry,
        )
        self._refusals = Counter(
            "residency_refusals", "Requests that were refused.", ("code",), registry=registry
        )
        self._queue = Gauge(
            "residency_queue",
            "Requests that wait for the model.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._batch = Histogram(
            "residency_batch_rows",
            "Requests computed together.",
            ("model",),
            buckets=BATCHES,
            registry=registry,
        )
        self._running = Gauge(
            "residency_running",
            "Requests under way.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._ready = Gauge(
            "residency_ready",
            "1 where the model gave its fixed answer when last asked.",
            ("model",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._keys = Counter(
            "residency_key_fetches",
            "Fetches of the identity provider's keys.",
            ("outcome",),
            registry=registry,
        )
        self._info = Gauge(
            "residency_model_info",
            "1 for the artefact that an alias names, 0 for one that it named before.",
            ("model", "digest", "base", "method", "kind"),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._shown: dict[str, tuple[str, ...]] = {}

    def request(self, route: str, status: int, seconds: float, model: str = "") -> None:
        """A request that ended; ``route`` is a template, a path that is none counts as ``other``."""
        where, which = self.route(route), self._model(model)
        self._requests.labels(where, str(status) if status in STATUSES else OTHER, which).inc()
        self._seconds.labels(where, which).observe(seconds)

    def route(self, template: str) -> str:
        """The template where it is one of the server's, else ``other``."""
        return template if template in self._routes else OTHER

    def tokens(self, model: str, read: int, written: int) -> None:
        """Tokens of an answered request."""
        self._tokens.labels(self._model(model), "input").inc(read)
        self._tokens.labels(self._model(model), "output").inc(written)

    def refused(self, code: str) -> None:
        """A refusal, by its code."""
        if code not in self._codes and _CODE.fullmatch(code) and len(self._codes) < MOST_CODES:
            self._codes.add(code)
        self._refusals.labels(code if code in self._codes else OTHER).inc()

    def queue(self, model: str, waiting: int) -> None:
        """How many requests wait for a model now."""
        self._queue.labels(self._model(model)).set(waiting)

    def batch(self, model: str, rows: int) -> None:
        """How many requests were computed together."""
        self._batch.labels(self._model(model)).observe(rows)

    def running(self, change: int) -> None:
        """A request begins (1) or ends (-1)."""
        self._running.inc(change)

    def ready(self, model: str, yes: bool) -> None:
        """What readiness found."""
        self._ready.labels(self._model(model)).set(1 if yes else 0)

    def keys(self, outcome: Literal["ok", "failed"]) -> None:
        """A fetch of the provider's keys."""
        self._keys.labels(outcome).inc()

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
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)  # type: ignore[no-untyped-call]
        return generate_latest(every)


def ended(pid: int) -> None:
    """A worker is gone: its queue and readiness count no more."""
    from prometheus_client.multiprocess import mark_process_dead

    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
