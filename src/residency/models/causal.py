"""The predictor of a generative model: answers in words, alone or in batches, streaming, and how
likely given answers are."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from residency.core.errors import UserError
from residency.core.types import LEAST, Example, Labels, Prediction, PredictorInfo, Turn
from residency.metrics.calibration import Claim
from residency.models import artefact as artefacts
from residency.models.base import Base
from residency.models.chat_template import ChatTokeniser, TokenRow
from residency.models.crf import group_of
from residency.models.generation import Generation, TokenLimits
from residency.models.running import (
    by_length,
    evaluating,
    give_back_memory,
    model_inputs,
    on,
    padded,
)
from residency.models.sampling import (
    Halted,
    StopTexts,
    decode,
    hash_of,
    noise_key,
    sampling_steps,
    until_stop,
)
from residency.models.weights import describe
from residency.tasks.card import Card
from residency.tasks.codec import conversation, read
from residency.tasks.families import of
from residency.tasks.heads import IGNORED

if TYPE_CHECKING:
    import torch

CHUNK = 256
"""Examples held in memory at once; batches are made of similar lengths within a chunk."""
ROWS = 32
"""Answers written side by side."""
BATCH_TOKENS = 16384
"""Tokens of a batch, padding and answers included."""
TOO_LONG = "the question is longer than the model reads at once"


class CausalPredictor:
    """Answers any task in words."""

    def __init__(
        self,
        model: Any,
        chat: ChatTokeniser,
        card: Card,
        generation: Generation,
        info: PredictorInfo,
        more: Sequence[Card] = (),
    ) -> None:
        self.model, self.chat, self.card = model, chat, card
        self.generation, self.info = generation, info
        self.more = {one.name: one for one in more}
        """Cards of other tasks that examples may be of, by name."""
        self.full_length = False
        """Write as many tokens as allowed, never an end before: for measuring speed."""

    @classmethod
    def from_artefact(
        cls, folder: Path, name: str = "tuned", device: str | None = None, card: Card | None = None
    ) -> CausalPredictor:
        """The model that a training stage saved, asked ``card`` where one is given, else what it
        learned.

        Raises ``UserError`` where its chat template no longer writes what it wrote in training.
        """
        found, model, chat = artefacts.load_chat(folder)
        info = describe(name, found.base, found.kinds, model)
        if card is None:
            info = msgspec.structs.replace(info, calibration=found.calibration)
        asked = found.task() if card is None else card
        return cls(on(model, device), chat, asked, found.generation(), info, found.others())

    @classmethod
    def untuned_of(
        cls, folder: Path, name: str = "base", device: str | None = None, card: Card | None = None
    ) -> CausalPredictor:
        """The base of an artefact, with the artefact's template and settings."""
        found = artefacts.read(folder)
        base = artefacts.same_base(found.base, folder)
        model = artefacts.fresh(base, found.task(), found.output).eval()
        info = describe(name, found.base, "none", model)
        asked, chat = found.task() if card is None else card, artefacts.chat_of(found, folder)
        return cls(on(model, device), chat, asked, found.generation(), info, found.others())

    @classmethod
    def untuned(
        cls, base: Base, card: Card, limits: TokenLimits, generation: Generation
    ) -> CausalPredictor:
        """A base as it is."""
        model = artefacts.fresh(base, card, "text").eval()
        info = describe("base", base, "none", model)
        return cls(on(model), artefacts.chat(base, limits), card, generation, info)

    def for_card(self, card: Card) -> CausalPredictor:
        """The same model, asked another task: answers may be as long as its window allows."""
        generation = self.generation.model_copy(update={"max_tokens": "auto"})
        info = msgspec.structs.replace(self.info, calibration=None)
        return CausalPredictor(self.model, self.chat, card, generation, info)

    @property
    def pad_id(self) -> int:
        """The token that fills short rows."""
        return self.chat.pad_id

    # Answers

    def predict(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """One prediction per example, in order; the same words alone and in a batch (in fp32)."""
        if self.chooses:
            yield from self._ranked(examples)
            return
        source = iter(examples)
        while chunk := list(islice(source, CHUNK)):
            started = time.perf_counter()
            with evaluating(self.model):
                written = self._written(chunk)
            each = (time.perf_counter() - started) * 1000 / len(chunk)
            likely: list[float | None] = [None] * len(chunk)
            calibration = self.info.calibration
            if calibration is not None:
                likely = self._likelihoods(chunk, [words for words, _ in written])
            give_back_memory()
            for example, (words, count), sure in zip(chunk, written, likely, strict=True):
                if words is None:
                    yield Prediction(id=example.id, failure=TOO_LONG, latency_ms=each)
                    continue
                answer, why = read(words, example, self._asked_of(example))
                found = Prediction(id=example.id, answer=answer, text=words, failure=why)
                if calibration is not None and sure is not None:
                    chance = calibration.sure(sure)
                    found = msgspec.structs.replace(found, likelihood=sure, sure=chance)
                yield msgspec.structs.replace(found, latency_ms=each, tokens=count)

    @property
    def chooses(self) -> bool:
        """Whether it names the likeliest of the card's labels, and writes nothing of its own."""
        return self.generation.choose == "rank" and of(self.card).chooses_one(self.card)

    most_claims = 300
    """Rows that it is calibrated on at most: it answers them one by one."""

    def claims(self, examples: Sequence[Example]) -> Iterator[Claim]:
        """What it says of the first rows with gold, each with whether it is right: of the labels
        that it chooses from their log p, of what it writes the log-odds of its tokens' mean
        likelihood."""
        asked = [one for one in examples[: self.most_claims] if one.gold is not None]
        if self.chooses:
            for example in asked:
                names = self.card.for_example(example).names
                turns = conversation(example, self.card)
                if self._prompt(turns) is None:
                    continue
                logs = np.array([self.choices(turns, names)], dtype=np.float32)
                best = int(logs[0].argmax())
                said = Labels(labels=(names[best],))
                right = of(self.card).agrees(example.gold, said, self.card)
                yield Claim(logs, (best,), right, group=group_of(example))
            return
        with evaluating(self.model):
            written = self._written(asked)
        likely = self._likelihoods(asked, [words for words, _ in written])
        for example, (words, _), sure in zip(asked, written, likely, strict=True):
            answer = read(words, example, self._asked_of(example))[0] if words else None
            if answer is None or sure is None:
                continue
            bounded = min(max(sure, LEAST), 1 - LEAST)
            scores = np.array([[0, np.log(bounded / (1 - bounded))]], dtype=np.float32)
            right = of(self.card).agrees(example.gold, answer, self.card)
            yield Claim(scores, (1,), right, group=group_of(example))

    def _likelihoods(
        self, examples: Sequence[Example], written: Sequence[str | None]
    ) -> list[float | None]:
        """The mean likelihood (geometric) of the tokens of each answer, its end included."""
        rows, places = [], []
        for place, (example, words) in enumerate(zip(examples, written, strict=True)):
            prompt = self._prompt(conversation(example, self._asked_of(example))) if words else None
            if prompt is not None and words:
                ids = self.chat.answer_ids(words)
                unread = [IGNORED] * len(prompt)
                rows.append(TokenRow(ids=[*prompt, *ids], targets=[*unread, *ids]))
                places.append(place)
        found: list[float | None] = [None] * len(examples)
        with evaluating(self.model):
            for place, (loss, count) in zip(places, self._losses(rows), strict=True):
                found[place] = round(math.exp(-loss / count), 6) if count else None
        return found

    def _ranked(self, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Of each example the likeliest label, and how likely it is among the card's."""
        for example in examples:
            names = self.card.for_example(example).names
            started = time.perf_counter()
            turns = conversation(example, self.card)
            known = self._prompt(turns) is not None
            logs = self.choices(turns, names) if known else []
            each = (time.perf_counter() - started) * 1000
            if not known:
                yield Prediction(id=example.id, failure=TOO_LONG, latency_ms=each)
                continue
            answer, raw = _of_logs(names, logs, self.info.temperature), None
            if self.info.temperature != 1:
                raw = _of_logs(names, logs, 1)
            found = Prediction(id=example.id, answer=answer, text=answer.labels[0])
            yield msgspec.structs.replace(found, latency_ms=each, uncalibrated=raw)

    def answer(self, turns: Sequence[Turn]) -> str:
        """The answer to a conversation whose last turn is the user's; raises ``UserError`` where
        that is too long."""
        return "".join(self.stream(turns))

    def stream(self, turns: Sequence[Turn]) -> Iterator[str]:
        """The answer, piece by piece as it is written; closing the iterator ends the writing."""
        from threading import Event, Thread

        from transformers import TextIteratorStreamer

        prompt = self._fitting_prompt(turns)
        streamer = TextIteratorStreamer(
            self.chat.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        halt, failures = Event(), list[BaseException]()

        def write() -> None:
            try:
                with evaluating(self.model):
                    self._generate([prompt], [noise_key(turns)], streamer=streamer, halt=halt)
            except BaseException as error:  # told to the reader, who is in another thread
                failures.append(error)
                streamer.end()

        thread = Thread(target=write, daemon=True)
        thread.start()
        try:
            yield from until_stop(streamer, self._stops)
        finally:
            halt.set()
            thread.join()
        if failures:
            raise failures[0]

    def choices(self, turns: Sequence[Turn], options: Sequence[str]) -> list[float]:
        """log p of each of several answers, its end included: what would be written, if it had to
        be one of them."""
        prompt = self._fitting_prompt(turns)
        answers = [self.chat.answer_ids(option) for option in options]
        unread = [IGNORED] * len(prompt)
        rows = [TokenRow(ids=[*prompt, *ids], targets=[*unread, *ids]) for ids in answers]
        with evaluating(self.model):
            return [-loss for loss, _ in self._losses(rows)]

    def gold_losses(self, examples: Iterable[Example]) -> Iterator[tuple[float, int]]:
        """Per example the sum of -log p over the tokens of its gold answer, end included, and how
        many they are; (0, 0) where it is too long to be read."""
        source = iter(examples)
        while chunk := list(islice(source, CHUNK)):
            rows = [self._gold_row(example) for example in chunk]
            with evaluating(self.model):
                found = iter(self._losses([row for row in rows if row is not None]))
            yield from [(0.0, 0) if row is None else next(found) for row in rows]
            give_back_memory()

    def _gold_row(self, example: Example) -> TokenRow | None:
        if example.gold is None:
            return None
        card = self._asked_of(example)
        words = of(card).render(example.gold, example.input)
        encoded = self.chat.encode(conversation(example, card), words, "last")
        return encoded.rows[-1] if encoded.rows else None

    # How

    def _asked_of(self, example: Example) -> Card:
        """The card of an example."""
        return self.more.get(example.task, self.card)

    @property
    def _most(self) -> int:
        """Most tokens of an answer."""
        most = self.generation.max_tokens
        return min(most, self.chat.window // 2) if isinstance(most, int) else self.chat.window // 4

    @cached_property
    def ends(self) -> list[int]:
        """Tokens at which writing ends: the template's, and the base's own."""
        own = self.model.generation_config.eos_token_id
        own = own if isinstance(own, list) else [] if own is None else [own]
        return sorted({*self.chat.ends, *own})

    @cached_property
    def vocabulary(self) -> Any:
        """Its words, as the library of grammars reads them."""
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self.chat.tokenizer, eos_token=self.ends)

    @property
    def _stops(self) -> tuple[str, ...]:
        return (*self.generation.stop, *self.chat.stop)

    def _prompt(self, turns: Sequence[Turn]) -> list[int] | None:
        return self.chat.prompt(turns, self.chat.window - self._most)[0]

    def _fitting_prompt(self, turns: Sequence[Turn]) -> list[int]:
        """The prompt of a conversation; raises ``UserError`` where it is too long."""
        found = self._prompt(turns)
        if found is None:
            raise UserError(f"{TOO_LONG} ({self.chat.window} tokens with the answer); shorten it.")
        return found

    def _written(self, examples: Sequence[Example]) -> list[tuple[str | None, int]]:
        """Per example what was written, and how many tokens it is; None where the question is too
        long."""
        asked = [conversation(example, self._asked_of(example)) for example in examples]
        prompts = [self._prompt(turns) for turns in asked]
        fitting = [i for i, prompt in enumerate(prompts) if prompt is not None]
        done: list[tuple[str | None, int]] = [(None, 0)] * len(examples)
        lengths = [len(prompts[i] or []) + self._most for i in fitting]
        for batch in by_length(lengths, BATCH_TOKENS, ROWS):
            chosen = [fitting[position] for position in batch]
            rows = self._generate(
                [prompts[i] or [] for i in chosen], [noise_key(asked[i]) for i in chosen]
            )
            for i, ids in zip(chosen, rows, strict=True):
                words = decode(self.chat.tokenizer, ids)
                done[i] = ("".join(until_stop([words], self._stops)).strip(), len(ids))
        return done

    def log_probabilities(self, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Per row log p of every word of the vocabulary at each place but the first [tokens - 1,
        words], in fp32."""
        import torch

        device = next(self.model.parameters()).device
        found: dict[int, torch.Tensor] = {}
        with evaluating(self.model), torch.inference_mode():
            for batch in by_length([len(row) for row in rows], BATCH_TOKENS // 4, ROWS):
                given = model_inputs([rows[i] for i in batch], self.pad_id, device)
                logs = self.model(**given, use_cache=False).logits.float().log_softmax(-1)
                for position, i in enumerate(batch):
                    found[i] = logs[position, : len(rows[i]) - 1]
        return [found[i] for i in range(len(rows))]

    def _generate(
        self,
        prompts: list[list[int]],
        keys: list[int],
        streamer: Any = None,
        halt: Any = None,
    ) -> list[list[int]]:
        """What is written behind each prompt, without the tokens behind its end."""
        import torch
        from transformers import GenerationConfig

        longest, pad = max(map(len, prompts)), self.pad_id
        device = next(self.model.parameters()).device
        before_row = [(longest - len(row), row) for row in prompts]
        settings = GenerationConfig(
            max_new_tokens=self._most,
            min_new_tokens=self._most if self.full_length else None,
            # sampling is done by noise of each row's own, so that a batch changes nothing
            do_sample=False,
            num_beams=1,
            eos_token_id=self.ends,
            pad_token_id=pad,
            repetition_penalty=self.generation.repetition_penalty,
        )
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=torch.tensor([[pad] * n + row for n, row in before_row], device=device),
                attention_mask=torch.tensor(
                    [[0] * n + [1] * len(row) for n, row in before_row], device=device
                ),
                generation_config=settings,
                logits_processor=self._processors(keys),
                stopping_criteria=self._criteria(longest, halt),
                streamer=streamer,
            )
        return [_until_end(row, self.ends) for row in output[:, longest:].tolist()]

    def _processors(self, keys: list[int]) -> Any:
        from transformers.generation import LogitsProcessorList

        chosen = self.generation
        seeds = [hash_of(chosen.seed, key) for key in keys]
        made = sampling_steps(chosen.temperature, chosen.top_k, chosen.top_p, seeds)
        return LogitsProcessorList(made)

    def _criteria(self, prompt: int, halt: Any) -> Any:
        from transformers import StoppingCriteriaList

        made: list[Any] = []
        if self._stops:
            made.append(StopTexts(self.chat, prompt, self._stops))
        if halt is not None:
            made.append(Halted(halt))
        return StoppingCriteriaList(made)

    def _losses(self, rows: Sequence[TokenRow]) -> list[tuple[float, int]]:
        """Per row the sum of -log p over its trained tokens, and their number."""
        import torch

        done: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
        device = next(self.model.parameters()).device
        for batch in by_length([len(row.ids) for row in rows], BATCH_TOKENS // 4, ROWS):
            with torch.inference_mode():
                given = model_inputs([rows[i].ids for i in batch], self.pad_id, device)
                targets = padded([rows[i].targets for i in batch], IGNORED).to(device)
                losses, owners = token_losses(self.model, {**given, "labels": targets})
            sums = torch.zeros(len(batch), dtype=torch.float64).index_add_(
                0, owners.cpu(), losses.double().cpu()
            )
            for i, total in zip(batch, sums.tolist(), strict=True):
                done[i] = (total, rows[i].trained)
        return done


def _of_logs(names: Sequence[str], logs: Sequence[float], temperature: float) -> Labels:
    """The likeliest label and the chance of each, of their log p."""
    best = max(range(len(names)), key=logs.__getitem__)
    parts = [math.exp((one - logs[best]) / temperature) for one in logs]
    chances = {name: round(part / sum(parts), 6) for name, part in zip(names, parts, strict=True)}
    return Labels(labels=(names[best],), scores=(1 / sum(parts),), chances=chances)


def token_losses(
    model: Any, batch: dict[str, Any], smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p of every trained token of a batch [trained], and the row that each is in (0 for
    documents end to end).

    Only positions that are trained reach the vocabulary. A token is predicted from the one before
    it.
    """
    import torch

    given = dict(batch)
    labels = given.pop("labels")
    wanted = labels[:, 1:] != IGNORED
    keep = torch.nn.functional.pad(wanted, (0, 1))
    logits = model(**given, logits_to_keep=keep, use_cache=False).logits.float()
    losses = torch.nn.functional.cross_entropy(
        logits.view(-1, logits.shape[-1]),
        labels[:, 1:][wanted],
        reduction="none",
        label_smoothing=smoothing,
    )
    return losses, wanted.nonzero()[:, 0]


def _until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Tokens up to the first that ends an answer."""
    return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]
