"""Answers written side by side, one token a step: rows join and leave between two steps
(continuous batching), so that no answer waits for the end of another."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal

from residency.core.types import Value
from residency.models.sampling import (
    Form,
    Held,
    Stops,
    Unpacked,
    WrittenPenalty,
    sampling_steps,
)

if TYPE_CHECKING:
    import torch

    from residency.models.causal import CausalPredictor

MERGED = {"full_attention", "sliding_attention"}
"""Kinds of layers whose memory is keys and values, token by token."""


def mergeable(model: Any) -> bool:
    """Whether rows of a model can join while others are written: where its memory of the past is
    keys and values alone. Else it is written one row at a time."""
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or MERGED)
    return kinds <= MERGED and not getattr(model, "_is_stateful", False)


class SideBySide:
    """Rows of a causal model: what they have read (padded in front), and its keys and values. For
    one thread."""

    def __init__(self, predictor: CausalPredictor) -> None:
        self.predictor, self.model, self.pad = predictor, predictor.model.eval(), predictor.pad_id
        self.merges = mergeable(self.model)
        self.device = next(self.model.parameters()).device
        self.cache: Any = None
        self.mask: torch.Tensor | None = None
        """1 where a row has a token [rows, tokens]."""

    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read the prompts of new rows, which are the last from now on; the scores of their first
        words [new rows, words]."""
        import torch
        from torch.nn.functional import pad
        from transformers import DynamicCache

        wide = max(map(len, prompts))
        ids = [[self.pad] * (wide - len(row)) + [*row] for row in prompts]
        ones = [[0] * (wide - len(row)) + [1] * len(row) for row in prompts]
        mask = torch.tensor(ones, device=self.device)
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache() if self.merges else None
        scores, cache = self._read(torch.tensor(ids, device=self.device), mask, places, cache)
        if self.mask is None:
            self.cache, self.mask = cache, mask
            return scores
        widest = max(self.mask.shape[1], wide)
        both = [pad(one, (widest - one.shape[1], 0)) for one in (self.mask, mask)]

        def under(pair: tuple[Any, Any]) -> Any:
            return torch.cat([pad(one, (0, 0, widest - one.shape[-2], 0)) for one in pair])

        layers = list(zip(self.cache.layers, cache.layers, strict=True))
        made = [(under((a.keys, b.keys)), under((a.values, b.values))) for a, b in layers]
        # from here on nothing fails: where memory ran out above, earlier rows are as they were
        self.mask = torch.cat(both)
        for (layer, _), (keys, values) in zip(layers, made, strict=True):
            layer.keys, layer.values = keys, values
        return scores

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read one token more of each row; the scores of what follows it [rows, words]."""
        import torch

        assert self.mask is not None
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        places = self.mask.sum(-1, keepdim=True) - 1
        new = torch.tensor(tokens, device=self.device)[:, None]
        scores, self.cache = self._read(new, self.mask, places, self.cache)
        return scores

    def _read(
        self, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, Any]:
        import torch

        with torch.inference_mode():
            given = {"attention_mask": mask, "position_ids": places, "past_key_values": cache}
            out = self.model(input_ids=ids, **given, use_cache=True, logits_to_keep=1)
            return out.logits[:, -1].float(), out.past_key_values

    def split(self, rows: Sequence[int]) -> SideBySide:
        """These rows as a batch of their own; the others stay here. Of a model whose rows merge."""
        other, left = copy(self), set(range(0 if self.mask is None else len(self.mask)))
        if self.cache is not None:
            other.cache = copy(self.cache)
            other.cache.layers = [copy(layer) for layer in self.cache.layers]
        other.keep(rows)
        self.keep(sorted(left - set(rows)))
        return other

    def keep(self, rows: Sequence[int]) -> None:
        """Let the other rows go, and the padding that only they needed."""
        import torch

        if not rows or self.mask is None:
            self.cache = self.mask = None
            return
        chosen = torch.tensor(rows, device=self.device)
        self.mask = self.mask[chosen]
        first = int(self.mask.argmax(-1).min())
        self.mask = self.mask[:, first:]
        if self.merges:
            for layer in self.cache.layers:
                layer.keys = layer.keys[chosen, :, first:]
                layer.values = layer.values[chosen, :, first:]


class Prompt(Value, frozen=True):
    """Tokens that wait for what follows them, and how that is to be written."""

    ids: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    """Texts at which the answer ends; none is part of it."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    form: Form | None = None

    def steps(self, predictor: CausalPredictor) -> list[Any]:
        """What is done to the scores of each word. Raises ``FormError`` or ``ValueError`` for a
        form that cannot be held to, ``ImportError`` where the library of forms is missing."""
        from transformers import RepetitionPenaltyLogitsProcessor

        made: list[Any] = []
        if (penalty := predictor.generation.repetition_penalty) != 1:
            made.append(RepetitionPenaltyLogitsProcessor(penalty))
        if self.presence_penalty or self.frequency_penalty:
            penalties = self.presence_penalty, self.frequency_penalty
            made.append(WrittenPenalty(len(self.ids), *penalties))
        if self.form is not None:
            made.append(Held(predictor.vocabulary, self.form))
        return [*made, *sampling_steps(self.temperature, 0, self.top_p, [self.seed])]


class Row:
    """An answer as it is written: what it has read, how its words are chosen, where it ends."""

    def __init__(self, prompt: Prompt, steps: list[Any], tokenizer: Any) -> None:
        self.prompt, self.ids, self.steps = prompt, prompt.ids, steps
        self.words, self.stops = Unpacked(tokenizer), Stops(prompt.stop)
        self.count, self.fresh, self.sum, self.text = 0, list[int](), 0.0, ""
        self.read = [*prompt.ids]
        """The prompt, and every word behind it."""
        self.end: Literal["stop", "length"] | None = None

    def scored(self, scores: Any) -> Any:
        """Scores of its next word, as its own settings change them [1, words]."""
        import torch

        ids = torch.tensor([self.read], device=scores.device)
        for step in self.steps:
            scores = step(ids, scores)
        return scores

    def take(self, token: int, log_probability: float, ends: frozenset[int]) -> bool:
        """A token more; whether the row has ended."""
        self.read.append(token)
        if token in ends:
            return self._ended(self.stops.push(self.words.rest()), "stop")
        self.count += 1
        self.sum += log_probability
        self.fresh.append(token)
        text = self.stops.push(self.words.push(token))
        if self.stops.found:
            return self._ended(text, "stop")
        if self.count >= self.prompt.max_tokens:
            return self._ended(text + self.stops.push(self.words.rest()), "length")
        if text:
            self.say(text)
        return False

    def _ended(self, text: str, why: Literal["stop", "length"]) -> bool:
        self.end = "stop" if self.stops.found else why
        self.say(text if self.stops.found else text + self.stops.rest())
        return True

    def say(self, text: str) -> None:
        """Text more; the last where ``end`` says why."""
        self.text += text


def advance(
    batch: SideBySide, rows: Sequence[Row], scores: Any, ends: frozenset[int]
) -> tuple[list[int], Any]:
    """One token more of each row, by the scores of its next word [rows, words]: the places of those
    that go on, which alone stay in the batch, and the scores of what follows."""
    logs = scores.log_softmax(-1)
    for place, row in enumerate(rows):
        if row.steps:
            scores[place] = row.scored(scores[place : place + 1])[0]
    tokens = scores.argmax(-1)
    likely = logs.gather(1, tokens[:, None])[:, 0].tolist()
    told = zip(rows, tokens.tolist(), likely, strict=True)
    going = [place for place, one in enumerate(told) if not one[0].take(*one[1:], ends)]
    if len(going) < len(rows):
        batch.keep(going)
    return going, batch.step([rows[place].read[-1] for place in going]) if going else None


def write(batch: SideBySide, rows: Sequence[Row]) -> None:
    """Write rows to their ends: side by side where they merge, else one after the other. Of an
    empty batch, which is empty again."""
    import torch

    ends = frozenset(batch.predictor.ends)
    with torch.inference_mode():
        for some in [rows] if batch.merges else [[row] for row in rows]:
            left, scores = list(some), batch.join([row.ids for row in some])
            while left:
                going, scores = advance(batch, left, scores, ends)
                left = [left[place] for place in going]
