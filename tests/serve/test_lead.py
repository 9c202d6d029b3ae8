"""The engine process and its workers, without processes: who must say yes before a model changes,
and what each is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_swap import Fake

from residency.core.errors import GateRefused
from residency.serve import lead as leading
from residency.serve.engines.remote import decoded
from residency.serve.lead import Hello, Lead, Left, Told
from residency.serve.types import Refusal

OLD, NEW = "old", "new"


class Worker:
    """A worker that says of each kind of thing what it is told to say; nothing at all where that is
    ``None``."""

    def __init__(self, lead: Lead, number: int, **says: str | None) -> None:
        self.lead, self.hello, self.says = lead, Hello(worker=number, token=f"t{number}"), says
        self.heard: list[Told] = []
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for line in self.lead.follow(self.hello):
            told = msgspec.json.decode(line, type=Told, dec_hook=decoded)
            self.heard.append(told)
            why = self.says.get(told.what, "")
            follower = self.lead.find(self.hello.token)
            if why == "dies":
                return
            if why is not None and follower is not None:
                follower.done(told.number, why)

    @property
    def kinds(self) -> list[str]:
        return [told.what for told in self.heard]

    def left(self) -> None:
        """It asks nothing of what it heard of first."""
        self.lead.left(Left(token=self.hello.token, key=self.heard[0].models[0].key))

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Scene:
    """A lead with one name and two workers, whose second says what is given."""

    def __init__(self, **says: str | None) -> None:
        self.old, self.new, self.committed = Fake(OLD), Fake(NEW), 0
        self.lead = Lead(
            {"qa": self.old},
            {"qa": Path(OLD)},
            2,
            Path("models"),
            lambda *_: self.new,
            lambda *_: None,
        )  # type: ignore[dict-item,arg-type,return-value]
        self.workers = [Worker(self.lead, 0), Worker(self.lead, 1, **says)]

    async def flip(self) -> None:
        """What a change does once its model is proved, the ledger left out."""
        lead = self.lead
        lead.loop = asyncio.get_running_loop()

        def commit() -> None:
            lead.hold()
            self.committed += 1

        async def agreed(engine: Any) -> None:
            await lead.prepare(engine, Path(NEW))
            await asyncio.to_thread(commit)

        try:
            await lead.swap.flip("qa", lambda: self.new, None, agreed)  # type: ignore[arg-type,return-value]
        finally:
            await lead._settle()

    async def end(self) -> None:
        for worker in self.workers:
            await worker.end()


def play(scene: Callable[[], Any]) -> None:
    asyncio.run(scene())


def test_all_are_asked_before_and_told_after() -> None:
    async def run() -> None:
        scene = Scene()
        await asyncio.sleep(0.01)
        await scene.flip()
        assert scene.committed == 1
        for worker in scene.workers:
            assert worker.kinds == ["now", "prepare", "hold", "now"]
            assert [told.models[0].served.digest for told in worker.heard if told.models] == [
                OLD,
                NEW,
                NEW,
            ]
            assert worker.heard[1].models == worker.heard[3].models, (
                "what was made ready is what answers"
            )
        await scene.end()

    play(run)


@pytest.mark.parametrize("step", ["prepare", "hold"])
@pytest.mark.parametrize("says", ["its tokenizer cannot be read", None, "dies"])
def test_where_one_does_not_say_yes_nothing_changes(
    step: str, says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "PREPARE_SECONDS", 0.1)
    monkeypatch.setattr(leading, "HOLD_SECONDS", 0.1)

    async def run() -> None:
        scene = Scene(**{step: says})
        await asyncio.sleep(0.01)
        with pytest.raises(GateRefused, match="not promoted: worker 1 cannot take part: "):
            await scene.flip()
        assert scene.committed == 0
        assert scene.lead.swap.now("qa") is scene.old and (scene.old.closed, scene.new.closed) == (
            0,
            1,
        )
        last = scene.workers[0].heard[-1]
        assert (last.what, last.models[0].served.digest) == ("now", OLD), "who waited is let go"
        with pytest.raises(Refusal):
            async with scene.lead.using(scene.workers[0].heard[1].models[0].key):
                pass
        await scene.end()

    play(run)


def test_a_worker_that_is_not_there_ends_the_change() -> None:
    async def run() -> None:
        scene = Scene()
        await asyncio.sleep(0.01)
        await scene.workers[1].end()
        with pytest.raises(GateRefused, match="not every worker listens"):
            await scene.flip()
        assert scene.committed == 0 and scene.lead.swap.now("qa") is scene.old
        await scene.end()

    play(run)


def test_the_old_one_is_closed_when_the_last_worker_has_left_it() -> None:
    async def run() -> None:
        scene = Scene()
        await asyncio.sleep(0.01)
        key = scene.workers[0].heard[0].models[0].key
        await scene.flip()
        scene.workers[0].left()
        await asyncio.sleep(0.01)
        assert not scene.old.closed
        async with scene.lead.using(key) as engine:
            assert engine is scene.old, "who began on it goes on with it"
            await scene.workers[1].end()  # it dies; the question goes on
            await asyncio.sleep(0.01)
            assert not scene.old.closed
        await asyncio.sleep(0.01)
        assert scene.old.closed == 1
        with pytest.raises(Refusal) as refused:
            async with scene.lead.using(key):
                pass
        assert refused.value.status == 503
        await scene.end()

    play(run)


def test_who_comes_in_the_middle_hears_the_end() -> None:
    async def run() -> None:
        scene = Scene()
        await asyncio.sleep(0.01)
        late: list[Worker] = []
        hold = scene.lead.hold

        def held() -> None:
            hold()
            scene.lead.loop.call_soon_threadsafe(lambda: late.append(Worker(scene.lead, 1)))  # type: ignore[union-attr]

        scene.lead.hold = held  # type: ignore[method-assign]
        await scene.flip()
        await asyncio.sleep(0.01)
        assert late[0].kinds == ["now"] and late[0].heard[0].models[0].served.digest == NEW
        await late[0].end()
        await scene.end()

    play(run)
