"""One training stage without a base: a CRF over lexical features, in seconds, the same each
time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from residency.core.energy import EnergyMeter
from residency.core.files import write_json, write_jsonl
from residency.core.types import Calibration, Example, MaskProof, StageResult, Value
from residency.core.units import units
from residency.models import crf
from residency.models.adapters import Method
from residency.models.adapters.crf import Crf
from residency.models.crf import CrfPredictor
from residency.tasks import scoring
from residency.tasks.card import Card
from residency.tasks.families import classifier_of
from residency.train import words_beside
from residency.train.calibrate import calibrate, in_words
from residency.train.device import held, peak_memory
from residency.train.items import Items, check_gold
from residency.train.job import TrainingJob

SAMPLE = 200
"""Rows whose features are counted for an estimate."""


class LexicalEstimate(Value, frozen=True):
    """What learning takes."""

    slots: int
    features: int
    """Of all slots together."""
    memory: int
    """Bytes."""
    seconds: float


def estimate(examples: Sequence[Example], card: Card, method: Method) -> LexicalEstimate:
    """What a stage takes, from the features of its first rows.

    Measured on 500 rows of VietBioNER, NCBI and cMedQANER, one thread: 115 bytes a feature, and an
    iteration of 40 ns a feature and 3.4 ns a slot and pair of tags.
    """
    assert isinstance(method, Crf)
    way, seer = (
        crf.way_of(card),
        crf.Seer(crf.LexicalFeatures(method=method.model_dump(), outputs=())),
    )
    sizes = [len(units(example.input)) for example in examples]
    seen = [way.features(one.input, units(one.input), seer) for one in examples[:SAMPLE]]
    shown, slots = sum(sizes[:SAMPLE]), sum(sizes)
    found = sum(len(each) for row in seen for each in row)
    features = round(found * slots / max(1, shown))
    pairs = len(classifier_of(card).outputs(card)) ** 2
    iteration = 40e-9 * features + 3.4e-9 * slots * pairs
    return LexicalEstimate(
        slots=slots,
        features=features,
        memory=round(held() + 115 * features),
        seconds=method.iterations * iteration,
    )


def train(job: TrainingJob) -> tuple[StageResult, Items]:
    """Train a stage and save its artefact to ``job.out``.

    The stop part only tells how good it is there, and calibrates chances: there is nothing to stop.
    Without one, chances are calibrated on rows that a training before goes without. Raises
    ``UserError`` for rows that cannot be trained on.
    """
    method = job.stage.tuning
    assert isinstance(method, Crf)
    for example in job.train:
        check_gold(example, job.card)
    started = time.perf_counter()
    with EnergyMeter() as energy:
        found = _calibrated(job, method)
        fitted = crf.fit(job.train, job.card, method, job.out)
        if job.dev:
            found = calibrate(job, _files(job, job.out).claims(job.dev), len(job.dev), False)
    seconds = time.perf_counter() - started
    model = crf.save(job.out, job.card, method, job.profile, found)
    best = 0.0
    if job.dev:
        best = scoring.main_metric(job.dev, list(model.predict(job.dev)), job.card) or 0.0
    rounds = len(fitted.losses)
    proof = MaskProof(
        rows=len(job.train),
        tokens=fitted.slots,
        trained=sum(fitted.outputs.values()),
        labels=fitted.outputs,
    )
    result = StageResult(
        name=job.name,
        method=method.kind,
        settings=_settings(method, found),
        parameters=fitted.parameters,
        trainable=fitted.parameters,
        metric=job.card.main_metric,
        best=best,
        best_epoch=float(rounds),
        stopped=(
            f"after the {rounds} iterations that the stage allows"
            if rounds >= method.iterations
            else f"at the optimum, after {rounds} iterations"
        ),
        history=tuple(
            {"step": float(step), "epoch": float(step), "loss": loss / max(1, fitted.slots)}
            for step, loss in enumerate(fitted.losses, start=1)
        ),
        seconds=round(seconds, 2),
        tokens_per_second=round(fitted.slots * rounds / seconds, 1) if seconds else 0.0,
        padding_share=0.0,
        peak_memory_mb=round(peak_memory(), 1),
        device="cpu",
        dtype="float64",
        mask=proof,
        joules=energy.joules,
        heaviest=model.heaviest(),
    )
    write_json(job.out / "stage.json", result)
    write_jsonl(job.out / "metrics.jsonl", result.history)
    return result, Items(items=[], windowed={}, changed=fitted.changed, proof=proof)


def _settings(method: Crf, found: Calibration | None) -> dict[str, str]:
    """For the report."""
    settings = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in method.model_dump(mode="json", exclude={"kind"}).items()
    }
    return settings | ({"calibration": in_words(found)} if found else {})


def _calibrated(job: TrainingJob, method: Crf) -> Calibration | None:
    """The calibration on training rows that a CRF of the others has not seen; ``None`` where there
    is a stop part for it, or too few rows."""
    own, held = words_beside.hold_out(job)
    if own is job:
        return None
    job.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=job.work) as folder:  # it holds words of notes
        started = time.perf_counter()
        crf.fit(own.train, job.card, method, Path(folder))
        found = calibrate(job, _files(job, Path(folder)).claims(held), len(held), True)
    seconds = time.perf_counter() - started
    return found and msgspec.structs.replace(found, seconds=round(seconds, 2))


def _files(job: TrainingJob, folder: Path) -> CrfPredictor:
    return CrfPredictor.of_files(folder, job.card, "crf", "tuned")
