"""A model behind a server: what is sent, what is never sent, and what becomes of failures."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from residency.core.errors import GateRefused, UserError
from residency.core.part import parse
from residency.core.types import Example, Spans
from residency.models import remote
from residency.models.remote import Api, RemotePredictor
from residency.tasks.card import load_card

MARK = "Trúc-Quỳnh-Marker"


@pytest.fixture
def card() -> Any:
    return load_card("clinical", Path())


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)


def example(number: int, profile: str = "synthetic") -> Example:
    return Example(
        id=str(number), task="t", input=f"{MARK} {number} aspirin", lang="en", profile=profile
    )  # type: ignore[arg-type]


def said(text: str, status: int = 200) -> httpx2.Response:
    return httpx2.Response(
        status,
        json={"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 7}},
    )


def predictor(
    card: Any, path: Path, answer: Callable[[httpx2.Request], httpx2.Response], **settings: Any
) -> RemotePredictor:
    api = parse(Api, {"url": "http://127.0.0.1:9/v1", "model": "m", **settings}, "api")
    return RemotePredictor(api, "x", card, path, httpx2.MockTransport(answer))


def test_answers_are_read_in_order_and_kept_for_their_owner(card: Any, tmp_path: Path) -> None:
    seen: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(json.loads(request.content))
        return said('[{"label": "drug", "text": "aspirin"}]')

    kept = tmp_path / "x.jsonl"
    found = list(predictor(card, kept, answer).predict([example(1), example(2)]))
    assert [one.id for one in found] == ["1", "2"] and found[0].tokens == 7
    assert isinstance(found[0].answer, Spans) and {s.quote for s in found[0].answer.spans} <= {
        "aspirin"
    }
    assert {body["model"] for body in seen} == {"m"} and all(
        body["temperature"] == 0 for body in seen
    )
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    list(
        predictor(card, kept, lambda request: said("", 500)).predict([example(2), example(1)])
    )  # nothing is asked again


def test_a_profile_that_may_not_leave_is_refused_before_anything_is_sent(
    card: Any, tmp_path: Path
) -> None:
    sent: list[object] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return said("[]")

    with pytest.raises(GateRefused, match="profile pseudonymised may not leave this machine"):
        list(
            predictor(card, tmp_path / "x", answer).predict(
                [example(1), example(2, "pseudonymised")]
            )
        )
    assert sent == []
    allowed = predictor(card, tmp_path / "x", answer, profiles=["pseudonymised"])
    assert len(list(allowed.predict([example(2, "pseudonymised")]))) == len(sent) == 1


def test_failures_in_passing_are_asked_again_and_lasting_ones_lose_nothing(
    card: Any, tmp_path: Path
) -> None:
    calls = 0

    def shaky(request: httpx2.Request) -> httpx2.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise httpx2.ConnectError("no route", request=request)
        return said("", 429) if calls == 2 else said("", 503) if calls == 3 else said("[]")

    assert (
        len(list(predictor(card, tmp_path / "a", shaky, concurrency=1).predict([example(1)]))) == 1
        and calls == 4
    )

    def half(request: httpx2.Request) -> httpx2.Response:
        return said("", 500) if " 3 " in request.content.decode() else said("[]")

    with pytest.raises(
        UserError, match=r"does not answer \(status 500, asked 5 times\); \d answers are kept"
    ) as error:
        list(predictor(card, tmp_path / "b", half).predict([example(n) for n in range(5)]))
    assert MARK not in str(error.value)
    asked: list[str] = []

    def well(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.content.decode())
        return said("[]")

    assert (
        len(list(predictor(card, tmp_path / "b", well).predict([example(n) for n in range(5)])))
        == 5
    )
    assert len(asked) == 1, "only the one that had failed"


def test_a_budget_is_never_exceeded(card: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"evaluate\.apis\.x\.budget: 3 requests do not cover 5 examples"
    ):
        list(
            predictor(card, tmp_path / "x", lambda request: said("[]"), budget=3).predict(
                map(example, range(5))
            )
        )


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (httpx2.Response(401, text=MARK), "the server refused (status 401)"),
        (httpx2.Response(200, text=MARK), "no chat completion"),
        (httpx2.Response(200, json={"choices": []}), "no chat completion"),
    ],
)
def test_what_a_server_says_wrongly_is_one_sentence_without_its_words(
    card: Any, tmp_path: Path, response: httpx2.Response, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        list(predictor(card, tmp_path / "x", lambda request: response).predict([example(1)]))
    assert sentence in str(error.value) and MARK not in str(error.value)


def test_a_key_comes_from_the_environment_and_goes_into_the_header_alone(
    card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == "Bearer secret-key"
        return said("[]")

    asked = predictor(card, tmp_path / "x", answer, key="SOME_KEY")
    with pytest.raises(UserError, match="environment variable SOME_KEY is not set"):
        list(asked.predict([example(1)]))
    monkeypatch.setenv("SOME_KEY", "secret-key")
    assert len(list(asked.predict([example(1)]))) == 1
    assert "secret-key" not in (tmp_path / "x").read_text("utf-8")


@pytest.mark.parametrize(
    "url", ["http://10.0.0.5/v1", "http://example.org/v1", "ftp://x", "https://user:pw@x/v1"]
)
def test_notes_only_travel_encrypted_and_no_password_stands_in_a_recipe(url: str) -> None:
    with pytest.raises(UserError):
        parse(Api, {"url": url, "model": "m"}, "api")
