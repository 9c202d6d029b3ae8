"""How sure a model says it is after training: measured on rows that it has not learned from, kept
with the model, and without any other effect."""

from __future__ import annotations

from math import log
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from residency.core.errors import UserError
from residency.core.part import parse
from residency.core.types import Calibration, Example, Labels, Prediction, Span, Spans
from residency.evals.measure import score
from residency.models import artefact
from residency.models.adapters import Crf, Full
from residency.models.base import NO_BASE, BaseModelSettings, resolve
from residency.models.predictors import trained
from residency.tasks.card import Card, Label
from residency.tasks.families import of
from residency.train import lexical
from residency.train.job import TrainingJob
from residency.train.stage import Stage
from residency.train.words_beside import hold_out, trainings

CHOOSES = Card(name="c", family="labels", labels=tuple(Label(name=n) for n in "xyz"))
SEVERAL = CHOOSES.model_copy(update={"multiple": True})
MARKS = Card(name="s", family="spans", labels=(Label(name="drug"), Label(name="sign")))
CUES = {"x": ("alpha", "delta"), "y": ("beta", "epsilon"), "z": ("gamma", "zeta")}


def rows(count: int, card: Card, seed: int = 0) -> list[Example]:
    """Rows of three to a patient, a third of which say something else than their gold."""
    random, made = Random(seed), []
    for number in range(count):
        label = random.choice("xyz")
        said = label if random.random() < 0.65 else random.choice("xyz")
        cue = random.choice(CUES[said])
        text = f"seen {cue} today, ward w{random.randrange(120)}"  # what is learned by heart
        gold: Any = Labels(labels=(label,))
        if card.family == "spans":
            start = text.index(cue)
            name = "drug" if label == "x" else "sign"
            span = Span(start=start, end=start + len(cue), label=name, quote=cue)
            gold = Spans(spans=(span,))
        group = f"{seed}-{number // 3}"
        made.append(Example(id=f"{seed}.{number}", task="t", input=text, gold=gold, group=group))
    return made


def job(
    folder: Path, card: Card, learned: list[Example], dev: Any = (), **stage: Any
) -> TrainingJob:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    return TrainingJob(
        stage=Stage(method=Crf(c1=0.0, c2=1e-3), **stage),
        name="1-crf",
        base=NO_BASE,
        card=card,
        train=learned,
        dev=dev,
        seed=1,
        profile="synthetic",
        work=folder / "work",
        out=folder / "out",
    )


@pytest.mark.training
@pytest.mark.parametrize("stop", [True, False], ids=["stop part", "held out"])
@pytest.mark.parametrize("card", [CHOOSES, SEVERAL, MARKS], ids=["one", "several", "spans"])
def test_chances_come_nearer_to_what_is_right_and_answers_stay_the_same(
    card: Card, stop: bool, tmp_path: Path
) -> None:
    learned, dev = rows(480, card), rows(600, card, seed=1) if stop else []
    result, _ = lexical.train(job(tmp_path, card, learned, dev))
    found = artefact.read(tmp_path / "out").calibration
    assert found is not None and found.temperature != 1
    assert found.held_out is not stop and str(found.rows) in result.settings["calibration"]
    assert found.rows == 600 if stop else 66 <= found.rows <= 72
    assert found.threshold is None and found.most_error is None
    model, test = trained(tmp_path / "out"), rows(900, card, seed=2)
    said = list(model.predict(test))
    before = [one.uncalibrated for one in said]
    model.info = msgspec.structs.replace(model.info, calibration=None)
    assert [one.answer for one in model.predict(test)] == before
    assert [bare(one.answer) for one in said] == [bare(one) for one in before]
    if stop and card is not MARKS:  # whose spans are as sure as they are right from the start
        raw = [msgspec.structs.replace(one, answer=one.uncalibrated) for one in said]
        assert log_loss(card, test, said) < log_loss(card, test, raw)
    report = score(test, said, card, msgspec.structs.replace(model.info, calibration=found))
    assert report.calibration_error is not None and report.uncalibrated_error is not None
    assert report.calibration_error.value != report.uncalibrated_error.value
    assert report.calibration_error.groups == 300 and report.abstention == ()


def log_loss(card: Card, examples: list[Example], said: list[Prediction]) -> float:
    """The mean of -log p of what came true, of every chance that is told."""
    pairs = zip(examples, said, strict=True)
    told = [each for row, one in pairs for each in of(card).sure(row, one.answer, card)]
    return -sum(log(max(p if right else 1 - p, 1e-6)) for p, right, _ in told) / len(told)


def bare(answer: Any) -> object:
    """An answer without how sure it is."""
    if isinstance(answer, Labels):
        return answer.labels
    return [(one.start, one.end, one.label) for one in answer.spans]


@pytest.mark.training
def test_a_threshold_for_a_stated_error_is_kept_with_the_model_and_measured_on_the_test_part(
    tmp_path: Path,
) -> None:
    dev, test = rows(600, MARKS, seed=1), rows(600, MARKS, seed=2)
    lexical.train(job(tmp_path, MARKS, rows(480, MARKS), dev, abstain_error="11%"))
    found = artefact.read(tmp_path / "out").calibration
    assert found is not None and found.threshold is not None and 0 < found.threshold < 1
    model = trained(tmp_path / "out")
    said = list(model.predict(test))
    kept = [
        bare(one.answer) == bare(row.gold)
        for one, row in zip(said, test, strict=True)
        if one.answer.spans[0].score >= found.threshold  # type: ignore[union-attr,operator]
    ]
    assert 50 < len(kept) < 600 and all(len(one.answer.spans) == 1 for one in said)  # type: ignore[union-attr]
    coverage, error = score(test, said, MARKS, model.info).abstention
    assert (coverage.metric, error.metric) == ("coverage", "error")
    assert coverage.value == pytest.approx(len(kept) / 600)
    assert error.value == pytest.approx(1 - sum(kept) / len(kept)) and error.n == len(kept)
    for one in (coverage, error):
        assert one.low is not None and 0 < one.low < (one.value or 0) < (one.high or 0) < 1


@pytest.mark.training
def test_where_no_confidence_is_high_enough_the_model_abstains_always(tmp_path: Path) -> None:
    dev = rows(60, CHOOSES, seed=1)
    lexical.train(job(tmp_path, CHOOSES, rows(480, CHOOSES), dev, abstain_error="0.1%"))
    found = artefact.read(tmp_path / "out").calibration
    assert found is not None and found.threshold is None
    assert found.abstains_below is not None and found.abstains_below > 1
    test = rows(30, CHOOSES, seed=2)
    model = trained(tmp_path / "out")
    coverage, error = score(test, list(model.predict(test)), CHOOSES, model.info).abstention
    assert coverage.value == 0 and error.value is None and error.n == 0


@pytest.mark.training
def test_chances_stay_as_they_are_where_that_is_asked_or_rows_are_few(tmp_path: Path) -> None:
    lexical.train(job(tmp_path / "off", CHOOSES, rows(480, CHOOSES), calibrate="off"))
    lexical.train(job(tmp_path / "few", CHOOSES, rows(90, CHOOSES)))
    for folder in ("off", "few"):
        assert artefact.read(tmp_path / folder / "out").calibration is None


def test_rows_are_held_out_only_where_no_stop_part_and_no_earlier_stage_knows_them() -> None:
    encoder = resolve(BaseModelSettings(id="bundled:tiny-encoder"))

    def held(card: Card, start: Path | None = None, **stage: Any) -> int:
        asked = job(Path("/tmp"), card, rows(200, card))
        how = Stage(method=Full(), **stage)
        return len(
            hold_out(msgspec.structs.replace(asked, stage=how, base=encoder, start=start))[1]
        )

    assert 25 <= held(CHOOSES) <= 30
    assert held(CHOOSES, calibrate="off") == held(CHOOSES, Path("earlier")) == 0
    assert held(MARKS, lexical="off") == 0 < held(MARKS, lexical="off", abstain_error=0.1)
    for card, stage, times in (
        (CHOOSES, Stage(method=Full()), 1.85),
        (CHOOSES, Stage(method=Full(), calibrate="off"), 1),
        (MARKS, Stage(method=Full(), lexical="off"), 1),
        (MARKS, Stage(method=Full()), 1.85),
    ):
        head = msgspec.structs.replace(job(Path("/tmp"), card, []), base=encoder).head
        assert trainings(stage, encoder, head, 200, 0) == pytest.approx(times)
        assert trainings(stage, encoder, head, 200, 50) == 1


def test_a_threshold_needs_calibrated_chances() -> None:
    with pytest.raises(UserError, match="abstain_error needs calibrated chances"):
        parse(Stage, {"calibrate": "off", "abstain_error": 0.1}, "stages[0]")


def test_a_stage_that_asks_nothing_of_it_has_the_settings_that_it_had_before() -> None:
    assert not {"calibrate", "abstain_error"} & Stage(method=Full()).model_dump().keys()
    kept = msgspec.json.encode(Calibration(temperature=1.5, rows=9))
    assert msgspec.json.decode(kept) == {"temperature": 1.5, "rows": 9}
