"""Models of a Triton behind the guard answer as they do in process, and only as the model that was
exported."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from serve_tools import HEADERS, LONG, NOTE

from fake_triton import FakeTriton
from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.export.triton import CONFIG, export
from residency.serve.launch import described, load
from residency.serve.settings import Serve

pytestmark = [pytest.mark.server]
CHAT = "/v1/chat/completions"
WORDS = {"model": "words", "messages": [{"role": "user", "content": "肺炎有什么症状？"}]}
SCHEMA = {
    "type": "object",
    "properties": {"dose": {"type": "integer", "minimum": 3, "maximum": 9}},
    "required": ["dose"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "dose", "schema": SCHEMA}}
ASKED = [
    ("/extract", {"text": f"{NOTE} 😀 患者发热，𠮷诊断为肺炎。"}),
    ("/diagnose", {"patient_info": "Nam, 62 tuổi", "symptoms": "ho khan, sốt", "model": "triage"}),
    ("/diagnose", {"patient_info": "男，62岁", "symptoms": "咳嗽、发热三天", "model": "words"}),
    (CHAT, {**WORDS, "max_tokens": 12}),
    (CHAT, {**WORDS, "max_tokens": 12, "stop": ["e", "的"], "top_p": 0.9, "seed": 3}),
    (CHAT, {**WORDS, "max_tokens": 9, "temperature": 1.2, "seed": 7, "n": 3}),
    (CHAT, {**WORDS, "max_tokens": 9, "presence_penalty": 2, "frequency_penalty": 1}),
    (CHAT, {**WORDS, "max_tokens": 30, "response_format": FORM}),
    ("/v1/completions", {"model": "words", "prompt": "肺炎", "max_tokens": 6}),
]


@pytest.fixture(scope="module")
def triton(
    artefacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeTriton]:
    repository = tmp_path_factory.mktemp("triton") / "repository"
    for name, path in artefacts.items():
        export(path, repository, name)
    with FakeTriton(repository) as found:
        found.repository = repository  # type: ignore[attr-defined]
        yield found


def loaded(triton: Any, name: str) -> Any:
    from residency.workflows.finished import artefact_of

    return load(artefact_of(triton.repository / name), name, Serve(triton=triton.address))


@pytest.fixture
def ward(triton: FakeTriton, app: Callable[..., Any]) -> Iterator[TestClient]:
    served = {name: loaded(triton, name) for name in ("ner", "triage", "words")}
    with TestClient(app(served, fingerprint_seconds=1), headers=HEADERS) as found:
        yield found


def test_answers_are_those_in_process(ward: TestClient, client: Any) -> None:
    for path, body in ASKED:
        answers = [one.post(path, json=body) for one in (ward, client)]
        assert [one.status_code for one in answers] == [200, 200], answers[0].text
        mine, theirs = (
            {k: v for k, v in one.json().items() if k not in ("id", "created")} for one in answers
        )
        assert mine == theirs, (path, body)
        assert len({one.headers["x-residency-digest"] for one in answers}) == 1


def test_a_stream_holds_the_same_words_in_one_piece(ward: TestClient) -> None:
    body = {**WORDS, "max_tokens": 12}
    whole = ward.post(CHAT, json=body).json()["choices"][0]["message"]["content"]
    lines = ward.post(CHAT, json=body | {"stream": True}).text.split("\n\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    words = "".join(one["choices"][0]["delta"].get("content", "") for one in events)
    assert words == whole and lines[-2] == "data: [DONE]"


def test_what_is_not_done_is_refused_by_name(ward: TestClient) -> None:
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objct"}}}
    for path, body, code in (
        (CHAT, {**WORDS, "logprobs": True}, "unsupported_field"),
        (CHAT, {**WORDS, "model": "ner"}, "wrong_model"),
        ("/extract", {"text": " \n"}, "empty_text"),
        (CHAT, {**WORDS, "response_format": wrong}, "bad_form"),
    ):
        answer = ward.post(path, json=body)
        assert answer.status_code == 400 and code in answer.text


def ready_is(ward: TestClient, status: int) -> bool:
    until = time.monotonic() + LONG
    while ward.get("/readyz").status_code != status:
        assert time.monotonic() < until
        time.sleep(0.05)
    return True


def test_while_a_model_is_loaded_again_who_asks_is_refused_and_does_not_wait(
    ward: TestClient, triton: FakeTriton
) -> None:
    assert ready_is(ward, 200)
    triton.idle.clear()
    assert ready_is(ward, 503)
    begun = time.monotonic()
    answer = ward.post("/extract", json={"text": NOTE})
    assert (answer.status_code, "engine_unavailable" in answer.text) == (503, True)
    assert time.monotonic() - begun < 45, "not after the minute that an answer may take"
    triton.idle.set()
    assert ready_is(ward, 200)
    assert ward.post("/extract", json={"text": NOTE}).status_code == 200


def test_the_answer_of_another_model_is_none_and_it_is_ready_again_without_hands(
    ward: TestClient, triton: FakeTriton
) -> None:
    assert ready_is(ward, 200)
    right = triton.models["ner"]
    for wrong in ("another model", "no answer"):
        triton.models["ner"] = triton.models["triage"] if wrong == "another model" else right
        triton.dead = wrong == "no answer"
        answer = ward.post("/extract", json={"text": NOTE})
        assert (answer.status_code, "engine_unavailable" in answer.text) == (503, True)
        assert ready_is(ward, 503) and ward.get("/readyz").json()["models"]["ner"] is False
        triton.models["ner"], triton.dead = right, False
        assert ready_is(ward, 200)
        assert ward.post("/extract", json={"text": NOTE}).status_code == 200


def test_a_model_of_a_repository_is_named_and_without_an_address_computed_here(
    triton: Any, artefacts: dict[str, Path]
) -> None:
    from residency.cli.serving import read_arguments

    folder = triton.repository / "words"
    models, settings = read_arguments([f"ward={folder}", f"triton={triton.address}"], None)
    assert models == {"ward": folder / "1" / "artefact"}
    found = described(models["ward"], "ward", settings)
    assert (found.kind, found.digest) == (
        "triton",
        file_digest(artefacts["words"] / "artefact.json"),
    )
    assert described(models["ward"], "ward", Serve()).kind == "process"
    text = (folder / CONFIG).read_text("utf-8")
    (folder / CONFIG).write_text(text.replace("PROMPT", "OTHER"))
    try:
        with pytest.raises(UserError, match="an earlier version exported it"):
            loaded(triton, "words")
    finally:
        (folder / CONFIG).write_text(text)
