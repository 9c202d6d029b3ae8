"""Models in this process: one that marks (an encoder with a head), one that writes; each computes
in one thread, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.core.types import Example, Labels, Prediction, Spans, Turn
from residency.models.sampling import Stops, Unpacked, noise_key
from residency.serve.engines.batching import Batcher
from residency.serve.engines.tokenizer import Chats, Reader, Reading, Texts, silent_model
from residency.serve.settings import Serve
from residency.serve.types import Asked, Piece, Refusal, Scored, Served

if TYPE_CHECKING:
    from residency.models.causal import CausalPredictor
    from residency.models.encoder import EncoderPredictor

CANARY = "Bệnh nhân ho khan, sốt 38.5 độ. 患者咳嗽、发热三天。 The patient takes metformin 500 mg."
CANARY_TOKENS = 8
Watch = Callable[[int, int], None]
"""Told how many requests wait, and how many are computed together."""


def load(
    folder: Path, name: str, settings: Serve = Serve(), device: str | None = None
) -> Marker | Writer:
    """The engine of an artefact; raises ``UserError`` where it cannot be loaded."""
    from residency.models import artefact, onnx_encoder
    from residency.models.base import silent
    from residency.models.causal import CausalPredictor
    from residency.models.encoder import EncoderPredictor

    if (folder / onnx_encoder.FILE).is_file():
        _as_trained(settings, folder, "an export has numbers of its own")
        exported = onnx_encoder.OnnxEncoder.from_export(folder, name=name)
        return Marker(exported, served_export(folder, name), settings)
    if settings.engine == "onnx":
        raise UserError(
            f"engine: {folder} is no export; make one with residency export onnx, and serve its "
            "folder, or set engine: process."
        )
    found = artefact.read(folder)
    with silent():
        if found.output == "text":
            _as_trained(settings, folder, "it is no encoder")
            writer = CausalPredictor.from_artefact(folder, name, device)
            return Writer(writer, served(folder, name, found, writer.model), settings)
        marker = EncoderPredictor.from_artefact(folder, name, device)
        if settings.dtype == "bf16":
            import torch

            marker.model.to(torch.bfloat16)
        return Marker(marker, served(folder, name, found, marker.model), settings)


def _as_trained(settings: Serve, folder: Path, why: str) -> None:
    """Raises ``UserError`` where other numbers are wanted."""
    if settings.dtype != "auto":
        raise UserError(
            f"dtype: {folder} cannot be served in {settings.dtype} ({why}); set dtype: auto."
        )


def served(folder: Path, name: str, artefact: Any, model: Any) -> Served:
    """What is known of a served artefact."""
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), "torch.float32")
    return Served(
        name=name,
        digest=file_digest(folder / "artefact.json"),
        base=artefact.base.id,
        method=artefact.kinds,
        output=artefact.output,
        card=artefact.task(),
        dtype=str(kind).removeprefix("torch."),
        window=artefact.base.window,
    )


def served_export(folder: Path, name: str) -> Served:
    """What is known of an exported encoder; its digest is that of the artefact that it was made of."""
    from residency.core.part import parse
    from residency.models import onnx_encoder
    from residency.tasks.card import Card

    found = onnx_encoder.read(folder)
    return Served(
        name=name,
        digest=found.artefact,
        base=found.base,
        method=found.method,
        output="head",
        card=parse(Card, found.card, onnx_encoder.FILE),
        kind="onnx",
        dtype=onnx_encoder.DTYPES[found.best],
        window=found.window,
    )


class InProcess(Reading):
    """What both kinds share: a thread, the canary, and an end."""

    def __init__(self, served: Served, settings: Serve, reader: Reader) -> None:
        super().__init__(served, reader)
        self.settings = settings
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{served.name}")
        self.watch: Watch | None = None
        self.closed = False
        self.expected: object = self.pool.submit(self._fixed).result()

    def _fixed(self) -> object:
        """The answer to the fixed question."""
        raise NotImplementedError

    def _open(self) -> None:
        if self.closed:
            raise Refusal(503, "not_ready", "The model is not ready; try again shortly.", 1.0)

    def _watched(self, waiting: int, rows: int) -> None:
        if self.watch is not None:
            self.watch(waiting, rows)

    async def canary(self) -> bool:
        """Whether the fixed question gets the answer that it got when the model was loaded."""
        if self.closed:
            return False
        try:
            found = await asyncio.get_running_loop().run_in_executor(self.pool, self._fixed)
        except Exception:  # whatever is wrong with a model, it is not ready
            return False
        return found == self.expected

    async def close(self) -> None:
        """End what runs, free the memory."""
        self.closed = True
        self.pool.shutdown(wait=False, cancel_futures=True)


class Marker(InProcess):
    """An encoder: spans or labels of texts that come together are read together."""

    def __init__(self, predictor: EncoderPredictor, served: Served, settings: Serve) -> None:
        self.predictor = predictor
        super().__init__(served, settings, Texts(predictor.tokeniser, served.name))
        wait, most = settings.batch_ms / 1000, settings.batch_rows
        self.batch: Batcher[str, Prediction] = Batcher(
            self._mark, self.pool, wait, most, watch=self._watched
        )

    def _fixed(self) -> object:
        answer, tokens = self.predictor.classify([CANARY])[0]
        if isinstance(answer, Spans):
            return tuple((span.start, span.end, span.label) for span in answer.spans), tokens
        return (answer.labels if isinstance(answer, Labels) else answer), tokens

    def _mark(self, texts: Sequence[str]) -> list[Prediction]:
        return [
            Prediction(id="", answer=answer, tokens=count)
            for answer, count in self.predictor.classify([*texts])
        ]

    async def mark(self, text: str) -> Prediction:
        """Spans or labels of a text."""
        self._open()
        return await self.batch(text)

    def write(self, asked: Asked) -> AsyncIterator[Piece]:
        """Refused: this model does not write."""
        raise silent_model(self.served.name)

    def continue_(self, ids: Sequence[int], asked: Asked) -> AsyncIterator[Piece]:
        """Refused: this model does not write."""
        raise silent_model(self.served.name)

    async def score(self, ids: Sequence[int], top: int = 1) -> Scored:
        """Refused: this model does not write."""
        raise silent_model(self.served.name)


class Job:
    """An answer that is being written: its prompt, its reader, and where it stands. ``halted`` is
    set by the reader."""

    def __init__(self, ids: list[int], key: int, asked: Asked) -> None:
        self.ids, self.key, self.asked, self.halted = ids, key, asked, False
        self.queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()

    def tell(self, what: Piece | BaseException) -> None:
        """Hand something to the reader, from the computing thread."""
        with suppress(RuntimeError):  # the reader's loop has ended
            self.loop.call_soon_threadsafe(self.queue.put_nowait, what)


class Written:
    """One row of a batch as it grows."""

    def __init__(
        self, job: Job, tokenizer: Any, ends: frozenset[int], stops: Sequence[str]
    ) -> None:
        self.job, self.ends = job, ends
        self.words, self.stops = Unpacked(tokenizer), Stops(stops)
        self.count, self.fresh, self.sum, self.done = 0, list[int](), 0.0, False

    def take(self, token: int, log_probability: float) -> bool:
        """A token more; whether the row has ended."""
        if self.done or self.job.halted:
            self.done = True
            return True
        if token in self.ends:
            return self._end(self.stops.push(self.words.rest()), "stop")
        self.count += 1
        self.sum += log_probability
        self.fresh.append(token)
        text = self.stops.push(self.words.push(token))
        if self.stops.found:
            return self._end(text, "stop")
        if self.count >= self.job.asked.max_tokens:
            return self._end(text + self.stops.push(self.words.rest()), "length")
        if text:
            self._tell(text, None)
        return False

    def _end(self, text: str, why: Any) -> bool:
        self.done = True
        self._tell(
            text if self.stops.found else text + self.stops.rest(),
            "stop" if self.stops.found else why,
        )
        return True

    def _tell(self, text: str, end: Any) -> None:
        ids, self.fresh = tuple(self.fresh), []
        self.job.tell(
            Piece(text=text, tokens=self.count, end=end, ids=ids, log_probability=self.sum)
        )


class Rows:
    """Watches a batch while it is written: hands each row's words on as they come, and ends rows
    one by one."""

    def __init__(self, rows: Sequence[Written]) -> None:
        self.rows = rows
        self.scores: Any = None

    def before(self, input_ids: Any, scores: Any) -> Any:
        """Sees the scores of the next word of each row; changes none."""
        self.scores = scores
        return scores

    def after(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Takes each row's new word; says which rows have ended."""
        import torch

        new = input_ids[:, -1]
        logs = (
            self.scores.float()
            .log_softmax(-1)
            .gather(1, new[:, None].to(self.scores.device))[:, 0]
            .tolist()
        )
        done = [
            row.take(token, log)
            for row, token, log in zip(self.rows, new.tolist(), logs, strict=True)
        ]
        return torch.tensor(done, device=input_ids.device)


class Writer(InProcess):
    """A causal model: answers whose settings agree are written side by side, each read piece by
    piece."""

    def __init__(self, predictor: CausalPredictor, served: Served, settings: Serve) -> None:
        self.predictor, self.chat = predictor, predictor.chat
        self.words = Chats(predictor.chat)
        self.ends = frozenset(predictor.ends)
        super().__init__(served, settings, self.words)
        wait, most = settings.batch_ms / 1000, settings.batch_rows
        self.marks: Batcher[str, Prediction] = Batcher(
            self._mark, self.pool, wait, most, watch=self._watched
        )
        self.jobs: Batcher[Job, None] = Batcher(
            self._write, self.pool, wait, most, _settings, self._watched
        )
        self.scores: Batcher[tuple[tuple[int, ...], int], Scored] = Batcher(
            self._score, self.pool, wait, most
        )

    # Computed in the thread

    def _fixed(self) -> object:
        turns = (Turn(role="user", text=CANARY),)
        found = self.chat.prompt(turns, self.chat.window - CANARY_TOKENS)[0] or list(
            self.words.tokens(CANARY)
        )
        how = self.predictor.generation.model_copy(update={"temperature": 0.0})
        seen: list[int] = []

        def after(input_ids: Any, scores: Any, **_: Any) -> Any:
            seen.extend(input_ids[:, -1].tolist())
            return input_ids[:, -1] < 0

        self.predictor.write_rows([found], [0], how, CANARY_TOKENS, None, after)
        return tuple(seen)

    def _write(self, jobs: Sequence[Job]) -> list[None]:
        running = [job for job in jobs if not job.halted]
        try:
            if running:
                asked = running[0].asked
                how = self.predictor.generation.model_copy(
                    update={"temperature": asked.temperature, "top_p": asked.top_p, "top_k": 0}
                )
                rows = [
                    Written(job, self.chat.tokenizer, self.ends, job.asked.stop) for job in running
                ]
                watch = Rows(rows)
                most = max(job.asked.max_tokens for job in running)
                keys = [job.key for job in running]
                self.predictor.write_rows(
                    [job.ids for job in running], keys, how, most, watch.before, watch.after
                )
        except BaseException as error:
            for job in running:
                job.tell(error)
        return [None] * len(jobs)

    def _mark(self, texts: Sequence[str]) -> list[Prediction]:
        card = self.served.card
        return list(
            self.predictor.predict(
                Example(id=str(i), task=card.name, input=t) for i, t in enumerate(texts)
            )
        )

    def _score(self, asked: Sequence[tuple[tuple[int, ...], int]]) -> list[Scored]:
        made = []
        rows = self.predictor.log_probabilities([ids for ids, _ in asked])
        for (ids, top), logs in zip(asked, rows, strict=True):
            best = logs.topk(max(1, top), -1)
            names = [
                {self.words.word(i): p for i, p in zip(where, values, strict=True)}
                for where, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
            given = [float(logs[place, token]) for place, token in enumerate(ids[1:])]
            made.append(self.words.scored(ids, (None, *given), (None, *names)))
        return made

    # Answers

    async def mark(self, text: str) -> Prediction:
        """What the model's words say of a text, read back as its card has them."""
        self._open()
        return await self.marks(text)

    def write(self, asked: Asked) -> AsyncIterator[Piece]:
        """The answer to a conversation. Refused (400) where it does not fit the window whole: no
        turn is ever left out."""
        ids = self.words.prompt(asked.turns, asked.max_tokens, self.served.window)
        stops = (*asked.stop, *self.predictor.generation.stop, *self.chat.stop)
        asked = msgspec.structs.replace(asked, stop=stops)
        return self._pieces(ids, noise_key(asked.turns), asked)

    def continue_(self, ids: Sequence[int], asked: Asked) -> AsyncIterator[Piece]:
        """What follows tokens as they are."""
        self.words.room(ids, asked.max_tokens, self.served.window)
        return self._pieces([*ids], noise_key((Turn(role="user", text=repr(tuple(ids))),)), asked)

    async def _pieces(self, ids: list[int], key: int, asked: Asked) -> AsyncIterator[Piece]:
        self._open()
        job = Job(ids, key, asked)
        task = asyncio.ensure_future(self.jobs(job))
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        try:
            while True:
                piece = await job.queue.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if piece.end is not None:
                    return
        finally:
            job.halted = True
            task.cancel()

    async def score(self, ids: Sequence[int], top: int = 1) -> Scored:
        """How likely given tokens are."""
        self._open()
        self.words.room(ids, 0, self.served.window)
        return await self.scores((tuple(ids), top))


def _settings(job: Job) -> tuple[float, float]:
    """What must agree between answers that are written side by side."""
    return job.asked.temperature, job.asked.top_p
