"""The pages of labelling: whose work an address reads and changes, what is proved, what is kept once."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute
from starlette.testclient import TestClient
from test_pages import check_page

from residency.core.errors import UserError
from residency.label.browser import addresses
from residency.pages import labelling
from residency.pages.app import create_app
from residency.pages.desk import LANGUAGES
from residency.recipe import Recipe
from residency.workflows import label
from residency.workflows.label_open import give_out

HERE = "http://127.0.0.1:8765"
OWNER = "s" * 43
TEXTS = {
    "n0": "👩‍⚕️ Ho khan.\r\nSốt cao.",
    "n1": "e\u0302\u0301 ho",
    "n2": "患者咳嗽，诊断为肺炎。",
    "n3": "<b>Ho</b> & sốt",
    "n4": "Đau bụng.",
    "n5": "Nôn.",
}
NAMES = ("a1", "a2", "adjudicator")


def recipe_in(folder: Path, **more: Any) -> Path:
    """A project that labels in the browser."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": id, "text": text, "entities": []} for id, text in TEXTS.items()]
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    codes = "code,name\nJ18.9,Viêm phổi\nI10,Tăng huyết áp\nE11,Đái tháo đường\nJ18,Phế viêm\n"
    (folder / "icd.csv").write_text(codes, "utf-8")
    value = {
        "schema": 1,
        "name": "ward",
        "seed": 3,
        "data": {"notes": {"format": "jsonl", "path": "notes.jsonl", "profile": "synthetic"}},
        "tasks": [{"card": "clinical", "data": "notes"}],
        "label": {"data": "notes", "via": "browser", "annotators": 2, "codes": "icd.csv", **more},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(value), "utf-8")
    return folder / "recipe.yaml"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    found = recipe_in(tmp_path / "ward")
    give_out(Recipe.load(found), found)
    return found


class Person:
    """Somebody who has opened their address."""

    def __init__(self, root: Path, code: str, home: str = "/labelling/ward") -> None:
        self.client = TestClient(create_app(root, OWNER, home), base_url=HERE)
        answer = self.client.get("/", params={"secret": code}, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        self.home = answer.headers["location"]
        found = re.search(
            r'(?:name="token" value|data-token)="(\w+)"', self.client.get(self.home).text
        )
        self.token = found[1] if found else ""

    def get(self, path: str) -> Any:
        return self.client.get(path, headers={"x-token": self.token})

    def post(self, path: str, value: object) -> Any:
        return self.client.post(path, headers={"x-token": self.token}, content=json.dumps(value))

    def form(self, path: str, **fields: Any) -> Any:
        return self.client.post(path, data={"token": self.token, **fields})

    def save(self, note: str, *marks: dict[str, Any], **more: Any) -> Any:
        value = {"writer": "w", "turn": 1, "base": 0, "state": "open", "seconds": 12.0, "marks": marks}  # fmt: skip
        return self.post(place(note), {**value, **more})


def place(note: str, round: str = "label") -> str:
    return f"/label/{round}/{sha256(note.encode()).hexdigest()[:20]}/work"


def mark(note: str, quote: str, label: str = "symptom", **more: Any) -> dict[str, Any]:
    start = TEXTS[note].index(quote)
    return {"start": start, "end": start + len(quote), "label": label, "quote": quote, **more}


@pytest.fixture
def people(recipe: Path) -> dict[str, Person]:
    """Everybody at the pages of ``residency ui``."""
    root = recipe.parent.parent
    codes = addresses(recipe.parent / "labelling").codes
    return {"owner": Person(root, OWNER), **{name: Person(root, codes[name]) for name in NAMES}}


def test_codes_are_made_once_and_only_their_owner_can_read_them(recipe: Path) -> None:
    folder = recipe.parent / "labelling"
    before = addresses(folder).codes
    assert sorted(before) == sorted(NAMES)
    assert len({*before.values()}) == 3 and min(map(len, before.values())) > 40
    assert stat.S_IMODE((folder / "addresses.json").stat().st_mode) == 0o600
    give_out(Recipe.load(recipe), recipe)
    assert addresses(folder).codes == before


def test_the_same_codes_let_in_where_one_labelling_alone_is_open(recipe: Path) -> None:
    folder = recipe.parent / "labelling"
    person = Person(folder, addresses(folder).codes["a1"], "/labelling/this")
    assert person.home == "/label" and "Notes to label" in person.get("/label").text
    owner = Person(folder, OWNER, "/labelling/this")
    assert owner.home == "/labelling/this"
    assert addresses(folder).codes["a2"] in owner.get("/labelling/this").text


def test_a_recipe_that_labels_elsewhere_is_told_so(tmp_path: Path) -> None:
    found = recipe_in(tmp_path / "ward", via="files")
    with pytest.raises(UserError, match=r"set label\.via=browser"):
        give_out(Recipe.load(found), found)
    assert not (tmp_path / "ward/labelling").exists()
    page = Person(tmp_path, OWNER).get("/labelling/ward").text
    assert "labels by files" in page


def test_a_span_is_kept_by_code_points_and_proved_by_its_quote(
    people: dict[str, Person], recipe: Path
) -> None:
    for note, quote in (("n0", "Sốt cao"), ("n1", "e\u0302\u0301"), ("n2", "肺炎"), ("n3", "sốt")):
        assert people["a1"].save(note, mark(note, quote), state="done").status_code == 200
    label.pull(Recipe.load(recipe))
    kept = recipe.parent / "labelling/label/annotations/a1.jsonl"
    found = {
        one["note"]: one["spans"][0] for one in map(json.loads, kept.read_bytes().splitlines())
    }
    assert {note: (one["start"], one["end"]) for note, one in found.items()} == {
        "n0": (15, 22),
        "n1": (0, 3),
        "n2": (8, 10),
        "n3": (12, 15),
    }


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ([{"start": 4, "end": 8, "label": "symptom", "quote": "khan"}], "does not stand"),
        ([{"start": 0, "end": 900, "label": "symptom"}], "outside the text"),
        ([{"start": -3, "end": 2, "label": "symptom"}], "outside the text"),
        ([{"start": 4, "end": 5, "label": "symptom"}], "holds only blanks"),
        ([{"start": 4, "end": 6, "label": "disease"}], "label is not in the card"),
        ([{"start": 4, "end": 6, "label": "symptom", "attributes": ["old"]}], "attribute"),
        ([{"start": 4, "end": 6, "label": "symptom", "by": "a2"}], "cannot be read"),
        ([{"start": "4", "end": 6, "label": "symptom"}], "cannot be read"),
    ],
)
def test_what_cannot_be_proved_is_refused_and_changes_nothing(
    people: dict[str, Person], marks: list[dict[str, Any]], said: str
) -> None:
    assert people["a1"].save("n0", mark("n0", "Ho khan")).status_code == 200
    before = people["a1"].get(place("n0")).json()
    answer = people["a1"].save("n0", *marks, turn=2, base=1)
    assert answer.status_code == 400 and said in answer.json()["said"]
    assert people["a1"].get(place("n0")).json() == before


def test_a_step_that_comes_twice_counts_once_and_a_late_window_is_told(
    people: dict[str, Person],
) -> None:
    person, ho, sot = people["a1"], mark("n0", "Ho khan"), mark("n0", "Sốt cao")
    first = person.save("n0", ho)
    assert person.save("n0", ho).json() == first.json(), "sent again as its answer was lost"
    assert first.json()["version"] == 1
    assert person.save("n0", ho, sot, turn=2, base=0).status_code == 200, "the window's own next"
    late = person.save("n0", sot, writer="other", base=1)
    assert late.status_code == 409
    assert len(person.get(place("n0")).json()["marks"]) == 2
    assert person.save("n0", sot, writer="other", base=2).json()["version"] == 3
    assert person.save("n0", ho, turn=3, base=2).status_code == 409


def test_a_note_with_marks_that_nobody_looked_at_is_not_done(tmp_path: Path) -> None:
    folder = tmp_path / "ward"
    recipe_in(folder, prelabel={"by": "terms", "path": "terms.csv"})
    (folder / "terms.csv").write_text("term,label\nho,symptom\n", "utf-8")
    give_out(Recipe.load(folder / "recipe.yaml"), folder / "recipe.yaml")
    person = Person(tmp_path, addresses(folder / "labelling").codes["a1"])
    (found,) = person.get(place("n0")).json()["marks"]
    assert (found["start"], found["end"], found["proposed"]) == (5, 7, True)
    shown = {**found, "attributes": []}
    refused = person.save("n0", shown, state="done")
    assert refused.status_code == 400 and "not looked at" in refused.json()["said"]
    assert person.save("n0", {**shown, "proposed": False}, state="done").status_code == 200


# Blind by construction


def own_routes() -> list[APIRoute]:
    return [one for one in (*labelling.router.routes, *labelling.lead.routes) if isinstance(one, APIRoute)]  # fmt: skip


def test_nothing_of_one_annotator_reaches_another_by_any_route(
    people: dict[str, Person], recipe: Path
) -> None:
    one, other = people["a1"], people["a2"]
    assert one.save("n0", mark("n0", "Ho khan", "history"), state="done").status_code == 200
    told = {**mark("n0", "Ho khan", "history"), "words": "Có phải bệnh sử không?"}
    told.pop("quote")
    assert one.post(place("n0").replace("/work", "/ask"), told).status_code == 200
    key = place("n0").split("/")[3]
    seen = 0
    for route in own_routes():
        for name in ("ward", "a1", "this"):
            for round in ("label", "practice", "adjudication", "work", "a1"):
                path = route.path.format(name=name, round=round, key=key)
                answer = (
                    other.get(path)
                    if "GET" in route.methods
                    else other.form(path, answer="x", question="x")
                )
                text = re.sub(r"<details>.*?</details>|title=\"[^\"]*\"", "", answer.text, flags=re.S)  # fmt: skip
                assert "bệnh sử" not in text and '"history"' not in text.replace(
                    'data-label="history"', ""
                )
                seen += 1
    assert seen > 60
    mine = other.get(place("n0")).json()
    assert (mine["marks"], mine["asked"], mine["state"]) == ([], [], "open")
    assert other.save("n0", mark("n0", "Sốt cao"), base=0).status_code == 200
    assert [m["label"] for m in one.get(place("n0")).json()["marks"]] == ["history"]
    for path in ("/labelling/ward", "/", "/projects/ward", place("n0", "adjudication")):
        assert other.get(path).status_code in (403, 404), path
    for path in ("/labelling/ward/settle", "/labelling/ward/answer", "/labelling/ward/give"):
        assert other.form(path).status_code == 403
    assert other.form("/label/settle").status_code == 403


def test_an_adjudicator_reaches_no_note_of_an_annotator_and_an_owner_no_page_of_either(
    people: dict[str, Person],
) -> None:
    assert people["adjudicator"].get(place("n0")).status_code == 404
    assert people["adjudicator"].save("n0", mark("n0", "Ho khan")).status_code == 404
    for path in ("/label", place("n0"), place("n0").removesuffix("/work")):
        assert people["owner"].get(path).status_code == 403
    assert people["owner"].save("n0", mark("n0", "Ho khan")).status_code == 403
    page = people["owner"].get("/labelling/ward").text
    assert "Ho khan" not in page and "0/6" in page


def test_every_step_needs_the_token_of_who_asks(people: dict[str, Person]) -> None:
    one = people["a1"]
    key = place("n0").split("/")[3]
    paths = [
        route.path.format(round="label", key=key)
        for route in labelling.router.routes
        if isinstance(route, APIRoute) and "POST" in route.methods
    ]
    assert len(paths) == 5
    for path in [*paths, place("n0")]:
        for token in ("", "0" * 64, people["a2"].token):
            headers = {"x-token": token}
            sent = one.client.request(
                "GET" if path == place("n0") and path not in paths else "POST",
                path,
                headers=headers,
                data={"token": token},
            )
            assert sent.status_code == 403, path
    assert one.client.get(place("n0")).status_code == 403, "a page of another address in this browser"  # fmt: skip


# To gold


def test_two_who_differ_are_settled_without_names_and_the_owner_sees_how_far_all_are(
    people: dict[str, Person], recipe: Path
) -> None:
    for name, kind in (("a1", "symptom"), ("a2", "history")):
        for note in TEXTS:
            marks = [mark("n0", "Ho khan", kind)] if note == "n0" else []
            answer = people[name].save(note, *marks, state="skipped" if note == "n5" else "done")
            assert answer.status_code == 200
    owner, judge = people["owner"], people["adjudicator"]
    overview = owner.get("/labelling/ward").text
    assert overview.count("6/6") == 2
    told = owner.form("/labelling/ward/settle").text
    assert "4 notes are settled" in told and "1 places are to be decided" in told
    (path,) = {*re.findall(r'href="(/label/adjudication/\w+)"', judge.get("/label").text)}
    task = judge.get(f"{path}/work").json()
    assert task["place"] == [5, 12] and len(task["candidates"]) == 2
    assert not re.search(r"\ba[12]\b", json.dumps(task["candidates"]) + judge.get(path).text.replace("data-", ""))  # fmt: skip
    wrong = {"writer": "w", "turn": 1, "base": 0, "state": "done", "seconds": 3.0}
    elsewhere = judge.post(f"{path}/work", {**wrong, "marks": [mark("n0", "Sốt cao")]})
    assert elsewhere.status_code == 400 and "elsewhere" in elsewhere.json()["said"]
    assert judge.post(f"{path}/work", {**wrong, "marks": [], "choice": 3}).status_code == 400
    number = [one[0]["label"] for one in task["candidates"]].index("symptom") + 1
    assert judge.post(f"{path}/work", {**wrong, "marks": [], "choice": number}).status_code == 200
    assert "5 notes are settled" in judge.form("/label/settle").text
    gold = recipe.parent / "labelling/gold.jsonl"
    rows = [json.loads(line) for line in gold.read_bytes().splitlines()]
    (entity,) = next(row["entities"] for row in rows if row["id"] == "n0")
    assert (entity["start"], entity["end"], entity["label"], entity["text"]) == (5, 12, "symptom", "Ho khan")  # fmt: skip


def test_time_left_is_told_when_five_notes_are_done(people: dict[str, Person]) -> None:
    for number, note in enumerate([*TEXTS][:5]):
        assert "left" not in people["a1"].get("/label").text
        people["a1"].save(note, state="done", seconds=30.0 + number)
    page = people["a1"].get("/label").text
    assert "5 of 6 done" in page and "about" in page and "left" in page


def test_an_answer_sends_back_those_who_asked_and_nobody_else(people: dict[str, Person]) -> None:
    one, other, owner = people["a1"], people["a2"], people["owner"]
    told = {"start": 5, "end": 12, "label": "symptom", "words": "Ho có kể không?"}
    path = place("n0").replace("/work", "/ask")
    for _ in range(2):
        assert one.post(path, told).status_code == 200
    assert one.post(path, {**told, "words": "  "}).status_code == 400
    assert one.post(path, {**told, "label": "x"}).status_code == 400
    page = owner.get("/labelling/ward").text
    (id,) = re.findall(r'name="question" value="(\w+)"', page)
    assert "[Ho khan]" in page and "<b>a1" not in page
    assert owner.form("/labelling/ward/answer", answer="").status_code == 400
    assert owner.form("/labelling/ward/answer", answer="Có.").status_code == 400, "which one?"
    assert owner.form("/labelling/ward/answer", answer="Có kể.", question=id).status_code == 200
    assert "Có kể." in one.get("/label").text and "Có kể." not in other.get("/label").text
    other.form("/label/seen", question=id)
    assert "Có kể." in one.get("/label").text, "another's click changes nothing"
    one.form("/label/seen", question=id)
    assert "Có kể." not in one.get("/label").text


def test_codes_are_found_without_marks_of_letters_and_by_their_beginning(
    people: dict[str, Person],
) -> None:
    def found(words: str) -> list[str]:
        return [code for code, _ in people["a1"].post("/label/codes", {"words": words}).json()]

    assert found("viem phoi") == ["J18.9"]
    assert found("dai THAO") == ["E11"]
    assert found("j18") == ["J18", "J18.9"]
    assert found("") == found("sốt") == []


@pytest.mark.parametrize("lang", [*LANGUAGES])
def test_pages_fit_keyboard_and_screen_reader(
    people: dict[str, Person], recipe: Path, lang: str
) -> None:
    sheet = place("n3").removesuffix("/work")
    for name, path in (("a1", "/label"), ("a1", sheet), ("owner", "/labelling/ward")):
        answer = people[name].client.get(path, params={"lang": lang})
        assert answer.status_code == 200
        check_page(answer.text, lang)
        assert "<b>Ho</b>" not in answer.text
    assert people["a1"].get(f"{sheet}").text.count("aria-live") + people["a1"].get(sheet).text.count('role="status"') >= 1  # fmt: skip


# With the other verbs


def test_notes_that_are_new_are_given_out_and_what_is_done_stays(
    people: dict[str, Person], recipe: Path
) -> None:
    people["a1"].save("n0", mark("n0", "Ho khan"), state="done")
    with (recipe.parent / "notes.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"id": "n9", "text": "Mới.", "entities": []}')
    assert people["owner"].form("/labelling/ward/give").status_code == 200
    page = people["a1"].get("/label").text
    assert "1 of 7 done" in page
    assert len(people["a1"].get(place("n0")).json()["marks"]) == 1


def test_an_amended_note_takes_its_marks_along(people: dict[str, Person], recipe: Path) -> None:
    long = "Ho khan nhiều về đêm, không sốt, ăn ngủ bình thường, mạch đều, bụng mềm không đau."
    path = recipe.parent / "notes.jsonl"

    def written(text: str) -> None:
        rows = [{"id": "n0", "text": text, "entities": []}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    out = recipe.parent / "other"
    loaded = Recipe.load(recipe, ["label.out=other"])
    written(long)
    known = give_out(loaded, recipe, ["label.out=other"])
    person = Person(out, known.codes["a1"])
    person.save("n0", {"start": 0, "end": 7, "label": "symptom"}, state="done")
    written(long.replace("mềm", "chướng"))
    give_out(loaded, recipe, ["label.out=other"])
    found = person.get(place("n0")).json()
    assert "chướng" in found["text"] and found["state"] == "done"
    assert [(m["start"], m["end"]) for m in found["marks"]] == [(0, 7)]


def test_invented_annotators_rehearse_in_the_browser_too(tmp_path: Path) -> None:
    from residency.synth.clinical_notes import records

    found = recipe_in(tmp_path / "ward", annotators=3, bootstrap=20)
    rows = [
        {
            "id": note.id,
            "text": note.text,
            "entities": [{"start": s.start, "end": s.end, "label": s.label} for s in note.spans],
        }
        for note in records("vi", 6, seed=3)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "ward/notes.jsonl").write_text(lines, "utf-8")
    agreement, _, outcome = label.rehearse(Recipe.load(found))
    assert agreement.notes == 6 and outcome.decisions
    kept = (tmp_path / "ward/labelling/label/annotations/a1.jsonl").read_bytes().splitlines()
    assert len(kept) == 6


def test_a_practice_round_stands_before_the_notes(people: dict[str, Person], recipe: Path) -> None:
    gold = recipe.parent / "gold.jsonl"
    rows = [
        {
            "id": f"g{n}",
            "text": f"Ho {n}.",
            "entities": [{"start": 0, "end": 2, "label": "symptom"}],
        }
        for n in range(10)
    ]
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    label.practice(Recipe.load(recipe), gold)
    page = people["a1"].get("/label").text
    assert page.index("Practice") < page.index("Your notes") and "0 of 10 done" in page
    sent = {"writer": "w", "turn": 1, "base": 0, "state": "done", "seconds": 5.0}
    marks = [{"start": 0, "end": 2, "label": "symptom"}]
    for n in range(10):
        path = place(f"g{n}", "practice")
        assert people["a1"].post(path, {**sent, "marks": marks}).status_code == 200
    _, told = label.practice(Recipe.load(recipe), gold)
    assert [(one.annotator, one.strict) for one in told] == [("a1", 1.0)]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Every test reads recipes anew: files of two tests may have one time."""
    from residency.workflows import label_open

    label_open._setup.cache_clear()
    label_open._read.cache_clear()
    label_open._codes.cache_clear()
    yield
