"""Real clients: OpenAI's, and a fuzzer that reads the server's own description."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from serve_tools import KEY

ASK: list[Any] = [{"role": "user", "content": "肺炎有什么症状？"}]


@pytest.fixture
def speak(live: Callable[..., str]) -> Iterator[Callable[..., openai.OpenAI]]:
    made: list[openai.OpenAI] = []

    def start(served: Any = None, key: str = KEY, **settings: Any) -> openai.OpenAI:
        made.append(
            openai.OpenAI(base_url=live(served, **settings) + "/v1", api_key=key, max_retries=0)
        )
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_chat_and_stream_say_the_same(speak: Callable[..., openai.OpenAI]) -> None:
    client = speak()
    whole = client.chat.completions.create(model="words", messages=ASK, max_tokens=8)
    stream = client.chat.completions.create(model="words", messages=ASK, max_tokens=8, stream=True)
    words = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert (
        words == whole.choices[0].message.content
        and whole.usage is not None
        and whole.usage.completion_tokens > 0
    )
    text = client.completions.create(model="words", prompt="肺炎", max_tokens=3, logprobs=2)
    assert text.choices[0].logprobs is not None and len(text.choices[0].logprobs.tokens or ()) == 3
    assert {one.id for one in client.models.list()} == {"ner", "triage", "words"}


def test_refusals_are_the_clients_own_errors(speak: Callable[..., openai.OpenAI]) -> None:
    with pytest.raises(openai.AuthenticationError):
        speak(key="wrong" * 10).models.list()
    client = speak(limits={"per_second": 4})
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="none", messages=ASK)
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="words", messages=ASK, max_tokens=4000)
    assert raised.value.code == "too_long"
    with pytest.raises(openai.RateLimitError):
        for _ in range(5):
            client.models.list()


def test_a_reader_who_leaves_ends_the_writing(
    speak: Callable[..., openai.OpenAI], engines: dict[str, Any]
) -> None:
    engine = engines["words"]
    batch = engine.writing.batch
    steps, step, keep = [0], batch.step, batch.keep
    ended, left = threading.Event(), threading.Event()

    def counting(tokens: Any) -> Any:
        steps[0] += 1
        if steps[0] > 5:
            left.wait()  # a reader on a busy machine leaves late
        time.sleep(0.02)
        return step(tokens)

    def leaving(rows: Any) -> None:
        keep(rows)
        ended.set()

    batch.step, batch.keep = counting, leaving
    ends, engine.writing.ends = engine.writing.ends, frozenset()
    try:
        client = speak({"words": engine}, fingerprint_seconds=600)
        stream = client.chat.completions.create(
            model="words", messages=ASK, max_tokens=200, stream=True
        )
        next(iter(stream))
        stream.close()
        left.set()
        assert ended.wait(600) and steps[0] < 150
    finally:
        left.set()
        del batch.step, batch.keep  # of the class again: a lane of its own takes a copy
        engine.writing.ends = ends


def test_many_at_once_get_what_they_get_alone(
    live: Callable[..., str], engines: dict[str, Any]
) -> None:
    import asyncio

    address = live({"words": engines["words"]})
    sizes: list[int] = []
    batch = engines["words"].writing.batch
    step = batch.step
    batch.step = lambda tokens: (sizes.append(len(tokens)), step(tokens))[1]
    questions = [
        "What is asthma?",
        "肺炎有什么症状？",
        "Tăng huyết áp là gì?",
        "Fever and cough for three days: why?",
    ]

    async def ask(client: openai.AsyncOpenAI, text: str) -> str:
        said = await client.chat.completions.create(
            model="words", messages=[{"role": "user", "content": text}], max_tokens=12
        )
        return said.choices[0].message.content or ""

    async def all_of() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key=KEY, max_retries=0
        ) as client:
            alone = [await ask(client, text) for text in questions]
            return alone, list(await asyncio.gather(*(ask(client, text) for text in questions)))

    try:
        alone, together = asyncio.run(all_of())
    finally:
        del batch.step
    assert alone == together and max(sizes) > 1


@pytest.mark.server
@pytest.mark.timeout(3600)
def test_a_fuzzer_finds_no_fault(live: Callable[..., str], tmp_path: Path) -> None:
    """RESIDENCY_FUZZ: examples of each route; 15 where it is not given, some 3,000 are ten minutes."""
    address = live(limits={"per_second": 100_000, "output_tokens": 4})
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection,ignored_auth,unsupported_method"
    (tmp_path / "schemathesis.toml").write_text(
        "checks.negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 413, "
        "415]\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{address}/openapi.json",
            "-H",
            f"Authorization: Bearer {KEY}",
            "--checks",
            checks,
            "--max-examples",
            os.environ.get("RESIDENCY_FUZZ", "15"),
            "--phases",
            "examples,coverage,fuzzing",
            "--seed",
            "1",
            "--workers",
            "1",
        ],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    print(done.stdout[-2500:])
    assert done.returncode == 0, done.stdout[-6000:]
