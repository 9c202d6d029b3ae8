"""A served name gets another model: proved, loaded beside the old one, noted in the model ledger,
then let answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from pydantic import BaseModel

from residency.core.errors import GateRefused, ResidencyError
from residency.core.types import Value
from residency.serve.swap import Swap
from residency.serve.types import Engine, Refusal, Served

if TYPE_CHECKING:
    from residency.ops.model_ledger import Models, Ready

Load = Callable[[Path, str], Engine]
"""Makes the engine of an artefact under a name."""


class Order(Value, frozen=True):
    """A change as it was asked for."""

    what: Literal["promote", "rollback"]
    alias: str
    by: str
    """Hash of the user id."""
    digest: str = ""
    """Promotions: of a model in the ledger, or the beginning of it."""
    require_safety: float | None = None


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


class Everyone(Protocol):
    """Processes that must change at the same time. What is raised ends the change for all of them."""

    async def prepare(self, engine: Engine, folder: Path) -> None:
        """Let each make ready what it needs of the new model. Raises ``GateRefused``."""
        ...

    def hold(self) -> None:
        """Let each keep new requests waiting, until it is told what answers. Called in a thread.
        Raises ``GateRefused``."""
        ...


async def changed(
    swap: Swap, ledger: Path, load: Load, order: Order, every: Everyone | None = None
) -> Promoted:
    """Prove, load, note, flip. Raises ``Refusal``: 404 for a digest that is not in the ledger, 409
    for all else; then the old one goes on."""
    from residency.ops.model_ledger import Models

    models, old = Models(ledger), swap.now(order.alias).served
    await asyncio.to_thread(_known, models, old, order)
    try:
        ready = await asyncio.to_thread(_ready, models, order, old)
        folder = models.path(ready.digest)
        await asyncio.to_thread(_alike, folder, old)

        async def agreed(engine: Engine) -> None:
            if every is not None:
                await every.prepare(engine, folder)
            await asyncio.to_thread(models.commit, ready, every.hold if every is not None else None)

        known = await asyncio.to_thread(models.recorded, ready.digest)
        engine = await swap.flip(order.alias, lambda: load(folder, order.alias), known, agreed)
    except ResidencyError as error:
        raise no("not_promoted", plain(error, ledger)) from None
    proof = Proved.model_validate(msgspec.to_builtins(ready.proof))
    return Promoted(
        model=order.alias, digest=engine.served.digest, previous=old.digest, proof=proof
    )


def standing(given: Mapping[str, Path], ledger: Path | None) -> dict[str, Path]:
    """The models of a server that starts again: what the ledger says now for names that are its
    own, the rest as they were given."""
    from residency.ops.model_ledger import Models

    if ledger is None:
        return dict(given)
    models = Models(ledger)
    try:
        return {
            name: models.path(models.resolve(name).digest)
            if _own(models, name, _digest(path))
            else path
            for name, path in given.items()
        }
    except GateRefused:  # its chain is broken: of no matter to who serves nothing of it
        if any(path.resolve().is_relative_to(ledger.resolve()) for path in given.values()):
            raise
        return dict(given)


def _digest(folder: Path) -> str:
    from residency.models import onnx_encoder
    from residency.ops.proof import address

    return (
        onnx_encoder.read(folder).artefact
        if (folder / onnx_encoder.FILE).is_file()
        else address(folder)
    )


def _own(models: Models, alias: str, digest: str) -> bool:
    """Whether a name points, or pointed, to a model by the ledger."""
    return any((one.alias, one.digest) == (alias, digest) for one in models.entries())


def _ready(models: Models, order: Order, old: Served) -> Ready:
    if order.what == "rollback":
        return models.ready_back(order.alias, by=order.by)
    other = not old.digest.startswith(order.digest)
    return models.ready(
        order.alias, order.digest, require_safety=order.require_safety, by=order.by, again=other
    )


def _known(models: Models, old: Served, order: Order) -> None:
    """Raises ``Refusal``: 404 for a digest that is not in the ledger, 409 where the name is not the
    ledger's."""
    alias, digest = order.alias, order.digest
    try:
        own = _own(models, alias, old.digest)
        found = [one.digest for one in models.list() if digest and one.digest.startswith(digest)]
    except ResidencyError:
        raise no(
            "no_ledger", "The model ledger cannot be read; look with residency model list."
        ) from None
    if not own:
        raise no(
            "not_of_ledger",
            f"{alias} is not served by its name in the model ledger; serve it by that name.",
        )
    if digest and len(found) != 1:
        what = (
            "begins several digests; write more of it"
            if found
            else "is no digest of the model ledger"
        )
        raise Refusal(
            404, "digest_not_found", f"{digest}: {what}; residency model list shows them."
        )


def _alike(folder: Path, old: Served) -> None:
    """Raises ``GateRefused`` for a model that answers other routes than the one that it would
    replace."""
    from residency.models import artefact

    found = artefact.read(folder)
    if (found.output, found.task().family) != (old.output, old.card.family):
        raise GateRefused(
            f"{old.name}: not promoted: the other model is of another kind ({found.task().family}, "
            f"{found.output}; served is "
            f"{old.card.family}, {old.output}); give it a name of its own."
        )


def plain(error: ResidencyError, ledger: Path) -> str:
    """The sentence, without where the ledger lies on this machine."""
    said = str(error)
    for folder in {str(ledger.resolve()), str(ledger)}:
        said = said.replace(f"{folder}/sha256/", "").replace(f"{folder}/", "")
    return said


def no(code: Literal["no_ledger", "not_of_ledger", "not_promoted"], sentence: str) -> Refusal:
    """409."""
    return Refusal(409, code, sentence)
