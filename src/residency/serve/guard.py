"""The way of every request: who asks, may he, how often, how much; and what is kept of it: a line
of the audit log, figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import uuid4

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from residency.core.errors import UserError
from residency.serve import refusals
from residency.serve.auth.bearer import require
from residency.serve.records.audit_chain import Outcome
from residency.serve.records.audit_chain import Request as Entry
from residency.serve.settings import Serve
from residency.serve.sizes import Sizes, fit, fit_text, user_tokens
from residency.serve.swap import Held, Swap
from residency.serve.types import Engine, Refusal, Scope, Served

if TYPE_CHECKING:
    from residency.serve.auth.bearer import Tokens
    from residency.serve.auth.rate import Rate
    from residency.serve.records.audit_chain import Audit
    from residency.serve.records.metrics import Metrics
    from residency.serve.records.server_log import Log, Users

DIGEST = "x-residency-digest"


class Visit:
    """One request on its way."""

    def __init__(self, route: str, now: float) -> None:
        self.id, self.route, self.started = str(uuid4()), route, now
        self.user = ""
        self.served: Served | None = None
        self.read = self.written = 0
        self.streams = False
        """Whether the answer is still to be written when the route returns."""
        self.ended = False
        self.what: Literal["request", "admin"] = "request"
        """How the audit log calls it."""
        self.held: list[Held] = []
        """Models that must not be closed before it ends."""


class Gate:
    """What all routes share."""

    def __init__(
        self,
        settings: Serve,
        engines: Mapping[str, Engine],
        tokens: Tokens,
        rate: Rate,
        users: Users,
        audit: Audit | None = None,
        metrics: Metrics | None = None,
        log: Log | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.tokens, self.rate, self.users = settings, tokens, rate, users
        self.swap = Swap()
        self.audit, self.metrics, self.log, self.clock = audit, metrics, log, clock
        self.ready: dict[str, bool] = dict.fromkeys(engines, False)
        self.open = asyncio.Event()
        """Cleared while models change in several processes at once: new requests wait for that."""
        self.open.set()
        for name, engine in engines.items():
            self.swap.put(name, engine)
            self.shows(name, engine)

    @property
    def engines(self) -> dict[str, Engine]:
        """What answers now, by name."""
        return {name: self.swap.now(name) for name in self.swap.names}

    def shows(self, name: str, engine: Engine) -> None:
        """Let the figures name what answers for a name from now on."""
        if self.metrics is None:
            return
        self.metrics.serves(engine.served)
        watch(engine, self.metrics, name)

    def answers(self, name: str) -> None:
        """Another model, which was proved, answers for a name from now on."""
        self.shows(name, self.swap.now(name))
        self.ready[name] = True
        if self.metrics is not None:
            self.metrics.ready(name, True)

    # On the way in

    def begin(self, visit: Visit) -> None:
        """A request is under way."""
        if self.metrics is not None:
            self.metrics.running(1)

    async def admit(self, authorization: str | None, scope: Scope, visit: Visit) -> None:
        """Raises ``Refusal``: 401 who is not known, 403 who may not, 429 who asks too often."""
        caller = await self.tokens.caller(authorization)
        visit.user = self.users.hashed(caller.subject)
        require(caller, scope)
        await self.rate.take(visit.user)
        await self.open.wait()

    def engine(self, visit: Visit, name: str | None, suits: Callable[[Served], bool]) -> Engine:
        """The model that a request names; where it names none, the first that suits. Raises
        ``Refusal`` 404."""
        engines = self.engines
        if name is None:
            name = next((key for key, one in engines.items() if suits(one.served)), None)
            if name is None:
                raise Refusal(404, "no_model", "No model that is served here answers this route.")
        elif name not in engines:
            known = ", ".join(engines)
            raise Refusal(
                404, "model_not_found", f"There is no model of that name here; there is: {known}."
            )
        held = self.swap.hold(name)
        visit.held.append(held)
        visit.served = held.engine.served
        return held.engine

    def sized(
        self,
        visit: Visit,
        engine: Engine,
        texts: list[str],
        prompt: Callable[[], int],
        answer: int | None,
    ) -> Sizes:
        """Checks a request that is answered in words."""
        try:
            user = user_tokens(engine.count, texts)
            found = fit(self.settings.limits, user, prompt(), answer, engine.served.window)
        except UserError:
            raise Refusal(
                400, "bad_turns", "The model's chat template refuses this order of turns."
            ) from None
        visit.read = found.input + found.context
        return found

    def sized_text(self, visit: Visit, engine: Engine, text: str) -> None:
        """Checks a request that is answered by marks."""
        visit.read = fit_text(self.settings.limits, user_tokens(engine.count, [text])).input

    # On the way out

    async def shown(self, text: str, lang: str = "") -> str:
        """An answer as it leaves: without what identifies, where the settings want that."""
        if not self.settings.deidentify_answers:
            return text
        from residency.deid.loose import replace_identifiers

        return (await asyncio.to_thread(replace_identifiers, text, lang)).text

    def end(
        self, visit: Visit, status: int, code: str = "", outcome: Outcome | None = None
    ) -> None:
        """Keep what is kept of a request. Raises ``Refusal`` 503 where it cannot be."""
        if visit.ended:
            return
        visit.ended = True
        if self.metrics is not None:
            self.metrics.running(-1)
        while visit.held:
            self.swap.release(visit.held.pop())
        seconds = self.clock() - visit.started
        name, digest = (visit.served.name, visit.served.digest) if visit.served else ("", "")
        how: Outcome = outcome or (
            "ok" if status < 400 else "refused" if status < 500 or status == 503 else "failed"
        )
        if self.metrics is not None:
            self.metrics.request(visit.route, status, seconds, name)
            if status < 400:
                self.metrics.tokens(name, visit.read, visit.written)
            elif code:
                self.metrics.refused(code)
        if self.log is not None:
            self.log.write(
                "request",
                request=visit.id,
                route=visit.route,
                status=status,
                outcome=how,
                code=code or None,
                user=visit.user or None,
                model=digest or None,
                ms=round(seconds * 1000, 2),
                input_tokens=visit.read,
                output_tokens=visit.written,
            )
        if self.audit is not None:
            self.audit.write(
                Entry(
                    user=visit.user,
                    route=visit.route,
                    status=status,
                    outcome=how,
                    ms=round(seconds * 1000, 2),
                    model=digest,
                    input_tokens=visit.read,
                    output_tokens=visit.written,
                    request=visit.id,
                ),
                visit.what,
            )

    def cancelled(self, visit: Visit) -> None:
        """A request that was cut: by its client, or by the time that it took."""
        late = self.clock() - visit.started >= self.settings.limits.seconds
        self.end(
            visit,
            504 if late else 499,
            "timeout" if late else "",
            "timeout" if late else "cancelled",
        )

    def noticed(self, visit: Visit, refusal: Refusal) -> None:
        """A model that did not answer a request is not ready, whenever it was last asked."""
        if refusal.code in ("not_ready", "engine_unavailable") and visit.served is not None:
            self.ready[visit.served.name] = False

    def crashed(self, error: BaseException) -> None:
        """A fault of ours: its class and place, never its words."""
        if self.log is not None:
            self.log.failed("crash", error)


def watch(engine: Engine, figures: Metrics, name: str) -> None:
    """Let an engine in this process tell how many requests wait for it, and how many it computes
    together."""
    if not hasattr(engine, "watch"):
        return

    def told(waiting: int, rows: int) -> None:
        figures.queue(name, waiting)
        figures.batch(name, rows)

    engine.watch = told


def gate_of(request: Request) -> Gate:
    """The server's gate."""
    return cast(Gate, request.app.state.gate)


def visit_of(request: Request) -> Visit:
    """The request on its way."""
    return cast(Visit, request.state.visit)


class Guarded(APIRoute):
    """A route behind the gate; its first tag is the scope that it needs."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The route's own handler, with the gate before it and the record after it."""
        inside = super().get_route_handler()
        scope, template = cast(Scope, self.tags[0]), self.path

        async def handler(request: Request) -> Response:
            gate = gate_of(request)
            request.state.visit = visit = Visit(template, gate.clock())
            visit.what = "admin" if scope == "admin" else "request"
            gate.begin(visit)
            try:
                response, code = await _answered(gate, visit, scope, request, inside)
            except asyncio.CancelledError:
                gate.cancelled(visit)
                raise
            if not visit.streams:
                try:
                    gate.end(visit, response.status_code, code)
                except Refusal as refusal:
                    response = refused(template, refusal)
            response.headers["x-request-id"] = visit.id
            response.headers["cache-control"] = "no-store"
            if visit.served is not None:
                response.headers[DIGEST] = visit.served.digest
            return response

        return handler


async def _answered(
    gate: Gate, visit: Visit, scope: Scope, request: Request, inside: Any
) -> tuple[Response, str]:
    """The answer, and the code of a refusal."""
    try:
        await gate.admit(request.headers.get("authorization"), scope, visit)
        return await inside(request), ""
    except Refusal as refusal:
        gate.noticed(visit, refusal)
        return refused(visit.route, refusal), refusal.code
    except RequestValidationError as error:
        wrong = invalid(error)
        return refused(visit.route, wrong), wrong.code
    except HTTPException:  # the framework's word for a body that cannot be decoded
        return refused(visit.route, unread()), unread().code
    except Exception as error:
        gate.crashed(error)
        return refused(visit.route, failed()), failed().code


def refused(path: str, refusal: Refusal) -> Response:
    """The error body that belongs to a path."""
    return JSONResponse(refusals.content(path, refusal), refusal.status, refusals.headers(refusal))


def unread() -> Refusal:
    """400."""
    return Refusal(400, "bad_json", "The body is not JSON.")


def failed() -> Refusal:
    """500."""
    return Refusal(500, "internal", "The server failed; the request was not answered.")


def invalid(error: RequestValidationError) -> Refusal:
    """400 with the first fault in words: names of our own fields and what they may be, nothing that
    was sent."""
    fault = error.errors()[0]
    kind, where = str(fault["type"]), _where(fault.get("loc", ()))
    if kind == "json_invalid":
        return unread()
    if kind == "extra_forbidden":
        return Refusal(
            400,
            "unknown_field",
            f"The body has a field that is not known{where}; see /openapi.json.",
        )
    if kind == "missing":
        return Refusal(400, "missing_field", f"The body lacks a field{where}; see /openapi.json.")
    context = fault.get("ctx") or {}
    bounds = [
        f"{name} {context[name]}"
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length")
        if name in context
    ]
    if "expected" in context and kind in ("literal_error", "enum"):
        bounds.append(f"allowed: {context['expected']}")
    said = f" ({', '.join(bounds)})" if bounds else ""
    return Refusal(
        400,
        "bad_value",
        f"The body has a value of the wrong kind or size{where}{said}; see /openapi.json.",
    )


FIELDS = frozenset(
    {
        "model",
        "department",
        "messages",
        "role",
        "content",
        "text",
        "type",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "include_usage",
        "n",
        "best_of",
        "prompt",
        "echo",
        "logprobs",
        "lang",
        "patient_info",
        "symptoms",
        "test_results",
        "user",
        "presence_penalty",
        "frequency_penalty",
        "response_format",
        "digest",
        "require_safety",
    }
)
"""Names that a message may hold: those of our own fields."""


def _where(place: tuple[Any, ...]) -> str:
    names = [str(part) for part in place[1:] if part in FIELDS or isinstance(part, int)]
    return f" at {'.'.join(names)}" if names else ""
