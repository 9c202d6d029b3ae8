"""A CRF over lexical features: what it sees, what it learns and says, and that it stays the same."""

from __future__ import annotations

import math
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from residency.core.errors import GateRefused, UserError
from residency.core.types import Example, Labels, Predictor, Span, Spans
from residency.core.units import units
from residency.models import crf, erased, lexical
from residency.models.adapters.crf import Crf
from residency.models.artefact import read, sealed_again
from residency.models.crf import CrfPredictor
from residency.models.erased import Erasure
from residency.models.lexical import Terms, of_slots, of_text
from residency.models.predictors import trained
from residency.ops.proof import prove
from residency.tasks.card import Card, Label

pytestmark = pytest.mark.training

SPANS = Card(name="s", family="spans", labels=(Label(name="drug"), Label(name="sign")))
ONE = Card(name="o", family="labels", labels=tuple(Label(name=n) for n in ("now", "past", "not")))
SEVERAL = ONE.model_copy(update={"multiple": True})


def marked(number: int, text: str, **spans: str) -> Example:
    """An example whose spans are the first occurrences of words."""
    found = tuple(
        Span(start=text.index(quote), end=text.index(quote) + len(quote), label=label, quote=quote)
        for label, quote in spans.items()
    )
    return Example(id=str(number), task="s", input=text, gold=Spans(spans=found), group=str(number))


DRUGS = ("metformin", "salbutamol", "amoxicillin", "阿莫西林")
SIGNS = ("ho khan", "sốt cao", "fever", "咳嗽")
ROWS = [
    marked(number, f"Bệnh nhân {sign}, dùng {drug} mỗi ngày.", drug=drug, sign=sign)
    for number, (drug, sign) in enumerate(product(DRUGS, SIGNS))
]
NOTES = [
    Example(id=str(n), task="o", input=text, gold=Labels(labels=labels), group=str(n))
    for n, (text, labels) in enumerate(
        [
            ("hút thuốc lá mỗi ngày", ("now",)),
            ("smokes ten a day", ("now",)),
            ("đã bỏ thuốc lá", ("past",)),
            ("stopped smoking in 2010", ("past",)),
            ("không hút thuốc", ("not",)),
            ("never smoked", ("not",)),
        ]
        * 4
    )
]


def fitted(folder: Path, examples: list[Example], card: Card, **method: Any) -> CrfPredictor:
    folder.mkdir(parents=True, exist_ok=True)
    crf.fit(examples, card, Crf(**method), folder)
    return CrfPredictor.of_files(folder, card, "crf", "tuned")


# What is seen


def test_a_vietnamese_word_is_seen_with_and_without_its_marks_and_in_both_normal_forms() -> None:
    (composed,) = of_slots("phổi", [(0, 4)])
    text = "pho\u0302\u0309i"
    (apart,) = of_slots(text, units(text))
    assert composed == apart
    assert {"w=phổi", "base=phoi", "prefix=ph", "suffix=ổi", "shape=xx"} <= set(composed)


def test_chinese_characters_are_a_slot_each_seen_in_twos_and_threes() -> None:
    seen = of_slots("肺癌手术", units("肺癌手术"))
    assert len(seen) == 4
    assert {"w[-1,0]=肺|癌", "w[0,1]=癌|手", "w[-1,+1]=肺癌手"} <= set(seen[1])
    assert not any(one.startswith(("prefix=", "ngram=")) for one in seen[1])


def test_the_ends_of_lines_and_sentences_are_seen() -> None:
    text = "Chẩn đoán: hen. Dùng\nthuốc"
    seen = dict(zip((text[a:b] for a, b in units(text)), of_slots(text, units(text)), strict=True))
    assert "line begins" in seen["Chẩn"] and "sentence begins" in seen["Dùng"]
    assert "line ends" in seen["Dùng"] and {"line=1", "line begins"} <= set(seen["thuốc"])


def test_a_term_counts_only_where_it_stands_in_another_group_too() -> None:
    terms = Terms({"ho khan": {"sign": 1}, "sốt cao": {"sign": 2}})
    words = ["ho", "khan", "và", "sốt", "cao"]
    assert terms.find(words) == [(0, 2, "sign"), (3, 5, "sign")]
    own = {("ho khan", "sign"), ("sốt cao", "sign")}
    assert terms.find(words, own) == [(3, 5, "sign")]


def test_of_overlapping_terms_the_longest_is_found() -> None:
    terms = Terms({"lao": {"a": 9}, "lao phổi": {"b": 1}, "phổi nặng": {"c": 1}})
    assert terms.find(["lao", "phổi", "nặng"]) == [(0, 2, "b")]


def test_a_group_of_features_is_left_out_where_the_method_does_not_name_it() -> None:
    seen = of_slots("ho khan", units("ho khan"), ["words"])
    assert seen == [["w=ho"], ["w=khan"]]
    assert of_text("ho ho", units("ho ho"), ["words"]) == ["w=ho"]


# What is learned


def test_equal_examples_give_equal_files_byte_for_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fitted(tmp_path / name, ROWS, SPANS)
    for file in (crf.WEIGHTS, crf.FEATURES):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_spans_are_found_in_sentences_that_were_not_learned(tmp_path: Path) -> None:
    model = fitted(tmp_path, ROWS[:-1], SPANS)
    assert isinstance(model, Predictor)
    (said,) = model.predict([ROWS[-1]])
    assert isinstance(said.answer, Spans) and isinstance(ROWS[-1].gold, Spans)
    bare = {(one.start, one.end, one.label) for one in said.answer.spans}
    assert bare == {(one.start, one.end, one.label) for one in ROWS[-1].gold.spans}
    assert all(one.score and 0.5 < one.score <= 1 for one in said.answer.spans)


def test_marginals_are_those_of_the_enumerated_chain(tmp_path: Path) -> None:
    """By hand: p of every sequence from the weights in the model's own listing, summed."""
    model = fitted(tmp_path, ROWS, SPANS, features=["words"])
    text = "dùng ho metformin"
    info = model.tagger.info()
    tags = model.tagger.labels()
    seen = of_slots(text, units(text), ["words"])
    scores = {
        path: math.exp(
            sum(
                sum(info.state_features.get((one, tag), 0.0) for one in features)
                for features, tag in zip(seen, path, strict=True)
            )
            + sum(info.transitions.get(pair, 0.0) for pair in pairwise(path))
        )
        for path in product(tags, repeat=3)
    }
    total = sum(scores.values())
    found = np.exp(model.log_marginals(text))
    for slot, (column, tag) in product(range(3), enumerate(model.features.outputs)):
        wanted = sum(p for path, p in scores.items() if path[slot] == tag) / total
        assert found[slot, column] == pytest.approx(wanted, abs=1e-4)


def test_marginals_are_given_for_the_slots_of_another_model(tmp_path: Path) -> None:
    model = fitted(tmp_path, ROWS, SPANS)
    text = "Bệnh nhân ho khan"
    joined = [(0, 9), (10, 12), (13, 17)]
    assert model.log_marginals(text, joined).shape == (3, 5)
    (every,) = model.marginals([text])
    assert every.slots == units(text) and every.log_probabilities.shape == (4, 5)


@pytest.mark.parametrize("card", [ONE, SEVERAL], ids=["one label", "several labels"])
def test_labels_have_chances_for_all(card: Card, tmp_path: Path) -> None:
    model = fitted(tmp_path, NOTES, card, c1=0.0, c2=0.1)
    said = [one.answer for one in model.predict(NOTES[:6])]
    assert [one.labels for one in said if isinstance(one, Labels)] == [
        one.gold.labels for one in NOTES[:6] if isinstance(one.gold, Labels)
    ]
    chances = [list(one.chances.values()) for one in said if isinstance(one, Labels)]
    assert all(len(each) == 3 for each in chances)
    if not card.multiple:
        assert [sum(each) for each in chances] == pytest.approx([1.0] * 6, abs=1e-4)


@pytest.mark.parametrize("text", ["", "   \n", "\ud800 \x00 ?", "ho " * 5000])
def test_any_text_is_answered(text: str, tmp_path: Path) -> None:
    model = fitted(tmp_path / "spans", ROWS, SPANS)
    assert isinstance(model.classify([text])[0][0], Spans)
    assert len(fitted(tmp_path / "labels", NOTES, ONE).classify([text])[0][0].labels) == 1  # type: ignore[union-attr]


def test_a_list_of_terms_is_a_feature_and_travels_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "drugs.txt").write_text("Metformin\n阿莫西林\n\n", "utf-8")
    model = fitted(tmp_path / "m", ROWS, SPANS, dictionaries=[str(tmp_path / "drugs.txt")])
    (tmp_path / "drugs.txt").unlink()
    assert model.features.lists == {"drugs": ("metformin", "阿 莫 西 林")}
    seen = of_slots("METFORMIN", [(0, 9)], terms=model.seer.terms)
    assert "list drugs=term" in seen[0]
    with pytest.raises(UserError, match=r"method.dictionaries: .*cannot be read"):
        fitted(tmp_path / "n", ROWS, SPANS, dictionaries=[str(tmp_path / "drugs.txt")])


def test_nothing_to_learn_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to train on"):
        crf.fit([], SPANS, Crf(), tmp_path)


def test_written_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its answers are written"):
        crf.fit(ROWS, Card(name="w", family="terms"), Crf(), tmp_path)


# What is kept


def test_an_artefact_is_read_as_others_are_and_proved(tmp_path: Path) -> None:
    fitted(tmp_path, ROWS, SPANS)
    crf.save(tmp_path, SPANS, Crf(), "pseudonymised")
    found = read(tmp_path)
    assert (found.base.id, found.kinds, found.profile) == ("none", "crf", "pseudonymised")
    assert set(found.weights) == {crf.WEIGHTS, crf.FEATURES} <= found.files.keys()
    assert isinstance(trained(tmp_path), CrfPredictor)
    proof = prove(tmp_path)
    assert proof.furthest == pytest.approx(0, abs=1e-6) and proof.from_base is None


def test_a_changed_model_is_not_promoted(tmp_path: Path) -> None:
    fitted(tmp_path, ROWS, SPANS)
    crf.save(tmp_path, SPANS, Crf(), "public")
    fitted(tmp_path / "other", ROWS[:4], SPANS)
    (tmp_path / crf.WEIGHTS).write_bytes((tmp_path / "other" / crf.WEIGHTS).read_bytes())
    with pytest.raises(GateRefused, match="was changed after training"):
        prove(tmp_path)


def test_terms_of_an_erased_patient_leave_the_dictionary_and_the_model_is_sealed(
    tmp_path: Path,
) -> None:
    fitted(tmp_path, ROWS, SPANS)
    crf.save(tmp_path, SPANS, Crf(), "public")
    erased.mark(tmp_path, Erasure(at="2026-01-01T00:00:00", rows=1, patient="a"))
    assert "metformin" in (tmp_path / crf.FEATURES).read_text("utf-8")
    with sealed_again(tmp_path):
        crf.forget(tmp_path, {"Metformin", "not learned"}, [], [])
    kept = (tmp_path / crf.FEATURES).read_text("utf-8")
    assert "metformin" not in kept and "salbutamol" in kept
    erased.mark(tmp_path, Erasure(at="2026-01-02T00:00:00", rows=1, patient="b"))
    assert read(tmp_path).files, "the seal holds, and marks are no part of it"


@pytest.mark.parametrize(
    ("rows", "card", "word"), [(ROWS, SPANS, "metformin"), (NOTES, SEVERAL, "smokes")]
)
def test_words_that_only_an_erased_patient_has_leave_the_weights_and_others_answers_stay(
    tmp_path: Path, rows: list[Example], card: Card, word: str
) -> None:
    model = fitted(tmp_path, rows, card, features=("words", "neighbours"), c1=0.01)
    own = [row.input for row in rows if word in row.input]
    others = [row.input for row in rows if word not in row.input]
    before = (tmp_path / crf.WEIGHTS).read_bytes()
    assert f"w={word}".encode() in before
    said = [model.log_marginals(text).tolist() for text in others]
    crf.forget(tmp_path, (), own, others)
    after = (tmp_path / crf.WEIGHTS).read_bytes()
    assert len(after) == len(before)
    assert word.encode() not in after
    again = crf.CrfPredictor.of_files(tmp_path, card, "crf", "tuned")
    assert [again.log_marginals(text).tolist() for text in others] == said
    heaviest = again.heaviest(10**6).values()
    assert any(heaviest) and all(name.strip("-") for each in heaviest for name, _ in each)


def test_the_heaviest_features_name_what_speaks_for_a_tag(tmp_path: Path) -> None:
    heaviest = fitted(tmp_path, ROWS, SPANS).heaviest(most=40)
    assert any("w[-1]=dùng" in name for name, _ in heaviest["B-drug"])
    assert all(weight > 0 for each in heaviest.values() for _, weight in each)


def test_shapes_say_case_digits_and_han_and_cut_runs_short() -> None:
    assert [lexical.shape(one) for one in ("Aspirin", "500mg", "病", "CT")] == [
        "Xxx", "99xx", "H", "XX",
    ]  # fmt: skip
