"""The pages: who is answered, what stands in them, and that nothing from a request becomes a path or
markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from residency.core import progress
from residency.pages import app as pages
from residency.pages import folders, road
from residency.pages.app import ROUTERS, create_app
from residency.pages.desk import LANGUAGES, Person, curve, words_in
from residency.pages.queues import SAID
from residency.pages.tries import pieces
from residency.synth.clinical_notes import records
from residency.workflows.check import CheckFinding

SECRET = "s" * 43
HERE = "http://127.0.0.1:8765"
HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """The pages on an empty folder; what a check finds is not asked here."""
    monkeypatch.setattr(road, "check", lambda recipe, runs: ([], []))
    return create_app(tmp_path, SECRET)


@pytest.fixture
def browser(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=HERE) as found:
        assert found.get("/", params={"secret": SECRET}).status_code == 200
        yield found


def labelled(count: int = 60) -> bytes:
    """A file of invented notes with their entities."""
    rows = [
        {
            "id": note.id,
            "text": note.text,
            "entities": [{"start": s.start, "end": s.end, "label": s.label} for s in note.spans],
        }
        for note in islice(records("vi", count, 3), count)
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def token(page: str) -> str:
    found = re.search(r'name="token" value="(\w+)"', page)
    assert found is not None
    return found[1]


def upload(browser: TestClient, files: dict[str, bytes], name: str = "") -> Any:
    said = token(browser.get("/").text)
    sent = [("files", (called, content)) for called, content in files.items()]
    return browser.post("/projects", data={"token": said, "name": name}, files=sent)


def made(browser: TestClient, files: dict[str, bytes], name: str) -> Any:
    """A project with its recipe."""
    page = upload(browser, files, name)
    assert page.status_code == 200, page.text
    return browser.post(f"/projects/{name}/make", data={"token": token(page.text)})


def finished(root: Path, project: str, run: str, status: str = "done") -> Path:
    """The folder of a run as a page looks at it."""
    folder = root / project / "runs" / run
    folder.mkdir(parents=True)
    manifest = {
        "schema": 1, "name": "x", "recipe_digest": "0", "root": "../..", "created": "2026-01-01T00:00:00Z",
        "code": "1", "packages": {}, "hardware": "", "inputs": {}, "profile": "synthetic", "status": status,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


# Who is answered


def test_the_secret_of_the_start_becomes_a_cookie_that_no_script_and_no_other_site_has(
    app: FastAPI,
) -> None:
    client = TestClient(app, base_url=HERE, follow_redirects=False)
    answer = client.get("/", params={"secret": SECRET})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie


@pytest.mark.parametrize("path", ["/", "/static/pages.js", "/projects/x", "/nothing"])
def test_nobody_without_the_cookie_is_answered(app: FastAPI, path: str) -> None:
    client = TestClient(app, base_url=HERE)
    assert client.get(path).status_code == 403
    client.cookies.set("residency-8765", "s" * 42)
    assert client.get(path).status_code == 403
    assert client.get("/", params={"secret": "s" * 42}).status_code == 403


def test_the_cookie_of_another_port_is_none(app: FastAPI) -> None:
    client = TestClient(app, base_url=HERE)
    client.cookies.set("residency-8766", SECRET)
    assert client.get("/").status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", ""]
)
def test_a_name_of_another_site_that_leads_here_is_refused(browser: TestClient, host: str) -> None:
    assert browser.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_refused(browser: TestClient, headers: dict[str, str]) -> None:
    sent = {"token": token(browser.get("/").text)}
    files = {"files": ("a.jsonl", labelled(2))}
    assert browser.post("/projects", data=sent, files=files, headers=headers).status_code == 403


def test_every_form_needs_the_token_of_this_start(app: FastAPI, browser: TestClient) -> None:
    made(browser, {"notes.jsonl": labelled()}, "ward")
    places = [
        re.sub(r"{\w+}", "none", route.path.replace("{name}", "ward"))
        for route in every_route(app)
        if "POST" in route.methods
    ]
    assert len(places) >= 8
    for place in places:
        assert browser.post(place).status_code == 403, place
        assert browser.post(place, data={"token": "0" * 64}).status_code == 403, place


def every_route(app: FastAPI, but: str = "") -> list[APIRoute]:
    """All routes, but those that answer somebody of a role."""
    routers = [router for router, roles in ROUTERS if but not in roles]
    return [one for router in routers for one in router.routes if isinstance(one, APIRoute)]


def test_who_has_an_address_of_their_own_sees_no_page_of_the_owner(
    app: FastAPI, browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    rater = Person(role="rater", name="ann", home="/static/pages.css")
    monkeypatch.setattr(pages, "DOORS", (lambda root, code: rater if code == "c" * 43 else None,))
    theirs = TestClient(app, base_url=HERE)
    first = theirs.get("/", params={"secret": "c" * 43}, follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, rater.home)
    assert theirs.get(rater.home).status_code == 200
    for path in (route.path for route in every_route(app, "rater") if "GET" in route.methods):
        assert theirs.get(re.sub(r"{\w+}", "x", path)).status_code == 403, path
    assert browser.get("/").status_code == 200


def test_every_answer_is_closed(browser: TestClient) -> None:
    for path in ("/", "/static/pages.css", "/static/report.css", "/static/pages.js", "/no/page"):
        headers = browser.get(path).headers
        rules = dict(
            rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";")
        )
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["form-action"] == "'self'"
        assert rules["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def test_a_fault_of_ours_says_its_kind_and_nothing_that_it_holds(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(root: Path) -> list[Path]:
        raise ValueError("Nguyễn Văn A")

    monkeypatch.setattr(folders, "projects", broken)
    answer = browser.get("/")
    assert answer.status_code == 500
    said = capsys.readouterr()
    assert "ValueError" in said.err
    assert "Nguyễn" not in said.err + said.out + answer.text


# What stands in the pages


class Marks(HTMLParser):
    """The elements of a page: tags with their attributes, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [given for tag, given in self.found if tag in tags]


def check_page(page: str, lang: str) -> None:
    """What a screen reader, a keyboard and a strict policy ask of a page."""
    marks = Marks(page)
    assert marks.all("html")[0]["lang"] == lang
    assert len(marks.all("main")) == len(marks.all("h1")) == len(marks.all("title")) == 1
    levels = [int(tag[1]) for tag, _ in marks.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    ids = [given["id"] for _, given in marks.found if "id" in given]
    assert len(ids) == len({*ids})
    named = {given.get("for") for given in marks.all("label")}
    wrapped = page.count('<label class="choice"><input')
    for given in marks.all("input", "select", "textarea"):
        if given.get("type") == "hidden" or "aria-label" in given:
            continue
        if given.get("type") in ("radio", "checkbox") and "id" not in given:
            wrapped -= 1
            continue
        assert given.get("id") in named, given
    assert wrapped == 0
    for given in marks.all("section", "div"):
        for key in ("aria-labelledby", "aria-describedby"):
            assert given.get(key) is None or given[key] in ids
    assert all(given.get("aria-label") for given in marks.all("nav"))
    assert not [given for _, given in marks.found if "style" in given]
    assert not [key for _, given in marks.found for key in given if key.startswith("on")]
    assert all(given.get("src", "").startswith("/static/") for given in marks.all("script"))  # type: ignore[union-attr]
    assert "<style" not in page


@pytest.mark.parametrize("lang", [*LANGUAGES])
def test_pages_are_of_their_language_and_fit_for_keyboard_and_screen_reader(
    browser: TestClient, tmp_path: Path, lang: str
) -> None:
    assert browser.get("/", params={"lang": lang}).status_code == 200
    check_page(browser.get("/").text, lang)
    draft = upload(browser, {"notes.jsonl": labelled()}, "ward")
    check_page(draft.text, lang)
    project = browser.post("/projects/ward/make", data={"token": token(draft.text)})
    check_page(project.text, lang)
    folder = finished(tmp_path, "ward", "ward-1", "running")
    (folder / "log.jsonl").write_text('{"time":"t","event":"started","step":"data"}\n', "utf-8")
    check_page(browser.get("/projects/ward/runs/ward-1").text, lang)
    check_page(browser.get("/projects/ward/runs/ward-1/try").text, lang)
    check_page(browser.get("/projects/ward/runs/ward-1/chat").text, lang)
    check_page(browser.get("/nothing").text, lang)
    assert browser.get("/nothing").status_code == 404


@pytest.mark.parametrize(
    ("asked", "lang"),
    [
        ("vi-VN,vi;q=0.9,en;q=0.8", "vi"),
        ("fr, zh-CN;q=0.5, en;q=0.4", "zh"),
        ("fr", "en"),
        ("", "en"),
    ],
)
def test_the_first_language_is_the_browsers(browser: TestClient, asked: str, lang: str) -> None:
    page = browser.get("/", headers={"accept-language": asked}).text
    assert f'<html lang="{lang}">' in page


WRITTEN = re.compile(r"""_\(\s*(?:"([^"]+)"|'([^']+)')""")
SPOKEN = (
    "under way", "done", "stopped", "error", "refused", "note",
    "started", "finished", "failed", "plan", "try", "chat", "base", "tuned",
    "doctor", "right", "wrong", "harmful", "queues", "label", "row",
    "labelled", "the model says", "probability", "written by", "who", "time", "what it should say",
    *(words for one in SAID.values() for words in (one.title, one.ask, one.accept, one.reject, one.then)),
    *(one.mend for one in SAID.values() if one.mend),
)  # fmt: skip


@pytest.mark.parametrize("lang", ["vi", "zh"])
def test_all_words_of_the_pages_are_there(lang: str) -> None:
    known = words_in(lang).words
    texts = {
        found[1] or found[2]
        for path in (Path(road.__file__).parent / "templates").glob("*.jinja")
        for found in WRITTEN.finditer(path.read_text("utf-8"))
    }
    assert len(texts) > 80
    assert sorted(text for text in {*texts, *SPOKEN} if text not in known) == []
    holes = re.compile(r"\{(\w+)\}")
    assert [t for t, other in known.items() if {*holes.findall(t)} != {*holes.findall(other)}] == []


def test_the_first_page_is_small(browser: TestClient) -> None:
    page = browser.get("/").text
    parts = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(parts) == 3
    assert len(page.encode()) + sum(len(browser.get(one).content) for one in parts) < 200_000


def test_no_script_is_above_400_lines() -> None:
    scripts = [*(Path(road.__file__).parent / "static").glob("*.js")]
    assert len(scripts) >= 2
    assert [one.name for one in scripts if len(one.read_text("utf-8").splitlines()) > 400] == []


# From files to a project


def test_a_labelled_file_is_four_clicks_from_training(
    browser: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(
        "residency.pages.work.Work.start",
        lambda self, run, verb, others: started.append([*verb]),
    )
    clicks = 1  # the file is chosen
    page = upload(browser, {"notes.jsonl": labelled()})
    clicks += 1
    for _ in range(4):
        form = re.search(r'<form method="post" action="([^"]+(?:make|start))">', page.text)
        assert form is not None, page.text
        clicks += 1
        if form[1].endswith("start"):
            break
        page = browser.post(form[1], data={"token": token(page.text)})
    folder = tmp_path / "notes"
    (folder / "runs").mkdir()
    browser.post(form[1], data={"token": token(page.text)}, follow_redirects=False)
    assert started[0][:2] == ["run", str(folder / "recipe.yaml")]
    assert clicks <= 4


def test_what_was_found_is_told_with_its_reason(browser: TestClient) -> None:
    page = upload(browser, {"notes.jsonl": labelled()}, "ward").text
    assert "jsonl" in page
    assert "parts are drawn 80/10/10" in page
    assert "entities of" in page


ROWS = "note_a;note_b;label\n" + "".join(
    f"{'ho khan và sốt cao ' * 3}{n};{'đau bụng vùng thượng vị ' * 3}{n};{['no', 'yes'][n % 2]}\n"
    for n in range(40)
)


def test_what_files_leave_open_is_asked_and_asked_again_with_the_answer(
    browser: TestClient, tmp_path: Path
) -> None:
    page = upload(browser, {"two.csv": ROWS.encode()}, "two")
    assert 'name="answer-text" value="note_b"' in page.text
    assert not (tmp_path / "two/recipe.yaml").exists()
    sent = {"token": token(page.text), "answer-text": "note_b"}
    page = browser.post("/projects/two/look", data=sent)
    while 'id="question"' in page.text:
        fields = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
        asked = re.search(r'type="radio" name="([^"]+)" value="([^"]*)"', page.text)
        assert asked is not None
        page = browser.post("/projects/two/look", data={**fields, asked[1]: asked[2]})
    fields = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.text))
    assert fields["answer-text"] == "note_b"
    assert browser.post("/projects/two/make", data=fields).status_code == 200
    assert "note_b" in (tmp_path / "two/recipe.yaml").read_text("utf-8")


def test_what_was_taken_for_something_else_can_be_said(browser: TestClient) -> None:
    page = upload(browser, {"notes.jsonl": labelled()}, "ward").text
    assert '<select id="answer-group" name="answer-group">' in page
    sent = {"token": token(page), "answer-lang": "en"}
    again = browser.post("/projects/ward/look", data=sent).text
    assert 'type="hidden" name="answer-lang" value="en"' in again


def test_files_that_cannot_be_read_say_why_and_write_nothing(
    browser: TestClient, tmp_path: Path
) -> None:
    page = upload(browser, {"picture.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256))}, "odd")
    assert page.status_code in (200, 400)
    assert not (tmp_path / "odd/recipe.yaml").exists()


NAMES = [
    "../../evil.jsonl",
    "..\\..\\evil.jsonl",
    "/etc/evil.jsonl",
    "....//evil.jsonl",
    "C:\\evil.jsonl",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_a_file_leaves_its_project(
    browser: TestClient, tmp_path: Path, name: str
) -> None:
    upload(browser, {name: labelled(20)}, "ward")
    found = [path.relative_to(tmp_path) for path in tmp_path.rglob("*evil*") if path.is_file()]
    assert found == [Path("ward/data/evil.jsonl")]


@pytest.mark.parametrize("name", ["../out", "/abs", "..", ".hidden", "a/../../b", "a\x00b"])
def test_no_name_of_a_project_leaves_the_folder(
    browser: TestClient, tmp_path: Path, name: str
) -> None:
    before = {path.name for path in tmp_path.parent.iterdir()}
    upload(browser, {"notes.jsonl": labelled(20)}, name)
    assert {path.name for path in tmp_path.parent.iterdir()} == before
    assert all(path.name[0] != "." for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "path",
    [
        "/projects/..%2F..%2Fetc",
        "/projects/%2e%2e",
        "/projects/ward/runs/..%2F..%2Fother",
        "/projects/ward/runs/%2e%2e/report",
        "/static/..%2Fapp.py",
        "/static/%2e%2e/app.py",
    ],
)
def test_no_address_leaves_the_folder(browser: TestClient, tmp_path: Path, path: str) -> None:
    made(browser, {"notes.jsonl": labelled()}, "ward")
    assert browser.get(path).status_code == 404


def test_a_link_out_of_the_folder_is_no_project(browser: TestClient, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "recipe.yaml").write_text("secret: 1", "utf-8")
    (tmp_path / "linked").symlink_to(outside)
    assert browser.get("/projects/linked").status_code == 404


def test_what_was_uploaded_is_its_owners_alone(browser: TestClient, tmp_path: Path) -> None:
    upload(browser, {"notes.jsonl": labelled(20)}, "ward")
    assert (tmp_path / "ward").stat().st_mode & 0o077 == 0
    assert (tmp_path / "ward/data/notes.jsonl").stat().st_mode & 0o077 == 0


def test_files_arrive_byte_by_byte(browser: TestClient, tmp_path: Path) -> None:
    content = bytes(range(256)) + b"\r\n--x\r\n\r\n\n\r" + "ế ệ 👩‍⚕️".encode()
    upload(browser, {"tệp ghi chú.bin": content, "b.txt": b""}, "odd")
    assert (tmp_path / "odd/data/tệp-ghi-chú.bin").read_bytes() == content


def test_a_name_that_is_taken_is_refused_and_nothing_is_overwritten(
    browser: TestClient, tmp_path: Path
) -> None:
    upload(browser, {"notes.jsonl": labelled(20)}, "ward")
    before = (tmp_path / "ward/data/notes.jsonl").read_bytes()
    assert upload(browser, {"notes.jsonl": b"{}"}, "ward").status_code == 400
    assert (tmp_path / "ward/data/notes.jsonl").read_bytes() == before
    assert upload(browser, {"notes.jsonl": labelled(20)}).status_code == 200
    assert upload(browser, {"notes.jsonl": labelled(20)}).status_code == 200
    assert (tmp_path / "notes-2/data/notes.jsonl").is_file()


def test_markup_in_names_and_columns_is_text(browser: TestClient) -> None:
    rows = [
        json.dumps({"text": f"ho khan và sốt cao {n} ngày nay " * 2, HOSTILE: ["a", "b"][n % 2]})
        for n in range(40)
    ]
    page = upload(browser, {f"{HOSTILE}.jsonl": "\n".join(rows).encode()}, "odd").text
    assert "<script>alert" not in page
    assert "alert(1)" in unescape(page)


def test_rows_that_fail_are_told_by_place_and_reason(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(browser, {"notes.jsonl": labelled()}, "ward")
    told = CheckFinding(level="error", message="data/notes.jsonl:7: row rejected: <b>no text</b>.")
    monkeypatch.setattr(road, "check", lambda recipe, runs: ([told], []))
    browser.app.state.desk.background._asked.clear()  # type: ignore[attr-defined]
    page = browser.get("/projects/ward").text
    assert told.message in unescape(page)
    assert "<b>no text" not in page
    assert "/start" not in page, "what cannot run is not offered"


# Runs


def test_a_run_under_way_is_followed_and_losses_are_drawn(
    browser: TestClient, tmp_path: Path
) -> None:
    made(browser, {"notes.jsonl": labelled()}, "ward")
    folder = finished(tmp_path, "ward", "ward-1", "running")
    work = progress.Followed(progress.Silent(), folder)
    work.start("training 1-lora", 100)
    for step in (10, 20, 30):
        work.measured({"step": step, "loss": 3.0 / step, "epoch": 1})
    work.written = 0.0
    work.update(30, 100, "span_f1 0.500")
    page = browser.get("/projects/ward/runs/ward-1").text
    assert 'max="100" value="30"' in page
    assert "<polyline" in page and "0.1000" in page
    assert 'http-equiv="refresh"' in page, "who has no script sees it go on too"
    state = browser.get("/projects/ward/runs/ward-1/state").json()
    assert (state["ended"], state["said"]) == (False, "training 1-lora")
    assert (folder / progress.STATE).stat().st_mode & 0o077 == 0


def test_a_run_that_a_terminal_has_put_beside_the_project_is_shown(
    browser: TestClient, tmp_path: Path
) -> None:
    made(browser, {"notes.jsonl": labelled()}, "ward")
    made(browser, {"notes.jsonl": labelled()}, "other")
    folder = finished(tmp_path, ".", "ward-9")
    text = (folder / "manifest.json").read_text("utf-8").replace('"../.."', '"../../ward"')
    (folder / "manifest.json").write_text(text, "utf-8")
    assert "ward-9" in browser.get("/projects/ward").text
    assert "ward-9" not in browser.get("/projects/other").text


def test_one_run_of_a_project_is_under_way_at_a_time(browser: TestClient, tmp_path: Path) -> None:
    page = made(browser, {"notes.jsonl": labelled()}, "ward").text
    work = progress.Followed(progress.Silent(), finished(tmp_path, "ward", "ward-1", "running"))
    work.start("training 1-lora", 100)
    answer = browser.post("/projects/ward/start", data={"token": token(page)})
    assert answer.status_code == 400
    assert "under way" in answer.text


def test_a_process_that_is_gone_counts_as_stopped(browser: TestClient, tmp_path: Path) -> None:
    made(browser, {"notes.jsonl": labelled()}, "ward")
    folder = finished(tmp_path, "ward", "ward-1", "running")
    state = progress.State(process=1, born="of another process", title="training 1-lora")
    (folder / progress.STATE).write_bytes(json.dumps({"process": 1, "born": state.born}).encode())
    assert 'class="status stopped"' in browser.get("/projects/ward/runs/ward-1").text


def test_a_report_is_shown_under_a_policy_of_its_own(
    browser: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(browser, {"notes.jsonl": labelled()}, "ward")
    folder = finished(tmp_path, "ward", "ward-1")
    (folder / "report.html").write_text("<p>the report", "utf-8")
    monkeypatch.setattr(road, "finished_facts", lambda run: type("F", (), {"language": "en"}))
    answer = browser.get("/projects/ward/runs/ward-1/report")
    assert answer.text == "<p>the report"
    policy = answer.headers["content-security-policy"]
    assert "sandbox" in policy and "script-src" not in policy and "default-src 'none'" in policy


def test_a_run_is_not_compared_with_itself(browser: TestClient, tmp_path: Path) -> None:
    page = made(browser, {"notes.jsonl": labelled()}, "ward").text
    sent = {"token": token(page), "system": "base"}
    assert browser.post("/projects/ward/compare", data=sent).status_code == 400
    sent = {"token": token(page), "system": ["../../x", "base"]}
    assert browser.post("/projects/ward/compare", data=sent).status_code == 404


# Spans in a text


TEXTS = ["👩‍⚕️ ho khan", "e\u0302\u0301 NFD", "患者咳嗽", "a\nb\n\nc", "\n first", "<b>&amp;</b>"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_cut_by_code_points_and_its_pieces_are_the_text(text: str) -> None:
    entities = [
        {"start": 0, "end": 3, "label": "A"},
        {"start": 1, "end": len(text), "label": "B"},
    ]
    found = pieces(text, entities)
    assert "".join(one.text for one in found) == text
    assert all(text[one.start : one.end] == one.text for one in found)
    assert [one.labels for one in found] == [("A",), ("A", "B"), ("B",)]


def test_the_losses_go_down_the_drawing_as_they_grow() -> None:
    points = curve(
        ({"step": 1, "loss": 4.0}, {"step": 2, "f1": 0.1}, {"step": 4, "loss": 1.0}), 100, 80
    )
    assert [(one.x, one.y) for one in points] == [(25.0, 0.0), (100.0, 60.0)]
    assert curve(({"step": 1, "loss": 4.0},)) == []


@pytest.mark.parametrize(("lang", "told", "minutes"), [
    ("vi", "tệp dev trống", "12 phút"), ("zh", "验证文件为空", "12 分钟"), ("en", "the dev part is empty", "12 min"),
])  # fmt: skip
def test_what_a_check_finds_and_how_long_is_left_are_in_the_language_of_the_page(
    browser: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    lang: str, told: str, minutes: str,
) -> None:  # fmt: skip
    found = CheckFinding(level="note", message="data.notes: the dev part is empty.")
    monkeypatch.setattr(road, "check", lambda recipe, runs: ([found], []))
    monkeypatch.setattr(road, "BEHIND_CHECK", 600.0)
    made(browser, {"notes.jsonl": labelled()}, "ward")
    browser.cookies.set("residency-language", lang)
    assert told in browser.get("/projects/ward").text
    folder = finished(tmp_path, "ward", "ward-1", "running")
    event = {"time": "t", "event": "finished", "step": "data", "how": "run", "seconds": 720.0}
    (folder / "log.jsonl").write_text(json.dumps(event) + "\n", "utf-8")
    assert minutes in browser.get("/projects/ward/runs/ward-1").text


def test_the_plans_verdict_is_in_the_language_of_the_page() -> None:
    said = (
        "fits on cpu: yes, because at most 1.2 GB of the usable 8.0 GB are held at once; most of it "
        "is the weights (0.5 GB)."
    )
    assert (
        words_in("vi").said(said).startswith("Vừa với cpu: có, vì cùng lúc giữ nhiều nhất 1.2 GB")
    )
    assert "权重（0.5 GB）" in words_in("zh").said(said)
    assert words_in("en").said(said) == said


def faults_of(folder: Path) -> set[str]:
    """What the readers of files say of a row, out of their source."""
    import ast

    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("fault", "left_out"):
                found |= {
                    one.value
                    for one in ast.walk(node.value)
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                }
    return {one for one in found if " " in one and not one.startswith((" ", '"', ")"))}


@pytest.mark.parametrize("lang", ["vi", "zh"])
def test_what_check_finds_is_said_in_the_language_of_the_page(lang: str) -> None:
    from residency.corpus import span_repair
    from residency.corpus.leaks import NAMES, Grouping, Leak
    from residency.evals.words import words_of

    source = Path(span_repair.__file__).parent
    words = words_of(lang, Path(pages.__file__).parent / "words")
    faults = faults_of(source) | {
        value for name, value in vars(span_repair).items() if name.isupper() and isinstance(value, str)
    }  # fmt: skip
    assert len(faults) > 40
    said = [f"a.jsonl:3: row rejected: {fault}." for fault in faults]
    for tie in NAMES:
        for sets in (1, 2):
            leak = Leak(tie=tie, parts=("train", "test"), sets=sets, notes=sets + 1, ids=("x",))
            said.append(f"data.notes: {leak.words}.")
    for more in ({"largest_cluster": 900}, {"largest": 900}):
        grouping = Grouping(notes=1000, groups=2, ties={}, clustered=0, **{"largest": 1, "largest_cluster": 1} | more)  # fmt: skip
        assert grouping.warning
        said.append(f"data.notes: {grouping.warning}")
    english = re.compile(r"\b(the|is|are|has|of|in|and|not|span|row|with|text)\b")
    left = [one for one in said if english.search(words.said(one))]
    assert left == []
