"""The predictor of a classifier: spans (of tokens) and labels (of sequences), streaming, in
constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.types import Answer, Example, Prediction, PredictorInfo
from residency.metrics.calibration import Claim
from residency.models import artefact as artefacts
from residency.models.base import Base
from residency.models.blend import Blend
from residency.models.crf import group_of
from residency.models.running import by_length, evaluating, give_back_memory, model_inputs, on
from residency.models.tokens import Marginals, TokenisedText, Tokeniser, Window
from residency.models.weights import describe
from residency.tasks.card import Card
from residency.tasks.families import classifier_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 512
"""Examples held in memory at once; windows are sorted by length within a chunk."""
BATCH_TOKENS = 2048
"""Tokens in a forward pass, padding included."""


class EncoderPredictor:
    """Answers span and label tasks with an encoder."""

    def __init__(
        self,
        model: Any,
        tokeniser: Tokeniser,
        card: Card,
        info: PredictorInfo,
        blend: Blend | None = None,
    ) -> None:
        self.model, self.tokeniser, self.card, self.info = model, tokeniser, card, info
        self.blend = blend
        self.head = classifier_of(card)

    @classmethod
    def from_artefact(
        cls, folder: Path, name: str = "tuned", device: str | None = None
    ) -> EncoderPredictor:
        """The model that a training stage saved."""
        found, model, tokeniser = artefacts.load(folder)
        info = describe(name, found.base, found.kinds, model)
        info = msgspec.structs.replace(info, calibration=found.calibration)
        card = found.task()
        return cls(on(model, device), tokeniser, card, info, Blend.of(folder, card))

    @classmethod
    def untuned(cls, base: Base, card: Card, seed: int = 0) -> EncoderPredictor:
        """The base with a random head: what tuning has to beat."""
        import torch

        torch.manual_seed(seed)
        model = artefacts.fresh(base, card).eval()
        info = describe("base", base, "none", model)
        return cls(on(model), artefacts.tokeniser(base), card, info)

    @property
    def pad_id(self) -> int:
        """The token that fills short rows."""
        return self.tokeniser.pad_id

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """One prediction per example, in order."""
        source = iter(examples)
        while chunk := list(islice(source, CHUNK)):
            started = time.perf_counter()
            with self.ready():
                texts, calibrated = [one.input for one in chunk], self.info.calibration is not None
                answers = self._answers(texts, sure=calibrated, before=calibrated)
            each = (time.perf_counter() - started) * 1000 / len(chunk)
            if len(chunk) == CHUNK:  # a request of a few texts would only pay for it
                give_back_memory()
            for example, (answer, count, before) in zip(chunk, answers, strict=True):
                yield Prediction(
                    id=example.id,
                    answer=answer,
                    latency_ms=each,
                    tokens=count,
                    uncalibrated=before,
                )

    def claims(self, examples: Iterable[Example]) -> Iterator[Claim]:
        """What it says of rows with gold, piece by piece, each with whether it is right."""
        source = iter(examples)
        while chunk := list(islice(source, CHUNK)):
            with self.ready():
                tokens, scores = self._read([example.input for example in chunk])
            for example, found, score in zip(chunk, tokens, scores, strict=True):
                for claim in self.head.claims(example, found.slots, score, self.card):
                    yield claim._replace(group=group_of(example))

    def marginals(self, texts: Iterable[str]) -> Iterator[Marginals]:
        """The probability of each tag for every slot of each text, in order; for cards of family
        ``spans``."""
        source = iter(texts)
        while chunk := list(islice(source, CHUNK)):
            with self.ready():
                tokens, scores = self._read(chunk)
            for found, score in zip(tokens, scores, strict=True):
                score = self.head.of_slots(score, self.card)
                yield Marginals(slots=found.slots, log_probabilities=score)

    def classify(self, texts: list[str]) -> list[tuple[Answer, int]]:
        """Answers and tokens of texts that are read together, each span with how sure the model is
        of it: the geometric mean of the probabilities of its tags."""
        with self.ready():
            return [(answer, count) for answer, count, _ in self._answers(texts, sure=True)]

    def ready(self) -> AbstractContextManager[None]:
        """Within it the model answers, and does not train."""
        return evaluating(self.model)

    def forward(self, batches: list[list[list[int]]]) -> Iterator[list[NDArray[np.float32]]]:
        """Per batch of token rows, in order, each row's log-odds ``[tokens, outputs]``, or of the
        whole ``[outputs]``, in fp32."""
        return forward_all(self.model, batches, self.pad_id)

    def _read(self, texts: list[str]) -> tuple[list[TokenisedText], list[NDArray[np.float32]]]:
        """Tokens of texts, and the scores of their slots (or of the whole)."""
        tokens = self.tokeniser(texts)
        work = [
            (number, window)
            for number, found in enumerate(tokens)
            for window in self.tokeniser.windows(found)
        ]
        scores = self._scores(tokens, work)
        if self.blend is not None:
            slots = [found.slots for found in tokens]
            scores = [self.blend(*one) for one in zip(texts, slots, scores, strict=True)]
        return tokens, scores

    def _answers(
        self, texts: list[str], sure: bool, before: bool = False
    ) -> list[tuple[Answer, int, Answer | None]]:
        """The answer to each text (``sure``: with how sure the model is of it), how many tokens
        were read, and where ``before`` asks for it and it was another, the answer before
        calibration."""
        tokens, scores = self._read(texts)
        temperature, made = self.info.temperature, []
        for text, found, score in zip(texts, tokens, scores, strict=True):
            said = partial(self.head.answer, text, found.slots, score, self.card, sure)
            raw = said() if before and temperature != 1 else None
            answer = said(temperature) if temperature != 1 else said()
            made.append((answer, len(found.ids), raw))
        return made

    def _scores(
        self, tokens: list[TokenisedText], work: list[tuple[int, Window]]
    ) -> list[NDArray[np.float32]]:
        """Per text the scores of its slots ``[slots, tags]``, or of the whole ``[windows,
        labels]``."""
        import numpy as np

        rows = [self.tokeniser.inputs(tokens[number], window) for number, window in work]
        parts: list[list[NDArray[np.float32]]] = [[] for _ in tokens]
        done: dict[int, NDArray[np.float32]] = {}
        batches = list(by_length([len(row) for row in rows], BATCH_TOKENS))
        outputs = self.forward([[rows[i] for i in batch] for batch in batches])
        for batch, output in zip(batches, outputs, strict=True):
            for i, scores in zip(batch, output, strict=True):
                number, window = work[i]
                done[i] = self._read_off(scores, tokens[number], window)
        for i, (number, _) in enumerate(work):
            parts[number].append(done[i])
        return [np.concatenate(found) for found in parts]

    def _read_off(
        self, scores: NDArray[np.float32], tokens: TokenisedText, window: Window
    ) -> NDArray[np.float32]:
        before = len(self.tokeniser.prefix) - window.start
        return self.head.read_off(scores, [tokens.firsts[slot] + before for slot in window.slots])


def forward_all(
    model: Any, batches: list[list[list[int]]], pad: int
) -> Iterator[list[NDArray[np.float32]]]:
    """``forward`` of each batch, in order; on a CPU one batch per core, which wastes less than all
    cores on one batch."""
    import torch

    from residency.models.sharding import sharded

    cores = torch.get_num_threads()
    on_gpu = next(model.parameters()).device.type != "cpu"
    # parts of a model that is shared out are lent in one order only
    if cores == 1 or len(batches) == 1 or on_gpu or sharded(model):
        yield from (forward(model, rows, pad) for rows in batches)
        return
    try:
        yield from workers(cores).map(lambda rows: forward(model, rows, pad), batches)
    finally:
        torch.set_num_threads(cores)


@cache
def workers(cores: int) -> ThreadPoolExecutor:
    """Threads that each compute on one core; kept, since every new thread would bring memory pools
    of its own."""
    import torch

    return ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))


def forward(model: Any, rows: list[list[int]], pad: int) -> list[NDArray[np.float32]]:
    """Log-odds of each row's tokens ``[tokens, outputs]`` or of each row ``[outputs]``, in fp32."""
    import torch

    device = next(model.parameters()).device
    given = model_inputs(rows, pad, device)
    if len(set(map(len, rows))) == 1:
        del given["attention_mask"]
    with torch.inference_mode():
        logits = model(**given).logits.float()
        return list((logits.log_softmax(-1) if logits.dim() == 3 else logits).cpu().numpy())
