"""Models are changed while the server runs: a newly promoted one is loaded beside the one that
answers, proved, and then takes its name over.

Two ways lead here. The admin routes let this process make a change: it proves the model, notes the
change in the model ledger, and flips. All other processes, workers and replicas alike, watch the
ledger and follow, each by its own proof; so does this one where the command changed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from residency.core.errors import GateRefused, ResidencyError
from residency.core.types import Value
from residency.serve import Refusal, server_failed
from residency.serve.engines import ModelEngine, Served, unknown_model
from residency.serve.guard import Guard, Guarded, GuardedRequest, exchange_of, guard_of
from residency.serve.routes.openai import Body

if TYPE_CHECKING:
    from residency.models.fingerprint import Fingerprint
    from residency.ops.model_ledger import ModelLedger, ProvedChange

Load = Callable[[Path, str], ModelEngine]
"""Makes the engine of an artefact under a name."""
WATCH_SECONDS = 1.0
"""How often a process looks whether the ledger was changed."""
router = APIRouter(route_class=Guarded)


class Promotion(Body):
    """Which model is to answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"digest": "5b1c09a2e7f4"}]})

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """Of a model in the ledger, or the beginning of it."""
    require_safety: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None
    """Least share of safe answers in its run's evaluation."""


class ChangeRequest(Value, frozen=True):
    """A change as it was asked for."""

    what: Literal["promote", "rollback"]
    alias: str
    by: str
    """Hash of the user id."""
    digest: str = ""
    """Promotions: of a model in the ledger, or the beginning of it."""
    require_safety: float | None = None


class ProofFound(BaseModel):
    """What the proof found."""

    engine: str
    furthest: float
    tolerance: float
    from_base: float | None


class Promoted(BaseModel):
    """What answers from now on, and what answered before."""

    model: str
    digest: str
    previous: str
    proof: ProofFound


@router.post("/admin/models/{alias}/promote", tags=["admin"], response_model=Promoted)
async def promote(alias: str, body: Promotion, request: Request) -> Response:
    """Let a served name point to another model of the ledger, once that is loaded beside the old
    one and proved. Requests that run end on the old one; where anything fails (409) it goes on."""
    by = exchange_of(request).user
    wanted = ChangeRequest("promote", alias, by, body.digest, body.require_safety)
    return await _answered(request, wanted)


@router.post("/admin/models/{alias}/rollback", tags=["admin"], response_model=Promoted)
async def rollback(alias: str, request: Request) -> Response:
    """Let a served name point to what it pointed to before, proved in the same way."""
    by = exchange_of(request).user
    return await _answered(request, ChangeRequest("rollback", alias, by))


async def _answered(request: Request, wanted: ChangeRequest) -> Response:
    guard, exchange = guard_of(request), exchange_of(request)
    if (answering := guard.engines.get(wanted.alias)) is None:
        raise unknown_model(guard.engines)
    exchange.served = answering.served
    changes: ModelChanges | None = request.app.state.changes
    if changes is None:
        nothing = "No model that is served here comes from a model ledger"
        raise conflict("no_ledger", f"{nothing}; serve it by its name in one.")
    done = await changes.ask(exchange, wanted)
    exchange.served = guard.engines[wanted.alias].served
    return JSONResponse(done.model_dump())


class ModelChanges:
    """Changes of the models of one process, one at a time. ``load``: how this server makes an
    engine."""

    def __init__(self, guard: Guard, ledger: Path, load: Load) -> None:
        self.guard, self.folder, self.load = guard, ledger, load
        self._one = asyncio.Lock()
        self._tasks: set[asyncio.Task[Promoted]] = set()
        self._seen: tuple[int, int] | None = None

    # Asked for

    async def ask(self, exchange: GuardedRequest, wanted: ChangeRequest) -> Promoted:
        """Let a change happen to its end; where its request has ended before, it has a line of the
        audit log of its own. Raises ``Refusal``: 404 for a digest that is not in the ledger, 409
        for all else; then the old model goes on."""
        task = asyncio.get_running_loop().create_task(self._change(wanted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: self._late(exchange, done))
            raise

    async def _change(self, wanted: ChangeRequest) -> Promoted:
        from residency.ops.model_ledger import ModelLedger

        models = ModelLedger(self.folder)
        async with self._one:
            old = self.guard.engines[wanted.alias].served
            await asyncio.to_thread(_check_known, models, old, wanted)
            try:
                ready = await asyncio.to_thread(_proved_change, models, wanted, old)
                engine = await self._loaded(models, old, ready.digest)
                await _commit(models, ready, engine)
            except ResidencyError as error:
                raise conflict("not_promoted", _plain(error, self.folder)) from None
            await self._flip(wanted.alias, engine)
        proof = ProofFound.model_validate(msgspec.to_builtins(ready.proof))
        served = engine.served
        return Promoted(model=wanted.alias, digest=served.digest, previous=old.digest, proof=proof)

    def _late(self, exchange: GuardedRequest, done: asyncio.Task[Promoted]) -> None:
        """The line of a change whose request had ended before it."""
        if done.cancelled():
            return
        line = GuardedRequest(exchange.route, exchange.started, "admin")
        line.user, line.served = exchange.user, exchange.served
        self.guard.begin(line)
        if (problem := done.exception()) is None:
            if exchange.served is not None and exchange.served.name in self.guard.engines:
                line.served = self.guard.engines[exchange.served.name].served
            self.guard.end(line, 200)
            return
        if not isinstance(problem, Refusal):
            self.guard.crashed(problem)
            problem = server_failed()
        self.guard.end(line, problem.status, problem.code)

    # Followed

    async def watch(self) -> None:
        """Follow the ledger for as long as the server runs."""
        while True:
            try:
                await self.look()
            except OSError:
                pass  # the ledger's disk is away for the moment
            except Exception as error:
                self.guard.crashed(error)
            await asyncio.sleep(WATCH_SECONDS)

    async def look(self) -> None:
        """Let names answer with what the ledger says, where it was changed since the last look. A
        model that is not proved is not tried again before the ledger changes again."""
        seen = await asyncio.to_thread(_signature, self.folder)
        if seen == self._seen:
            return
        async with self._one:
            for name, digest in (await asyncio.to_thread(self._news)).items():
                await self._follow(name, digest)
        self._seen = seen

    def _news(self) -> dict[str, str]:
        """Names that the ledger lets point to another model than the one that answers."""
        from residency.ops.model_ledger import ModelLedger

        models = ModelLedger(self.folder)
        served = {name: one.served.digest for name, one in self.guard.engines.items()}
        try:
            now, found = models.aliases(), {}
            for name, digest in served.items():
                if _own(models, name, digest) and now[name] and now[name][-1] != digest:
                    found[name] = now[name][-1]
        except ResidencyError as error:  # its chain is broken: nothing is followed
            self.guard.crashed(error)
            return {}
        return found

    async def _follow(self, name: str, digest: str) -> None:
        from residency.ops.model_ledger import ModelLedger

        models, old = ModelLedger(self.folder), self.guard.engines[name].served
        try:
            await asyncio.to_thread(lambda: models.proved(models.resolve(digest)))
            engine = await self._loaded(models, old, digest)
        except Exception as error:  # whatever it is, the old model goes on
            self._noted(name, digest, "failed", error)
            return
        await self._flip(name, engine)

    # Either way

    async def _loaded(self, models: ModelLedger, old: Served, digest: str) -> ModelEngine:
        """The engine of a proved model, beside the old one, proved once more as it will answer.
        Raises ``GateRefused``."""
        folder = models.path(digest)
        await asyncio.to_thread(_check_alike, folder, old)
        known = await asyncio.to_thread(models.recorded, digest)
        try:
            engine = await asyncio.to_thread(self.load, folder, old.name)
        except ResidencyError as error:
            raise GateRefused(f"{old.name}: not promoted: {error}") from None
        try:
            await check_engine(engine, known)
        except BaseException:
            await engine.close()
            raise
        return engine

    async def _flip(self, name: str, engine: ModelEngine) -> None:
        await self.guard.answer_with(name, engine)
        self._noted(name, engine.served.digest, "ok")

    def _noted(
        self,
        name: str,
        digest: str,
        outcome: Literal["ok", "failed"],
        error: BaseException | None = None,
    ) -> None:
        """In log and figures."""
        if self.guard.metrics is not None:
            self.guard.metrics.changed(name, outcome)
        if self.guard.log is None:
            return
        if error is None:
            self.guard.log.write("model-changed", alias=name, model=digest, outcome=outcome)
        else:
            self.guard.log.failed(
                "model-not-changed", error, alias=name, model=digest, outcome=outcome
            )


async def _commit(models: ModelLedger, ready: ProvedChange, engine: ModelEngine) -> None:
    """Note a change in the ledger; where that fails the engine is not needed."""
    try:
        await asyncio.to_thread(models.commit, ready)
    except BaseException:
        await engine.close()
        raise


async def check_engine(engine: ModelEngine, known: Fingerprint | None) -> None:
    """Raises ``GateRefused`` for an engine that does not answer, or, where it can say how likely
    tokens are, does not say what was recorded, within the tolerance of its kind."""
    name = engine.served.name
    if not await engine.probe():
        raise GateRefused(f"{name}: not promoted: it does not answer the fixed question.")
    if known is None or "chat" not in engine.served.routes:
        return
    from residency.models import fingerprint

    kind = f"{engine.served.kind} {engine.served.dtype}"
    if (most := known.tolerances.get(kind)) is None:
        raise GateRefused(f"{name}: not promoted: no tolerance was recorded for {kind}.")
    scores = [(await engine.score(ids)).log_probabilities for ids in known.ids]
    found = [[one for one in each if one is not None] for each in scores]
    gap = fingerprint.furthest(known.within(engine.served.dtype), found)
    if not gap <= most:
        raise GateRefused(
            f"{name}: not promoted: what answers requests does not say what was recorded (largest "
            f"difference {gap:.3g}, allowed {most:g} for {kind}); its engine computes otherwise."
        )


def current_models(given: Mapping[str, Path], ledger: Path | None) -> dict[str, Path]:
    """The models of a process that starts: what the ledger says now for names that are its own,
    the rest as they were given."""
    from residency.ops.model_ledger import ModelLedger

    if ledger is None:
        return dict(given)
    models, found = ModelLedger(ledger), dict(given)
    try:
        for name, path in given.items():
            if _own(models, name, _digest(path)):
                found[name] = models.path(models.resolve(name).digest)
    except GateRefused:  # its chain is broken: of no matter to who serves nothing of it
        if any(path.resolve().is_relative_to(ledger.resolve()) for path in given.values()):
            raise
        return dict(given)
    return found


def _signature(ledger: Path) -> tuple[int, int]:
    from residency.ops.model_ledger import LEDGER

    found = (ledger / LEDGER).stat()
    return found.st_mtime_ns, found.st_size


def _digest(folder: Path) -> str:
    from residency.export import gguf
    from residency.models import onnx_encoder
    from residency.ops.proof import address

    if (folder / onnx_encoder.FILE).is_file():
        return onnx_encoder.read(folder).artefact
    return gguf.read(folder).artefact if (folder / gguf.FILE).is_file() else address(folder)


def _own(models: ModelLedger, alias: str, digest: str) -> bool:
    """Whether a name points, or pointed, to a model by the ledger."""
    return any((one.alias, one.digest) == (alias, digest) for one in models.entries())


def _proved_change(models: ModelLedger, wanted: ChangeRequest, old: Served) -> ProvedChange:
    if wanted.what == "rollback":
        return models.ready_back(wanted.alias, by=wanted.by)
    return models.ready(
        wanted.alias,
        wanted.digest,
        require_safety=wanted.require_safety,
        by=wanted.by,
        again=not old.digest.startswith(wanted.digest),
    )


def _check_known(models: ModelLedger, old: Served, wanted: ChangeRequest) -> None:
    """Raises ``Refusal``: 404 for a digest that is not in the ledger, 409 where the name is not the
    ledger's."""
    alias, digest = wanted.alias, wanted.digest
    try:
        own = _own(models, alias, old.digest)
        found = [one for one in models.list() if digest and one.digest.startswith(digest)]
    except ResidencyError:
        look = "look with residency model list"
        raise conflict("no_ledger", f"The model ledger cannot be read; {look}.") from None
    if not own:
        named = f"{alias} is not served by its name in the model ledger"
        raise conflict("not_of_ledger", f"{named}; serve it by that name.")
    if digest and len(found) != 1:
        what = "is no digest of the model ledger"
        if found:
            what = "begins several digests; write more of it"
        shows = "residency model list shows them"
        raise Refusal(404, "digest_not_found", f"{digest}: {what}; {shows}.")


def _check_alike(folder: Path, old: Served) -> None:
    """Raises ``GateRefused`` for a model that answers other routes than the one that it would
    replace."""
    from residency.models import artefact

    found = artefact.read(folder)
    if (found.output, found.task().family) != (old.output, old.card.family):
        raise GateRefused(
            f"{old.name}: not promoted: the other model is of another kind ({found.task().family}, "
            f"{found.output}; served is {old.card.family}, {old.output}); give it a name of its "
            "own."
        )


def _plain(error: ResidencyError, ledger: Path) -> str:
    """The sentence, without where the ledger lies on this machine."""
    said = str(error)
    for folder in {str(ledger.resolve()), str(ledger)}:
        said = said.replace(f"{folder}/sha256/", "").replace(f"{folder}/", "")
    return said


def conflict(code: Literal["no_ledger", "not_of_ledger", "not_promoted"], said: str) -> Refusal:
    """409."""
    return Refusal(409, code, said)
