"""Another model takes a name over while the server runs: loaded beside the old one, proved, then
noted in the model ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from residency.serve.changes import Load, Order, Promoted, changed, no
from residency.serve.guard import Gate, Guarded, Visit, failed, gate_of, visit_of
from residency.serve.routes.openai_bodies import Body
from residency.serve.types import Refusal, Served

router = APIRouter(route_class=Guarded)


class Promotion(Body):
    """Which model is to answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"digest": "5b1c09a2e7f4"}]})

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """Of a model in the ledger, or the beginning of it."""
    require_safety: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None
    """Least share of safe answers in its run's evaluation."""


class Changes:
    """Changes of models, wherever they are made: each goes on to its end, whatever becomes of its
    request."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Promoted]] = set()

    async def start(self, gate: Gate) -> None:
        """The server starts: before its first request."""

    async def close(self) -> None:
        """The server has ended."""

    async def made(self, gate: Gate, order: Order) -> Promoted:
        """Make a change. Raises ``Refusal``."""
        raise NotImplementedError

    async def change(self, gate: Gate, visit: Visit, order: Order) -> Promoted:
        """Let it happen to its end; where its request has ended before, it has a line of the audit
        log of its own."""
        task = asyncio.get_running_loop().create_task(self.made(gate, order))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: _late(gate, visit, done))
            raise


class Admin(Changes):
    """Changes of models in this process. ``load``: how this server makes an engine."""

    def __init__(self, ledger: Path, load: Load) -> None:
        super().__init__()
        self.ledger, self.load = ledger, load

    async def made(self, gate: Gate, order: Order) -> Promoted:
        """Make a change. Raises ``Refusal``."""
        done = await changed(gate.swap, self.ledger, self.load, order)
        gate.answers(order.alias)
        return done


@router.post("/admin/models/{alias}/promote", tags=["admin"], response_model=Promoted)
async def promote(alias: str, body: Promotion, request: Request) -> Response:
    """Let a served name point to another model of the ledger, once that is loaded beside the old
    one and proved. Requests that run end on the old one; where anything fails (409) it goes on."""
    by = visit_of(request).user
    order = Order(
        what="promote", alias=alias, by=by, digest=body.digest, require_safety=body.require_safety
    )
    return await _answered(request, order)


@router.post("/admin/models/{alias}/rollback", tags=["admin"], response_model=Promoted)
async def rollback(alias: str, request: Request) -> Response:
    """Let a served name point to what it pointed to before, proved in the same way."""
    return await _answered(request, Order(what="rollback", alias=alias, by=visit_of(request).user))


async def _answered(request: Request, order: Order) -> Response:
    gate, visit = gate_of(request), visit_of(request)
    visit.served = _served(gate, order.alias)
    changes: Changes | None = request.app.state.admin
    if changes is None:
        raise no(
            "no_ledger",
            "No model that is served here comes from a model ledger; serve it by its name in one.",
        )
    done = await changes.change(gate, visit, order)
    visit.served = _served(gate, order.alias)
    return JSONResponse(done.model_dump())


def _served(gate: Gate, alias: str) -> Served:
    found = gate.engines.get(alias)
    if found is None:
        raise Refusal(
            404,
            "model_not_found",
            f"No model of that name is served; there is: {', '.join(gate.engines)}.",
        )
    return found.served


def _late(gate: Gate, visit: Visit, done: asyncio.Task[Promoted]) -> None:
    """The line of a change whose request had ended before it."""
    if done.cancelled():
        return
    line = Visit(visit.route, visit.started)
    gate.begin(line)
    line.user, line.what, line.served = visit.user, "admin", visit.served
    problem = done.exception()
    refusal = problem if isinstance(problem, Refusal) else failed() if problem is not None else None
    if problem is not None and refusal is not problem:
        gate.crashed(problem)
    if visit.served is not None and visit.served.name in gate.engines:
        line.served = gate.engines[visit.served.name].served
    gate.end(line, refusal.status if refusal else 200, refusal.code if refusal else "")
