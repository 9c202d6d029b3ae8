"""What machines ask of the server: does it live, is it ready, how does it fare. No key is needed;
nothing of a request is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from residency.serve.guard import Gate, gate_of
from residency.serve.records.metrics import CONTENT_TYPE

SOON = 0.5
"""Seconds after which a model that is not ready is asked again."""
router = APIRouter(tags=["probes"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    responses={
        503: {
            "description": (
                "A model does not give its fixed answer, requests cannot be counted, "
                "or "
                "the server shuts down."
            )
        }
    },
)
async def readyz(request: Request) -> JSONResponse:
    """Every model gave its fixed answer when it was last asked, and requests can be counted.
    ``keys`` says whether the identity provider answered last; known keys are accepted for a while
    where it did not."""
    gate = gate_of(request)
    limited = getattr(request.app.state, "limited", None)
    draining = bool(limited is not None and limited.draining)
    counting = await gate.rate.ready()
    ready = not draining and counting and bool(gate.ready) and all(gate.ready.values())
    said = {
        "models": gate.ready,
        "counting": counting,
        "keys": not gate.tokens.trouble(),
        "draining": draining,
    }
    return JSONResponse({"ready": ready, **said}, 200 if ready else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "description": "Prometheus' text format.",
        }
    },
)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    gate = gate_of(request)
    return Response(gate.metrics.render() if gate.metrics else b"", media_type=CONTENT_TYPE)


async def ask(gate: Gate) -> None:
    """Ask every model its fixed question."""

    async def one(name: str) -> None:
        good, asked = False, None
        with suppress(Exception):  # whatever it is, the model does not answer
            async with (
                gate.swap.using(name) as asked,
                asyncio.timeout(gate.settings.limits.seconds),
            ):
                good = await asked.canary()
        if asked is not gate.engines.get(name):
            return  # another took its place meanwhile, and was asked then
        gate.ready[name] = good
        if gate.metrics is not None:
            gate.metrics.ready(name, good)

    await asyncio.gather(*(one(name) for name in list(gate.engines)))


async def keep_asking(
    gate: Gate, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    """Ask again and again."""
    with suppress(asyncio.CancelledError):
        while True:
            waited = 0.0
            while waited < gate.settings.canary_seconds:
                step = min(SOON, gate.settings.canary_seconds)
                await sleep(step)
                waited = waited + step if all(gate.ready.values()) else gate.settings.canary_seconds
            await ask(gate)
