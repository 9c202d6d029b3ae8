"""What stands beside an encoder that marks spans: a CRF over words, fitted to the same rows, and
how much it counts."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np

from residency.core.files import write_json
from residency.core.types import Example, Prediction, StageResult
from residency.models import artefact, blend, crf
from residency.models.adapters import Crf
from residency.models.base import NO_BASE, Base
from residency.models.blend import BlendWeight
from residency.models.crf import CrfPredictor
from residency.models.encoder import EncoderPredictor
from residency.tasks.heads import TOKENS, Head
from residency.tasks.scoring import main_metric
from residency.train.job import TrainingJob
from residency.train.stage import Stage

HELD = 0.15
"""Share of the training rows that the weight is chosen on, where there is no stop part."""
FEWEST = 100
"""Training rows below which none are held out, and the CRF counts ``OF_FEW``."""
OF_FEW = 0.7
"""From a few rows words teach more than an encoder learns. With 40 and 80 rows of three corpora,
asked 300 others of their training parts, 0.7 instead of the middle gave F1 0.04 more on the bundled
encoder (12 runs, -0.01 to 0.11) and the same in the mean on e5-small (6 runs, -0.04 to 0.04), where
the most that is lost to the CRF alone falls from 0.05 to 0.005."""
EXTREME = 0.1
"""What a weight far from the middle costs, times the square of the distance. Few rows are held out,
and their metric is nearly flat: on windows of 75 rows of a fold of VietBioNER and of NCBI it was
right to stay in the middle where nothing speaks for an end (mean F1 0.001 higher)."""
WORDS = "words"
"""Folder of the CRF that a weight was chosen with, among a stage's checkpoints."""
WEIGHTS = tuple(round(0.1 * tenth, 1) for tenth in range(10))


def hold_out(job: TrainingJob) -> tuple[TrainingJob, Sequence[Example]]:
    """The stage that finds the weight of the CRF and how chances are calibrated, and the rows on
    which that is done: the stage itself and the stop part; or, where there is none, a stage that
    learns without neighbouring groups of the training part, from a place drawn by the seed. No rows
    where nothing of it is wanted, or the training part is too small.

    Rows that follow each other often come from one document. Held out one by one they flatter the
    encoder, which knows their neighbours: on VietBioNER a weight of 0.4 was chosen so, where 0.7
    was right for other documents (strict F1 0.756 and 0.773).
    """
    if job.dev and (job.lexical or job.calibrates):
        return job, job.dev
    if not goes_without(job) or len(job.train) < FEWEST:
        return job, ()
    sizes = Counter(crf.group_of(example) for example in job.train)
    groups, wanted = list(sizes), HELD * len(job.train)  # in the order of the files
    first = Random(job.seed).randrange(max(1, round((1 - HELD) * len(groups))))
    held: set[str] = set()
    for group in groups[first:]:
        wanted -= sizes[group]
        if wanted < 0:
            break
        held.add(group)
    kept = [example for example in job.train if crf.group_of(example) not in held]
    out = [example for example in job.train if crf.group_of(example) in held]
    return msgspec.structs.replace(job, train=kept, work=job.work / "weight"), out


def goes_without(job: TrainingJob) -> bool:
    """Whether a stage without a stop part trains without some of its rows first."""
    return job.lexical or (job.calibrates and _asks(job.stage, job.base, job.head, job.start))


def _asks(stage: Stage, base: Base, head: Head, start: Path | None = None) -> bool:
    """Whether chances alone are worth a training: they are where a threshold is asked for, or the
    training is that of an encoder; not where a stage before has learned from all rows already."""
    small = base is NO_BASE or (base.architecture == "encoder" and not head.words_beside)
    return start is None and (small or stage.abstain_error is not None)


def trainings(stage: Stage, base: Base, head: Head, rows: int, dev: int) -> float:
    """How often a stage trains on all its rows, reckoned in time: more than once where it holds
    some out first."""
    words = head.words_beside and base.architecture == "encoder" and stage.lexical != "off"
    chances = head.says_chances and stage.calibrate == "auto" and _asks(stage, base, head)
    return 2 - HELD if (words or chances) and not dev and rows >= FEWEST else 1


def choose(
    job: TrainingJob, encoder: Any, held: Sequence[Example], before: StageResult | None = None
) -> BlendWeight:
    """The weight with the best metric on rows that neither model has learned from, the middle one
    of several; the metric of a weight is the mean with its neighbours', since few rows make it
    jump, less ``EXTREME``. ``encoder``: the trained predictor; ``job``: without these rows;
    ``before``: what its training was, where it was for this alone. The CRF stays in the stage's
    folder of checkpoints: where the rows are the stop part, ``save`` takes it."""
    if not held:
        return BlendWeight(weight=OF_FEW)
    folder = job.work / WORDS
    folder.mkdir(parents=True, exist_ok=True)
    crf.fit(job.train, job.card, Crf(), folder)
    words = blend.Blend(CrfPredictor.of_files(folder, job.card, "crf", "words"), 0.5)
    texts = [example.input for example in held]
    read = list(encoder.marginals(texts))
    own = [words.words(text, one.slots) for text, one in zip(texts, read, strict=True)]
    found = []
    for weight in WEIGHTS:
        answers = [
            TOKENS.answer(
                text, one.slots, blend.product(one.log_probabilities, mine, weight), job.card
            )
            for text, one, mine in zip(texts, read, own, strict=True)
        ]
        predictions = [
            Prediction(id=example.id, answer=answer)
            for example, answer in zip(held, answers, strict=True)
        ]
        found.append(main_metric(held, predictions, job.card) or 0.0)
    padded = np.pad(found, 1, mode="edge")
    smooth = np.convolve(padded, np.ones(3) / 3, mode="valid")
    smooth -= EXTREME * (np.array(WEIGHTS) - 0.5) ** 2
    best = np.flatnonzero(smooth > smooth.max() - 1e-9)
    return BlendWeight(
        weight=WEIGHTS[int(best[len(best) // 2])],
        rows=len(held),
        seconds=before.seconds if before else 0.0,
        joules=before.joules if before else None,
        metric=job.card.main_metric,
        scores={f"{weight:g}": round(one, 4) for weight, one in zip(WEIGHTS, found, strict=True)},
    )


def beside(job: TrainingJob, encoder: Any, chosen: BlendWeight) -> EncoderPredictor:
    """A trained encoder with the CRF that its weight was chosen with."""
    words = CrfPredictor.of_files(job.work / WORDS, job.card, "crf", "words")
    mixed = blend.Blend(words, chosen.weight)
    return EncoderPredictor(encoder.model, encoder.tokeniser, job.card, encoder.info, mixed)


def save(job: TrainingJob, chosen: BlendWeight) -> None:
    """Put the CRF of all rows of ``job`` into the artefact that stands at ``job.out``; nothing
    where it has no weight. It is fitted here, unless ``choose`` has fitted it to the same rows."""
    if not chosen.weight:
        return
    if chosen.rows and job.dev:  # chosen on the stop part, by a CRF of all training rows
        shutil.copytree(job.work / WORDS, job.out, dirs_exist_ok=True)
    else:
        crf.fit(job.train, job.card, Crf(), job.out)
    write_json(job.out / blend.FILE, chosen)
    artefact.seal(job.out, artefact.read(job.out))


def in_words(chosen: BlendWeight) -> str:
    """For the report."""
    if not chosen.rows:
        return f"a CRF over words beside, weight {chosen.weight:g}"
    return (
        f"a CRF over words beside, weight {chosen.weight:g} by {chosen.metric} on {chosen.rows} "
        "rows held out"
        + (f" in a training before ({chosen.seconds:.0f} s)" if chosen.seconds else "")
    )
