"""A predictor on another machine or in another program: any server with OpenAI's chat completions.

What may be sent is decided by the profile of each example, before anything is sent. Answers are
kept as they come, so that an interrupted comparison asks nothing twice; what a budget does not
cover is not asked.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import Field, model_validator

from residency.core.errors import GateRefused, UserError
from residency.core.files import digest, disk_errors, read_unfinished
from residency.core.part import Part
from residency.core.types import Example, Prediction, PredictorInfo, Profile, Turn, Value
from residency.tasks.card import Card
from residency.tasks.codec import conversation, read

if TYPE_CHECKING:
    import httpx2

LOOPBACK = re.compile(r"^http://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?(/|$)")
CHUNK = 64
"""Examples in flight at once, at most."""
SLOWEST = 60.0
"""Longest wait, in seconds, before something is asked again."""


class Api(Part):
    """A server that speaks OpenAI's chat completions."""

    url: str = Field(pattern=r"^https?://[^\s@]+$")
    """Its base, e.g. ``https://api.example.org/v1``; plain ``http`` only on this machine."""
    model: str = Field(min_length=1)
    """What the server calls the model."""
    key: str = Field(default="", pattern=r"^([A-Z][A-Z0-9_]*)?$")
    """Environment variable that holds the key; empty for none."""
    profiles: tuple[Profile, ...] = ("public", "synthetic", "anonymised", "safe-harbor")
    """What may be sent there. ``pseudonymised`` is personal data and never goes by default."""
    budget: int = Field(default=1000, ge=1)
    """Most requests of one comparison, those that are asked again included."""
    max_tokens: int = Field(default=512, ge=1)
    """Most tokens of an answer."""
    temperature: float = Field(default=0.0, ge=0)
    """0: always the likeliest word."""
    concurrency: int = Field(default=4, ge=1, le=64)
    """How many requests are under way at once."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds for one answer."""
    retries: int = Field(default=4, ge=0)
    """How often a request is repeated that failed in passing: no connection, time-out, 429, 5xx."""

    @model_validator(mode="after")
    def _safe(self) -> Api:
        if self.url.startswith("http:") and not LOOPBACK.match(self.url):
            raise ValueError(
                "url: notes may only travel encrypted; write https, or a server on this machine"
            )
        return self


class KeptAnswer(Value, frozen=True):
    """An answer as it is kept: of which request, and how long it took."""

    request: str
    text: str
    milliseconds: float
    tokens: int | None = None


class RemotePredictor:
    """Asks a server; answers are kept in ``kept``, a file that only its owner may read."""

    def __init__(
        self,
        api: Api,
        name: str,
        card: Card,
        kept: Path,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.api, self.name, self.card, self.kept, self.transport = api, name, card, kept, transport
        self.where = f"evaluate.apis.{name}"
        self.info = PredictorInfo(
            name=f"api:{name}",
            base=api.model,
            method="api",
            digest=digest([api.url, api.model]),
            remote=True,
        )
        self.known = {said.request: said for said in read_unfinished(kept, KeptAnswer)}
        self.sent = 0

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """One prediction per example, in order.

        Raises ``GateRefused`` where an example's profile may not leave, before anything is sent;
        ``UserError`` where the server refuses or stays away, or the budget is used up: what was
        answered is kept, and the same command goes on.
        """
        import httpx2

        asked = list(examples)
        for example in asked:
            if example.profile not in self.api.profiles:
                raise GateRefused(
                    f"{self.where}: notes of profile {example.profile} may not leave this machine "
                    f"(allowed there: {', '.join(self.api.profiles)}); nothing was sent."
                )
        source = iter(asked)
        with (
            httpx2.Client(
                headers=_headers(self.api, self.where),
                timeout=self.api.timeout,
                transport=self.transport,
                follow_redirects=False,
            ) as client,
            ThreadPoolExecutor(self.api.concurrency) as threads,
        ):
            while chunk := list(islice(source, CHUNK)):
                bodies = [_body(self.api, conversation(example, self.card)) for example in chunk]
                keys = [digest([self.api.url, body]) for body in bodies]
                new = {k: b for k, b in zip(keys, bodies, strict=True) if k not in self.known}
                self._within_budget(len(new), len(asked))
                failure: UserError | None = None
                for future in [threads.submit(self._ask, client, *one) for one in new.items()]:
                    try:
                        self._keep(future.result())
                    except UserError as error:
                        failure = failure or error
                if failure:
                    raise failure
                for example, key in zip(chunk, keys, strict=True):
                    yield self._prediction(example, self.known[key])

    def _prediction(self, example: Example, said: KeptAnswer) -> Prediction:
        answer, why = read(said.text, example, self.card)
        return Prediction(
            id=example.id,
            answer=answer,
            text=said.text,
            failure=why,
            latency_ms=said.milliseconds,
            tokens=said.tokens,
        )

    def _within_budget(self, wanted: int, everything: int) -> None:
        if self.sent + wanted > self.api.budget:
            raise UserError(
                f"{self.where}.budget: {self.api.budget} requests do not cover {everything} "
                f"examples ({len(self.known)} answered so far, which are kept); raise it, or set "
                "evaluate.limit."
            )

    def _ask(self, client: httpx2.Client, key: str, body: dict[str, Any]) -> KeptAnswer:
        import httpx2

        for attempt in range(self.api.retries + 1):
            self.sent += 1
            begun, wait = time.perf_counter(), min(SLOWEST, 0.5 * 2**attempt)
            try:
                answer = client.post(_address(self.api), json=body)
            except httpx2.TransportError as error:
                why = type(error).__name__
            else:
                if answer.status_code == 200:
                    return self._said(key, answer, (time.perf_counter() - begun) * 1000)
                why = f"status {answer.status_code}"
                if answer.status_code != 429 and answer.status_code < 500:
                    raise UserError(
                        f"{self.where}: the server refused ({why}); check url, model and key. What "
                        "was answered is kept."
                    )
                wait = _wait(answer.headers.get("retry-after"), wait)
            if attempt < self.api.retries and self.sent < self.api.budget:
                time.sleep(wait)
                continue
            break
        raise UserError(
            f"{self.where}: the server does not answer ({why}, asked {attempt + 1} times); "
            f"{len(self.known)} answers are kept, and the same command goes on from there."
        )

    def _said(self, key: str, answer: httpx2.Response, milliseconds: float) -> KeptAnswer:
        text, tokens = _content(answer, self.where)
        return KeptAnswer(
            request=key,
            text=text,
            milliseconds=milliseconds,
            tokens=tokens,
        )

    def _keep(self, said: KeptAnswer) -> None:
        self.known[said.request] = said
        with disk_errors(self.kept):
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.kept, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(msgspec.json.encode(said) + b"\n")


class RemoteTalker:
    """Holds a conversation with a model behind a server: each answer is asked for once, since
    somebody waits for it. ``where``: who it is, for errors."""

    def __init__(self, api: Api, where: str, transport: httpx2.BaseTransport | None = None) -> None:
        self.api, self.where, self.transport = api, where, transport

    def stream(self, turns: Sequence[Turn]) -> Iterator[str]:
        """The answer, in one piece. Raises ``UserError`` where none comes."""
        import httpx2

        with httpx2.Client(
            headers=_headers(self.api, self.where),
            timeout=self.api.timeout,
            transport=self.transport,
            follow_redirects=False,
        ) as client:
            try:
                answer = client.post(_address(self.api), json=_body(self.api, turns))
            except httpx2.TransportError as error:
                why = type(error).__name__
                raise UserError(f"{self.where}: the server does not answer ({why}).") from None
        if answer.status_code != 200:
            raise UserError(f"{self.where}: the server refused (status {answer.status_code}).")
        yield _content(answer, self.where)[0]


def _address(api: Api) -> str:
    return f"{api.url.rstrip('/')}/chat/completions"


def _headers(api: Api, where: str) -> dict[str, str]:
    if not api.key:
        return {}
    key = os.environ.get(api.key, "")
    if not key:
        raise UserError(
            f"{where}.key: the environment variable {api.key} is not set; it must hold the key."
        )
    return {"Authorization": f"Bearer {key}"}


def _body(api: Api, turns: Sequence[Turn]) -> dict[str, Any]:
    return {
        "model": api.model,
        "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
        "max_tokens": api.max_tokens,
        "temperature": api.temperature,
    }


def _content(answer: httpx2.Response, where: str) -> tuple[str, int | None]:
    """The text of a chat completion, and how many tokens it has where that is said."""
    try:
        found = answer.json()
        text = found["choices"][0]["message"]["content"]
        tokens = (found.get("usage") or {}).get("completion_tokens")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(
            f"{where}: the server's answer is no chat completion; check that url ends in "
            "the API's base, e.g. /v1."
        ) from None
    return text if isinstance(text, str) else "", tokens if isinstance(tokens, int) else None


def _wait(asked: str | None, otherwise: float) -> float:
    """Seconds that the server asks to be left alone, where it says so in figures."""
    try:
        return min(SLOWEST, max(0.0, float(asked or "")))
    except ValueError:
        return otherwise
