"""The doctor's page: what is asked is answered as the server answers it, what the doctor says of it is
kept in one table, and what was asked is kept nowhere."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from residency.models import artefact
from residency.models.adapters import Lora, method_of
from residency.models.base import BaseModelSettings, resolve
from residency.models.generation import Generation, TokenLimits
from residency.models.predictors import remember
from residency.pages import asked
from residency.pages.app import create_app
from residency.pages.doctor import FIELDS, findings
from residency.pages.work import Work
from residency.tasks.card import Card, Label, load_card
from residency.workflows.feedback import FILE, read

SECRET = "s" * 43
HERE = "http://127.0.0.1:8765"
SPANS = Card(name="ner", family="spans", labels=(Label(name="drug"), Label(name="disease")))
LABELS = Card(
    name="triage",
    family="labels",
    labels=(Label(name="J18", title="pneumonia"), Label(name="J45"), Label(name="I10")),
)
TEXT = "👩‍⚕️ BN ho khan,\r\nsốt cao; <b>患者咳嗽</b>."
ASKED = {
    "patient": "Nam, 62 tuổi, ZZPATIENT",
    "complaint": "ho khan ba ngày ZZCOMPLAINT",
    "history": "hút thuốc lá ZZHISTORY",
    "examination": "sốt 38.5 độ",
    "tests": "X-quang: mờ thùy dưới",
}


def marker(folder: Path, card: Card) -> None:
    """The artefact of an encoder with a random head."""
    import torch

    torch.manual_seed(3)
    base = resolve(BaseModelSettings(id="bundled:tiny-encoder"))
    model = method_of(Lora(r=2)).attach(artefact.fresh(base, card)).eval()
    artefact.save(folder, model, base, card, Lora(r=2), "synthetic")
    remember(folder)


def writer(folder: Path) -> None:
    """The artefact of a model that learned to write diagnoses."""
    import torch

    base, card = resolve(BaseModelSettings(id="bundled:tiny-lm")), load_card("consultation")
    torch.manual_seed(5)
    model = method_of(Lora(r=2)).attach(artefact.fresh(base, card, "text")).eval()
    writing = artefact.GenerativeSettings(
        chat=artefact.chat(base, TokenLimits()), generation=Generation(max_tokens=16)
    )
    artefact.save(folder, model, base, card, Lora(r=2), "synthetic", writing)
    remember(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run for each kind of model."""
    root = tmp_path_factory.mktemp("projects")
    makes: dict[str, Callable[[Path], None]] = {
        "ner": lambda folder: marker(folder, SPANS),
        "triage": lambda folder: marker(folder, LABELS),
        "words": writer,
    }
    (root / "ward").mkdir()
    (root / "ward/recipe.yaml").write_text("schema: 1\n", "utf-8")
    for name, make in makes.items():
        folder = root / "ward/runs" / name
        folder.mkdir(parents=True)
        manifest = {
            "schema": 1, "name": "x", "recipe_digest": "0", "root": "../..",
            "created": "2026-01-01T00:00:00Z", "code": "1", "packages": {}, "hardware": "",
            "inputs": {}, "profile": "synthetic", "status": "done",
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        make(folder / "train/1-lora")
    return root


@pytest.fixture
def app(root: Path) -> FastAPI:
    (root / "ward" / FILE).unlink(missing_ok=True)
    return create_app(root, SECRET)


@pytest.fixture
def browser(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=HERE) as found:
        found.get("/", params={"secret": SECRET, "lang": "en"})
        found.cookies.set("residency-language", "en")
        yield found


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, name
    return unescape(found[1])


def ask(browser: TestClient, run: str, **given: str) -> Any:
    place = f"/projects/ward/runs/{run}/doctor"
    form = {"token": hidden(browser.get(place).text, "token"), **given}
    return browser.post(place, data=form)


def judge(browser: TestClient, run: str, page: str, **given: str) -> Any:
    form = {name: hidden(page, name) for name in ("token", "answered", "seal")}
    return browser.post(f"/projects/ward/runs/{run}/doctor/feedback", data=form | given)


@pytest.mark.parametrize(
    ("run", "there", "missing"),
    [
        ("ner", "#extraction", "#consultation"),
        ("triage", "#consultation", "#extraction"),
        ("words", "#consultation", "#extraction"),
    ],
)
def test_a_run_is_asked_what_its_model_answers(
    browser: TestClient, run: str, there: str, missing: str
) -> None:
    page = browser.get(f"/projects/ward/runs/{run}/doctor").text
    assert f'id="{there[1:]}"' in page
    assert f'id="{missing[1:]}"' not in page


def test_history_goes_with_the_patient_and_examination_with_the_complaint() -> None:
    assert findings(ASKED) == {
        "patient_info": "Nam, 62 tuổi, ZZPATIENT\nhút thuốc lá ZZHISTORY",
        "symptoms": "ho khan ba ngày ZZCOMPLAINT\nsốt 38.5 độ",
        "test_results": "X-quang: mờ thùy dưới",
    }


def test_a_diagnosis_is_the_likeliest_label_or_an_abstention_with_how_sure_it_is(
    browser: TestClient,
) -> None:
    page = ask(browser, "triage", route="diagnose", **ASKED).text
    assert "It abstains" in page, "three labels by a random head: none is sure by 0.5"
    assert re.search(r"<b>3\d %</b>", page)
    answered = json.loads(hidden(page, "answered"))
    assert answered["abstained"] is True and "answer" not in answered
    assert 1 / 3 <= answered["confidence"] < 0.5


def test_entities_are_drawn_at_their_code_points(browser: TestClient) -> None:
    page = ask(browser, "ner", route="extract", text=TEXT).text
    text = TEXT.replace("\r\n", "\n")
    found = re.findall(r'<mark data-start="(\d+)" data-end="(\d+)"[^>]*>([^<]*)</mark>', page)
    assert found, "a random head marks something"
    assert all(text[int(start) : int(end)] == unescape(words) for start, end, words in found)
    drawn = re.search(r'<p class="tried"[^>]*>(.*?)</p>', page, re.S)
    assert drawn is not None
    assert unescape(re.sub(r"</?mark[^>]*>", "", drawn[1])) == text


def test_the_answer_is_the_servers(browser: TestClient, root: Path) -> None:
    """An own application around the same model gives the same entities."""
    page = ask(browser, "ner", route="extract", text=TEXT).text
    app, key = asked._routes_of(root / "ward/runs/ner/train/1-lora")
    server = TestClient(app)
    given = {"text": TEXT.replace("\r\n", "\n"), "lang": "vi"}
    answer = server.post("/extract", json=given, headers={"authorization": f"Bearer {key}"})
    wanted = {(one["start"], one["end"]) for one in answer.json()["entities"]}
    drawn = re.findall(r'class="num">(\d+)</td><td class="num">(\d+)</td>', page)
    assert {(int(start), int(end)) for start, end in drawn} == wanted


def test_a_model_is_loaded_once_for_all_questions(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    real = asked._routes_of
    monkeypatch.setattr(asked, "_routes_of", lambda model: (loads.append(model), real(model))[1])
    for _ in range(3):
        assert ask(browser, "ner", route="extract", text="ho khan").status_code == 200
    assert len(loads) == 1


def test_a_text_is_tried_without_loading_the_model_again(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from residency.pages import tries

    loads: list[Path] = []
    real = tries.trained
    monkeypatch.setattr(tries, "trained", lambda model: (loads.append(model), real(model))[1])
    place = "/projects/ward/runs/ner/try"
    token = hidden(browser.get(place).text, "token")
    pages = [browser.post(place, data={"token": token, "text": "ho khan"}).text for _ in range(3)]
    assert len(loads) == 1
    assert pages[0] == pages[1] == pages[2]


# What the doctor says of it


def rows(root: Path) -> list[dict[str, Any]]:
    path = root / "ward" / FILE
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("verdict", ["right", "wrong", "harmful"])
def test_what_is_said_goes_into_one_table_without_what_was_asked(
    browser: TestClient, root: Path, verdict: str
) -> None:
    page = ask(browser, "triage", route="diagnose", **ASKED).text
    said = judge(browser, "triage", page, verdict=verdict, comment="Viêm phổi <b>\n")
    assert said.status_code == 200 and "Thank you" in said.text
    [row] = rows(root)
    assert (row["verdict"], row["comment"], row["who"]) == (verdict, "Viêm phổi <b>", "owner")
    assert row["at"].endswith("+00:00")
    model = root / "ward/runs/triage/train/1-lora/artefact.json"
    assert row["of"]["model"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert row["of"]["route"] == "diagnose"
    path = root / "ward" / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    everything = [one.read_bytes() for one in root.rglob("*") if one.is_file()]
    for given in ASKED.values():
        assert not any(given.encode() in one for one in everything)


def test_entities_are_kept_as_counts_of_their_labels(browser: TestClient, root: Path) -> None:
    page = ask(browser, "ner", route="extract", text=TEXT).text
    judge(browser, "ner", page, verdict="right")
    [row] = rows(root)
    assert set(row["of"]["found"]) <= {"drug", "disease"}
    assert sum(row["of"]["found"].values()) == page.count("<mark ")
    assert "ho khan" not in json.dumps(row, ensure_ascii=False)


@pytest.mark.parametrize("ticked", [False, True])
def test_what_a_model_writes_is_kept_only_where_the_doctor_says_so(
    browser: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch, ticked: bool
) -> None:
    said = asked.Said(
        found={"diagnosis": "viêm phổi", "confidence": 0.9, "abstained": False,
               "disclaimer": "", "model": "words", "digest": "d" * 64}
    )  # fmt: skip
    monkeypatch.setattr("residency.pages.doctor.ask_run", lambda *_: said)
    page = ask(browser, "words", route="diagnose", **ASKED).text
    assert "viêm phổi" in page and "90 %" in page
    judge(browser, "words", page, verdict="right", **({"with-answer": "yes"} if ticked else {}))
    [row] = rows(root)
    assert row["of"].get("answer", "") == ("viêm phổi" if ticked else "")


def test_what_is_said_later_takes_the_place_of_what_was_said_before(
    browser: TestClient, root: Path
) -> None:
    first = ask(browser, "triage", route="diagnose", **ASKED).text
    second = ask(browser, "triage", route="diagnose", **ASKED).text
    judge(browser, "triage", first, verdict="right")
    judge(browser, "triage", second, verdict="wrong")
    judge(browser, "triage", first, verdict="harmful")
    assert len(rows(root)) == 3
    assert [one.verdict for one in read(root / "ward")] == ["wrong", "harmful"]


def test_an_answer_that_was_never_given_cannot_be_judged(browser: TestClient, root: Path) -> None:
    page = ask(browser, "triage", route="diagnose", **ASKED).text
    changed = hidden(page, "answered").replace("triage", "another")
    form = {"token": hidden(page, "token"), "answered": changed, "seal": hidden(page, "seal")}
    place = "/projects/ward/runs/triage/doctor/feedback"
    assert browser.post(place, data=form | {"verdict": "right"}).status_code == 400
    assert judge(browser, "triage", page, verdict="splendid").status_code == 400
    assert judge(browser, "triage", page, verdict="right", comment="x" * 4001).status_code == 400
    assert not (root / "ward" / FILE).exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"route": "diagnose"} | dict.fromkeys(FIELDS, " "), "Write who the patient is"),
        ({"route": "extract", "text": "x"}, "This cannot be asked here"),
        ({"route": "diagnose"} | ASKED | {"tests": "x" * 20_001}, "longer than 20000"),
        ({"route": "diagnose"} | ASKED | {"patient": "...", "history": ""}, "holds no words"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(
    browser: TestClient, given: dict[str, str], sentence: str
) -> None:
    page = ask(browser, "triage", **given)
    assert page.status_code == 400
    assert sentence in unescape(page.text)
    if given["route"] == "diagnose":
        assert given["tests"] in page.text, "what was written is not lost"


def test_a_run_without_a_finished_model_has_no_page_for_a_doctor(
    browser: TestClient, root: Path
) -> None:
    folder = root / "ward/runs/bare"
    folder.mkdir(exist_ok=True)
    source = root / "ward/runs/ner/manifest.json"
    (folder / "manifest.json").write_bytes(source.read_bytes())
    assert browser.get("/projects/ward/runs/bare/doctor").status_code == 404
    assert browser.get("/doctor").status_code == 404
    assert Work().standing(folder).status == "done"


@pytest.mark.parametrize("lang", ["vi", "zh"])
def test_the_page_and_its_refusals_are_in_the_language_of_the_doctor(
    browser: TestClient, lang: str
) -> None:
    browser.cookies.set("residency-language", lang)
    page = ask(browser, "triage", route="diagnose", **ASKED).text
    assert f'<html lang="{lang}">' in page
    for words in ("Ask the model", "Complaint", "It abstains", "How sure", "Send what"):
        assert words not in page
    refused = ask(browser, "triage", route="diagnose", **dict.fromkeys(FIELDS, ""))
    assert "Write who" not in refused.text


def test_what_the_department_accepted_stands_beside_the_answer_and_nothing_else(
    browser: TestClient, root: Path
) -> None:
    from residency.knowledge.passages import Document, KnowledgeBase

    place, path = "/projects/ward/runs/triage/doctor", root / "ward/ward.kb"

    def answered() -> str:
        token = re.search(r'name="token" value="(\w+)"', browser.get(place).text)
        assert token is not None
        form = ASKED | {"route": "diagnose", "token": token[1]}
        return unescape(browser.post(place, data=form).text)

    assert "knowledge base" not in answered()
    try:
        with KnowledgeBase(path, "ward") as base:
            texts = ("Ho khan ba ngày: nghe phổi.", "Ho khan ba ngày: <b>chưa duyệt</b>.")
            base.add(
                Document(name=f"g{n}", version="1", text=text, until="2099-01-01")
                for n, text in enumerate(texts)
            )
            assert "No source" in answered()
            base.decide([(base.waiting()[0].id, True)], "bs. Lan")
            page = answered()
        assert "<blockquote" in page and texts[0] in page and "chưa duyệt" not in page
        assert re.search(
            r"g0, 1\.\s+Accepted by bs\. Lan on 20\d\d-\d\d-\d\d\. Valid until 2099", page
        )
        assert "they do not say that the answer is right" in page
    finally:
        path.unlink(missing_ok=True)
