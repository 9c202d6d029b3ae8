"""Another engine takes a name over while requests run: each ends where it began, and what is not
proved never answers."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from residency.core.errors import GateRefused, UserError
from residency.models.fingerprint import Fingerprint
from residency.serve import Refusal, promote
from residency.serve.engines import Aliases, Served, TokenScores
from residency.tasks.card import Card

CARD = Card(name="qa", family="answers")
KNOWN = Fingerprint(
    schema=1,
    dtype="float32",
    device="cpu",
    ids=((5, 6, 7),),
    values=((-1.0, -2.0),),
    tolerances={"process float32": 0.001},
)


class Fake:
    """An engine that answers with its own name, and cannot once it is closed."""

    def __init__(
        self, digest: str, says: tuple[float, ...] = (-1.0, -2.0), ready: bool = True
    ) -> None:
        self.served = Served(
            name="qa", digest=digest, base="b", method="lora", output="text", card=CARD
        )
        self.says, self.ready, self.closed = says, ready, 0

    async def probe(self) -> bool:
        return self.ready

    async def score(self, ids: Any, top: int = 1) -> TokenScores:
        return TokenScores(
            ids=tuple(ids), texts=(), offsets=(), log_probabilities=(None, *self.says), top=()
        )

    async def close(self) -> None:
        self.closed += 1

    async def answer(self, steps: int) -> str:
        for _ in range(steps):
            await asyncio.sleep(0.001)
            assert not self.closed, "an engine was closed under a request"
        return self.served.digest


def aliases_of(engine: Fake) -> Aliases:
    aliases = Aliases()
    aliases.start("qa", engine)  # type: ignore[arg-type]
    return aliases


def test_requests_end_on_the_engine_that_they_began_on() -> None:
    async def run() -> None:
        engines = [Fake(str(number)) for number in range(6)]
        aliases, seen = aliases_of(engines[0]), list[tuple[str, str]]()
        chance = random.Random(1)

        async def request() -> None:
            await asyncio.sleep(chance.random() * 0.2)
            async with aliases.using("qa") as engine:
                before = engine.served.digest
                seen.append((before, await engine.answer(chance.randrange(60))))  # type: ignore[attr-defined]

        async def flips() -> None:
            for engine in engines[1:]:
                await asyncio.sleep(0.04)
                await aliases.put("qa", engine)  # type: ignore[arg-type]

        await asyncio.gather(flips(), *(request() for _ in range(300)))
        assert len(seen) == 300
        assert all(before == after for before, after in seen)
        assert len({before for before, _ in seen}) >= 3  # it was under load all along
        assert [engine.closed for engine in engines] == [1, 1, 1, 1, 1, 0]
        await aliases.close()
        assert engines[-1].closed == 1

    asyncio.run(run())


def test_a_request_that_is_cancelled_or_fails_lets_go_too() -> None:
    async def run() -> None:
        old, new = Fake("old"), Fake("new")
        aliases = aliases_of(old)

        async def request() -> None:
            async with aliases.using("qa") as engine:
                await engine.answer(10_000)  # type: ignore[attr-defined]

        task = asyncio.create_task(request())
        await asyncio.sleep(0.01)
        await aliases.put("qa", new)  # type: ignore[arg-type]
        assert old.closed == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert old.closed == 1

    asyncio.run(run())


def unreadable() -> Fake:
    raise UserError("models/x: is missing or was changed after training.")


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        (unreadable, "was changed after training"),
        (lambda: Fake("new", ready=False), "does not answer the fixed question"),
        (lambda: Fake("new", says=(-1.0, -2.1)), "does not say what was recorded"),
        (lambda: Fake("new", says=(-1.0,)), "does not say what was recorded"),
        (lambda: Fake("new", says=(-1.0, float("nan"))), "does not say what was recorded"),
    ],
)
def test_what_is_not_proved_never_answers(
    load: Any, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promote, "_check_alike", lambda *_: None)
    made: list[Fake] = []

    def loaded(*_: Any) -> Any:
        made.append(load())
        return made[-1]

    async def run() -> None:
        ledger: Any = SimpleNamespace(path=Path, recorded=lambda _: KNOWN)
        changes = promote.ModelChanges(SimpleNamespace(), Path("models"), loaded)  # type: ignore[arg-type]
        with pytest.raises(GateRefused, match=sentence):
            await changes._loaded(ledger, Fake("old").served, "new")
        assert all(one.closed == 1 for one in made)

    asyncio.run(run())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        aliases_of(Fake("old")).hold("other")
    assert refused.value.status == 404
