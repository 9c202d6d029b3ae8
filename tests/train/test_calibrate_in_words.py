"""How sure a model that writes is: of labels that it chooses, and of answers in its own words."""

from __future__ import annotations

from math import exp, log
from pathlib import Path
from random import Random

import msgspec
import pytest

from residency.core.types import Calibration, Example, Labels, Text
from residency.evals.measure import score
from residency.metrics.calibration import chances
from residency.models import artefact
from residency.models.adapters import Full
from residency.models.base import Base, BaseModelSettings, resolve
from residency.models.causal import CausalPredictor
from residency.models.generation import Generation, TokenLimits
from residency.models.predictors import trained
from residency.tasks.card import Card, Label, load_card
from residency.tasks.families import of
from residency.train.job import TrainingJob
from residency.train.stage import Stage
from residency.train.trainer import train

CHOOSES = Card(name="c", family="labels", labels=(Label(name="flu"), Label(name="gout")))
CONSULTS = load_card("consultation")
SIGNS = {"flu": "cough", "gout": "toe"}


@pytest.fixture(scope="module")
def base() -> Base:
    return resolve(BaseModelSettings(id="bundled:tiny-lm"))


def rows(count: int, seed: int, card: Card) -> list[Example]:
    """Rows of which three in ten say something else than their gold."""
    random, made = Random(seed), []
    for number in range(count):
        label = random.choice(["flu", "gout"])
        told = label if random.random() < 0.7 else random.choice(["flu", "gout"])
        text = f"{SIGNS[told]}, bed {random.randrange(90)}"
        gold = Labels(labels=(label,)) if card is CHOOSES else Text(text=label)
        made.append(
            Example(id=f"{seed}.{number}", task="t", input=text, gold=gold, group=f"{number // 2}")
        )
    return made


def test_the_chance_of_a_written_answer_is_made_of_the_likelihood_of_its_tokens(base: Base) -> None:
    writer = CausalPredictor.untuned(base, CONSULTS, TokenLimits(), Generation(max_tokens=6))
    asked = rows(4, 0, CONSULTS)
    plain = list(writer.predict(asked))
    assert {one.sure for one in plain} == {one.likelihood for one in plain} == {None}
    found = Calibration(temperature=2.0, rows=99, shift=-1.0)
    writer.info = msgspec.structs.replace(writer.info, calibration=found)
    said = list(writer.predict(asked))
    assert [one.text for one in said] == [one.text for one in plain]
    again = [
        msgspec.structs.replace(row, gold=Text(text=one.text))
        for row, one in zip(asked, said, strict=True)
        if one.answer is not None
    ]
    assert len(again) >= 2
    losses = list(writer.gold_losses(again))
    kept = [one for one in said if one.answer is not None]
    for one, (loss, count) in zip(kept, losses, strict=True):
        assert one.likelihood is not None
        assert one.likelihood == pytest.approx(exp(-loss / count), abs=1e-5)
        odds = (log(one.likelihood / (1 - one.likelihood)) - 1) / 2
        assert one.sure == pytest.approx(1 / (1 + exp(-odds)), abs=1e-5)


def test_claims_of_a_chosen_label_are_the_chances_that_are_told(base: Base) -> None:
    chooser = CausalPredictor.untuned(base, CHOOSES, TokenLimits(), Generation(max_tokens=6))
    asked = rows(6, 1, CHOOSES)
    told = [one.answer.scores[0] for one in chooser.predict(asked)]  # type: ignore[union-attr]
    assert chances(list(chooser.claims(asked))).tolist() == pytest.approx(told, abs=1e-5)
    chooser.info = msgspec.structs.replace(
        chooser.info, calibration=Calibration(temperature=2.0, rows=9)
    )
    said = list(chooser.predict(asked))
    expected = chances(list(chooser.claims(asked)), 2.0).tolist()
    assert [one.answer.scores[0] for one in said] == pytest.approx(expected, abs=1e-5)  # type: ignore[union-attr]
    assert [one.uncalibrated.scores[0] for one in said] == pytest.approx(told, abs=1e-5)  # type: ignore[union-attr]


@pytest.mark.training
@pytest.mark.parametrize("card", [CHOOSES, CONSULTS], ids=["chosen", "written"])
def test_a_model_that_writes_is_calibrated_on_the_stop_part_and_the_report_says_both(
    card: Card, base: Base, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    job = TrainingJob(
        stage=Stage(method=Full(), steps=60, batch=16, learning_rate=1e-3),
        name="1-full",
        base=base,
        card=card,
        train=rows(160, 0, card),
        dev=rows(120, 1, card),
        seed=0,
        profile="synthetic",
        work=tmp_path / "work",
        out=tmp_path / "out",
        output="text",
        generate=Generation(max_tokens=6),
    )
    result, _ = train(job)
    found = artefact.read(tmp_path / "out").calibration
    assert found is not None and found.rows == 120 and not found.held_out
    assert (found.shift != 0) == (card is CONSULTS) and "calibration" in result.settings
    model, test = trained(tmp_path / "out"), rows(120, 2, card)
    said = list(model.predict(test))
    right = sum(of(card).agrees(a.gold, b.answer, card) for a, b in zip(test, said, strict=True))
    sure = (
        [one.sure or 0.0 for one in said]
        if card is CONSULTS
        else [one.answer.scores[0] for one in said]  # type: ignore[union-attr]
    )
    assert abs(sum(sure) / 120 - right / 120) < 0.15  # of 120 rows, two standard errors are 0.08
    report = score(test, said, card, model.info)
    assert report.calibration_error is not None and report.uncalibrated_error is not None
    assert report.calibration and report.calibration_error.n == 120
