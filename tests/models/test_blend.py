"""Words and an encoder together: the product of their probabilities, and how it is weighed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from residency.core.files import read_json
from residency.core.types import Example, Span, Spans
from residency.models import artefact, crf
from residency.models.adapters import Crf, Full
from residency.models.base import BaseModelSettings, resolve
from residency.models.blend import FILE, BlendWeight, product
from residency.models.encoder import EncoderPredictor
from residency.models.predictors import trained
from residency.tasks.card import Card, Label
from residency.tasks.scoring import main_metric
from residency.train.job import TrainingJob
from residency.train.stage import Stage
from residency.train.trainer import train
from residency.train.words_beside import hold_out

CARD = Card(name="drugs", family="spans", labels=(Label(name="drug"),))


def example(number: int) -> Example:
    """A drug behind a word that announces it, in a sentence of its own patient."""
    drug = f"{'abcdefgh'[number % 8]}{'iklmnopr'[number // 8 % 8]}mycin"
    text = f"patient {number} takes {drug} daily"
    start = text.index(drug)
    span = Span(start=start, end=start + len(drug), label="drug", quote=drug)
    return Example(
        id=str(number), task="drugs", input=text, gold=Spans(spans=(span,)), group=f"p{number // 2}"
    )


def job(folder: Path, rows: list[Example], **settings: Any) -> TrainingJob:
    stage = Stage(**({"method": Full(), "steps": 1, "stop": None, "precision": "fp32"} | settings))
    return TrainingJob(
        stage=stage,
        name="1-full",
        base=resolve(BaseModelSettings(id="bundled:tiny-encoder")),
        card=CARD,
        train=rows,
        dev=[],
        seed=1,
        profile="synthetic",
        work=folder / "work",
        out=folder / "out",
    )


def test_the_product_is_that_of_the_probabilities_weighed_and_made_to_add_up() -> None:
    encoder, words = np.log([[0.7, 0.2, 0.1]]), np.log([[0.1, 0.8, 0.1]])
    found = np.exp(product(encoder.astype("f4"), words.astype("f4"), 0.5))[0]
    raw = [math.sqrt(0.7 * 0.1), math.sqrt(0.2 * 0.8), math.sqrt(0.1 * 0.1)]
    assert found == pytest.approx([one / sum(raw) for one in raw], rel=1e-5)


def test_neither_forbids_a_tag_alone() -> None:
    sure, open_ = np.log([[1.0, 1e-30]]), np.log([[0.001, 0.999]])
    assert product(open_.astype("f4"), sure.astype("f4"), 0.2)[0].argmax() == 1


def test_the_weight_is_chosen_on_whole_patients_that_the_encoder_does_not_learn_from() -> None:
    rows = [example(number) for number in range(200)]
    whole = job(Path(), rows)
    own, held = hold_out(whole)
    assert 25 <= len(held) <= 30 and len(own.train) + len(held) == 200
    assert not {one.group for one in own.train} & {one.group for one in held}
    at = [int(one.id) for one in held]
    assert at == list(range(at[0], at[0] + len(at))), "neighbours, as documents lie in files"
    assert hold_out(whole) == (own, held), "the same rows for the same seed"
    few, none = hold_out(job(Path(), rows[:99]))
    assert not none and len(few.train) == 99
    alone, none = hold_out(job(Path(), rows, lexical="off"))
    assert not none and len(alone.train) == 200


@pytest.mark.training
def test_words_answer_where_the_encoder_has_not_begun_to_learn(tmp_path: Path) -> None:
    rows = [example(number) for number in range(120)]
    result, _ = train(job(tmp_path, rows))
    out = tmp_path / "out"
    weight = read_json(out / FILE, BlendWeight)
    assert weight.rows == 18 and weight.weight >= 0.5
    assert str(weight.rows) in result.settings["lexical"] and weight.seconds > 0
    assert result.mask.rows == 120, "in the end it learns from all of them"
    unseen = [example(number) for number in range(200, 240)]
    both = trained(out)
    assert (main_metric(unseen, list(both.predict(unseen)), CARD) or 0) > 0.9
    alone = EncoderPredictor(both.model, both.tokeniser, CARD, both.info)
    assert (main_metric(unseen, list(alone.predict(unseen)), CARD) or 0) < 0.5
    for found in both.marginals([unseen[0].input]):
        np.testing.assert_allclose(np.exp(found.log_probabilities).sum(-1), 1, atol=1e-5)


@pytest.mark.training
def test_what_stands_beside_is_sealed_with_the_artefact(tmp_path: Path) -> None:
    train(job(tmp_path, [example(number) for number in range(20)]))
    files = artefact.read(tmp_path / "out").files
    assert {FILE, "crf.crfsuite", "crf.json"} <= set(files)


@pytest.mark.training
def test_words_are_fitted_once_where_the_weight_is_chosen_on_the_stop_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [example(number) for number in range(30)]
    given = msgspec.structs.replace(job(tmp_path, rows[:24]), dev=rows[24:])
    fit, fitted = crf.fit, []
    monkeypatch.setattr(crf, "fit", lambda *how: fitted.append(how[0]) or fit(*how))
    train(given)
    assert fitted == [rows[:24]]
    assert read_json(tmp_path / "out" / FILE, BlendWeight).rows == 6
    fit(rows[:24], CARD, Crf(), tmp_path)
    for name in (crf.WEIGHTS, crf.FEATURES):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()
