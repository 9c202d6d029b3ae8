"""Models in this process: a classifier (an encoder with a head), a generative model; each computes
in one thread, in batches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.core.types import Example, Prediction, Turn
from residency.models.sampling import FormError, noise_key
from residency.models.side_by_side import Prompt, Row, SideBySide, advance
from residency.serve import Refusal, not_ready
from residency.serve.engines import (
    ASKER,
    ChatReader,
    Piece,
    Reader,
    Served,
    TextReader,
    TokenScores,
    WritingRequest,
    bad_form,
    not_generative,
    prompt_of,
)
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
FEW = 4
"""Most answers of a user that are written beside those of others."""
AT_ONCE = 512
"""Tokens that are read between two words of the answers under way; a prompt is read whole."""
LITTLE = 2.0
"""How much more time they have together who ask for little, than one who asks for much."""
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

    While a batch is computed the next one gathers, and follows at once. Where nothing is computed
    the first item waits ``wait`` seconds for others, unless the last batch was one item alone: who
    asks alone does not wait for nobody.
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
        self.busy, self.alone = False, True

    async def __call__(self, item: In) -> Out:
        """The result of one item; an error of another item of its batch does not reach it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Out] = loop.create_future()
        self.waiting.append((item, future))
        if not self.busy and (self.alone or len(self.waiting) >= self.most):
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
        self.busy, self.alone = True, len(chosen) == 1
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
    ) -> Batcher[In, Out]:
        wait, most = self.settings.batch_ms / 1000, self.settings.batch_rows
        return Batcher(compute, self.pool, wait, most, self._watched)

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


class WrittenRow(Row):
    """An answer as it is written, and its reader, who sets ``halted`` when he leaves."""

    def __init__(self, prompt: Prompt, steps: list[Any], chat: ChatTokeniser, whole: bool) -> None:
        super().__init__(prompt, steps, chat.tokenizer)
        self.whole, self.halted, self.user = whole, False, ASKER.get()
        self.queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()

    def take(self, token: int, log_probability: float, ends: frozenset[int]) -> bool:
        """As of ``Row``; one that nobody reads has ended."""
        return self.halted or super().take(token, log_probability, ends)

    def say(self, text: str) -> None:
        """As of ``Row``, told to the reader: where that is not cheaper at the end."""
        self.text += text
        if self.end is None and self.whole:
            return
        text, self.text = self.text, ""
        ids, self.fresh = tuple(self.fresh), []
        self.tell(
            Piece(text=text, tokens=self.count, end=self.end, ids=ids, log_probability=self.sum)
        )

    def tell(self, what: Piece | BaseException) -> None:
        """Hand something to the reader, from the computing thread."""
        with suppress(RuntimeError):  # the reader's loop has ended
            self.loop.call_soon_threadsafe(self.queue.put_nowait, what)


class Scored:
    """Tokens whose likelihood is asked for, and who waits for it."""

    def __init__(self, ids: tuple[int, ...], top: int) -> None:
        self.ids, self.top, self.user = ids, top, ASKER.get()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[TokenScores] = self.loop.create_future()

    @property
    def halted(self) -> bool:
        """Whether nobody waits any more."""
        return self.future.done()

    def tell(self, what: TokenScores | BaseException) -> None:
        """Hand over what was found, from the computing thread."""

        def told() -> None:
            if self.future.done():
                return
            if isinstance(what, BaseException):
                self.future.set_exception(what)
            else:
                self.future.set_result(what)

        with suppress(RuntimeError):  # the reader's loop has ended
            self.loop.call_soon_threadsafe(told)


class Lane:
    """Answers that are written side by side, and what waits to join them or to be scored."""

    def __init__(self, batch: SideBySide) -> None:
        self.batch, self.rows, self.scores = batch, list[WrittenRow](), None
        self.waiting: deque[WrittenRow | Scored] = deque()
        self.spent = 0.0
        """Seconds of the thread that it has had."""

    scores: Any

    @property
    def everything(self) -> list[WrittenRow | Scored]:
        """All that it has to do."""
        return [*self.rows, *self.waiting]


class Writing:
    """Answers under way, written side by side: one that comes joins the others at the next step.
    Each step is a task of its own in the engine's thread, so that what else is asked of the model
    comes between two of them.

    While several users ask, those who ask for much are written apart, each in a lane of his own,
    and lanes take turns by the time that they have had: so nobody's work holds up another's.
    """

    def __init__(
        self,
        predictor: CausalPredictor,
        pool: ThreadPoolExecutor,
        most: int,
        watch: Watch,
        score: Callable[[Sequence[Scored]], list[TokenScores]],
    ) -> None:
        self.batch, self.pool, self.watch, self.score = SideBySide(predictor), pool, watch, score
        self.ends = frozenset(predictor.ends)
        self.most = most if self.batch.merges else 1
        self.lock, self.running = threading.Lock(), False
        self.arriving: deque[WrittenRow | Scored] = deque()
        self.common, self.lanes = Lane(self.batch), dict[str, Lane]()

    def add(self, one: WrittenRow | Scored) -> None:
        """An answer more, or tokens to be scored; called in its reader's event loop."""
        with self.lock:
            self.arriving.append(one)
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
            lanes = [self.common, *self.lanes.values()]
            every = [*self.arriving, *(one for lane in lanes for one in lane.everything)]
            self.arriving.clear()
            self.lanes.clear()
            self.batch.keep(())
            self.common = Lane(self.batch)
        for one in every:
            one.tell(error)

    def _step(self) -> None:
        import torch

        lane = self.common
        try:
            with torch.inference_mode():
                self._arrange()
                busy = [one for one in (self.common, *self.lanes.values()) if one.everything]
                if busy:
                    lane = min(busy, key=lambda one: one.spent)
                    began = time.perf_counter()
                    self._take_up(lane)
                    if lane.rows:
                        self._write(lane)
                    spent = time.perf_counter() - began
                    lane.spent += spent / LITTLE if lane is self.common else spent
        except BaseException as error:
            self.fail(error)
        with self.lock:
            lanes = [self.common, *self.lanes.values()]
            more = self.running = bool(self.arriving or any(one.everything for one in lanes))
        if more:
            self._again()

    def _arrange(self) -> None:
        """Give what has arrived to lanes. One that was idle has saved no time."""
        with self.lock:
            new = [one for one in self.arriving if not one.halted]
            self.arriving.clear()
        self.lanes = {user: lane for user, lane in self.lanes.items() if lane.everything}
        every = [one for lane in (self.common, *self.lanes.values()) for one in lane.everything]
        asked = Counter(one.user for one in [*every, *new])
        busy = [lane.spent for lane in (self.common, *self.lanes.values()) if lane.everything]
        if not self.common.everything:
            self.common.spent = max(self.common.spent, min(busy, default=0.0))
        if len(asked) > 1 and self.batch.merges:
            for user in (one for one, many in asked.items() if many > FEW):
                if user not in self.lanes:
                    self.lanes[user] = self._apart(user, min(busy, default=self.common.spent))
        for one in new:
            self.lanes.get(one.user, self.common).waiting.append(one)

    def _apart(self, user: str, spent: float) -> Lane:
        """A lane of a user's own, with what the common one has of his."""
        common = self.common
        his = [place for place, row in enumerate(common.rows) if row.user == user]
        rest = [place for place, row in enumerate(common.rows) if row.user != user]
        made = Lane(common.batch.split(his) if his else SideBySide(self.batch.predictor))
        made.spent = spent
        if his:
            made.rows, made.scores = [common.rows[one] for one in his], common.scores[his]
            common.rows = [common.rows[one] for one in rest]
            common.scores = common.scores[rest] if rest else None
        made.waiting.extend(one for one in common.waiting if one.user == user)
        common.waiting = deque(one for one in common.waiting if one.user != user)
        return made

    def _take_up(self, lane: Lane) -> None:
        """Take up what waits, as many tokens as delay the others little. What the model fails on is
        the fault of nobody who is being written."""
        others = [one for one in self.lanes.values() if one is not lane]
        room = self.most - len(lane.rows)
        if lane is not self.common:  # all crowds together have no more than the others
            room -= sum(len(one.rows) for one in others)
        new, asked, tokens = list[WrittenRow](), list[Scored](), 0
        kept: deque[WrittenRow | Scored] = deque()
        while lane.waiting and tokens < AT_ONCE:
            one = lane.waiting.popleft()
            if one.halted:
                continue
            if isinstance(one, Scored):
                asked.append(one)
            elif room <= len(new):
                kept.append(one)
                continue
            else:
                new.append(one)
            tokens += len(one.ids)
        lane.waiting.extendleft(reversed(kept))
        if new:
            self._join(lane, new)
        if asked:
            self._tell_scores(asked)

    def _tell_scores(self, asked: list[Scored]) -> None:
        try:
            found: Sequence[TokenScores | BaseException] = self.score(asked)
        except Exception as error:
            if len(asked) > 1:  # only the one at fault fails
                for one in asked:
                    self._tell_scores([one])
                return
            found = [error]
        for one, scores in zip(asked, found, strict=True):
            one.tell(scores)

    def _join(self, lane: Lane, new: list[WrittenRow]) -> None:
        import torch

        try:
            scores = lane.batch.join([row.ids for row in new])
        except Exception as error:
            for row in new:
                row.tell(error)
            return
        lane.scores = scores if lane.scores is None else torch.cat([lane.scores, scores])
        lane.rows += new
        lanes = (self.common, *self.lanes.values())
        self.watch(sum(len(one.waiting) for one in lanes), sum(len(one.rows) for one in lanes))

    def _write(self, lane: Lane) -> None:
        """One token more of each."""
        going, lane.scores = advance(lane.batch, lane.rows, lane.scores, self.ends)
        lane.rows = [lane.rows[place] for place in going]


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
        how = settings.batch_rows, self._watched, self._score
        self.writing = Writing(predictor, self.pool, *how)

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

    def _steps(self, prompt: Prompt) -> list[Any]:
        """What is done to the scores of an answer's words."""
        try:
            return prompt.steps(self.predictor)
        except ImportError:
            said = "The server lacks the library that holds answers to a form (llguidance)."
            raise Refusal(400, "no_form", said) from None
        except (FormError, ValueError):
            raise bad_form() from None

    def _classify(self, texts: Sequence[str]) -> list[Prediction]:
        name = self.served.card.name
        examples = (Example(id=str(i), task=name, input=text) for i, text in enumerate(texts))
        return list(self.predictor.predict(examples))

    def _score(self, asked: Sequence[Scored]) -> list[TokenScores]:
        made, word = [], self.reader.word
        rows = self.predictor.log_probabilities([one.ids for one in asked])
        for one, logs in zip(asked, rows, strict=True):
            best = logs.topk(max(1, one.top), -1)
            places = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            names = [
                {word(token): p for token, p in zip(where, values, strict=True)}
                for where, values in places
            ]
            given = [float(logs[place, token]) for place, token in enumerate(one.ids[1:])]
            made.append(self.reader.scores(one.ids, (None, *given), (None, *names)))
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
        prompt = prompt_of(ids, key, request)
        # a form may take long, so it is made ready in a thread; all else takes less than the way
        steps = await asyncio.to_thread(self._steps, prompt) if prompt.form else self._steps(prompt)
        row = WrittenRow(prompt, steps, self.chat, request.whole)
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
        asked = Scored(tuple(ids), top)
        self.writing.add(asked)
        return await asked.future


ENGINES: Mapping[str, type[ClassifierEngine | GenerativeEngine]] = {
    "classifier": ClassifierEngine,
    "lexical": LexicalEngine,
    "generative": GenerativeEngine,
}
