"""A blind study with files alone: orders, seals, votes, forms that come back, the lock."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from by_hand import mean_interval
from residency.cli import app
from residency.core.errors import DataError, UserError
from residency.evals import votes as ballots
from residency.evals.study import (
    CODES,
    ITEMS,
    SCALES,
    STUDY,
    OpenStudy,
    codes_of,
    key_path,
    open_study,
)
from residency.evals.study_form import TEMPLATES, WORDS
from residency.evals.votes import Said, Vote, cast, dialogue, lock, read, replaced, standing
from residency.evals.words import HOLE, languages, words_of
from residency.workflows.study import end, forms, new, read_result, take

NAMES = ("ward-qwen-7b", "hospital-llama", "api-large", "old-rules")
ITEMS_MADE = 12


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def made(folder: Path, count: int = 2, items: int = ITEMS_MADE, **more: Any) -> OpenStudy:
    """A study of answers in files, in a folder; raters ann (en) and bob (vi)."""
    folder.mkdir(exist_ok=True)
    rows = [{"id": f"q{n}", "question": f"Question {n}?", "points": "oxygen"} for n in range(30)]
    questions = jsonl(folder / "questions.jsonl", rows)
    systems = []
    for number, name in enumerate(NAMES[:count]):
        answers = [{"id": f"q{n}", "answer": f"Advice {number} on {n}.\n"} for n in range(30)]
        systems.append(f"{name}={jsonl(folder / f'{name}.jsonl', answers)}")
    given: dict[str, Any] = {"raters": ["ann", "bob:vi"], "seed": 5, **more}
    if given.get("kind") == "dialogue":
        systems = [f"{name}=http://127.0.0.1:9/v1#{name}" for name in NAMES[:count]]
        given["delay"] = 0.1
    new(systems, folder / "study", items=items, questions=questions, **given)
    return open_study(folder / "study")


@pytest.fixture
def study(tmp_path: Path) -> OpenStudy:
    return made(tmp_path)


def vote(study: OpenStudy, at: int = 0, **more: Any) -> Vote:
    """A vote on the item at a position of ann's order."""
    return Vote(item=study.study.order["ann"][at].item, **{"choice": 1, **more})


def code(study: OpenStudy, rater: str = "ann") -> str:
    return codes_of(study)[rater]


# What is fixed before the first vote


@pytest.mark.parametrize(("count", "items"), [(2, 12), (2, 13), (3, 12), (4, 12), (4, 14)])
def test_each_system_stands_equally_often_at_each_place_for_each_rater(
    tmp_path: Path, count: int, items: int
) -> None:
    study = made(tmp_path, count, items)
    key = json.loads(key_path(study.folder).read_text())
    for rater in ("ann", "bob"):
        shown = study.study.order[rater]
        assert Counter(one.item for one in shown) == Counter(dict.fromkeys(study.items, 1))
        at = Counter(
            (place, key["whose"][one.item][position])
            for one in shown
            for place, position in enumerate(one.places)
        )
        assert len(at) == count * count
        assert max(at.values()) - min(at.values()) <= (0 if items % count == 0 else 1)
    assert study.study.order["ann"] != study.study.order["bob"]


def test_an_answer_stands_where_the_order_says_and_is_whose_the_key_says(study: OpenStudy) -> None:
    key = json.loads(key_path(study.folder).read_text())
    for rater in ("ann", "bob"):
        for one, (item, answers) in zip(study.study.order[rater], study.shown(rater), strict=True):
            for position, answer in zip(one.places, answers, strict=True):
                system = int(re.findall(r"\d+", answer)[0])  # "Advice SYSTEM on ITEM."
                assert key["whose"][item.id][position] == system


def test_nothing_that_a_rater_gets_says_whose_an_answer_is(tmp_path: Path) -> None:
    study = made(tmp_path, 4)
    forms(study.folder, tmp_path / "forms")
    key = key_path(study.folder).read_text()
    told = [str(tmp_path), *NAMES, json.loads(key)["salt"], study.study.key, study.study.items]
    for path in [*(tmp_path / "forms").iterdir(), study.folder / STUDY, study.folder / ITEMS]:
        found = path.read_text("utf-8").lower()
        secrets = told if path.suffix == ".html" else told[:-2]
        assert [one for one in secrets if one.lower() in found + path.name] == []
        assert not re.search(r"https?:|src=|@import|\son\w+=", found.split("<script>")[0])
    other = (tmp_path / "forms/bob.html").read_text("utf-8")
    assert code(study) not in other and "ann" not in re.findall(r"\w+", other)


def test_the_order_cannot_be_drawn_again_without_the_key(tmp_path: Path) -> None:
    one, two = made(tmp_path / "a"), made(tmp_path / "b")  # the same seed, which may be known
    assert set(one.items) == set(two.items)
    assert one.study.order != two.study.order and one.study.key != two.study.key


def test_answers_that_name_a_system_are_left_out(tmp_path: Path) -> None:
    questions = jsonl(tmp_path / "q.jsonl", [{"id": n, "question": f"Q{n}"} for n in "abc"])
    says = {"a": "As Ward-Qwen, I advise rest.", "b": "Rest.", "c": "Ward-Qwenches are no name."}
    for name in ("ward-qwen", "other-one"):
        jsonl(tmp_path / f"{name}.jsonl", [{"id": n, "answer": says[n]} for n in "abc"])
    given = [f"{name}={tmp_path / name}.jsonl" for name in ("ward-qwen", "other-one")]
    found = new(given, tmp_path / "s", ["ann"], items=2, questions=questions)
    assert (found.items, found.left_out) == (2, 1)
    assert "Ward-Qwen," not in (tmp_path / "s" / ITEMS).read_text()


@pytest.mark.parametrize("file", [ITEMS, STUDY, "key"])
def test_a_changed_file_is_refused(study: OpenStudy, file: str) -> None:
    cast(study, "ann", code(study), vote(study))
    path = key_path(study.folder) if file == "key" else study.folder / file
    text = path.read_text()
    changed = {
        ITEMS: text.replace("Advice 0", "Advice 9", 1),
        STUDY: text.replace('"places": [\n', '"places":[\n', 1).replace('"i001"', '"i002"', 1),
        "key": text.replace("[0,1]", "[1,0]", 1),
    }[file]
    assert changed != text
    path.write_text(changed)
    with pytest.raises(DataError, match=r"changed|not the key"):
        lock(open_study(study.folder), key_path(study.folder))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"raters": []}, "--raters"),
        ({"raters": ["ann", "ann"]}, "each once"),
        ({"raters": ["../ann"]}, "cannot name a file"),
        ({"raters": ["ann:tlh"]}, "no language"),
        ({"items": 31}, "there are 30 questions"),
        ({"items": 0}, "--items"),
        ({"count": 1}, "2 to 4 systems"),
        ({"count": 3, "by": "preference"}, "two answers"),
    ],
)
def test_what_makes_no_study_is_one_sentence_and_writes_nothing(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        made(tmp_path, **more)
    assert not (tmp_path / "study").exists() and not key_path(tmp_path / "study").exists()


# Votes


def test_a_later_vote_takes_the_place_and_the_same_one_adds_nothing(study: OpenStudy) -> None:
    for given in (vote(study), vote(study), vote(study, choice="equal"), vote(study, 1)):
        cast(study, "ann", code(study), given)
    lines = read(study, "ann")
    assert len(lines) == 3 and replaced(lines) == 1
    assert standing(lines)[vote(study).item].choice == "equal"
    assert not (study.folder / "votes/bob.jsonl").exists()
    assert cast(study, "ann", code(study), vote(study)), "back to the first thought"


def test_nobody_votes_in_the_file_of_another(study: OpenStudy) -> None:
    for name in ("bob", "eve"):
        with pytest.raises(UserError, match=r"code|not in this study"):
            cast(study, name, code(study), vote(study))
    cast(study, "ann", code(study), vote(study))
    (study.folder / "votes/bob.jsonl").write_bytes((study.folder / "votes/ann.jsonl").read_bytes())
    with pytest.raises(DataError, match=r"bob\.jsonl:1"):
        read(study, "bob")


@pytest.mark.parametrize("how", ["edited", "removed", "moved", "doubled"])
def test_a_line_that_was_tampered_with_is_named(study: OpenStudy, how: str) -> None:
    for at in range(3):
        cast(study, "ann", code(study), vote(study, at))
    path = study.folder / "votes/ann.jsonl"
    one, two, three = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        {
            "edited": one + two.replace(b'"choice":1', b'"choice":2') + three,
            "removed": one + three,
            "moved": one + three + two,
            "doubled": one + two + two + three,
        }[how]
    )
    with pytest.raises(DataError, match=r"ann\.jsonl:[23]: was changed"):
        read(study, "ann")


@pytest.mark.parametrize(
    "more",
    [
        {"choice": None},
        {"choice": 3},
        {"choice": 0},
        {"marks": {"overall": (1, 2)}},
        {"harmful": (3,), "comment": "so"},
        {"harmful": (1, 1), "comment": "so"},
        {"harmful": (1,)},
        {"comment": "x" * 4001},
    ],
)
def test_a_vote_that_is_not_asked_for_is_refused(study: OpenStudy, more: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^item i\d+: "):
        cast(study, "ann", code(study), vote(study, **more))
    assert read(study, "ann") == []


def test_a_process_killed_while_it_writes_loses_and_doubles_no_vote(
    study: OpenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child casts a vote for each item and is killed inside of a write, after a part of the line
    that grows from kill to kill; the next child begins from the first item again."""
    secret, told = code(study), study.folder / "told"
    whole = ballots._append
    for cut in range(ITEMS_MADE + 1):
        child = os.fork()
        if child == 0:  # pragma: no cover
            written = 0

            def torn(file: int, data: bytes, size: int, cut: int = cut) -> None:
                nonlocal written
                if written:
                    os.write(file, data[: len(data) * cut // ITEMS_MADE])
                    os.kill(os.getpid(), signal.SIGKILL)
                whole(file, data, size)
                written += 1

            monkeypatch.setattr(ballots, "_append", torn)
            for at in range(ITEMS_MADE):
                cast(study, "ann", secret, vote(study, at))
                with told.open("a") as file:
                    file.write(f"{at}\n")
            os._exit(0)
        os.waitpid(child, 0)
        acknowledged = {vote(study, int(at)).item for at in told.read_text().split()}
        assert acknowledged <= set(standing(read(study, "ann")))
    lines = read(study, "ann")
    assert Counter(line.entry.item for line in lines) == Counter(dict.fromkeys(study.items, 1))


def test_several_processes_that_vote_at_once_keep_one_chain(study: OpenStudy) -> None:
    secret, children = code(study), []
    for start in range(3):  # three tabs, the same items, in another order each
        child = os.fork()
        if child == 0:  # pragma: no cover
            for at in range(ITEMS_MADE):
                cast(study, "ann", secret, vote(study, (at + 4 * start) % ITEMS_MADE))
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert len(read(study, "ann")) == ITEMS_MADE


def test_voting_ends_with_the_lock_and_a_cut_end_is_seen_after_it(study: OpenStudy) -> None:
    with pytest.raises(UserError, match="sealed until"):
        read_result(study.folder)
    with pytest.raises(UserError, match="nobody has voted"):
        end(study.folder)
    for at in range(2):
        cast(study, "ann", code(study), vote(study, at))
    end(study.folder)
    with pytest.raises(UserError, match="voting has ended"):
        cast(study, "ann", code(study), vote(study, 2))
    with pytest.raises(UserError, match="locked already"):
        end(study.folder)
    path = study.folder / "votes/ann.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DataError, match="does not end as it did"):
        read_result(study.folder)


# Dialogues


def test_a_dialogue_goes_on_where_it_stopped_and_is_marked_when_it_is_whole(
    tmp_path: Path,
) -> None:
    study = made(tmp_path, 2, 1, kind="dialogue", patients=["pat:vi"])
    item = study.study.order["ann"][0].item
    scales = {one.name: (4, 3) for one in study.study.scales(study.study.rater("ann"))}
    assert set(scales) == {"accuracy", "value", "suitability"}
    patient = [one.name for one in study.study.scales(study.study.rater("pat"))]
    assert patient == ["suitability", "understood"]
    whole = Vote(item=item, marks=scales)
    for place in (1, 2):
        for turn in range(20):
            if turn == 8:  # on another day: opened again, and the last turn sent twice
                study = open_study(study.folder)
                assert len(dialogue(read(study, "ann"), item, place)) == 8
                last = Said(item=item, place=place, turn=7, text="turn 7")
                assert not cast(study, "ann", code(study), last)
                with pytest.raises(UserError, match="stands at turn 8"):
                    cast(study, "ann", code(study), msgspec.structs.replace(last, turn=9))
                with pytest.raises(UserError, match="of 10 rounds"):
                    cast(study, "ann", code(study), whole)
            said = Said(item=item, place=place, turn=turn, text=f"turn {turn}")
            assert cast(study, "ann", code(study), said)
    with pytest.raises(UserError, match="stands at turn 20"):
        cast(study, "ann", code(study), Said(item=item, place=1, turn=20, text="more"))
    assert cast(study, "ann", code(study), whole)
    with pytest.raises(UserError, match="scale that is not asked"):
        cast(study, "pat", code(study, "pat"), whole)
    with pytest.raises(UserError, match="served model"):
        forms(study.folder, tmp_path / "forms")


# Forms


def saved(
    study: OpenStudy, path: Path, rater: str = "ann", count: int = 12, more: Any = ()
) -> Path:
    """What the button of a form saves, with so many items filled in: the first place is always the
    better one, at which each system stands equally often."""
    fields = {f"{one.item}.choice": "1" for one in study.study.order[rater]}
    fields = dict(list(fields.items())[:count]) | {
        f"{one.item}.comment": "" for one in study.study.order[rater]
    }
    given = {"study": study.study.id, "rater": rater, "code": code(study, rater), "fields": fields}
    path.write_text(json.dumps(given | dict(more)), "utf-8")
    return path


def test_a_form_comes_back_whole_half_filled_and_again(study: OpenStudy, tmp_path: Path) -> None:
    half = take(study.folder, saved(study, tmp_path / "one.json", count=5))
    assert (half.votes, half.new) == (5, 5)
    assert half.lacking == tuple(one.item for one in study.study.order["ann"][5:])
    again = take(study.folder, saved(study, tmp_path / "one.json", count=12))
    assert (again.votes, again.new, again.lacking) == (12, 7, ())
    assert take(study.folder, tmp_path / "one.json").new == 0
    assert len(read(study, "ann")) == 12


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"study": "f" * 64}, "another study"),
        ({"rater": "eve"}, "not in this study"),
        ({"rater": "bob"}, "code is another's"),
        ({"code": "0" * 32}, "code is another's"),
        ({"fields": {"i999.choice": "1"}}, "field that its form does not have"),
        ({"fields": {"<b>": "1"}}, "field that its form does not have"),
        ({"fields": {}}, "no whole vote"),
        ({"fields": {"i001.choice": "best"}}, "no whole vote"),
        ({"fields": {"i001.harmful.7": "yes", "i001.choice": "1"}}, "no whole vote"),
        ({"fields": []}, "no file that a form"),
    ],
)
def test_a_file_that_is_not_of_the_form_is_one_sentence(
    study: OpenStudy, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    path = saved(study, tmp_path / "votes.json", more=more)
    done = CliRunner().invoke(app, ["study", "take", str(study.folder), str(path)])
    assert isinstance(done.exception, UserError) and done.exception.exit_code == 1
    assert re.search(said, str(done.exception)) and "\n" not in str(done.exception)
    assert read(study, "ann") == read(study, "bob") == []


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{", b"<html>"])
def test_a_file_that_is_none_is_one_sentence(
    study: OpenStudy, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "votes.json").write_bytes(content)
    with pytest.raises(DataError, match="no file that a form"):
        take(study.folder, tmp_path / "votes.json")


def test_every_text_of_a_form_is_in_each_language_and_no_other() -> None:
    page = (TEMPLATES / "study_form.html.jinja").read_text("utf-8")
    said = {a or b for a, b in re.findall(r"""_\((?:"([^"]+)"|'([^']+)')""", page)}
    said |= {one.title for one in SCALES.values()}
    said |= {text for one in SCALES.values() for text in one.anchors.values()}
    for lang in set(languages()) - {"en"}:
        words = words_of(lang, WORDS).words
        assert words.keys() == said
        for text, other in words.items():
            assert sorted(HOLE.findall(text)) == sorted(HOLE.findall(other)) and text != other


def test_text_in_a_form_is_text_and_never_markup(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \x00 & 'x'"
    asked = jsonl(tmp_path / "q.jsonl", [{"id": "a", "question": evil}])
    answers = jsonl(tmp_path / "a.jsonl", [{"id": "a", "answer": evil}])
    new([f"x={answers}", f"y={answers}"], tmp_path / "s", ["ann"], items=1, questions=asked)
    page = forms(tmp_path / "s", tmp_path / "forms")[0].read_text("utf-8")
    assert page.count("<script>") == 1 and "<img" not in page and "\x00" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


# From the command line to a report


def test_the_road_of_a_study_from_the_command_line(tmp_path: Path) -> None:
    study = made(tmp_path, 2)
    run = CliRunner()
    for rater in ("ann", "bob"):
        path = saved(study, tmp_path / f"{rater}.json", rater)
        done = run.invoke(app, ["study", "take", str(study.folder), str(path)])
        assert done.exit_code == 0 and f"{rater}: 12 votes, 12 new" in done.output
    early = run.invoke(app, ["study", "result", str(study.folder)])
    assert isinstance(early.exception, UserError)
    done = run.invoke(app, ["study", "lock", str(study.folder)])
    assert done.exit_code == 0 and "ann: 12 votes" in done.output
    done = run.invoke(app, ["study", "result", str(study.folder)])
    assert done.exit_code == 0, done.exception
    page = (study.folder / "result/report.html").read_text("utf-8")
    assert NAMES[0] in page and "annot tell with 24 votes" in page and "Advice" not in page
    found = json.loads((study.folder / "result/result.json").read_text())
    assert (found["items"], found["raters"], found["votes"]) == (12, 2, 24)
    assert found["preferences"][0]["wins"] + found["preferences"][0]["losses"] == 24


def test_the_secrets_of_a_study_are_its_owners_alone(study: OpenStudy) -> None:
    cast(study, "ann", code(study), vote(study))
    private = [key_path(study.folder), study.folder / CODES, study.folder / "votes/ann.jsonl"]
    assert [path.stat().st_mode & 0o077 for path in private] == [0, 0, 0]
    assert study.folder.stat().st_mode & 0o077 == 0


def test_dialogues_of_three_raters_and_a_patient_are_computed_as_by_hand(tmp_path: Path) -> None:
    """Means, intervals (mean squares, then Wilson's with Student's t) and agreement, each written
    another way; the patient's marks count for the patient's scales."""
    import krippendorff

    study = made(
        tmp_path, 2, 4, kind="dialogue", raters=["ann", "bob:vi", "chi:zh"], patients=["pat"]
    )
    marks: dict[tuple[str, str, str, str], int] = {}
    key = json.loads(key_path(study.folder).read_text())
    drawn = Random(3)
    for rater in study.study.raters:
        for shown in study.study.order[rater.name]:
            for place, turn in product((1, 2), range(20)):
                said = Said(item=shown.item, place=place, turn=turn, text="So.")
                cast(study, rater.name, code(study, rater.name), said)
            given: dict[str, tuple[int, ...]] = {}
            for scale in study.study.scales(rater):
                of = {at: drawn.randint(scale.low, scale.high) for at in shown.places}
                given[scale.name] = tuple(of[at] for at in shown.places)
                for at, mark in of.items():
                    system = NAMES[key["whose"][shown.item][at]]
                    marks[scale.name, system, shown.item, rater.name] = mark
            cast(study, rater.name, code(study, rater.name), Vote(item=shown.item, marks=given))
    end(study.folder)
    found, _ = read_result(study.folder)
    assert set(found.marks) == {"accuracy", "value", "suitability", "understood"}
    table = np.array(
        [
            [marks["value", NAMES[0], i, r] for r in ("ann", "bob", "chi")]
            for i in sorted(study.items)
        ]
    )
    one = next(one for one in found.marks["value"] if one.name == NAMES[0])
    assert one.value == pytest.approx(table.mean()) and one.n == 12
    assert (one.low, one.high) == pytest.approx(mean_interval(table, 1, 5), abs=1e-6)
    for scale, names in (
        ("value", ("ann", "bob", "chi")),
        ("suitability", ("ann", "bob", "chi", "pat")),
    ):
        units = [[marks[scale, s, i, r] for s, i in product(NAMES[:2], study.items)] for r in names]
        alpha = next(one.value for one in found.agreement if one.name == scale)
        other = krippendorff.alpha(reliability_data=units, level_of_measurement="ordinal")
        assert alpha == pytest.approx(other)
    assert next(one.n for one in found.marks["understood"]) == 4
