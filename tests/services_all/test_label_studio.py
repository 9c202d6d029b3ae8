"""Blind labelling on real Label Studio servers, one for each annotator, started by the repository's
script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import krippendorff
import numpy as np
import pytest

from residency.core.types import Note, Span
from residency.corpus.write import write_jsonl
from residency.label.simulate import simulate
from residency.label.studio import result
from residency.recipe import Recipe
from residency.synth.clinical_notes import records
from residency.tasks.card import load_card
from residency.workflows import label

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = ("a1", "a2", "a3")
CARD = load_card("clinical")
HOSTILE = {
    "emoji": ("Sốt 😀👩‍⚕️ cao, viêm phổi 🫁 nặng.", {"diagnosis": "viêm phổi", "symptom": "cao"}),
    "crlf": (
        "Sốt cao.\r\nHo khan.\r\n\r\nviêm phổi.",
        {"diagnosis": "viêm phổi", "symptom": "Ho khan"},
    ),
    "nfd": (
        unicodedata.normalize("NFD", "Tiền sử tăng huyết áp; sốt."),
        {"history": unicodedata.normalize("NFD", "tăng huyết áp")},
    ),
    "chinese": (
        "患者发热三天，𠮷诊断为肺炎，予阿莫西林。",
        {"diagnosis": "肺炎", "drug": "阿莫西林"},
    ),
}

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        os.environ.get("RESIDENCY_SERVICES") != "all",
        reason="real servers: make test-services-all starts and tests them",
    ),
]


def spans(text: str, labels: dict[str, str]) -> tuple[Span, ...]:
    found = [
        Span(start=text.index(q), end=text.index(q) + len(q), label=name, quote=q)
        for name, q in labels.items()
    ]
    return tuple(sorted(found, key=lambda span: span.start))


@pytest.fixture(scope="module")
def accounts() -> dict[str, str]:
    """Four servers with their accounts; they are left running for the next time."""
    script = ROOT / "scripts" / "label_studio.py"
    subprocess.run([sys.executable, script, "start", "--annotators", "3"], check=True, timeout=1500)
    lines = (ROOT / ".services" / "label-studio" / "accounts.env").read_text("utf-8").splitlines()
    found = dict(line.split("=", 1) for line in lines)
    os.environ.update({name: value for name, value in found.items() if name.endswith("_TOKEN")})
    return found


def client(accounts: dict[str, str], server: str, account: str | None = None) -> httpx2.Client:
    """A server asked with the token of an account, its own unless another is named."""
    token = accounts[f"LABEL_STUDIO_{(account or server).upper()}_TOKEN"]
    return httpx2.Client(
        base_url=accounts[f"LABEL_STUDIO_{server.upper()}_URL"],
        headers={"Authorization": f"Token {token}"},
        timeout=120,
    )


def made(folder: Path, accounts: dict[str, str], notes: list[Note], **more: Any) -> Recipe:
    """A recipe on the four servers, with a name that no project has yet."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(notes, folder / "notes.jsonl")
    server = {
        name: {
            "url": accounts[f"LABEL_STUDIO_{name.upper()}_URL"],
            "token": f"env:LABEL_STUDIO_{name.upper()}_TOKEN",
        }
        for name in (*PEOPLE, "adjudicator")
    }
    label = {
        "data": "notes",
        "via": "label_studio",
        "servers": [server[name] for name in PEOPLE],
        "bootstrap": 50,
    }
    value = {
        "schema": 1,
        "name": f"t{uuid4().hex[:8]}",
        "data": {"notes": {"format": "jsonl", "path": "notes.jsonl", "profile": "synthetic"}},
        "tasks": [{"card": "clinical", "data": "notes"}],
        "label": {**label, "adjudicator": server["adjudicator"], **more},
    }
    return Recipe.from_mapping(value, folder)


def project(
    accounts: dict[str, str], name: str, recipe: Recipe, round: str = "label"
) -> tuple[int, dict[str, int]]:
    """The project of a person, and its tasks by note."""
    with client(accounts, name) as asked:
        rows = asked.get("/api/projects", params={"page_size": 1000}).json()["results"]
        id = next(row["id"] for row in rows if row["title"] == f"{recipe.name} / {round}")
        found, page = {}, 1
        while True:
            got = asked.get(
                "/api/tasks",
                params={"project": id, "page": page, "page_size": 500, "fields": "all"},
            ).json()
            found |= {task["data"]["note"]: task["id"] for task in got["tasks"]}
            if page * 500 >= got["total"]:
                return id, found
            page += 1


def annotate(
    accounts: dict[str, str],
    name: str,
    task: int,
    regions: list[dict[str, Any]],
    seconds: float = 30,
) -> int:
    with client(accounts, name) as asked:
        sent = asked.post(
            f"/api/tasks/{task}/annotations/", json={"result": regions, "lead_time": seconds}
        )
        sent.raise_for_status()
        return int(sent.json()["id"])


@pytest.fixture(scope="module")
def ward(accounts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """500 notes given out and labelled over the API as three people who err like people, with
    planted faults."""
    truth = [
        n
        for lang in ("vi", "zh", "en")
        for n in islice((n for n in records(lang, 900, 9) if len(n.text) < 700), 166)
    ]
    truth = [*truth[: 500 - len(HOSTILE)]]
    truth += [
        Note(id=k, text=t, profile="synthetic", group=k, spans=spans(t, s))
        for k, (t, s) in HOSTILE.items()
    ]
    assert len(truth) == 500
    bare = [
        Note(id=n.id, text=n.text, profile="synthetic", group=f"{n.lang}{n.group}") for n in truth
    ]
    recipe = made(tmp_path_factory.mktemp("ward"), accounts, bare)
    label.push(recipe)
    said: dict[str, dict[str, tuple[Span, ...]]] = {}
    faulty: dict[str, int] = {}
    for name in PEOPLE:
        _, tasks = project(accounts, name, recipe)
        said[name] = {one.note: one.spans for one in simulate(truth, CARD, name)}
        said[name] |= {id: spans(*HOSTILE[id]) for id in HOSTILE}
        with client(accounts, name) as asked:
            for number, (note, marked) in enumerate(said[name].items()):
                regions = result(marked)
                if (
                    name == "a3" and number < 9
                ):  # five out of range, four with a label that the card does not have
                    place = (
                        {"start": 0, "end": 99_999, "text": ""}
                        if number < 5
                        else {"start": 0, "end": 2, "text": ""}
                    )
                    tag = "symptom" if number < 5 else "Befund"
                    regions.append(
                        {
                            "id": "x",
                            "from_name": "label",
                            "to_name": "text",
                            "type": "labels",
                            "value": {**place, "labels": [tag]},
                        }
                    )
                sent = asked.post(
                    f"/api/tasks/{tasks[note]}/annotations/",
                    json={"result": regions, "lead_time": 20.0},
                )
                sent.raise_for_status()
                if name == "a3" and number < 9:
                    faulty[note] = int(sent.json()["id"])
    return {"recipe": recipe, "said": said, "truth": {n.id: n for n in truth}, "faulty": faulty}


def test_planted_faults_are_found_and_wait_until_mended(
    accounts: dict[str, str], ward: dict[str, Any]
) -> None:
    pulled, times = label.pull(ward["recipe"])
    assert [(one.done, one.faulty, one.trouble) for one in pulled] == [
        (500, 0, ""),
        (500, 0, ""),
        (500, 9, ""),
    ]
    assert [fault.partition(":")[0] for fault in pulled[2].faults] == [
        "label is not in the card (Befund)",
        "span lies outside the text",
    ]
    assert len(times) == 3
    kept = label.read_annotations(label.open_labelling(ward["recipe"]))["a1"]
    assert all(one.at.startswith("20") and one.seconds == 20.0 for one in kept.values())
    assert {n: s.spans for n, s in kept.items()} == {
        n: tuple(sort_spans(s)) for n, s in ward["said"]["a1"].items()
    }
    with client(accounts, "a3") as asked:
        for note, id in ward["faulty"].items():
            asked.patch(
                f"/api/annotations/{id}/", json={"result": result(ward["said"]["a3"][note])}
            ).raise_for_status()
    again, _ = label.pull(ward["recipe"])
    assert [(one.changed, one.same, one.faulty) for one in again] == [
        (0, 500, 0),
        (0, 500, 0),
        (9, 491, 0),
    ]
    third, _ = label.pull(ward["recipe"])
    assert [(one.new, one.changed) for one in third] == [(0, 0)] * 3


def sort_spans(marked: tuple[Span, ...]) -> list[Span]:
    from residency.label.annotations import sort_spans

    return sort_spans(marked)


def test_agreement_is_that_of_the_reference_package_on_all_500(ward: dict[str, Any]) -> None:
    label.pull(ward["recipe"])
    found, _ = label.agreement(ward["recipe"])
    rows: list[list[str]] = [[], [], []]
    for id, note in ward["truth"].items():
        for row, name in zip(rows, PEOPLE, strict=True):
            values = ["-"] * len(note.text)
            for span in ward["said"][name][id]:
                values[span.start : span.end] = [span.label] * (span.end - span.start)
            row += [
                value
                for value, letter in zip(values, note.text, strict=True)
                if not letter.isspace()
            ]
    expected = krippendorff.alpha(reliability_data=np.array(rows), level_of_measurement="nominal")
    assert found.notes == 500 and found.alpha[0].value == pytest.approx(expected, abs=1e-12)
    same = total = 0
    for one, other in ((0, 1), (0, 2), (1, 2)):
        for id in ward["truth"]:
            sides = [
                {(s.start, s.end, s.label) for s in ward["said"][PEOPLE[k]][id]}
                for k in (one, other)
            ]
            same, total = same + len(sides[0] & sides[1]), total + len(sides[0]) + len(sides[1])
    assert found.pooled[0].metric == "strict_f1" and found.pooled[0].value == pytest.approx(
        2 * same / total, abs=1e-12
    )


def test_adjudication_on_a_server_ends_in_gold_exact_to_the_code_point(
    accounts: dict[str, str], ward: dict[str, Any]
) -> None:
    recipe = ward["recipe"]
    label.pull(recipe)
    outcome, sent, _ = label.adjudicate(recipe)
    assert sent is not None and sent.where.startswith(accounts["LABEL_STUDIO_ADJUDICATOR_URL"])
    _, tasks = project(accounts, "adjudicator", recipe, "adjudication")
    assert set(tasks) == {place.id for place in outcome.open}
    with client(accounts, "adjudicator") as asked:
        shown = json.dumps(asked.get(f"/api/tasks/{next(iter(tasks.values()))}").json()["data"])
        assert not any(name in shown for name in PEOPLE)
        for place in outcome.open:
            choice = {
                "id": "d",
                "from_name": "decision",
                "to_name": "text",
                "type": "choices",
                "value": {"choices": ["1"]},
            }
            asked.post(
                f"/api/tasks/{tasks[place.id]}/annotations/", json={"result": [choice]}
            ).raise_for_status()
    done, _, _ = label.adjudicate(recipe)
    assert not done.open and len(done.gold) == 500
    gold = {
        row["id"]: row
        for row in map(
            json.loads, (recipe.root / "labelling" / "gold.jsonl").read_text("utf-8").splitlines()
        )
    }
    for id, (text, labels) in HOSTILE.items():
        assert gold[id]["text"] == text
        found = [(e["start"], e["end"], e["label"], e["text"]) for e in gold[id]["entities"]]
        assert found == [(s.start, s.end, s.label, s.quote) for s in spans(text, labels)]
    assert all(
        row["text"][e["start"] : e["end"]] == e["text"]
        for row in gold.values()
        for e in row["entities"]
    )


def routes(asked: httpx2.Client) -> list[str]:
    """Every address that can be read, of the server's own description, with a small id in every
    place for one."""
    paths = asked.get("/docs/api/schema/json/").json()["paths"]
    found = []
    for path, methods in paths.items():
        if "get" in methods:
            while "{" in path:
                path = path[: path.index("{")] + "1" + path[path.index("}") + 1 :]
            found.append(path)
    return sorted(
        {*found, "/data/upload/1/x", "/api/tasks?fields=all&page_size=1000", "/api/dm/views"}
    )


def test_no_account_reaches_what_another_marked(accounts: dict[str, str], tmp_path: Path) -> None:
    secret = f"secret{uuid4().hex}"
    note = Note(id="s", text=f"{secret} viêm phổi", profile="synthetic")
    recipe = made(tmp_path, accounts, [note])
    label.push(recipe)
    _, tasks = project(accounts, "a2", recipe)
    marked = f"r{uuid4().hex}"
    region = {**result(spans(note.text, {"diagnosis": "viêm phổi"}))[0], "id": marked}
    annotation = annotate(accounts, "a2", tasks["s"], [region])
    with client(accounts, "a2") as own:
        every = routes(own)
        assert len(every) > 60
        theirs, _ = project(accounts, "a2", recipe)
        every += [
            f"/api/annotations/{annotation}/",
            f"/api/tasks/{tasks['s']}",
            f"/api/tasks/{tasks['s']}/annotations/",
            f"/api/projects/{theirs}/export?exportType=JSON",
            f"/api/tasks?project={theirs}&fields=all",
        ]
        assert marked in own.get(f"/api/annotations/{annotation}/").text, (
            "the owner sees it, so the routes are right"
        )
    for other in ("a1", "a3", "adjudicator"):
        with client(accounts, "a2", other) as asked:  # another's token on this server
            seen = {path: asked.get(path) for path in every}
        open_ = {
            path
            for path, reply in seen.items()
            if reply.status_code == 200 and path.startswith("/api/")
        }
        assert not any(marked in reply.text or secret in reply.text for reply in seen.values())
        assert not {
            path
            for path in open_
            if any(word in path for word in ("task", "annotation", "export", "project"))
        }
        with client(accounts, other) as asked:  # its own server knows nothing of it
            assert not any(marked in asked.get(path).text for path in every)


def test_a_session_of_one_server_is_none_on_another(accounts: dict[str, str]) -> None:
    with httpx2.Client(base_url=accounts["LABEL_STUDIO_A1_URL"], follow_redirects=True) as one:
        page = one.get("/user/login/")
        form = {
            "csrfmiddlewaretoken": one.cookies["csrftoken"],
            "email": accounts["LABEL_STUDIO_A1_LOGIN"],
            "password": accounts["LABEL_STUDIO_A1_PASSWORD"],
        }
        assert page.status_code == 200
        one.post("/user/login/", data=form, headers={"Referer": str(page.url)})
        assert one.get("/api/current-user/whoami").status_code == 200
        cookies = {cookie.name: cookie.value or "" for cookie in one.cookies.jar}
    with httpx2.Client(base_url=accounts["LABEL_STUDIO_A2_URL"], cookies=cookies) as other:
        assert other.get("/api/current-user/whoami").status_code == 401
        assert other.get("/api/projects").status_code == 401
        assert other.post(
            "/user/signup/", data={"email": "x@y.invalid", "password": "x" * 12}
        ).status_code in (
            401,
            403,
        )


def test_what_goes_wrong_is_one_sentence_and_nothing_is_lost(
    accounts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = [Note(id=id, text=text, profile="synthetic") for id, (text, _) in HOSTILE.items()]
    recipe = made(tmp_path, accounts, notes)
    label.push(recipe)
    id, tasks = project(accounts, "a1", recipe)
    for note in ("emoji", "crlf"):
        annotate(accounts, "a1", tasks[note], result(spans(*HOSTILE[note])))
    label.pull(recipe)
    with client(accounts, "a1") as asked:  # the project is deleted half-way
        asked.delete(f"/api/projects/{id}/").raise_for_status()
    pulled, _ = label.pull(recipe)
    assert (
        "is not at" in pulled[0].trouble
        and "push puts it up again" in pulled[0].trouble
        and pulled[0].done == 2
    )
    label.push(recipe)
    again, _ = label.pull(recipe)
    assert again[0].done == 2 and not again[0].trouble
    id, tasks = project(accounts, "a1", recipe)
    with client(accounts, "a1") as asked:  # a label is added in the interface, and used
        config = asked.get(f"/api/projects/{id}").json()["label_config"]
        config = config.replace("</Labels>", '<Label value="Befund"/></Labels>')
        asked.patch(f"/api/projects/{id}", json={"label_config": config}).raise_for_status()
    span = Span(start=0, end=2, label="Befund", quote=HOSTILE["chinese"][0][:2])
    annotate(accounts, "a1", tasks["chinese"], result([span]))
    used, _ = label.pull(recipe)
    assert used[0].faults == (
        "label is not in the card (Befund): 1 note (chinese); add it to the card, or take another",
    )
    assert used[0].done == 3
    monkeypatch.setenv("LABEL_STUDIO_A1_TOKEN", "0" * 40)  # a token without rights
    refused, _ = label.pull(recipe)
    assert (
        "refuses the token in LABEL_STUDIO_A1_TOKEN (401)" in refused[0].trouble
        and refused[0].done == 3
    )
    assert not refused[1].trouble


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api")
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    if not Path("/usr/bin/chromium").is_file():
        pytest.skip("needs /usr/bin/chromium (apt-get install chromium)")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        yield started
        started.close()


def test_a_span_marked_with_the_mouse_in_chromium_is_pulled_exactly(
    accounts: dict[str, str], tmp_path: Path, browser: Any
) -> None:
    text, labels = "Sốt 😀 cao.\r\nNghi viêm phổi, ho khan.", {"diagnosis": "viêm phổi"}
    codes = tmp_path / "codes.csv"
    codes.write_text(
        "code,name\nJ18,Viêm phổi\nJ18.9,Viêm phổi không đặc hiệu\nA01,Thương hàn\n", "utf-8"
    )
    recipe = made(
        tmp_path, accounts, [Note(id="n", text=text, profile="synthetic")], codes="codes.csv"
    )
    label.push(recipe)
    id, tasks = project(accounts, "a1", recipe)
    url = accounts["LABEL_STUDIO_A1_URL"]
    page = browser.new_page(viewport={"width": 1400, "height": 950})
    strangers: list[str] = []
    page.on(
        "request",
        lambda r: (
            strangers.append(r.url)
            if r.url.startswith("http") and not r.url.startswith(url)
            else None
        ),
    )
    page.goto(f"{url}/user/login/")
    page.fill("input[name=email]", accounts["LABEL_STUDIO_A1_LOGIN"])
    page.fill("input[name=password]", accounts["LABEL_STUDIO_A1_PASSWORD"])
    page.click("button[type=submit]")
    page.wait_for_load_state()
    page.goto(f"{url}/projects/{id}/data?task={tasks['n']}")
    page.wait_for_selector("text=Nghi viêm phổi", timeout=90_000)
    page.wait_for_timeout(2000)
    page.keyboard.press("1")  # the hotkey of diagnosis
    line = page.locator("[class*=richtext] >> text=Nghi viêm phổi").last
    ends = line.evaluate(
        """(element, quote) => {
            const walk = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
            for (let node = walk.nextNode(); node; node = walk.nextNode()) {
                const at = node.data.indexOf(quote);
                if (at < 0) continue;
                const box = (from, to) => { const r = document.createRange(); r.setStart(node, from); r.setEnd(node, to);
                    const b = r.getBoundingClientRect(); return [b.left, b.right, b.top + b.height / 2]; };
                return [box(at, at + 1), box(at + quote.length - 1, at + quote.length)];
            }
        }""",
        "viêm phổi",
    )
    page.mouse.move(ends[0][0] + 0.5, ends[0][2])
    page.mouse.down()
    page.mouse.move(ends[1][1] - 0.5, ends[1][2], steps=12)
    page.mouse.up()
    page.wait_for_timeout(800)
    page.locator("[class*=htx-highlight]").first.click()
    page.locator("text=uncertain").first.click()
    page.locator("[class*=taxonomy]").first.click()
    page.wait_for_timeout(500)
    page.keyboard.type("J18.9")
    page.wait_for_timeout(1500)
    page.locator("text=J18.9 Viêm phổi không đặc hiệu").last.click()
    page.wait_for_timeout(500)
    shots = Path(os.environ.get("RESIDENCY_SCREENSHOTS", tmp_path))
    page.screenshot(path=shots / "label-studio.png")
    page.keyboard.press("Escape")
    page.locator("button:has-text('Submit')").first.click(force=True)
    for _ in range(40):
        page.wait_for_timeout(500)
        pulled, _ = label.pull(recipe)
        if pulled[0].done:
            break
    page.screenshot(path=shots / "label-studio-saved.png")
    page.close()
    kept = label.read_annotations(label.open_labelling(recipe))["a1"]["n"]
    (expected,) = spans(text, labels)
    assert [(s.start, s.end, s.label, s.quote, s.attributes, s.code) for s in kept.spans] == [
        (expected.start, expected.end, "diagnosis", "viêm phổi", ("uncertain",), "J18.9")
    ]
    assert kept.seconds and kept.at.startswith(time.strftime("%Y", time.gmtime())) and not strangers
