"""What a model has to say to those who label: what to label next, and which labels are likely wrong."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from residency.core.errors import UserError
from residency.core.progress import Silent, Tracker
from residency.core.types import Note
from residency.corpus.summary import strictest
from residency.models.base import Base, silent
from residency.tasks.card import Card
from residency.tasks.examples import examples
from residency.train.stage import Stage

if TYPE_CHECKING:
    from residency.models.encoder import EncoderPredictor, Marginals

FOLDS = 5


def fitted(base: Base, card: Card, notes: Sequence[Note], stage: Stage, seed: int) -> EncoderPredictor:
    """A model trained on notes, in memory only; the card's labels must be fixed."""
    from residency.models.encoder import EncoderPredictor
    from residency.train.trainer import Job, train

    with tempfile.TemporaryDirectory(prefix="residency-") as folder, silent():
        job = Job(
            stage=stage,
            name="fold",
            base=base,
            card=card,
            train=examples(notes, card),
            dev=[],
            seed=seed,
            profile=strictest(note.profile for note in notes),
            work=Path(folder) / "work",
            out=Path(folder) / "model",
        )
        train(job)
        return EncoderPredictor.from_artefact(job.out)


def crossed(
    base: Base,
    card: Card,
    notes: Sequence[Note],
    stage: Stage,
    seed: int = 0,
    folds: int = FOLDS,
    tracker: Tracker | None = None,
) -> list[Marginals]:
    """What models believe of each note that did not learn from it, nor from another note of its group.

    Raises ``UserError`` where there are fewer groups than folds.
    """
    tracker = tracker or Silent()
    groups = sorted({note.group or note.id for note in notes})
    if len(groups) < folds:
        raise UserError(
            f"folds: {folds} need as many patients or documents, and the notes have {len(groups)}; give fewer folds or more notes."
        )
    random.Random(seed).shuffle(groups)
    fold_of = {group: number % folds for number, group in enumerate(groups)}
    found: dict[int, Marginals] = {}
    tracker.start("cross-validating", folds)
    for fold in range(folds):
        inside = [fold_of[note.group or note.id] == fold for note in notes]
        learned = [note for note, held in zip(notes, inside, strict=True) if not held]
        asked = [number for number, held in enumerate(inside) if held]
        model = fitted(base, card, learned, stage, seed + fold)
        found |= zip(asked, model.marginals(notes[number].text for number in asked), strict=True)
        tracker.update(fold + 1)
    tracker.end(f"{len(notes)} notes, {folds} folds")
    return [found[number] for number in range(len(notes))]
