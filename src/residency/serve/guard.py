"""The way of every request: who asks, may he, how often, how much; and what is kept of it: a line
of the audit log, figures."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import uuid4

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from residency.core.errors import UserError
from residency.core.types import Turn
from residency.serve import Refusal, server_failed
from residency.serve.auth import require
from residency.serve.engines import ASKER, Aliases, ModelEngine, Served, Slot, Tools, bad_order
from residency.serve.limits import Sizes, check_text, check_work, fit, user_tokens
from residency.serve.records.audit_chain import AuditEntry, Outcome, unwritable
from residency.serve.settings import Scope, Serve

if TYPE_CHECKING:
    from residency.serve.auth import TokenChecker
    from residency.serve.auth.rate import Rate
    from residency.serve.records.audit_chain import Audit
    from residency.serve.records.monitoring import Log, Metrics, Users

DIGEST = "x-residency-digest"
ERASED = "x-residency-erased"
DEIDENTIFIED = "x-residency-deidentified"
NAMES = """
annotations arguments audio best_of choice content department description digest echo
frequency_penalty function function_call functions id include_obfuscation include_usage
json_schema lang logit_bias logprobs max_completion_tokens max_tokens messages metadata
modalities model moderation n name parallel_tool_calls parameters patient_info prediction
presence_penalty prompt prompt_cache_key prompt_cache_retention reasoning_effort refusal
require_safety response_format role safety_identifier schema seed service_tier stop store stream
stream_options strict structured_outputs suffix symptoms temperature test_results text
tool_call_id tool_calls tool_choice tools top_logprobs top_p type user verbosity
web_search_options
"""
FIELDS = frozenset(NAMES.split())
"""Names that a message may hold: those of our own fields, and of OpenAI's."""
BOUNDS = ("ge", "gt", "le", "lt", "min_length", "max_length")


class GuardedRequest:
    """One request on its way, and what is kept of it."""

    def __init__(self, route: str, now: float, what: Literal["request", "admin"]) -> None:
        self.id, self.route, self.started = str(uuid4()), route, now
        self.what = what
        """How the audit log calls it."""
        self.user = ""
        self.served: Served | None = None
        self.read = self.written = self.work = 0
        self.streams = False
        """Whether the answer is still to be written when the route returns."""
        self.ended = False
        self.slots: list[Slot] = []
        """Engines that must not be closed before it ends."""


class Guard:
    """What all routes share. ``stop`` gets a sentence where an engine is gone for good."""

    def __init__(
        self,
        settings: Serve,
        engines: Mapping[str, ModelEngine],
        tokens: TokenChecker,
        rate: Rate,
        users: Users,
        audit: Audit | None = None,
        metrics: Metrics | None = None,
        log: Log | None = None,
        clock: Callable[[], float] = time.monotonic,
        stop: Callable[[str], None] | None = None,
    ) -> None:
        self.settings, self.tokens, self.rate, self.users = settings, tokens, rate, users
        self.audit, self.metrics, self.log, self.clock = audit, metrics, log, clock
        self.stop = stop
        self.aliases = Aliases()
        self.work: Counter[str] = Counter()
        """Tokens that users have under way, by their hash."""
        self.ready: dict[str, bool] = dict.fromkeys(engines, False)
        for name, engine in engines.items():
            self.aliases.start(name, engine)
            self._show(name, engine)

    @property
    def engines(self) -> dict[str, ModelEngine]:
        """What answers now, by name."""
        return self.aliases.engines

    def _show(self, name: str, engine: ModelEngine) -> None:
        """Let the figures name what answers for a name, and how many requests wait for it."""
        if self.metrics is None:
            return
        self.metrics.serves(engine.served)
        if hasattr(engine, "watch"):
            engine.watch = self.metrics.batches_of(name)

    async def answer_with(self, name: str, engine: ModelEngine) -> None:
        """Let another model, which was proved, answer for a name from now on."""
        self._show(name, engine)
        self.set_ready(name, True)
        await self.aliases.put(name, engine)

    def set_ready(self, name: str, good: bool) -> None:
        """Note what readiness found."""
        self.ready[name] = good
        if self.metrics is not None:
            self.metrics.ready(name, good)

    # On the way in

    def begin(self, exchange: GuardedRequest) -> None:
        """A request is under way."""
        if self.metrics is not None:
            self.metrics.running(1)

    async def admit(
        self, authorization: str | None, scope: Scope, exchange: GuardedRequest
    ) -> None:
        """Raises ``Refusal``: 401 who is not known, 403 who may not, 429 who asks too often."""
        caller = await self.tokens.caller(authorization)
        exchange.user = self.users.hashed(caller.subject)
        ASKER.set(exchange.user)
        require(caller, scope)
        await self.rate.take(exchange.user)

    def engine(self, exchange: GuardedRequest, name: str | None, route: str) -> ModelEngine:
        """The model that a request names; where it names none, the first that answers the route.
        Raises ``Refusal`` 404."""
        if name is None:
            found = (key for key, one in self.engines.items() if route in one.served.routes)
            if (name := next(found, None)) is None:
                said = "No model that is served here answers this route."
                raise Refusal(404, "no_model", said)
        slot = self.aliases.hold(name)
        exchange.slots.append(slot)
        exchange.served = slot.engine.served
        return slot.engine

    def check_words(
        self,
        exchange: GuardedRequest,
        engine: ModelEngine,
        texts: list[str],
        turns: tuple[Turn, ...],
        answer: int | None,
        tools: Tools = (),
    ) -> Sizes:
        """Check a request that is answered in words: ``texts`` are the user's among its turns."""
        user = user_tokens(engine.reader.count, texts)
        try:
            prompt = engine.reader.count_turns(turns, tools)
            found = fit(self.settings.limits, user, prompt, answer, engine.served.window)
        except UserError:
            raise bad_order() from None
        exchange.read = found.input + found.context
        return found

    def check_text(self, exchange: GuardedRequest, engine: ModelEngine, text: str) -> None:
        """Check a request that is not answered in words: spans, labels, a changed text."""
        exchange.read = engine.reader.count(text)
        check_text(self.settings.limits, exchange.read)

    async def charge(self, exchange: GuardedRequest, answers: int) -> None:
        """Count a request's work: what it reads, and the most that it may write. Raises
        ``Refusal``: 400 where it is too much for one request, 429 for its user now, 503 where it
        cannot be counted."""
        tokens, limits = exchange.read + answers, self.settings.limits
        check_work(limits, tokens)
        if self.work[exchange.user] + tokens > limits.user_tokens:
            said = f"More than {limits.user_tokens} tokens of your work are under way"
            raise Refusal(429, "work_limit", f"{said}; wait until some of it is done.", 1.0)
        exchange.work = tokens
        self.work[exchange.user] += tokens
        await self.rate.spend(exchange.user, tokens)

    # On the way out

    def check_recording(self) -> None:
        """Raises ``Refusal`` 503 where an answer that is about to begin could not be kept."""
        if not self.recording():
            raise unwritable()

    def recording(self) -> bool:
        """Whether the audit log takes lines at the moment, where there is one."""
        return self.audit is None or self.audit.ready()

    async def deidentified(self, text: str, lang: str = "") -> str:
        """An answer as it leaves: without what identifies, where the settings want that."""
        if not self.settings.deidentify_answers:
            return text
        from residency.deid.loose import replace_identifiers, unreviewed

        find = unreviewed()  # read when the server starts
        return (await asyncio.to_thread(replace_identifiers, text, lang, find)).text

    def end(
        self, exchange: GuardedRequest, status: int, code: str = "", outcome: Outcome | None = None
    ) -> None:
        """Keep what is kept of a request. Raises ``Refusal`` 503 where it cannot be."""
        if exchange.ended:
            return
        exchange.ended = True
        while exchange.slots:
            self.aliases.release(exchange.slots.pop())
        self.work[exchange.user] -= exchange.work
        if self.work[exchange.user] <= 0:
            del self.work[exchange.user]
        refused: Outcome = "refused" if status < 500 or status == 503 else "failed"
        seconds, served = self.clock() - exchange.started, exchange.served
        entry = AuditEntry(
            user=exchange.user,
            route=exchange.route,
            status=status,
            outcome=outcome or ("ok" if status < 400 else refused),
            ms=round(seconds * 1000, 2),
            model=served.digest if served else "",
            input_tokens=exchange.read,
            output_tokens=exchange.written,
            request=exchange.id,
        )
        if self.metrics is not None:
            self.metrics.ended(entry, seconds, served.name if served else "", code)
        if self.log is not None:
            self.log.write(
                "request",
                request=entry.request,
                route=entry.route,
                status=status,
                outcome=entry.outcome,
                code=code or None,
                user=entry.user or None,
                model=entry.model or None,
                ms=entry.ms,
                input_tokens=entry.input_tokens,
                output_tokens=entry.output_tokens,
            )
        if self.audit is not None:
            self.audit.write(entry, exchange.what)

    def cancelled(self, exchange: GuardedRequest) -> None:
        """A request that was cut: by its client, or by the time that it took."""
        if self.clock() - exchange.started >= self.settings.limits.seconds:
            self.end(exchange, 504, "timeout", "timeout")
        else:
            self.end(exchange, 499, "", "cancelled")

    def noticed(self, exchange: GuardedRequest, refusal: Refusal) -> None:
        """A model that did not answer a request is not ready, whenever it was last asked."""
        if refusal.code in ("not_ready", "engine_unavailable") and exchange.served is not None:
            self.ready[exchange.served.name] = False

    def crashed(self, error: BaseException) -> None:
        """A fault of ours: its class and place, never its words."""
        if self.log is not None:
            self.log.failed("crash", error)


def guard_of(request: Request) -> Guard:
    """The server's guard."""
    return cast(Guard, request.app.state.guard)


def exchange_of(request: Request) -> GuardedRequest:
    """The request on its way."""
    return cast(GuardedRequest, request.state.exchange)


class Guarded(APIRoute):
    """A route behind the guard; its first tag is the scope that it needs."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The route's own handler, with the guard before it and the record after it."""
        inside = super().get_route_handler()
        scope, template = cast(Scope, self.tags[0]), self.path

        async def handler(request: Request) -> Response:
            guard = guard_of(request)
            exchange = GuardedRequest(
                template, guard.clock(), "admin" if scope == "admin" else "request"
            )
            request.state.exchange = exchange
            guard.begin(exchange)
            try:
                response, code = await _answered(guard, exchange, scope, request, inside)
            except asyncio.CancelledError:
                guard.cancelled(exchange)
                raise
            if not exchange.streams:
                try:
                    guard.end(exchange, response.status_code, code)
                except Refusal as refusal:
                    response = refused(template, refusal)
            response.headers["x-request-id"] = exchange.id
            response.headers["cache-control"] = "no-store"
            if exchange.served is not None:
                response.headers[DIGEST] = exchange.served.digest
                if exchange.served.erased:
                    response.headers[ERASED] = exchange.served.erased
                if guard.settings.deidentify_answers:
                    from residency.deid.loose import finders

                    response.headers[DEIDENTIFIED] = finders()
            return response

        return handler


async def _answered(
    guard: Guard, exchange: GuardedRequest, scope: Scope, request: Request, inside: Any
) -> tuple[Response, str]:
    """The answer, and the code of a refusal."""
    try:
        await guard.admit(request.headers.get("authorization"), scope, exchange)
        return await inside(request), ""
    except Refusal as refusal:
        guard.noticed(exchange, refusal)
        problem = refusal
    except RequestValidationError as error:
        problem = invalid(error)
    except HTTPException:  # the framework's word for a body that cannot be decoded
        problem = unread()
    except Exception as error:
        guard.crashed(error)
        problem = server_failed()
    return refused(exchange.route, problem), problem.code


def refused(path: str, refusal: Refusal) -> Response:
    """The error body that belongs to a path."""
    return JSONResponse(refusal.content(path), refusal.status, refusal.headers())


def unread() -> Refusal:
    """400."""
    return Refusal(400, "bad_json", "The body is not JSON.")


def invalid(error: RequestValidationError) -> Refusal:
    """400 with the first fault in words: names of our own fields and what they may be, nothing that
    was sent."""
    fault = error.errors()[0]
    kind, where = str(fault["type"]), _where(fault.get("loc", ()))
    if kind == "json_invalid":
        return unread()
    if kind == "extra_forbidden":
        code, said = "unknown_field", f"a field that is not known{where}"
    elif kind == "none_required":
        code, said = "unsupported_field", f"a field that is not done here{where} (allowed: null)"
    elif kind == "missing":
        return Refusal(400, "missing_field", f"The body lacks a field{where}; see /openapi.json.")
    else:
        context = fault.get("ctx") or {}
        bounds = [f"{name} {context[name]}" for name in BOUNDS if name in context]
        if "expected" in context and kind in ("literal_error", "enum"):
            bounds.append(f"allowed: {context['expected']}")
        more = f" ({', '.join(bounds)})" if bounds else ""
        code, said = "bad_value", f"a value of the wrong kind or size{where}{more}"
    return Refusal(400, code, f"The body has {said}; see /openapi.json.")


def _where(place: tuple[Any, ...]) -> str:
    names = [str(part) for part in place[1:] if part in FIELDS or isinstance(part, int)]
    return f" at {'.'.join(names)}" if names else ""
