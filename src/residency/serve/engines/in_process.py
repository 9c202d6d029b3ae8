"""Models in this process: a classifier (an encoder with a head), a generative model; each computes
in one thread, in batches."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.core.types import Example, Prediction, Turn
from residency.models.sampling import (
    Form,
    FormError,
    Held,
    Stops,
    Unpacked,
    WrittenPenalty,
    hash_of,
    noise_key,
    sampling_steps,
)
from residency.models.side_by_side import SideBySide
from residency.serve.engines import (
    ChatReader,
    Piece,
    Reader,
    Served,
    TextReader,
    TokenScores,
    WritingRequest,
    bad_form,
    not_generative,
)
from residency.serve.refusals import Refusal, not_ready
from residency.serve.settings import Serve
from residency.tasks.families import of

if TYPE_CHECKING:
    from residency.models.artefact import Artefact
    from residency.models.causal import CausalPredictor
    from residency.models.chat_template import ChatTokeniser
    from residency.models.crf import CrfPredictor
    from residency.models.encoder import EncoderPredictor

QUESTION = (
    "Bệnh nhân ho khan, sốt 38.5 độ. 患者咳嗽、发热三天。 The patient takes metformin 500 mg."
)
QUESTION_TOKENS = 8
In = TypeVar("In")
Out = TypeVar("Out")
Watch = Callable[[int, int], None]
"""Told how many requests wait, and how many are computed together."""


def load(
    folder: Path, name: str, settings: Serve = Serve(), device: str | None = None
) -> ClassifierEngine | GenerativeEngine:
    """The engine of an artefact; raises ``UserError`` where it cannot be loaded."""
    from residency.models import artefact, onnx_encoder
    from residency.models.base import silent

    if (folder / onnx_encoder.FILE).is_file():
        _as_trained(settings, folder, "an export has numbers of its own")
        exported = onnx_encoder.OnnxEncoder.from_export(folder, name=name)
        return ClassifierEngine(exported, served_export(folder, name), settings)
    if settings.engine == "onnx":
        raise UserError(
            f"engine: {folder} is no export; make one with residency export onnx, and serve its "
            "folder, or set engine: process."
        )
    found = artefact.read(folder)
    engine = ENGINES[found.kind]  # the one place of this room that goes by the kind
    with silent():
        return engine.of_artefact(found, folder, name, settings, device)


def _as_trained(settings: Serve, folder: Path, why: str) -> None:
    """Raises ``UserError`` where other numbers are wanted."""
    if settings.dtype != "auto":
        raise UserError(
            f"dtype: {folder} cannot be served in {settings.dtype} ({why}); set dtype: auto."
        )


def served(folder: Path, name: str, found: Any = None, model: Any = None) -> Served:
    """What is known of a served artefact or export; of a loaded one its numbers too."""
    from residency.models import artefact, onnx_encoder

    if (folder / onnx_encoder.FILE).is_file():
        return served_export(folder, name)
    found = found or artefact.read(folder)
    floats = (p.dtype for p in model.parameters() if p.is_floating_point()) if model else iter(())
    return Served(
        name=name,
        digest=file_digest(folder / "artefact.json"),
        base=found.base.id,
        method=found.kinds,
        output=found.output,
        card=found.task(),
        dtype=str(next(floats, "float32")).removeprefix("torch."),
        window=found.base.window,
        calibration=found.calibration,
        abstains_below=found.calibration.abstains_below if found.calibration else None,
    )


def served_export(folder: Path, name: str) -> Served:
    """What is known of an exported encoder; its digest is that of its artefact."""
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
        abstains_below=found.calibration.abstains_below if found.calibration else None,
    )


class Batcher(Generic[In, Out]):
    """Collects items and computes them together. ``compute`` runs in ``pool``.

    The first item waits ``wait`` seconds for others; while a batch is computed the next one
    gathers, and follows at once.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[In]], Sequence[Out]],
        pool: ThreadPoolExecutor,
        wait: float,
        most: int,
        watch: Watch | None = None,
    ) -> None:
        self.compute, self.pool, self.wait, self.most = compute, pool, wait, most
        self.watch = watch
        self.waiting: list[tuple[In, asyncio.Future[Out]]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.busy = False

    async def __call__(self, item: In) -> Out:
        """The result of one item; an error of another item of its batch does not reach it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Out] = loop.create_future()
        self.waiting.append((item, future))
        if not self.busy and len(self.waiting) >= self.most:
            self._start()
        elif not self.busy and self.timer is None:
            self.timer = loop.call_later(self.wait, self._start)
        return await future

    def _start(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.waiting = [pair for pair in self.waiting if not pair[1].cancelled()]
        if self.busy or not self.waiting:
            return
        chosen, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
        self.busy = True
        if self.watch:
            self.watch(len(self.waiting), len(chosen))
        asyncio.get_running_loop().create_task(self._compute(chosen))

    async def _compute(self, chosen: list[tuple[In, asyncio.Future[Out]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(
                self.pool, self._results, [item for item, _ in chosen]
            )
            for (_, future), result in zip(chosen, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except BaseException as error:
            for _, future in chosen:
                if not future.done():
                    future.set_exception(error)
        finally:
            self.busy = False
            self._start()

    def _results(self, items: list[In]) -> list[Out | BaseException]:
        """Results, or errors; where a batch fails each item is tried alone, so that only the one at
        fault fails."""
        try:
            return list(self.compute(items))
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [result for item in items for result in self._results([item])]


class EngineInProcess:
    """What both kinds share: a thread, the fixed question, and an end."""

    def __init__(self, served: Served, settings: Serve, reader: Reader) -> None:
        self.served, self.reader, self.settings = served, reader, settings
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{served.name}")
        self.watch: Watch | None = None
        self.closed = False
        self.batch: Batcher[str, Prediction] = self._batcher(self._classify)
        self.expected: object = self.pool.submit(self._fixed).result()

    def _fixed(self) -> object:
        """The answer to the fixed question."""
        raise NotImplementedError

    def _classify(self, texts: Sequence[str]) -> list[Prediction]:
        raise NotImplementedError

    async def classify(self, text: str) -> Prediction:
        """Spans or labels of a text."""
        self._open()
        return await self.batch(text)

    def _batcher(
        self,
        compute: Callable[[Sequence[In]], Sequence[Out]],
        watched: bool = True,
    ) -> Batcher[In, Out]:
        wait, most = self.settings.batch_ms / 1000, self.settings.batch_rows
        return Batcher(compute, self.pool, wait, most, self._watched if watched else None)

    def _open(self) -> None:
        """Raises ``Refusal`` (503) where it is closed."""
        if self.closed:
            raise not_ready()

    def _watched(self, waiting: int, rows: int) -> None:
        if self.watch is not None:
            self.watch(waiting, rows)

    def fault(self) -> str:
        """Nothing: it lives as long as its process."""
        return ""

    async def probe(self) -> bool:
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


class ClassifierEngine(EngineInProcess):
    """An encoder: spans or labels of texts that come together are read together."""

    @classmethod
    def of_artefact(
        cls, found: Artefact, folder: Path, name: str, settings: Serve, device: str | None
    ) -> ClassifierEngine:
        """Of a trained model, in the numbers that the settings want."""
        from residency.models.encoder import EncoderPredictor

        predictor = EncoderPredictor.from_artefact(folder, name, device)
        if settings.dtype == "bf16":
            import torch

            predictor.model.to(torch.bfloat16)
        return cls(predictor, served(folder, name, found, predictor.model), settings)

    def __init__(
        self, predictor: EncoderPredictor | CrfPredictor, served: Served, settings: Serve
    ) -> None:
        self.predictor = predictor
        super().__init__(served, settings, TextReader(predictor.tokeniser, served.name))

    def _fixed(self) -> object:
        answer, tokens = self.predictor.classify([QUESTION])[0]
        return of(self.served.card).columns(answer) | {"scores": None}, tokens

    def _classify(self, texts: Sequence[str]) -> list[Prediction]:
        return [
            Prediction(id="", answer=answer, tokens=count)
            for answer, count in self.predictor.classify([*texts])
        ]

    def write(self, request: WritingRequest) -> AsyncIterator[Piece]:
        """Refused: this model does not write."""
        raise not_generative(self.served.name)

    def continue_(self, ids: Sequence[int], request: WritingRequest) -> AsyncIterator[Piece]:
        """Refused: this model does not write."""
        raise not_generative(self.served.name)

    async def score(self, ids: Sequence[int], top: int = 1) -> TokenScores:
        """Refused: this model does not write."""
        raise not_generative(self.served.name)


class LexicalEngine(ClassifierEngine):
    """A CRF over lexical features: no base, nothing of torch."""

    @classmethod
    def of_artefact(
        cls, found: Artefact, folder: Path, name: str, settings: Serve, device: str | None
    ) -> ClassifierEngine:
        from residency.models.crf import CrfPredictor

        _as_trained(settings, folder, "it is no neural network")
        return cls(CrfPredictor.from_artefact(folder, name), served(folder, name, found), settings)


class WrittenRow:
    """An answer as it is written, one row of a batch: its prompt, how its words are chosen, its words
    so far, and its reader, who sets ``halted`` when he leaves."""

    def __init__(
        self, ids: list[int], steps: list[Any], request: WritingRequest, chat: ChatTokeniser
    ) -> None:
        self.ids, self.steps, self.request, self.halted = ids, steps, request, False
        self.queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.words, self.stops = Unpacked(chat.tokenizer), Stops(request.stop)
        self.count, self.fresh, self.sum, self.done = 0, list[int](), 0.0, False
        self.text = ""
        """What was written and is not told yet."""
        self.read = [*ids]
        """The prompt, and every word behind it."""

    def scored(self, scores: Any) -> Any:
        """Scores of its next word, as its own settings change them [1, words]."""
        import torch

        ids = torch.tensor([self.read], device=scores.device)
        for step in self.steps:
            scores = step(ids, scores)
        return scores

    def take(self, token: int, log_probability: float, ends: frozenset[int]) -> bool:
        """A token more; whether the row has ended."""
        if self.done or self.halted:
            self.done = True
            return True
        self.read.append(token)
        if token in ends:
            return self._end(self.stops.push(self.words.rest()), "stop")
        self.count += 1
        self.sum += log_probability
        self.fresh.append(token)
        text = self.stops.push(self.words.push(token))
        if self.stops.found:
            return self._end(text, "stop")
        if self.count >= self.request.max_tokens:
            return self._end(text + self.stops.push(self.words.rest()), "length")
        if text:
            self._tell(text, None)
        return False

    def _end(self, text: str, why: Literal["stop", "length"]) -> bool:
        self.done = True
        if self.stops.found:
            self._tell(text, "stop")
        else:
            self._tell(text + self.stops.rest(), why)
        return True

    def _tell(self, text: str, end: Literal["stop", "length"] | None) -> None:
        self.text += text
        if end is None and self.request.whole:
            return
        text, self.text = self.text, ""
        ids, self.fresh = tuple(self.fresh), []
        self.tell(Piece(text=text, tokens=self.count, end=end, ids=ids, log_probability=self.sum))

    def tell(self, what: Piece | BaseException) -> None:
        """Hand something to the reader, from the computing thread."""
        with suppress(RuntimeError):  # the reader's loop has ended
            self.loop.call_soon_threadsafe(self.queue.put_nowait, what)


class Writing:
    """Answers under way, written side by side: one that comes joins the others at the next step. Each
    step is a task of its own in the engine's thread, so that what else is asked of the model comes
    between two of them."""

    def __init__(
        self,
        predictor: CausalPredictor,
        pool: ThreadPoolExecutor,
        most: int,
        watch: Watch,
    ) -> None:
        self.batch, self.pool, self.watch = SideBySide(predictor), pool, watch
        self.ends = frozenset(predictor.ends)
        self.most = most if self.batch.merges else 1
        self.lock, self.running = threading.Lock(), False
        self.arriving, self.rows = deque[WrittenRow](), list[WrittenRow]()
        self.scores: Any = None

    def add(self, row: WrittenRow) -> None:
        """An answer more; called in its reader's event loop."""
        with self.lock:
            self.arriving.append(row)
            begun, self.running = self.running, True
        if not begun:
            self._again()

    def _again(self) -> None:
        try:
            self.pool.submit(self._step)
        except RuntimeError:  # the engine is closed
            self.fail(not_ready())

    def fail(self, error: BaseException) -> None:
        """End every answer."""
        with self.lock:
            rows, self.rows = [*self.rows, *self.arriving], []
            self.arriving.clear()
            self.batch.keep(())
            self.scores = None
        for row in rows:
            row.tell(error)

    def _step(self) -> None:
        import torch

        try:
            with torch.inference_mode():
                self._join()
                if self.rows:
                    self._write()
        except BaseException as error:
            self.fail(error)
        with self.lock:
            more = self.running = bool(self.rows or self.arriving)
        if more:
            self._again()

    def _join(self) -> None:
        """Take up those that wait. A prompt that the model fails on is the fault of nobody who is
        being written."""
        import torch

        with self.lock:
            room = min(self.most - len(self.rows), len(self.arriving))
            new = [self.arriving.popleft() for _ in range(room)]
            waiting = len(self.arriving)
        if not (new := [row for row in new if not row.halted]):
            return
        try:
            scores = self.batch.join([row.ids for row in new])
        except Exception as error:
            for row in new:
                row.tell(error)
            return
        self.scores = scores if self.scores is None else torch.cat([self.scores, scores])
        self.rows += new
        self.watch(waiting, len(self.rows))

    def _write(self) -> None:
        """One token more of each."""
        scores: Any = self.scores
        logs = scores.log_softmax(-1)
        for place, row in enumerate(self.rows):
            if row.steps:
                scores[place] = row.scored(scores[place : place + 1])[0]
        tokens = scores.argmax(-1)
        likely = logs.gather(1, tokens[:, None])[:, 0].tolist()
        told = zip(self.rows, tokens.tolist(), likely, strict=True)
        going = [place for place, one in enumerate(told) if not one[0].take(*one[1:], self.ends)]
        if len(going) < len(self.rows):
            self.batch.keep(going)
            self.rows = [self.rows[place] for place in going]
        self.scores = self.batch.step([row.read[-1] for row in self.rows]) if going else None


class GenerativeEngine(EngineInProcess):
    """A causal model: answers are written side by side, each in its own way, and read piece by
    piece."""

    reader: ChatReader

    @classmethod
    def of_artefact(
        cls, found: Artefact, folder: Path, name: str, settings: Serve, device: str | None
    ) -> GenerativeEngine:
        """Of a trained model, in the numbers that it was trained in."""
        from residency.models.causal import CausalPredictor

        _as_trained(settings, folder, "it is no encoder")
        predictor = CausalPredictor.from_artefact(folder, name, device)
        return cls(predictor, served(folder, name, found, predictor.model), settings)

    def __init__(self, predictor: CausalPredictor, served: Served, settings: Serve) -> None:
        self.predictor, self.chat = predictor, predictor.chat
        super().__init__(served, settings, ChatReader(predictor.chat))
        self.writing = Writing(predictor, self.pool, settings.batch_rows, self._watched)
        self.scores: Batcher[tuple[tuple[int, ...], int], TokenScores] = self._batcher(
            self._score, watched=False
        )

    # Computed in the thread

    def _fixed(self) -> object:
        turns = (Turn(role="user", text=QUESTION),)
        prompt = self.chat.prompt(turns, self.chat.window - QUESTION_TOKENS)[0]
        prompt = prompt or list(self.reader.tokens(QUESTION))
        batch, seen = SideBySide(self.predictor), list[int]()
        scores = batch.join([prompt])
        for _ in range(QUESTION_TOKENS):
            seen.append(int(scores.argmax(-1)))
            scores = batch.step(seen[-1:])
        return tuple(seen)

    @cached_property
    def _words(self) -> Any:
        """The vocabulary, as the library of grammars reads it."""
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self.chat.tokenizer, eos_token=self.predictor.ends)

    def _steps(self, length: int, key: int, request: WritingRequest) -> list[Any]:
        """What is done to an answer's scores, word by word, behind a prompt of so many tokens."""
        from transformers import RepetitionPenaltyLogitsProcessor

        made: list[Any] = []
        if (penalty := self.predictor.generation.repetition_penalty) != 1:
            made.append(RepetitionPenaltyLogitsProcessor(penalty))
        if request.presence_penalty or request.frequency_penalty:
            penalties = request.presence_penalty, request.frequency_penalty
            made.append(WrittenPenalty(length, *penalties))
        if request.form is not None:
            made.append(self._held(request.form))
        seed = secrets.randbits(60) if request.seed is None else request.seed
        how = request.temperature, 0, request.top_p, [hash_of(seed, key)]
        return [*made, *sampling_steps(*how)]

    def _held(self, form: Form) -> Held:
        try:
            return Held(self._words, form)
        except ImportError:
            said = "The server lacks the library that holds answers to a form (llguidance)."
            raise Refusal(400, "no_form", said) from None
        except (FormError, ValueError):
            raise bad_form() from None

    def _classify(self, texts: Sequence[str]) -> list[Prediction]:
        name = self.served.card.name
        examples = (Example(id=str(i), task=name, input=text) for i, text in enumerate(texts))
        return list(self.predictor.predict(examples))

    def _score(self, asked: Sequence[tuple[tuple[int, ...], int]]) -> list[TokenScores]:
        made, word = [], self.reader.word
        rows = self.predictor.log_probabilities([ids for ids, _ in asked])
        for (ids, top), logs in zip(asked, rows, strict=True):
            best = logs.topk(max(1, top), -1)
            places = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            names = [
                {word(token): p for token, p in zip(where, values, strict=True)}
                for where, values in places
            ]
            given = [float(logs[place, token]) for place, token in enumerate(ids[1:])]
            made.append(self.reader.scores(ids, (None, *given), (None, *names)))
        return made

    # Answers

    def write(self, request: WritingRequest) -> AsyncIterator[Piece]:
        """The answer to a conversation. Refused (400) where it does not fit the window whole: no
        turn is ever left out."""
        ids = self.reader.prompt(request, self.served.window)
        stops = (*request.stop, *self.predictor.generation.stop, *self.chat.stop)
        request = msgspec.structs.replace(request, stop=stops)
        return self._pieces(ids, noise_key(request.turns), request)

    def continue_(self, ids: Sequence[int], request: WritingRequest) -> AsyncIterator[Piece]:
        """What follows tokens as they are."""
        self.reader.check_room(ids, request.max_tokens, self.served.window)
        key = noise_key((Turn(role="user", text=repr(tuple(ids))),))
        return self._pieces([*ids], key, request)

    async def _pieces(
        self, ids: list[int], key: int, request: WritingRequest
    ) -> AsyncIterator[Piece]:
        self._open()
        steps = await asyncio.to_thread(self._steps, len(ids), key, request)
        row = WrittenRow(ids, steps, request, self.chat)
        self.writing.add(row)
        try:
            while True:
                piece = await row.queue.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if piece.end is not None:
                    return
        finally:
            row.halted = True

    async def close(self) -> None:
        """As of ``ModelEngine``."""
        await super().close()
        self.writing.fail(not_ready())

    async def score(self, ids: Sequence[int], top: int = 1) -> TokenScores:
        """How likely given tokens are."""
        self._open()
        self.reader.check_room(ids, 0, self.served.window)
        return await self.scores((tuple(ids), top))


ENGINES: Mapping[str, type[ClassifierEngine | GenerativeEngine]] = {
    "classifier": ClassifierEngine,
    "lexical": LexicalEngine,
    "generative": GenerativeEngine,
}
