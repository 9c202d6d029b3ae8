"""Another model takes a name over while the server runs: loaded beside the old one, proved, then noted in the model ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from residency.core.errors import GateRefused, ResidencyError
from residency.serve.bodies import Body
from residency.serve.gate import Gate, Guarded, Visit, failed, gate_of, visit_of
from residency.serve.types import Engine, Refusal, Served

if TYPE_CHECKING:
    from residency.ops.models import Models, Ready

router = APIRouter(route_class=Guarded)
Load = Callable[[Path, str], Engine]
"""Makes the engine of an artefact under a name."""
Prepare = Callable[["Models", str], "Ready"]


class Promotion(Body):
    """Which model is to answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"digest": "5b1c09a2e7f4"}]})

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """Of a model in the ledger, or the beginning of it."""
    require_safety: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None
    """Least share of safe answers in its run's evaluation."""


class Proved(BaseModel):
    """What the canary found."""

    engine: str
    furthest: float
    tolerance: float
    from_base: float | None


class Promoted(BaseModel):
    """What answers from now on, and what answered before."""

    model: str
    digest: str
    previous: str
    proof: Proved


class Admin:
    """What changes of models need. ``load``: how this server makes an engine."""

    def __init__(self, ledger: Path, load: Load) -> None:
        self.ledger, self.load = ledger, load
        self.tasks: set[asyncio.Task[Promoted]] = set()

    async def change(self, gate: Gate, visit: Visit, alias: str, prepare: Prepare) -> Promoted:
        """Let it happen to its end, whatever becomes of the request; then it has a line of the audit log of its own."""
        task = asyncio.get_running_loop().create_task(_changed(self, gate, visit, alias, prepare))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: _late(gate, visit, done))
            raise


@router.post("/admin/models/{alias}/promote", tags=["admin"], response_model=Promoted)
async def promote(alias: str, body: Promotion, request: Request) -> Response:
    """Let a served name point to another model of the ledger, once that is loaded beside the old one and proved. Requests that run
    end on the old one; where anything fails (409) it goes on."""

    def prepare(models: Models, by: str) -> Ready:
        other = not (old := visit_of(request).served) or not old.digest.startswith(body.digest)
        return models.ready(alias, body.digest, require_safety=body.require_safety, by=by, again=other)

    return await _answered(request, alias, prepare, body.digest)


@router.post("/admin/models/{alias}/rollback", tags=["admin"], response_model=Promoted)
async def rollback(alias: str, request: Request) -> Response:
    """Let a served name point to what it pointed to before, proved in the same way."""
    return await _answered(request, alias, lambda models, by: models.ready_back(alias, by=by))


async def _answered(request: Request, alias: str, prepare: Prepare, digest: str = "") -> Response:
    gate, visit = gate_of(request), visit_of(request)
    visit.served = _served(gate, alias)
    if gate.settings.workers > 1:
        raise _no("several_workers", "Models are changed here with workers: 1 alone; change the ledger, then restart.")
    admin: Admin | None = request.app.state.admin
    if admin is None:
        raise _no("no_ledger", "No model that is served here comes from a model ledger; serve it by its name in one.")
    await asyncio.to_thread(_known, admin.ledger, alias, visit.served, digest)
    done = await admin.change(gate, visit, alias, prepare)
    visit.served = _served(gate, alias)
    return JSONResponse(done.model_dump())


def _served(gate: Gate, alias: str) -> Served:
    found = gate.engines.get(alias)
    if found is None:
        raise Refusal(404, "model_not_found", f"No model of that name is served; there is: {', '.join(gate.engines)}.")
    return found.served


def _known(ledger: Path, alias: str, served: Served, digest: str) -> None:
    """Raises ``Refusal``: 404 for a digest that is not in the ledger, 409 where the name is not the ledger's."""
    from residency.ops.models import Models

    try:
        models = Models(ledger)
        own = any(one.alias == alias and one.digest == served.digest for one in models.entries())
        found = [one.digest for one in models.list() if digest and one.digest.startswith(digest)]
    except ResidencyError:
        raise _no("no_ledger", "The model ledger cannot be read; look with residency model list.") from None
    if not own:
        raise _no("not_of_ledger", f"{alias} is not served by its name in the model ledger; serve it by that name.")
    if digest and len(found) != 1:
        what = "begins several digests; write more of it" if found else "is no digest of the model ledger"
        raise Refusal(404, "digest_not_found", f"{digest}: {what}; residency model list shows them.")


async def _changed(admin: Admin, gate: Gate, visit: Visit, alias: str, prepare: Prepare) -> Promoted:
    """Prove, load, note, flip. Raises ``Refusal`` 409."""
    from residency.ops.models import Models

    models, old = Models(admin.ledger), _served(gate, alias)
    try:
        ready = await asyncio.to_thread(prepare, models, visit.user)
        await asyncio.to_thread(_alike, models.path(ready.digest), old)
        engine = await gate.swap.flip(
            alias,
            lambda: admin.load(models.path(ready.digest), alias),
            await asyncio.to_thread(models.recorded, ready.digest),
            lambda: models.commit(ready),
        )
    except ResidencyError as error:
        raise _no("not_promoted", _plain(error, admin.ledger)) from None
    gate.shows(alias, engine)
    gate.ready[alias] = True
    if gate.metrics is not None:
        gate.metrics.ready(alias, True)
    proof = Proved.model_validate(msgspec.to_builtins(ready.proof))
    return Promoted(model=alias, digest=engine.served.digest, previous=old.digest, proof=proof)


def _alike(folder: Path, old: Served) -> None:
    """Raises ``GateRefused`` for a model that answers other routes than the one that it would replace."""
    from residency.models import artefact

    found = artefact.read(folder)
    if (found.output, found.task().family) != (old.output, old.card.family):
        raise GateRefused(
            f"{old.name}: not promoted: the other model is of another kind ({found.task().family}, {found.output}; served is "
            f"{old.card.family}, {old.output}); give it a name of its own."
        )


def _plain(error: ResidencyError, ledger: Path) -> str:
    """The sentence, without where the ledger lies on this machine."""
    said = str(error)
    for folder in {str(ledger.resolve()), str(ledger)}:
        said = said.replace(f"{folder}/sha256/", "").replace(f"{folder}/", "")
    return said


def _no(code: Literal["several_workers", "no_ledger", "not_of_ledger", "not_promoted"], sentence: str) -> Refusal:
    return Refusal(409, code, sentence)


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
