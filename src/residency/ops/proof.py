"""The proof that a trained model is what it was at the end of training; a promotion needs it.

A server that loads an adapter whose tensors have other names says nothing and answers as the base
does. So a proof does not ask the loader whether all went well: it compares what the loaded model
says with what was recorded at training time, and with the base.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from residency.core.errors import GateRefused, UserError
from residency.core.files import file_digest, read_json
from residency.core.types import Value
from residency.models import artefact as artefacts
from residency.models import fingerprint
from residency.models.adapters import Full
from residency.models.artefact import Artefact
from residency.models.base import silent
from residency.models.fingerprint import Fingerprint
from residency.models.predictors import kind_of

ENGINE = "process"
SAME = 1e-4
"""A model whose answers are not further than this from its base's has learned nothing that anyone
would notice."""


class Proof(Value, frozen=True):
    """What was found."""

    engine: str
    """Engine and numbers, e.g. ``process float32``."""
    furthest: float
    """Largest difference from what was recorded."""
    tolerance: float
    from_base: float | None = None
    """Largest difference from the base; none where a fully trained model's base is not on this
    machine."""
    based: bool = True
    """Whether it has a base."""


def recorded(folder: Path, artefact: Artefact, beside: Path | None = None) -> Fingerprint:
    """What was recorded of an artefact, in it or (of an older one) ``beside`` it.

    Raises ``GateRefused`` where nothing was.
    """
    path = folder / fingerprint.FILE if fingerprint.FILE in artefact.files else beside
    if path is None or not path.is_file():
        raise GateRefused(
            f"{folder}: nothing was recorded of it at training time; train it again, or record it "
            "as it is now with residency model "
            "add --record."
        )
    found = read_json(path, Fingerprint)
    if found.schema != fingerprint.SCHEMA:
        raise GateRefused(
            f"{path}: schema {found.schema} is not read by this version, which reads "
            f"{fingerprint.SCHEMA}."
        )
    return found


def prove(folder: Path, beside: Path | None = None) -> Proof:
    """Load an artefact as it will be served, and hold it against what was recorded and against its
    base.

    Raises ``GateRefused`` where a file was changed, a tensor finds no place or is no number, the
    base is another one, or the model says something else than at training time, or nothing else
    than its base.
    """
    try:
        artefact = artefacts.read(folder)
        known = recorded(folder, artefact, beside)
        finite(folder, artefact)
        if not artefact.tuning().needs_base:
            return _says_the_same(folder, artefact, known)
        with silent():
            return _compared(folder, artefact, known)
    except UserError as error:
        raise GateRefused(f"not promoted: {error}") from None


def finite(folder: Path, artefact: Artefact) -> None:
    """Every tensor of the artefact is made of numbers. Raises ``GateRefused`` where one is not."""
    import torch

    for name, tensor in tensors(folder, artefact):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise GateRefused(
                f"not promoted: {folder}: tensor {name} holds values that are no numbers; train it "
                "again."
            )


def tensors(folder: Path, artefact: Artefact) -> Iterator[tuple[str, Any]]:
    """All tensors of an artefact, one at a time."""
    import safetensors

    for file in artefact.files:
        if not file.endswith(".safetensors"):
            continue
        try:
            with safetensors.safe_open(folder / file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    yield name, opened.get_tensor(name)
        except (OSError, safetensors.SafetensorError):
            raise GateRefused(
                f"not promoted: {folder / file}: cannot be read; it was cut short or damaged."
            ) from None


def _says_the_same(folder: Path, artefact: Artefact, known: Fingerprint) -> Proof:
    """The proof of a model without a base: it reads the fixed texts as it did, and says what it
    said of them."""
    from residency.models.crf import CrfPredictor

    now = CrfPredictor.from_artefact(folder).record()
    engine = f"{ENGINE} {now.dtype}"
    gap, most = fingerprint.furthest(known.values, now.values), known.tolerances.get(engine, 0.0)
    if now.ids != known.ids or not gap <= most:
        raise GateRefused(
            f"not promoted: {folder}: it does not say of the fixed texts what it said at training "
            f"time (largest difference {gap:.3g}, allowed {most:g}); it was changed, or is read by "
            "another version of the program."
        )
    return Proof(engine=engine, furthest=round(gap, 8), tolerance=most, based=False)


def _compared(folder: Path, artefact: Artefact, known: Fingerprint) -> Proof:
    head, kind, base = artefact.head, kind_of(artefact), _base(artefact, folder)
    if fingerprint.rows(kind.reader(artefact, folder)) != known.ids:
        raise GateRefused(
            f"not promoted: {folder}: its tokenizer reads the fixed texts in other tokens than at "
            "training time."
        )
    before = None
    if base is not None:
        model = artefacts.fresh(base, artefact.task(), artefact.output)
        before = kind.probe(model, known.ids, head)
        del model
    model = kind.model(artefact, folder)
    engine = f"{ENGINE} {fingerprint.numbers(model, artefact.base)}"
    gap, most = (
        fingerprint.furthest(known.values, fingerprint.measure(model, known.ids, head)),
        known.tolerances.get(engine),
    )
    if most is None:
        raise GateRefused(f"not promoted: {folder}: no tolerance was recorded for {engine}.")
    change = None if before is None else kind.distance(before, kind.probe(model, known.ids, head))
    if change is not None and change <= SAME:
        raise GateRefused(
            f"not promoted: {folder}: it answers as its base does (difference {change:.2g}); its "
            "adapter has no effect. Train it again."
        )
    if not gap <= most:
        raise GateRefused(
            f"not promoted: {folder}: its log-probabilities are not those of training time "
            f"(largest difference {gap:.3g}, allowed "
            f"{most:g} for {engine}); it was changed, or was trained on another base."
        )
    return Proof(
        engine=engine,
        furthest=round(gap, 8),
        tolerance=most,
        from_base=None if change is None else round(change, 6),
    )


def _base(artefact: Artefact, folder: Path) -> Any:
    """The base on this machine, checked; none where the artefact holds all weights itself and the
    base is not here."""
    whole = isinstance([*artefact.chain, artefact.tuning()][0], Full)
    try:
        return artefacts.same_base(artefact.base, folder)
    except UserError:
        if whole:
            return None
        raise


def record(folder: Path) -> Fingerprint:
    """What an artefact says now, for one that was trained before this was recorded. It proves that
    nothing changes from here on."""
    artefact = artefacts.read(folder)
    if not artefact.tuning().needs_base:
        from residency.models.crf import CrfPredictor

        return CrfPredictor.from_artefact(folder).record()
    with silent():
        found = fingerprint.record(
            kind_of(artefact).model(artefact, folder),
            kind_of(artefact).reader(artefact, folder),
            artefact.base,
            artefact.head,
        )
    if found is None:
        raise UserError(
            f"{folder}: its model cannot be asked the fixed texts, or says what is no number; "
            "train it again."
        )
    return found


def address(folder: Path) -> str:
    """Content address of an artefact: SHA-256 of its ``artefact.json``, which names the hash of
    every other file."""
    return file_digest(folder / artefacts.FILE)
