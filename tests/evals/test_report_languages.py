"""The report in the reader's language: no text is missing, none is left in English, and what it
counts adds up."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_cases import VERDICTS, facts, labels_facts
from report_texts import texts

from residency.core.errors import UserError
from residency.core.types import ErrorItem, RunFacts
from residency.corpus.ledger import ROWS, LedgerEntry
from residency.corpus.load import load
from residency.corpus.summary import summary, with_entries
from residency.evals import plots, verdicts
from residency.evals.examples_view import errors
from residency.evals.report import render
from residency.evals.report_view import ledger_view
from residency.evals.words import HOLE, ReportSettings, languages, words_of
from residency.recipe import Recipe

OTHERS = [code for code in languages() if code != "en"]
FUNCTION_WORDS = [
    "the",
    "of",
    "and",
    "is",
    "are",
    "was",
    "were",
    "with",
    "from",
    "for",
    "not",
    "this",
    "that",
    "which",
    "what",
    "by",
    "it",
    "its",
    "their",
    "than",
    "as",
    "into",
    "where",
    "when",
    "only",
    "each",
    "every",
    "how",
    "has",
    "have",
    "had",
    "been",
    "be",
]
"""English words that neither Vietnamese nor Chinese has (``to``, ``in``, ``no`` and ``an`` are
Vietnamese words)."""
VOID = {"meta", "br", "hr", "img", "link", "input", "col", "use", "path", "rect"}


class Prose(HTMLParser):
    """The words that a page says itself: no code, no names (``translate="no"``), no stretches that
    are marked as another language, no style."""

    def __init__(self, page: str, lang: str) -> None:
        super().__init__()
        self.lang, self.skipped, self.open, self.said = lang, 0, list[bool](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            foreign = tag != "html" and given.get("lang", self.lang) != self.lang
            skip = tag in ("code", "pre", "style") or given.get("translate") == "no" or foreign
            self.open.append(skip)
            self.skipped += skip
        if label := given.get("aria-label"):
            self.said.append(label)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and self.open:
            self.skipped -= self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.said.append(data)


def page_of(made: RunFacts, folder: Path) -> str:
    render(made, folder)
    return (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize("code", OTHERS)
def test_every_text_of_the_report_is_in_each_language_and_no_other(code: str) -> None:
    words = words_of(code)
    assert texts() - words.words.keys() == set(), "a text is missing"
    assert words.words.keys() - texts() == set(), "a text that nothing says"
    for text, other in {**words.words, **words.sentences}.items():
        assert sorted(set(HOLE.findall(text))) == sorted(set(HOLE.findall(other))), text
    assert words.sentences.keys() == words_of(OTHERS[0]).sentences.keys()


@pytest.mark.parametrize("made", [facts, labels_facts])
@pytest.mark.parametrize("code", OTHERS)
def test_nothing_english_is_left_in_the_page(code: str, made: object, tmp_path: Path) -> None:
    page = page_of(made(code), tmp_path)  # type: ignore[operator]
    assert f'<html lang="{code}">' in page and 'lang="en"' not in page
    said = " ".join(Prose(page, code).said)
    assert not [word for word in re.findall(r"[A-Za-z]+", said) if word.lower() in FUNCTION_WORDS]
    assert not [text for text in texts() if len(text.split()) > 2 and text in said]
    if code == "zh":
        allowed = (
            "F1 AUROC PPV NPV ROUGE CRF ECE Holm Wilson Residency min ms MB GB Wh kJ token lora"
        )
        names = (
            "no ward entities clinical report triage qa symptom drug diagnosis notes jsonl yes note"
        )
        found = set(re.findall(r"[A-Za-z]{2,}", said)) - set(f"{allowed} {names}".split())
        assert found <= {"span", "auto", "epochs", "safety", "model"}


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("code", languages())
def test_a_calibration_tells_its_shift_beside_its_temperature(code: str, tmp_path: Path) -> None:
    said = " ".join(Prose(page_of(labels_facts(code), tmp_path), code).said)
    assert "1.70" in said and "−1.25" in said


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of which the words alone are looked at."""
    for name in ("score_plot", "training_plot", "reliability_plot"):
        monkeypatch.setattr(plots, name, lambda *_: "<svg></svg>")


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("kind", VERDICTS)
@pytest.mark.parametrize("code", languages())
def test_the_verdict_stands_beside_the_number(code: str, kind: str, tmp_path: Path) -> None:
    words, page = words_of(code), page_of(facts(code, kind), tmp_path)
    head = page[: page.index('class="plain"')]
    assert re.search(rf'<b class="badge \w+">{words(kind)}</b>', head)
    assert f"<b>{VERDICTS[kind][0]:.2f}</b>" in head
    assert words("too few steps") in head and "247" in head
    card = (tmp_path / "model_card.md").read_text("utf-8").split("## What it is")[0]
    said = verdicts.judgements(facts(code, kind).reports, words)[0].words
    assert said.split("[")[0] in card


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("code", languages())
def test_the_box_in_plain_words_says_what_was_asked_how_good_and_what_it_is_not_for(
    code: str, tmp_path: Path
) -> None:
    words, page = words_of(code), page_of(facts(code), tmp_path)
    box = page[page.index('class="plain"') : page.index('class="caveats"')]
    for text in ("What was asked", "How good the answers are", "What it is not for"):
        assert words(text) in box
    for term in ("strict", "precision", "recall", "F1", "95 % interval"):
        assert f"<dt>{words(term)}</dt>" in box
    assert "87" in box and "80" in box, "precision 0.87, recall 0.80: of a hundred"
    assert "symptom, drug, diagnosis" in box


def test_a_run_of_one_language_is_reported_in_it_and_others_in_english() -> None:
    auto = ReportSettings()
    assert [auto.for_data(lang) for lang in ("vi", "zh", "en", "en, vi", "fr", "")] == [
        *("vi", "zh", "en", "en", "en", "en")
    ]
    assert ReportSettings(language="zh").for_data("vi") == "zh"
    with pytest.raises(UserError, match=r"report\.language: 'xx' is not known; .*auto.*vi"):
        Recipe.from_mapping(
            {
                "schema": 1,
                "name": "a",
                "data": {"a": {"format": "jsonl", "path": "a.jsonl"}},
                "tasks": [{"card": "ner", "data": "a"}],
                "report": {"language": "xx"},
            }
        )


def test_a_recipe_that_names_no_language_has_the_digest_that_it_had_before() -> None:
    plain = {
        "schema": 1,
        "name": "a",
        "data": {"a": {"format": "jsonl", "path": "a.jsonl"}},
        "tasks": [{"card": "ner", "data": "a"}],
    }
    assert "report" not in Recipe.from_mapping(plain).settings
    other = Recipe.from_mapping({**plain, "report": {"language": "vi"}})
    assert other.settings["report"] == {"language": "vi"}


def test_the_ledger_counts_each_row_once(tmp_path: Path) -> None:
    rows = [{"id": str(at), "text": f"Note {at} on pain.", "entities": []} for at in range(20)]
    rows[3]["text"] = ""
    rows[4]["entities"] = [{"start": 0, "end": 5, "label": "x"}]  # type: ignore[list-item]
    file = tmp_path / "notes.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    recipe = Recipe.from_mapping(
        {
            "schema": 1,
            "name": "a",
            "data": {"a": {"format": "jsonl", "path": "notes.jsonl", "max_rejected": 0.5}},
            "tasks": [{"card": "ner", "data": "a"}],
        },
        root=tmp_path,
    )
    read = load(recipe.data["a"], "a", tmp_path, 0)
    training = [
        LedgerEntry(file="", line=0, id="1", status="windowed", reason="longer", count=3),
        LedgerEntry(file="", line=0, status="repaired", reason="for training: trimmed", count=9),
        LedgerEntry(file="", line=0, id="2", status="rejected", reason="for training: too long"),
    ]
    view = ledger_view(with_entries(summary(recipe.data["a"], tmp_path, read), training))
    assert view.total == 20 == sum(number for *_, number in view.rows), "as many as the file has"
    assert {status for status, *_ in view.rows} <= set(ROWS)
    assert sum(number for *_, number in view.more) == 1 + 9 + 1


def test_the_sum_in_the_page_is_that_of_the_rows_above_it(tmp_path: Path) -> None:
    page = page_of(facts("en"), tmp_path)
    table = page[page.index("Ledger: what became") :]
    table = table[: table.index("</table>")]
    cells = re.findall(r'<tr>.*?<td class="num">([\d,]+)</td></tr>', table)
    total = re.search(r'class="total".*?<td class="num">([\d,]+)</td>', table)
    assert total is not None
    assert sum(map(int, cells)) == int(total[1]) == 613, "560 kept, 40 repaired, 13 rejected"


def test_both_extents_are_drawn_where_they_differ() -> None:
    (one,) = [group for group in errors(facts("en").reports[-1], True) if group.kind == "boundary"]
    (view,) = one.shown
    assert [piece for piece in view.text if piece[1]] == [
        ("severe ", "gold"),
        ("chest pain", "gold said"),
    ]
    assert "".join(text for text, _ in view.text).startswith(
        "The patient came in with severe chest"
    )


def test_an_error_of_an_earlier_version_is_drawn_as_far_as_it_is_known() -> None:
    report = facts("en").reports[-1]
    old = [
        ErrorItem(
            example="n", kind=kind, gold="a", predicted="b", start=4, end=8, text="On ⟦pain⟧ x"
        )
        for kind in ("missed", "invented", "type", "boundary")
    ]
    import msgspec

    groups = errors(msgspec.structs.replace(report, errors=tuple(old)), True)
    assert [dict(group.shown[0].text)["pain"] for group in groups] == [
        *("gold", "said", "gold said", "gold said")
    ]


@pytest.mark.parametrize(
    ("sentence", "vi"),
    [
        ("bootstrap over groups, 1000 samples, 95%", "bootstrap theo nhóm, 1000 lần lấy mẫu, 95%"),
        (
            "random by group: train 80%, test 20%; dev: 10% of train by group",
            "ngẫu nhiên theo nhóm: huấn luyện 80%, kiểm tra 20%; dev: 10% của tập huấn luyện, theo "
            "nhóm",
        ),
        ("all epochs done", "đã đủ số vòng huấn luyện"),
        ("what nobody wrote", "what nobody wrote"),
    ],
)
def test_what_a_run_keeps_in_english_is_known_by_its_wording(sentence: str, vi: str) -> None:
    assert words_of("vi").said(sentence) == vi
    assert words_of("en").said(sentence) == sentence
