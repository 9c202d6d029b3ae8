"""Blind studies in pages: what a rater sees and may do, what the owner sees, and that nothing tells
who wrote what."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient
from test_pages import check_page, token
from typer.testing import CliRunner

from residency.cli import app as program
from residency.core.errors import UserError
from residency.evals.study import OpenStudy, codes_of, key_path, open_study
from residency.evals.study_form import WORDS
from residency.evals.votes import dialogue, read, standing
from residency.evals.words import words_of
from residency.pages import rating, studies
from residency.pages.app import create_app
from residency.pages.desk import LANGUAGES, words_in
from residency.workflows import dialogues
from residency.workflows.study import new
from served_model import StandIn, started

SECRET = "s" * 43
HERE = "http://127.0.0.1:8765"
NAMES = ("zephyrward-q7", "quillhospital-l8", "brambleapi-x9", "oldtamarind-r1")
ITEMS = 6
HOSTILE = "<script>alert('x')</script>\n\"'&"


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def made(root: Path, count: int = 2, items: int = ITEMS, name: str = "", **more: Any) -> OpenStudy:
    """A study in a folder that is called after its systems, as people do."""
    folder = root / (name or "-".join(NAMES[:2]))
    folder.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"q{n}", "question": f"Câu hỏi {n}? {HOSTILE}", "points": "thở oxy"}
        for n in range(items)
    ]
    questions = jsonl(root / "questions.jsonl", rows)
    given: dict[str, Any] = {
        "raters": ["ann", "bob:vi", "chi:zh"],
        "patients": ["pat:vi"],
        "seed": 5,
    }
    given |= more
    systems = given.pop("systems", None)
    if systems is None:
        systems = []
        for number, called in enumerate(NAMES[:count]):
            answers = [
                {"id": f"q{n}", "answer": f"Lời khuyên {number} {HOSTILE}"} for n in range(items)
            ]
            systems.append(f"{called}={jsonl(root / f'{called}.jsonl', answers)}")
    new(systems, folder, items=items, questions=questions, **given)
    return open_study(folder)


def entered(study: OpenStudy, rater: str, root: Path | None = None) -> TestClient:
    """The browser of a rater, on an application that has just been started."""
    app = create_app(root or study.folder.parent, SECRET)
    return let_in(app, codes_of(study)[rater])


def let_in(app: Any, secret: str) -> TestClient:
    client = TestClient(app, base_url=HERE)
    assert client.get("/", params={"secret": secret}).status_code == 200
    return client


def send(client: TestClient, number: int, go: str = "save", **fields: str) -> Any:
    """Fill in the form of a question and press a button."""
    page = client.get(f"/rate/{number}").text
    given = {name.replace("_", "."): value for name, value in fields.items()}
    return client.post(
        f"/rate/{number}", data={"token": token(page), "go": go, **given}, follow_redirects=False
    )


def item(study: OpenStudy, rater: str, number: int) -> str:
    return study.study.order[rater][number - 1].item


@pytest.fixture
def study(tmp_path: Path) -> OpenStudy:
    return made(tmp_path)


# A rater


def test_a_code_lets_in_one_rater_to_their_own_questions_in_their_language(
    study: OpenStudy,
) -> None:
    for rater, lang in (("ann", "en"), ("bob", "vi"), ("chi", "zh")):
        client = entered(study, rater)
        page = client.get("/rate")
        assert f'<html lang="{lang}">' in page.text and page.url.path == "/rate"
        for number in range(1, ITEMS + 1):
            shown, answers = study.shown(rater)[number - 1]
            text = unescape(client.get(f"/rate/{number}").text)
            assert shown.question in text
            assert [text.index(one) for one in answers] == sorted(
                text.index(one) for one in answers
            )
    assert entered(study, "ann").get("/rate", params={"lang": "vi"}).text.count('<html lang="vi">')


def test_a_vote_is_kept_changed_and_shown_again(study: OpenStudy) -> None:
    client = entered(study, "ann")
    answer = send(client, 1, choice="2", comment="second is\r\nclearer")
    assert (answer.status_code, answer.headers["location"]) == (303, "/rate/2")
    first = item(study, "ann", 1)
    assert standing(read(study, "ann"))[first].comment == "second is\nclearer"
    page = client.get("/rate/1").text
    assert re.search(r'value="2" required checked', page) and "second is\nclearer" in page
    assert (
        send(client, 1, "back", choice="equal", harmful_1="yes", comment="dose").status_code == 303
    )
    kept = standing(read(study, "ann"))[first]
    assert (kept.choice, kept.harmful, kept.comment) == ("equal", (1,), "dose")
    assert "1/6" in client.get("/rate").text.replace("1 of 6", "1/6")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "choose the better answer"),
        ({"comment": "only words"}, "choose the better answer"),
        ({"choice": "1", "harmful_2": "yes"}, "say in the comment"),
        ({"choice": "3"}, "choose the better answer"),
        ({"choice": "1", "comment": "x" * 4001}, "at most 4000"),
    ],
)
def test_what_is_no_whole_vote_is_said_and_nothing_of_it_is_lost_or_taken(
    study: OpenStudy, fields: dict[str, str], said: str
) -> None:
    client = entered(study, "ann")
    answer = send(client, 1, **fields)
    assert answer.status_code == 400 and said in unescape(answer.text)
    if len(fields.get("comment", "")) < 100:
        assert fields.get("comment", "") in answer.text
    assert read(study, "ann") == []


def test_who_goes_back_or_on_with_nothing_filled_in_is_let_go(study: OpenStudy) -> None:
    client = entered(study, "ann")
    for number, go, place in ((2, "back", "/rate/1"), (2, "next", "/rate/3"), (6, "next", "/rate")):
        answer = send(client, number, go)
        assert (answer.status_code, answer.headers["location"]) == (303, place)
    assert send(client, 2, "next", comment="half").status_code == 400
    assert read(study, "ann") == []


def test_two_tabs_and_a_vote_that_is_sent_again_double_nothing(study: OpenStudy) -> None:
    client = entered(study, "ann")
    tab = let_in(client.app, codes_of(study)["ann"])
    for one in (client, tab, client):
        assert send(one, 1, choice="1").status_code == 303
    assert len(read(study, "ann")) == 1
    assert send(tab, 1, choice="2").status_code == 303
    assert send(client, 2, choice="2").status_code == 303
    assert len(read(study, "ann")) == 3 and len(standing(read(study, "ann"))) == 2


def test_a_patient_is_asked_for_suitability_and_understanding_alone(study: OpenStudy) -> None:
    client = entered(study, "pat")
    page = client.get("/rate/1").text
    fields = {*re.findall(r'name="([a-z]+)[.\d]*"', page)} - {"token", "viewport"}
    assert fields == {"suitability", "understood", "go"}
    assert "thở oxy" not in page
    whole = {"suitability_1": "4", "suitability_2": "2", "understood_1": "1", "understood_2": "0"}
    assert send(client, 1, **whole, harmful_1="yes", comment="no").status_code == 400
    assert send(client, 1, **whole).status_code == 303
    kept = standing(read(study, "pat"))[item(study, "pat", 1)]
    assert kept.marks == {"suitability": (4, 2), "understood": (1, 0)}


def test_short_answers_are_marked_from_0_to_10_with_the_points_beside(tmp_path: Path) -> None:
    study = made(tmp_path, 3, kind="short")
    client = entered(study, "bob")
    page = client.get("/rate/1").text
    assert re.findall(r'name="mark.1" value="(\d+)"', page) == [str(n) for n in range(11)]
    form = words_of("vi", WORDS)
    for text in ("Mark by the points", "makes none of the points", "makes all of the points"):
        assert form(text) in page
    assert "thở oxy" in page
    assert send(client, 1, mark_1="10", mark_2="0").status_code == 400
    assert send(client, 1, mark_1="10", mark_2="0", mark_3="7").status_code == 303
    assert standing(read(study, "bob"))[item(study, "bob", 1)].marks == {"mark": (10, 0, 7)}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_anchors_stand_in_the_raters_language(tmp_path: Path, count: int) -> None:
    study = made(tmp_path, count, by="marks")
    for rater, lang in (("ann", "en"), ("bob", "vi"), ("chi", "zh")):
        page = entered(study, rater).get("/rate/1").text
        words = words_of(lang, WORDS)
        for text in ("of no use", "of some use", "as a good colleague would answer"):
            assert page.count(words(text)) == count
        assert page.count('name="overall.') == 5 * count


@pytest.mark.parametrize("kind", ["compare", "short", "dialogue"])
@pytest.mark.parametrize("lang", [*LANGUAGES])
def test_pages_of_raters_and_of_the_owner_fit_keyboard_and_screen_reader(
    tmp_path: Path, lang: str, kind: str, server: StandIn
) -> None:
    more = (
        {"systems": [server.system(n) for n in NAMES[:2]], "delay": 0.1}
        if kind == "dialogue"
        else {}
    )
    study = made(tmp_path, 2, kind=kind, **more)
    app = create_app(tmp_path, SECRET)
    for who in ("ann", "pat"):
        client = let_in(app, codes_of(study)[who])
        client.get("/rate", params={"lang": lang})
        check_page(client.get("/rate").text, lang)
        check_page(client.get("/rate/1").text, lang)
        check_page(client.get("/rate/99").text, lang)
        if kind == "dialogue":
            check_page(client.get("/rate/1/talk/1").text, lang)
            assert ask(client, "1/talk/1", 0, "So?").status_code == 303
            check_page(client.get("/rate/1/talk/1").text, lang)
    owner = let_in(app, SECRET)
    owner.get("/studies", params={"lang": lang})
    for path in ("/studies", f"/studies/{study.study.id[:16]}"):
        check_page(owner.get(path).text, lang)


@pytest.mark.parametrize("lang", ["vi", "zh"])
def test_all_words_of_the_raters_pages_are_there(lang: str) -> None:
    form, own = words_of(lang, WORDS).words, words_in(lang)
    texts = {
        found
        for path in (Path(rating.__file__).parent / "templates").glob("*.jinja")
        for found in re.findall(r'said\(\s*"([^"]+)"', path.read_text("utf-8"))
    }
    assert len(texts) > 10 and sorted(texts - {*form}) == []
    spoken = {
        rating.CLOSED,
        rating.TELL,
        rating.ELSEWHERE,
        rating.UNMARKED,
        "compare",
        "short",
        "dialogue",
    }
    assert sorted(spoken - {*own.words}) == []


# Nothing tells who wrote what


def telling(study: OpenStudy, root: Path) -> list[str]:
    """What would say whose an answer is, or let one find out."""
    key = json.loads(key_path(study.folder).read_text())
    told = [*NAMES, key["salt"], study.study.key, study.study.items, study.study.id[:16], str(root)]
    return [one.lower() for one in (*told, study.folder.name, "127.0.0.1:" + "9/v1")]


def test_no_page_header_address_or_error_of_a_rater_tells_anything(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = made(tmp_path, 4, kind="short")
    client = entered(study, "ann")
    heard = [client.get(f"/rate/{n}") for n in range(1, ITEMS + 1)]
    heard += [
        client.get(path) for path in ("/rate", "/rate/0", "/rate/x", "/rate/1/talk/1", "/studies")
    ]
    heard += [client.get(f"/static/{name}") for name in ("pages.css", "pages.js", "rating.js")]
    heard += [
        send(client, 1, mark_1="1"),
        send(client, 1, mark_1="1", mark_2="2", mark_3="3", mark_4="4"),
    ]
    heard += [client.get("/rate/1"), client.post("/rate/1"), client.put("/rate/1")]
    heard += [other for one in heard for other in one.history]
    path = study.folder / "votes/ann.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":2'))
    heard += [client.get("/rate/1"), send_blindly(client)]
    assert heard[-1].status_code == 400 and "what you said before is kept" in heard[-1].text
    (study.folder / "items.jsonl").write_text("{}\n")
    heard.append(client.get("/rate/1"))
    said = capfd.readouterr()
    texts = [f"{one.url} {[*one.headers.raw]} {one.text}" for one in heard] + [said.out + said.err]
    found = [
        (word, text) for word in telling(study, tmp_path) for text in texts if word in text.lower()
    ]
    assert found == []


def send_blindly(client: TestClient) -> Any:
    page = client.get("/rate").text
    sent = {"token": re.search(r'name="token" value="(\w+)"', page)}
    assert sent["token"] is None
    from residency.pages.desk import token_of

    secret = client.cookies["residency-8765"]
    whole = {f"mark.{n}": "5" for n in range(1, 5)}
    return client.post("/rate/2", data={"token": token_of(secret), "go": "save", **whole})


def test_every_form_of_a_rater_needs_their_token(study: OpenStudy) -> None:
    client = entered(study, "ann")
    places = [
        re.sub(r"{\w+}", "1", one.path)
        for one in rating.router.routes
        if isinstance(one, APIRoute) and "POST" in one.methods
    ]
    assert len(places) >= 2
    other = token(entered(study, "bob").get("/rate/1").text)
    for place in places:
        for sent in ({}, {"token": "0" * 64}, {"token": other, "choice": "1", "go": "save"}):
            assert client.post(place, data=sent).status_code == 403
    assert read(study, "ann") == []


def test_a_rater_reaches_nothing_of_another_and_nothing_of_the_owner(tmp_path: Path) -> None:
    study = made(tmp_path)
    app = create_app(tmp_path, SECRET)
    ann, bob = (let_in(app, codes_of(study)[name]) for name in ("ann", "bob"))
    assert send(bob, 1, choice="1", comment="secret of bob").status_code == 303
    key = study.study.id[:16]
    paths = [f"/rate/{n}" for n in range(1, ITEMS + 1)] + ["/rate"]
    assert not any("secret of bob" in ann.get(path).text for path in paths)
    assert not any("bob" in ann.get(path).text for path in paths)
    for path in ("/", "/studies", f"/studies/{key}", f"/studies/{key}/result"):
        assert ann.get(path).status_code == 403
    sent = {"token": token(ann.get("/rate/1").text), "sure": "yes"}
    assert ann.post(f"/studies/{key}/lock", data=sent).status_code == 403
    for name in ("votes/bob.jsonl", "raters.json", "study.json", "items.jsonl"):
        for path in (
            f"/{study.folder.name}/{name}",
            f"/static/..%2f{study.folder.name}/{name}",
            f"/static/{name}",
        ):
            assert ann.get(path).status_code in (403, 404)
    assert let_in(app, SECRET).get("/rate").status_code == 403  # nor does the owner vote
    assert not (study.folder / "votes/ann.jsonl").exists()


def test_a_code_of_another_folder_is_nobodys(tmp_path: Path) -> None:
    study, other = made(tmp_path / "a"), made(tmp_path / "b")
    client = TestClient(create_app(other.folder.parent, SECRET), base_url=HERE)
    assert client.get("/", params={"secret": codes_of(study)["ann"]}).status_code == 403
    assert client.get("/", params={"secret": ""}).status_code == 403


# The owner


def test_the_owner_sees_how_far_each_is_and_who_wrote_what_only_after_the_lock(
    tmp_path: Path,
) -> None:
    study = made(tmp_path / "studies", name="ward")
    app = create_app(tmp_path, SECRET)
    owner, ann = let_in(app, SECRET), let_in(app, codes_of(study)["ann"])
    for number in range(1, 4):
        send(ann, number, choice="1")
    assert "studies/ward" in owner.get("/studies").text and "/studies" in owner.get("/").text
    here = f"/studies/{study.study.id[:16]}"
    page = owner.get(here)
    assert "3/6" in page.text and page.text.count("0/6") == 3
    assert f"?secret={codes_of(study)['bob']}" in page.text
    assert "not locked" in owner.get(f"{here}/result").text
    early = [owner.get(path).text for path in ("/studies", here, f"{here}/result")]
    assert [name for name in NAMES if any(name in text for text in early)] == []
    said = token(page.text)
    assert owner.post(f"{here}/lock", data={"token": said}).status_code == 400
    assert send(ann, 4, choice="1").status_code == 303
    assert owner.post(f"{here}/lock", data={"token": said, "sure": "yes"}).status_code == 200
    report = owner.get(f"{here}/result")
    assert report.status_code == 200 and NAMES[0] in report.text
    assert "sandbox" in report.headers["content-security-policy"]
    before = (study.folder / "votes/ann.jsonl").read_bytes()
    assert "ended" in ann.get("/rate/1").text and ann.get("/rate/1").url.path == "/rate"
    assert "ended" in send_after(ann).text
    assert (study.folder / "votes/ann.jsonl").read_bytes() == before


def send_after(client: TestClient) -> Any:
    from residency.pages.desk import token_of

    said = token_of(client.cookies["residency-8765"])
    return client.post("/rate/5", data={"token": said, "go": "save", "choice": "1"})


def test_a_study_that_was_changed_is_named_to_the_owner(study: OpenStudy) -> None:
    (study.folder / "items.jsonl").write_text("{}\n")
    owner = let_in(create_app(study.folder.parent, SECRET), SECRET)
    page = unescape(owner.get("/studies").text)
    assert "was changed since the study was made" in page and str(study.folder.parent) not in page


# Dialogues


@pytest.fixture
def server() -> Iterator[StandIn]:
    with started() as found:
        yield found


def ask(client: TestClient, place: str, turn: int, text: str) -> Any:
    said = token(client.get(f"/rate/{place}").text)
    sent = {"token": said, "turn": str(turn), "text": text}
    return client.post(f"/rate/{place}", data=sent, follow_redirects=False)


def held(client: TestClient, place: str, round: int, text: str) -> None:
    """A round with its answer, which a busy machine may not give in time."""
    for _ in range(600):
        assert ask(client, place, 2 * round, text).status_code == 303
        if 'role="alert">No' not in client.get(f"/rate/{place}", params={}).text:
            return
    pytest.fail("no answer has come")


def talked(root: Path, server: StandIn, delay: float = 0.1, **more: Any) -> OpenStudy:
    systems = [server.system(name) for name in NAMES[:2]]
    return made(root, kind="dialogue", systems=systems, delay=delay, items=2, **more)


def test_a_dialogue_of_ten_rounds_goes_on_another_day_and_is_marked_when_whole(
    tmp_path: Path, server: StandIn
) -> None:
    study = talked(tmp_path, server)
    client = entered(study, "ann")
    assert 'name="accuracy' not in client.get("/rate/1").text
    for place in (1, 2):
        for round in range(10):
            if round == 4:  # another day: the pages were started again
                client = entered(study, "ann")
                assert "4 of 10 rounds" in client.get("/rate/1").text
            held(client, f"1/talk/{place}", round, f"question {round}")
    lines = read(study, "ann")
    assert len(lines) == 40
    for place in (1, 2):
        turns = dialogue(lines, item(study, "ann", 1), place)
        assert [one.text for one in turns[::2]] == [f"question {n}" for n in range(10)]
        assert turns[-1].text.endswith("(19: question 9).")
    asked = server.asked[-1]["messages"]
    assert isinstance(asked, list)
    assert [one["role"] for one in asked] == [*("user", "assistant") * 9, "user"]
    page = client.get("/rate/1").text
    scales = ("accuracy", "value", "suitability")
    assert all(page.count(f'name="{scale}.') == 10 for scale in scales)
    marks = {f"{scale}_{place}": str(place + 1) for scale in scales for place in (1, 2)}
    assert send(client, 1, **marks).status_code == 303
    kept = standing(read(study, "ann"))[item(study, "ann", 1)]
    assert kept.marks == dict.fromkeys(scales, (2, 3))


def test_a_model_that_names_itself_is_blanked_and_nothing_tells_whom_one_talks_to(
    tmp_path: Path, server: StandIn
) -> None:
    study = talked(tmp_path, server)
    client = entered(study, "ann")
    heard = []
    for place in (1, 2):
        heard.append(ask(client, f"1/talk/{place}", 0, "Who are you?"))
        held(client, f"1/talk/{place}", 0, "Who are you?")
        heard.append(client.get(f"/rate/1/talk/{place}"))
        assert f"As {dialogues.BLANK}, I advise rest" in unescape(heard[-1].text)
    assert {*NAMES[:2]} == {str(one["model"]) for one in server.asked}
    texts = [f"{one.url} {[*one.headers.raw]} {one.text}".lower() for one in heard]
    texts += [path.read_text().lower() for path in (study.folder / "votes").glob("*.jsonl")]
    words = [*telling(study, tmp_path), str(server.server_address[1])]
    assert [(word, text) for word in words for text in texts if word in text] == []
    assert telling(study, tmp_path)[0] in key_path(study.folder).read_text()


@pytest.mark.parametrize("how", ["fails", "slow", "away"])
def test_an_answer_that_does_not_come_costs_no_round_and_names_nothing(
    tmp_path: Path, server: StandIn, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    study = talked(tmp_path, server, 0.3)
    if how == "fails":
        server.fails |= {*NAMES}
    elif how == "slow":
        server.waits |= dict.fromkeys(NAMES, 5.0)
    else:
        server.server_close()
    client = entered(study, "ann")
    answer = ask(client, "1/talk/1", 0, "Does it hurt?")
    page = client.get("/rate/1/talk/1").text
    assert answer.status_code == 303 and answer.headers["location"] == "/rate/1/talk/1#last"
    assert "No answer has come yet" in page and "Does it hurt?" in page
    assert len(read(study, "ann")) == 1
    said = capfd.readouterr()
    told = f"{[*answer.headers.raw]} {page} {said.out} {said.err}".lower()
    assert [word for word in telling(study, tmp_path) if word in told] == []
    if how == "away":
        return
    server.fails, server.waits, asked = set(), {}, len(server.asked)
    held(client, "1/talk/1", 0, "")
    assert len(read(study, "ann")) == 2 and "1 of 10 rounds" in client.get("/rate/1").text
    assert len(server.asked) - asked == (how == "fails")  # what is late is not asked for twice


def test_a_question_that_is_sent_twice_is_asked_once_and_one_from_an_old_window_is_refused(
    tmp_path: Path, server: StandIn
) -> None:
    study = talked(tmp_path, server)
    client = entered(study, "ann")
    for _ in range(2):
        held(client, "1/talk/1", 0, "First?")
    assert len(server.asked) == 1 and len(read(study, "ann")) == 2
    refused = ask(client, "1/talk/1", 0, "Another first?")
    assert refused.status_code == 400 and "another window" in refused.text
    for turn, text in ((4, "too early"), (1, "as the model"), (2, " "), (2, "x" * 4001)):
        assert ask(client, "1/talk/1", turn, text).status_code == 400
    assert len(read(study, "ann")) == 2 and len(server.asked) == 1
    assert client.get("/rate/1/talk/3").status_code == 404


def test_no_answer_is_shown_before_the_delay_whoever_gives_it(
    tmp_path: Path, server: StandIn
) -> None:
    server.waits = {NAMES[0]: 0.0, NAMES[1]: 0.3}
    study = talked(tmp_path, server, 0.6)
    app = create_app(tmp_path, SECRET)
    client, tab = (let_in(app, codes_of(study)["ann"]) for _ in range(2))
    took = []
    for place in (1, 2):
        began = time.monotonic()
        assert ask(client, f"1/talk/{place}", 0, "So?").status_code == 303
        took.append(time.monotonic() - began)
        held(tab, f"1/talk/{place}", 0, "So?")
        assert "1 of 10" in tab.get(f"/rate/1/talk/{place}").text
    assert min(took) >= 0.6


def test_the_delay_is_measured_and_stands_in_the_study(tmp_path: Path, server: StandIn) -> None:
    server.waits = {NAMES[0]: 0.0, NAMES[1]: 0.9}
    study = talked(tmp_path, server, delay=None)  # type: ignore[arg-type]
    assert study.study.delay >= 2 and study.study.delay == int(study.study.delay)
    assert json.loads((study.folder / "study.json").read_text())["delay"] == study.study.delay
    asked = [len(one["messages"]) for one in server.asked]  # type: ignore[arg-type]
    assert {*asked} == {1, 19} and len(asked) == 2 * 2 * 4  # systems, questions, raters


@pytest.mark.parametrize(("slowest", "delay"), [(0.01, 1), (0.7, 2), (4.0, 6), (10.1, 16)])
def test_the_delay_has_room_above_the_slowest(slowest: float, delay: float) -> None:
    assert dialogues.delay_for(slowest) == delay


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("nobody", "is no run"),
        ("a=http://127.0.0.1:1/v1", "NAME=URL#MODEL"),
        ("=http://127.0.0.1:1/v1#m", "NAME=URL#MODEL"),
        ("a=http://example.org/v1#m", "not on this machine"),
        ("a=https://api.example.org/v1#m", "no profile that would let it leave"),
        ("a=http://127.0.0.1:1/v1#m#not a variable", "key"),
    ],
)
def test_whom_nobody_can_talk_to_is_refused(system: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        dialogues.system_of(system)


# The command


def test_a_study_that_is_locked_or_has_no_key_for_its_dialogues_is_not_opened(
    tmp_path: Path, server: StandIn
) -> None:
    study = talked(tmp_path, server)
    key_path(study.folder).rename(tmp_path / "elsewhere.json")
    with pytest.raises(UserError, match=r"key\.json"):
        studies.ready(study.folder)
    other = made(tmp_path / "other")
    send(entered(other, "ann"), 1, choice="1")
    assert CliRunner().invoke(program, ["study", "lock", str(other.folder)]).exit_code == 0
    with pytest.raises(UserError, match="is locked"):
        studies.ready(other.folder)
    with pytest.raises(UserError, match="is no study"):
        studies.ready(tmp_path)
