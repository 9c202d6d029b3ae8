"""The server's application: its routes behind the gate, its probes, its own words for every fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from residency.deid import loose
from residency.serve.guard import Gate, failed, invalid, refused
from residency.serve.limits import Limited
from residency.serve.records.server_log import silence_loop
from residency.serve.routes import admin as changes
from residency.serve.routes import clinical, health, openai
from residency.serve.routes.page import page
from residency.serve.settings import Serve
from residency.serve.types import Engine, Refusal

if TYPE_CHECKING:
    pass

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


class Fault(BaseModel):
    code: str
    message: str


class ErrorBody(BaseModel):
    """What went wrong; never a word of the request."""

    error: Fault


class OpenAIFault(Fault):
    type: str
    param: None = None


class OpenAIErrorBody(BaseModel):
    """The same in OpenAI's form."""

    error: OpenAIFault


SAID = {
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


def _responses(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": model, "description": words} for status, words in SAID.items()}


def create_app(gate: Gate, owned: bool = False, admin: changes.Changes | None = None) -> FastAPI:
    """The application behind a gate. ``limited`` puts the outermost layer around it; ``owned``:
    tokens, rate and engines end with it. ``admin``: how models are changed."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        if gate.log is not None:
            silence_loop(asyncio.get_running_loop(), gate.log)
        await gate.tokens.start()
        await asyncio.to_thread(loose.warm)
        if admin is not None:
            await admin.start(gate)
        await health.ask(gate)
        asking = asyncio.create_task(health.keep_asking(gate))
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            for part in (gate.tokens, gate.rate, gate.swap) if owned else ():
                await part.close()
            if admin is not None:
                await admin.close()
            if gate.audit is not None:
                gate.audit.close()

    app = FastAPI(
        title="Residency",
        version=version("residency"),
        description=DESCRIPTION,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the address, and what stands in it
    )
    app.state.gate, app.state.admin = gate, admin
    app.include_router(openai.router, responses=_responses(OpenAIErrorBody))
    app.include_router(clinical.router, responses=_responses(ErrorBody))
    app.include_router(
        changes.router,
        responses=_responses(ErrorBody) | {409: {"model": ErrorBody, "description": REFUSED}},
    )
    app.include_router(health.router)
    app.add_exception_handler(Refusal, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.openapi = _described(app, gate.engines)  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))

    return app


def limited(app: FastAPI, settings: Serve) -> Limited:
    """The application within its limits: what a server is given."""
    gate: Gate = app.state.gate
    found = Limited(app, settings.limits, gate.crashed)
    app.state.limited = found
    return found


def _described(app: FastAPI, engines: Mapping[str, Engine]) -> Callable[[], dict[str, Any]]:
    """OpenAPI with the key that every route but the probes wants, and without the answer 422, which
    is never given."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        made = plain()
        made.setdefault("components", {})["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"}
        }
        _named(
            made["components"]["schemas"],
            [name for name, one in engines.items() if openai.writes(one.served)],
        )
        for path, item in made["paths"].items():
            for operation in item.values():
                operation["responses"].pop("422", None)
                if path not in ("/healthz", "/readyz", "/metrics"):
                    operation["security"] = [{"key": []}]
        return made

    return described


def _named(schemas: dict[str, Any], names: list[str]) -> None:
    """The generative models, where a request must name one."""
    for one in ("Chat", "Completion") if names else ():
        schemas[one]["properties"]["model"]["enum"] = names
        schemas[one]["examples"] = [
            example | {"model": names[0]} for example in schemas[one]["examples"]
        ]


async def _refusal(request: Request, error: Exception) -> Response:
    return refused(request.url.path, error if isinstance(error, Refusal) else failed())


async def _invalid(request: Request, error: Exception) -> Response:
    return refused(
        request.url.path, invalid(error) if isinstance(error, RequestValidationError) else failed()
    )


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return refused(request.url.path, failed())
    if error.status_code == 404:
        return refused(
            request.url.path, Refusal(404, "no_route", "There is no such route; see /openapi.json.")
        )
    if error.status_code == 405:
        made = refused(
            request.url.path,
            Refusal(405, "bad_method", "This route takes another method; see Allow."),
        )
        made.headers["allow"] = (error.headers or {}).get(
            "Allow", (error.headers or {}).get("allow", "")
        )
        return made
    return refused(
        request.url.path, Refusal(error.status_code, "bad_request", "The request cannot be read.")
    )
