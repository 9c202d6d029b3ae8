"""The server's application: its routes behind the guard, its probes, its page of routes, its own
words for every fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from html import escape
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match

from residency.deid import loose
from residency.serve import Refusal, promote, server_failed
from residency.serve.guard import (
    DIGEST,
    ERASED,
    Guard,
    GuardedRequest,
    guard_of,
    invalid,
    refused,
)
from residency.serve.limits import Limited
from residency.serve.records.audit_chain import Outcome
from residency.serve.records.monitoring import CONTENT_TYPE, silence_loop
from residency.serve.routes import clinical, openai

DESCRIPTION = "A hospital's own models. Every answer is an aid and replaces no doctor's decision."
ROUTES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/v1/models/{name}",
    "/diagnose",
    "/extract",
    "/deidentify",
    "/admin/models/{alias}/promote",
    "/admin/models/{alias}/rollback",
    "/healthz",
    "/readyz",
    "/metrics",
)
MEANINGS = {
    400: "The body is not as described, or too long for the model.",
    401: "No token, or one that is not valid.",
    403: "The token does not hold the scope.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    429: "The user asks too often; Retry-After says when to come back.",
    500: "A fault of the server.",
    502: "The model's answer cannot be read.",
    503: "Busy, shutting down, or the model is not ready; Retry-After says when to come back.",
    504: "It took too long.",
}
REFUSED = "The other model was not proved, or models cannot be changed here; the old one goes on."
UNREADY = (
    "A model does not give its fixed answer, requests cannot be counted or written down, or the "
    "server shuts down."
)
SOON = 0.5
"""Seconds after which a model that is not ready is asked again."""
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:.8rem;overflow-x:auto}h2{margin-top:2.5rem}"
)
probes = APIRouter(tags=["probes"])


class ErrorDetail(BaseModel):
    code: str
    message: str


class ErrorBody(BaseModel):
    """What went wrong; never a word of the request."""

    error: ErrorDetail


class OpenAIErrorDetail(ErrorDetail):
    type: str
    param: None = None


class OpenAIErrorBody(BaseModel):
    """The same in OpenAI's form."""

    error: OpenAIErrorDetail


def _responses(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": model, "description": words} for status, words in MEANINGS.items()}


def create_app(
    guard: Guard,
    changes: promote.ModelChanges | None = None,
    on_start: Callable[[FastAPI], None] | None = None,
    owned: bool = False,
) -> FastAPI:
    """The application behind a guard. ``limited`` puts the outermost layer around it. ``changes``:
    how models are changed; ``on_start`` is called in the event loop before anything else;
    ``owned``: tokens, rate and engines end with it."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        if on_start is not None:
            on_start(app)
        if guard.log is not None:
            silence_loop(asyncio.get_running_loop(), guard.log)
        await guard.tokens.start()
        await asyncio.to_thread(loose.warm)
        await ask(guard)
        tasks = [asyncio.create_task(keep_asking(guard))]
        if changes is not None:
            tasks.append(asyncio.create_task(changes.watch()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for part in (guard.tokens, guard.rate, guard.aliases) if owned else ():
                await part.close()
            if guard.audit is not None:
                guard.audit.close()

    app = FastAPI(
        title="Residency",
        version=version("residency"),
        description=DESCRIPTION,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the address, and what stands in it
    )
    app.state.guard, app.state.changes = guard, changes
    app.include_router(openai.router, responses=_responses(OpenAIErrorBody))
    app.include_router(clinical.router, responses=_responses(ErrorBody))
    conflict: dict[int | str, dict[str, Any]] = {409: {"model": ErrorBody, "description": REFUSED}}
    app.include_router(promote.router, responses=_responses(ErrorBody) | conflict)
    app.include_router(probes)
    for kind in (Refusal, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _fault)
    app.openapi = _described(app, guard)  # type: ignore[method-assign]
    _allow_origins(app, guard.settings.cors)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))

    return app


def _allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of these origins ask from a browser."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
            expose_headers=[DIGEST, ERASED, "x-request-id", "retry-after"],
        )


def limited(app: FastAPI) -> Limited:
    """The application within its limits: what a server is given."""
    guard: Guard = app.state.guard

    def record(scope: MutableMapping[str, Any], started: float, status: int, code: str) -> None:
        state = scope["state"]
        if (exchange := state.get("exchange")) is None:
            exchange = state["exchange"] = GuardedRequest(_template(app, scope), started, "request")
            guard.begin(exchange)
            outcome: Outcome | None = "cancelled" if status == 499 else None
            guard.end(exchange, status, code or state.get("code", ""), outcome)
        elif status == 499 and not exchange.ended:
            guard.cancelled(exchange)

    app.state.limited = Limited(app, guard.settings.limits, guard.crashed, record)
    return app.state.limited  # type: ignore[no-any-return]


def _template(app: FastAPI, scope: MutableMapping[str, Any]) -> str:
    """The route of a request as it is written down; never its address."""
    found = (one for one in app.routes if one.matches(scope)[0] is not Match.NONE)
    return str(getattr(next(found, None), "path", "other"))


async def _fault(request: Request, error: Exception) -> Response:
    """The answer to what the framework, or a route, refused."""
    path, allow = request.url.path, ""
    if isinstance(error, Refusal):
        problem = error
    elif isinstance(error, RequestValidationError):
        problem = invalid(error)
    elif not isinstance(error, HTTPException):
        problem = server_failed()
    elif error.status_code == 404:
        problem = Refusal(404, "no_route", "There is no such route; see /openapi.json.")
    elif error.status_code == 405:
        problem = Refusal(405, "bad_method", "This route takes another method; see Allow.")
        allow = {name.lower(): value for name, value in (error.headers or {}).items()}.get(
            "allow", ""
        )
    else:
        problem = Refusal(error.status_code, "bad_request", "The request cannot be read.")
    request.state.code = problem.code
    made = refused(path, problem)
    if allow:
        made.headers["allow"] = allow
    return made


# Probes: what machines ask of the server. No key is needed; nothing of a request is in them.


@probes.head("/healthz", include_in_schema=False)
@probes.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@probes.head("/readyz", include_in_schema=False)
@probes.get("/readyz", responses={503: {"description": UNREADY}})
async def readyz(request: Request) -> JSONResponse:
    """Every model gave its fixed answer when it was last asked, requests can be counted and their
    audit lines written. ``digests``: which models these are. ``keys`` says whether the identity
    provider answered last; known keys are accepted for a while where it did not. ``identifiers``:
    what finds them (``rules alone`` where the tagger is not installed)."""
    guard = guard_of(request)
    limits: Limited | None = getattr(request.app.state, "limited", None)
    draining = limits is not None and limits.draining
    counting, recording = await guard.rate.ready(), await asyncio.to_thread(guard.recording)
    able = not draining and counting and recording
    ready = able and bool(guard.ready) and all(guard.ready.values())
    found = {
        "ready": ready,
        "models": guard.ready,
        "digests": {name: one.served.digest for name, one in guard.engines.items()},
        "counting": counting,
        "recording": recording,
        "keys": not guard.tokens.trouble(),
        "draining": draining,
        "identifiers": loose.finders(),
    }
    return JSONResponse(found, 200 if ready else 503)


METRICS: dict[str, Any] = {
    "content": {"text/plain": {"schema": {"type": "string"}}},
    "description": "Prometheus' text format.",
}


@probes.head("/metrics", include_in_schema=False)
@probes.get("/metrics", response_class=Response, responses={200: METRICS})
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    guard = guard_of(request)
    return Response(guard.metrics.render() if guard.metrics else b"", media_type=CONTENT_TYPE)


async def ask(guard: Guard) -> None:
    """Ask every model its fixed question. Where an engine is gone for good the server is told to
    stop."""

    async def one(name: str) -> None:
        good, asked = False, None
        with suppress(Exception):  # whatever it is, the model does not answer
            async with (
                guard.aliases.using(name) as asked,
                asyncio.timeout(guard.settings.limits.seconds),
            ):
                good = await asked.probe()
        if asked is None or asked is not guard.engines.get(name):
            return  # another took its place meanwhile, and was asked then
        guard.set_ready(name, good)
        if not good and guard.stop is not None and (why := asked.fault()):
            guard.stop(why)

    await asyncio.gather(*(one(name) for name in guard.engines))


async def keep_asking(
    guard: Guard, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Ask again and again."""
    with suppress(asyncio.CancelledError):
        while True:
            waited, whole = 0.0, guard.settings.fingerprint_seconds
            while waited < whole:
                step = min(SOON, whole)
                await sleep(step)
                waited = waited + step if all(guard.ready.values()) else whole
            await ask(guard)


# The description of the routes, and the page that is made of it: no script, nothing from elsewhere


def _described(app: FastAPI, guard: Guard) -> Callable[[], dict[str, Any]]:
    """OpenAPI with the key that every route but the probes wants, and without the answer 422, which
    is never given."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        made = plain()
        parts = made.setdefault("components", {})
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        names = [name for name, one in guard.engines.items() if "chat" in one.served.routes]
        for one in ("ChatBody", "CompletionBody") if names else ():
            schema = parts["schemas"][one]
            schema["properties"]["model"]["enum"] = names
            schema["examples"] = [each | {"model": names[0]} for each in schema["examples"]]
        for path, item in made["paths"].items():
            for operation in item.values():
                operation["responses"].pop("422", None)
                if path not in ("/healthz", "/readyz", "/metrics"):
                    operation["security"] = [{"key": []}]
        return made

    return described


def page(described: dict[str, Any]) -> str:
    """Every route with what it does, the scope that it needs, and examples as ``curl``."""
    info = described["info"]
    title = escape(info["title"])
    parts = [
        f"<h1>{title} {escape(info['version'])}</h1>",
        f"<p>{escape(info.get('description', ''))} <a href=/openapi.json>openapi.json</a></p>",
    ]
    for path, item in described["paths"].items():
        for method, operation in item.items():
            parts.append(f"<h2>{method.upper()} {escape(path)}</h2>")
            parts.append(f"<p>{escape(operation.get('description', ''))}</p>")
            if operation.get("security"):
                parts.append(f"<p>Scope: {escape(operation['tags'][0])}</p>")
            examples = _examples(described, operation)
            parts += [f"<pre>{escape(_curl(path, one))}</pre>" for one in examples]
    head = f"<meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
    return f"<!doctype html>{head}{''.join(parts)}"


def _examples(described: dict[str, Any], operation: dict[str, Any]) -> list[dict[str, Any]]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
    schema = described["components"]["schemas"].get(name, {})
    found: list[dict[str, Any]] = schema.get("examples", [])
    return found


def _curl(path: str, body: dict[str, Any]) -> str:
    words = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    headers = "-H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json'"
    return f"curl {headers} -d '{words}' http://HOST:PORT{path}"
