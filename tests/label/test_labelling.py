"""The whole road through files: out, back, agreement, adjudication, gold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from label.conftest import TEXTS, give_back, spans
from residency.core.errors import UserError
from residency.core.types import Note, Span
from residency.recipe import Recipe
from residency.workflows import label

FIRST, SECOND, CHINESE, ENGLISH = TEXTS
TRUTH = {
    "n0": spans(FIRST, symptom="Sốt cao", diagnosis="viêm phổi", drug="amoxicillin"),
    "n1": spans(SECOND, history="tăng huyết áp"),
    "n2": spans(CHINESE, symptom="发热", diagnosis="肺炎", drug="阿莫西林"),
    "n3": (),
}


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def labelled(recipe: Recipe, **others: dict[str, tuple[Span, ...]]) -> Path:
    """Notes given out and given back: everybody says the truth, but for what is given."""
    label.push(recipe)
    folder = recipe.root / "labelling"
    for name in ("a1", "a2", "a3"):
        give_back(
            folder, name, {**TRUTH, **others.get(name, {})}, seconds=30.0, at="2026-01-05T08:00:00Z"
        )
    label.pull(recipe)
    return folder


def test_each_annotator_gets_all_notes_in_an_order_of_their_own(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    sent = label.push(recipe())
    orders = [[row["id"] for row in rows(Path(one.where))] for one in sent]
    assert [sorted(order) for order in orders] == [["n0", "n1", "n2", "n3"]] * 3
    assert len({tuple(order) for order in orders}) > 1
    assert [
        row["text"] for row in sorted(rows(Path(sent[0].where)), key=lambda r: str(r["id"]))
    ] == list(TEXTS)


def test_a_second_push_changes_nothing_and_adds_what_is_new(
    recipe: Callable[..., Recipe], notes: list[Note], tmp_path: Path
) -> None:
    from residency.corpus.write import write_jsonl

    first = label.push(recipe())
    before = Path(first[0].where).read_bytes()
    label.push(recipe())
    assert Path(first[0].where).read_bytes() == before
    write_jsonl(
        [*notes, Note(id="n9", text="Ho khan.", profile="synthetic", group="p9")],
        tmp_path / "notes.jsonl",
    )
    label.push(recipe())
    assert [row["id"] for row in rows(Path(first[0].where))] == [
        *(json.loads(x)["id"] for x in before.splitlines()),
        "n9",
    ]


def test_unanimous_notes_become_gold_with_spans_exact_to_the_code_point(
    recipe: Callable[..., Recipe],
) -> None:
    folder = labelled(recipe())
    outcome, sent, _ = label.adjudicate(recipe())
    assert sent is None and not outcome.open and not outcome.waiting
    gold = {row["id"]: row for row in rows(folder / "gold.jsonl")}
    for number, text in enumerate(TEXTS):
        row = gold[f"n{number}"]
        assert row["text"] == text
        assert [(e["start"], e["end"], e["label"]) for e in row["entities"]] == [  # type: ignore[attr-defined]
            (s.start, s.end, s.label) for s in TRUTH[f"n{number}"]
        ]
        assert all(
            text[e["start"] : e["end"]] == e["text"] and e["by"] == "a1+a2+a3"
            for e in row["entities"]
        )  # type: ignore[attr-defined]


def test_gold_is_read_as_training_data(recipe: Callable[..., Recipe]) -> None:
    from residency.core.part import parse
    from residency.corpus.load import Data, load

    folder = labelled(recipe())
    label.adjudicate(recipe())
    data = parse(Data, {"format": "jsonl", "path": str(folder / "gold.jsonl")}, "data")
    found = {note.id: note for note in load(data, "gold", folder, 0).notes}
    assert [(s.start, s.end, s.label) for s in found["n2"].spans] == [
        (s.start, s.end, s.label) for s in TRUTH["n2"]
    ]


def test_a_majority_decides_and_a_tie_is_asked_without_names(recipe: Callable[..., Recipe]) -> None:
    two_of_three = {"n0": TRUTH["n0"][:2]}  # a3 overlooks the drug
    all_differ = spans(SECOND, diagnosis="tăng huyết áp")
    folder = labelled(
        recipe(),
        a3={**two_of_three, "n1": spans(SECOND, history="huyết áp")},
        a2={"n1": all_differ},
    )
    outcome, sent, _ = label.adjudicate(recipe())
    assert [(one.how, one.note) for one in outcome.decisions if one.how == "majority"] == [
        ("majority", "n0")
    ]
    assert [place.note for place in outcome.open] == ["n1"] and sent is not None
    (task,) = rows(Path(sent.where))
    assert len(task["candidates"]) == 3 and not {"a1", "a2", "a3"} & set(
        json.dumps(task).split('"')
    )  # type: ignore[arg-type]
    assert {row["id"] for row in rows(folder / "gold.jsonl")} == {"n0", "n2", "n3"}


def test_a_decision_goes_into_gold_and_audit_and_only_once(recipe: Callable[..., Recipe]) -> None:
    folder = labelled(
        recipe(),
        a2={"n1": spans(SECOND, diagnosis="tăng huyết áp")},
        a3={"n1": spans(SECOND, history="huyết áp")},
    )
    _, sent, _ = label.adjudicate(recipe())
    assert sent is not None
    (task,) = rows(Path(sent.where))
    wanted = task["candidates"].index(
        [{"start": 8, "end": 21, "label": "diagnosis", "text": "tăng huyết áp"}]
    )  # type: ignore[attr-defined]
    back = folder / "adjudication" / "back" / "adjudicator.jsonl"
    back.parent.mkdir(parents=True)
    back.write_text(json.dumps({**task, "choice": wanted + 1}) + "\n", "utf-8")
    outcome, _, taken = label.adjudicate(recipe())
    assert taken is not None and taken.new == 1 and not outcome.open
    (entity,) = next(row for row in rows(folder / "gold.jsonl") if row["id"] == "n1")["entities"]  # type: ignore[misc]
    assert (entity["label"], entity["by"]) == ("diagnosis", "adjudicator")
    lines = rows(folder / "audit.jsonl")
    label.adjudicate(recipe())
    assert rows(folder / "audit.jsonl") == lines
    (line,) = [one for one in lines if one["note"] == "n1"]
    assert line["how"] == "adjudicator" and set(line["versions"]) == {"a1", "a2", "a3"}  # type: ignore[call-overload]
    assert "huyết" not in (folder / "audit.jsonl").read_text("utf-8"), "no text in the audit trail"


def test_who_decides_may_mark_something_of_their_own_at_the_place_only(
    recipe: Callable[..., Recipe],
) -> None:
    folder = labelled(
        recipe(),
        a2={"n1": spans(SECOND, diagnosis="tăng huyết áp")},
        a3={"n1": spans(SECOND, history="huyết áp")},
    )
    _, sent, _ = label.adjudicate(recipe())
    assert sent is not None
    (task,) = rows(Path(sent.where))
    give_back(
        folder, "adjudicator", {str(task["id"]): spans(SECOND, history="Tiền sử")}, "adjudication"
    )
    assert [fault.reason for fault in label.adjudicate(recipe())[0].refused] == [
        f"{task['id']}: a span lies elsewhere in the note"
    ]
    give_back(folder, "adjudicator", {str(task["id"]): spans(SECOND, history="áp")}, "adjudication")
    outcome, _, _ = label.adjudicate(recipe())
    assert not outcome.open and not outcome.refused


def test_pulling_again_brings_nothing_and_a_change_keeps_the_earlier_version(
    recipe: Callable[..., Recipe],
) -> None:
    folder = labelled(recipe())
    kept = folder / "label" / "annotations" / "a1.jsonl"
    before = kept.read_bytes()
    (again, *_), _ = label.pull(recipe())
    assert (again.new, again.changed, again.same) == (0, 0, 4) and kept.read_bytes() == before
    give_back(folder, "a1", {**TRUTH, "n0": TRUTH["n0"][:1]})
    (changed, *_), _ = label.pull(recipe())
    assert changed.changed >= 1
    history = rows(folder / "label" / "history.jsonl")
    assert any(row["note"] == "n0" and len(row["spans"]) == 3 for row in history)  # type: ignore[arg-type]


def test_what_is_gone_from_the_source_is_kept(recipe: Callable[..., Recipe]) -> None:
    folder = labelled(recipe())
    give_back(folder, "a1", {"n0": TRUTH["n0"]})
    (pulled, *_), _ = label.pull(recipe())
    assert (pulled.done, pulled.gone) == (4, 3)
    (folder / "label" / "back" / "a2.jsonl").unlink()
    _, gone, _ = label.pull(recipe())[0]
    assert gone.done == 4 and "is not there yet" in gone.trouble


def test_an_annotator_who_labelled_nothing_is_named_and_left_out(
    recipe: Callable[..., Recipe],
) -> None:
    label.push(recipe())
    folder = recipe().root / "labelling"
    for name, said in (("a1", TRUTH), ("a2", TRUTH), ("a3", {})):
        give_back(folder, name, said)
    pulled, _ = label.pull(recipe())
    assert [one.done for one in pulled] == [4, 4, 0]
    found, page = label.agreement(recipe())
    assert found.alpha[0].value == 1.0 and "a3" not in {
        s.metric.partition("/")[2] for s in found.annotators
    }
    assert "a3 has labelled nothing yet and is left out." in page.read_text("utf-8")
    assert len(label.adjudicate(recipe())[0].gold) == 4


def test_agreement_needs_two_who_have_a_note_in_common(recipe: Callable[..., Recipe]) -> None:
    label.push(recipe())
    give_back(recipe().root / "labelling", "a1", TRUTH)
    label.pull(recipe())
    with pytest.raises(
        UserError, match=r"no two annotators have labelled the same note .*a1 4, a2 0, a3 0"
    ):
        label.agreement(recipe())


@pytest.mark.parametrize(
    ("entity", "reason"),
    [
        ({"start": 0, "end": 4000, "label": "symptom"}, "span lies outside the text"),
        ({"start": 0, "end": 7, "label": "Symptom"}, "label is not in the card (Symptom)"),
        (
            {"start": 0, "end": 7, "label": "symptom", "text": "khó thở"},
            "quote of a span stands nowhere in the text",
        ),
        ({"start": "x", "end": 7, "label": "symptom"}, "offset of a span is not a whole number"),
        (
            {"start": 0, "end": 7, "label": "symptom", "attributes": ["denied"]},
            "attribute is not in the card: denied",
        ),
    ],
)
def test_a_faulty_span_keeps_the_whole_annotation_out_until_it_is_mended(
    recipe: Callable[..., Recipe], entity: dict[str, object], reason: str
) -> None:
    folder = labelled(recipe())
    path = folder / "label" / "back" / "a1.jsonl"
    changed = [
        {**row, "entities": [*row["entities"], entity]} if row["id"] == "n0" else row
        for row in rows(path)
    ]  # type: ignore[misc]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), "utf-8")
    (pulled, *_), _ = label.pull(recipe())
    assert pulled.faulty == 1 and pulled.faults[0].startswith(f"{reason}: 1 note (n0)")
    outcome, _, _ = label.adjudicate(recipe())
    assert outcome.waiting == {"n0": "to be mended by a1"}
    give_back(folder, "a1", TRUTH)
    label.pull(recipe())
    assert not label.adjudicate(recipe())[0].waiting


def test_a_changed_text_a_double_line_and_an_unknown_note_are_named(
    recipe: Callable[..., Recipe],
) -> None:
    folder = labelled(recipe())
    path = folder / "label" / "back" / "a1.jsonl"
    first, second, *rest = rows(path)
    spoiled = [{**first, "text": "other"}, second, second, {**second, "id": "x"}, *rest]
    path.write_text("".join(json.dumps(row) + "\n" for row in spoiled), "utf-8")
    (pulled, *_), _ = label.pull(recipe())
    assert pulled.unknown == 1 and pulled.faulty == 2
    assert {fault.partition(";")[0].partition(":")[0] for fault in pulled.faults} == {
        "note stands twice in the file",
        "text is not the one that was given out",
    }


def test_a_list_of_terms_marks_beforehand_whatever_the_case(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    (tmp_path / "terms.csv").write_text(
        "term,label,code\nViêm phổi,diagnosis,J18.9\nsốt,symptom,\nphổi,test,\n", "utf-8"
    )
    sent = label.push(recipe(prelabel={"by": "terms", "path": "terms.csv"}))
    marked = next(row["suggested"] for row in rows(Path(sent[0].where)) if row["id"] == "n0")
    assert marked == [
        {"start": 0, "end": 3, "label": "symptom", "text": "Sốt"},
        {
            "start": FIRST.index("viêm"),
            "end": FIRST.index("viêm") + 9,
            "label": "diagnosis",
            "text": "viêm phổi",
            "code": "J18.9",
        },
    ]


def test_a_guideline_defines_every_label_in_three_languages(recipe: Callable[..., Recipe]) -> None:
    for lang, title, example in (
        ("en", "Guideline", "community-acquired"),
        ("vi", "Hướng dẫn", "viêm phổi"),
        ("zh", "标注指南", "肺炎"),
    ):
        html = label.guideline(recipe(), lang).read_text("utf-8")
        assert title in html and example in html and f'lang="{lang}"' in html
        assert all(name in html for name in label.open_labelling(recipe()).card.names)
    with pytest.raises(UserError, match="--lang: 'fr' is not known; allowed: en, vi, zh"):
        label.guideline(recipe(), "fr")


def test_practice_goes_out_and_comes_back_as_a_page_for_each(
    recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    from residency.corpus.write import write_jsonl
    from residency.synth.clinical_notes import records

    gold = list(records("en", 14, seed=5))
    write_jsonl(gold, tmp_path / "known.jsonl")
    sent, told = label.practice(recipe(), tmp_path / "known.jsonl")
    assert [one.tasks for one in sent] == [10, 10, 10] and not told
    truth = {note.id: note.spans for note in gold}
    folder = recipe().root / "labelling"
    give_back(folder, "a1", truth, "practice")
    give_back(folder, "a2", {id: spans[1:] for id, spans in truth.items()}, "practice")
    _, told = label.practice(recipe(), tmp_path / "known.jsonl")
    assert (
        [one.annotator for one in told] == ["a1", "a2"]
        and told[0].strict == 1.0
        and 0.5 < told[1].strict < 1.0
    )
    page = (folder / "practice" / "feedback-a2.html").read_text("utf-8")
    assert "overlooked" in page and "What to read again" in page


def test_a_recipe_without_the_section_is_told_so(recipe: Callable[..., Recipe]) -> None:
    bare = recipe().model_copy(update={"label": None})
    with pytest.raises(UserError, match="label: the recipe has no such section"):
        label.push(bare)


def test_labels_follow_an_amended_note_where_the_text_around_them_is_as_it_was(
    recipe: Callable[..., Recipe], notes: list[Note], tmp_path: Path
) -> None:
    from msgspec.structs import replace

    from residency.corpus.write import write_jsonl
    from residency.label import annotations as kept

    ready = recipe(annotators=("a1", "a2"))
    label.push(ready)
    folder = tmp_path / "labelling/label"
    for name in ("a1", "a2"):
        give_back(
            tmp_path / "labelling", name, {**TRUTH, "n3": spans(ENGLISH, diagnosis="pneumonia")}
        )
    label.pull(ready)
    before = kept.read(folder / "annotations/a1.jsonl")
    amended = [
        replace(notes[0], text=notes[0].text + "\nThêm: đau đầu dữ dội từ hôm qua, nôn ba lần."),
        notes[2],
        replace(notes[3], text="In 2024: " + notes[3].text),
    ]  # the second was deleted
    write_jsonl(amended, tmp_path / "notes.jsonl")
    label.push(ready)
    now = kept.read(folder / "annotations/a1.jsonl")
    assert set(now) == {"n2", "n3"}, "n0 has more text and is asked again"
    assert now["n2"] == before["n2"]
    (span,) = now["n3"].spans
    assert amended[2].text[span.start : span.end] == span.quote == "pneumonia"
    assert span.start == before["n3"].spans[0].start + len("In 2024: ")
    out = {row["id"]: row["text"] for row in rows(folder / "out/a1.jsonl")}
    assert out == {note.id: note.text for note in amended}
    assert [one.done for one in label.pull(ready)[0]] == [2, 2]
