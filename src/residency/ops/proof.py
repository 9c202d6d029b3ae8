"""The proof that a trained model is what it was at the end of training; a promotion needs it.

A server that loads an adapter whose tensors have other names says nothing and answers as the base
does. So a proof does not ask the loader whether all went well: it compares what the loaded model
says with what was recorded at training time, and with the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from residency.core.errors import GateRefused, UserError
from residency.core.files import file_digest, read_json
from residency.core.types import Value
from residency.models import artefact as artefacts
from residency.models import fingerprint, predictors
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
    others: dict[str, float] = {}
    """Other engines and numbers that it may be served in -> largest difference."""


def recorded(folder: Path, artefact: Artefact, beside: Path | None = None) -> Fingerprint:
    """What was recorded of an artefact, ``beside`` it where something was, else in it.

    Raises ``GateRefused`` where nothing was.
    """
    own = folder / fingerprint.FILE if fingerprint.FILE in artefact.files else None
    path = beside if beside is not None and beside.is_file() else own
    if path is None or not path.is_file():
        raise GateRefused(
            f"{folder}: nothing was recorded of it at training time; train it again, or record it "
            "as it is now with residency model "
            "add --record."
        )
    found = read_json(path, Fingerprint)
    known = (fingerprint.OF_TRAINING, fingerprint.SCHEMA)
    if found.schema not in known:
        raise GateRefused(
            f"{path}: schema {found.schema} is not read by this version, which reads "
            f"{known[0]} and {known[1]}."
        )
    return found


def of_training(folder: Path, artefact: Artefact) -> bool:
    """Whether an artefact's own fingerprint is that of the model in training, as earlier versions
    recorded it."""
    own = fingerprint.FILE in artefact.files
    return own and recorded(folder, artefact).schema == fingerprint.OF_TRAINING


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
    now = kind_of(artefact).record(artefact, folder)
    assert now is not None
    engine = f"{ENGINE} {now.dtype}"
    most = known.tolerances.get(engine, 0.0)
    if now.ids != known.ids:
        raise _other_tokens(folder)
    gap = _near(folder, known, known.values, now.values, engine)
    return Proof(engine=engine, furthest=gap, tolerance=most, based=False)


def _compared(folder: Path, artefact: Artefact, known: Fingerprint) -> Proof:
    head, kind, base = artefact.head, kind_of(artefact), _base(artefact, folder)
    if fingerprint.rows(kind.reader(artefact, folder)) != known.ids:
        raise _other_tokens(folder)
    before = None
    if base is not None:
        model = artefacts.fresh(base, artefact.task(), artefact.output)
        before = kind.probe(model, known.ids, head)
        del model
    model = kind.model(artefact, folder)
    engine = f"{ENGINE} {fingerprint.numbers(model, artefact.base)}"
    now = fingerprint.measure(model, known.ids, head)
    change = None if before is None else kind.distance(before, kind.probe(model, known.ids, head))
    if change is not None and change <= SAME:
        raise GateRefused(
            f"not promoted: {folder}: it answers as its base does (difference {change:.2g}); its "
            "adapter has no effect. Train it again."
        )
    gap = _near(folder, known, known.values, now, engine)
    if known.words:
        said = kind.words(artefact, folder)
        gap = max(gap, _near(folder, known, known.words, said, f"{ENGINE} float32"))
    others = {}
    for dtype, values in known.others.items():
        now = fingerprint.measure(fingerprint.in_numbers(model, dtype), known.ids, head)
        name = f"{ENGINE} {dtype}"
        others[name] = _near(folder, known, values, now, name)
    return Proof(
        engine=engine,
        furthest=gap,
        tolerance=known.tolerances[engine],
        from_base=None if change is None else round(change, 6),
        others=others,
    )


def _other_tokens(folder: Path) -> GateRefused:
    return GateRefused(
        f"not promoted: {folder}: its tokenizer reads the fixed texts in other tokens than at "
        "training time."
    )


def _near(
    folder: Path,
    known: Fingerprint,
    values: Sequence[Sequence[float]],
    now: Sequence[Sequence[float]],
    engine: str,
) -> float:
    """How far what is said now is from what was recorded. Raises ``GateRefused`` where that is
    further than allowed; where rounding can be the cause, it says so."""
    if (most := known.tolerances.get(engine)) is None:
        raise GateRefused(f"not promoted: {folder}: no tolerance was recorded for {engine}.")
    gap = fingerprint.furthest(values, now)
    if gap <= most:
        return round(gap, 8)
    if gap > fingerprint.ROUNDING:
        why = "its files, its base or its tokenizer are not those that were recorded; restore them"
    elif known.schema == fingerprint.OF_TRAINING:
        why = (
            "an earlier version recorded the model in training, which rounds to 16 bits on some "
            "processors: record what it says now with residency model add RUN --record"
        )
    else:
        why = (
            "so small a difference can be rounding, by another processor or version of a library: "
            "look with residency eval, then record what it says now with residency model add RUN "
            "--record"
        )
    raise GateRefused(
        f"not promoted: {folder}: its log-probabilities are not those of training time "
        f"(largest difference {gap:.3g}, allowed {most:g} for {engine}); {why}."
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
    """What an artefact says now, for one of which nothing, or the model in training, was recorded.
    It proves that nothing changes from here on."""
    if (found := predictors.record(folder)) is None:
        raise UserError(
            f"{folder}: its model cannot be asked the fixed texts, or says what is no number; "
            "train it again."
        )
    return found


def address(folder: Path) -> str:
    """Content address of an artefact: SHA-256 of its ``artefact.json``, which names the hash of
    every other file."""
    return file_digest(folder / artefacts.FILE)
