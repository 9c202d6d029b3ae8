"""How words are chosen and where writing ends: sampling that a batch does not change, stop texts,
an end from outside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.types import Turn, Value

if TYPE_CHECKING:
    import torch

    from residency.models.chat_template import ChatTokeniser


class Stops:
    """Takes a text piece by piece and passes it on up to the first stop text, which may lie across
    pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.held, self.found = tuple(stops), "", False
        self.longest = max(map(len, stops), default=1) - 1

    def push(self, piece: str) -> str:
        """What may be passed on; ``found`` says that the text has ended."""
        self.held += piece
        places = [self.held.index(stop) for stop in self.stops if stop in self.held]
        if places:
            self.found, ready = True, self.held[: min(places)]
            self.held = ""
            return ready
        cut = max(0, len(self.held) - self.longest)
        ready, self.held = self.held[:cut], self.held[cut:]
        return ready

    def rest(self) -> str:
        """What was held back, once nothing follows."""
        ready, self.held = self.held, ""
        return ready


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """Pieces of a text up to the first stop text, which may lie across pieces; nothing of it is
    passed on."""
    state = Stops(stops)
    for piece in pieces:
        if ready := state.push(piece):
            yield ready
        if state.found:
            return
    if held := state.rest():
        yield held


class Unpacked:
    """Tokens as text, one after the other: what is part of a character waits for the others."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.ids, self.start, self.read = tokenizer, list[int](), 0, 0

    def push(self, token: int) -> str:
        """The text that a token completes."""
        self.ids.append(token)
        return self._new(whole=True)

    def rest(self) -> str:
        """What was held back, once nothing follows."""
        return self._new(whole=False)

    def _new(self, whole: bool) -> str:
        before = decode(self.tokenizer, self.ids[self.start : self.read])
        now = decode(self.tokenizer, self.ids[self.start :])
        if whole and now.endswith("\ufffd"):
            return ""
        self.start, self.read = self.read, len(self.ids)
        return now[len(before) :]


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens as text, without special ones."""
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def noise_key(turns: Sequence[Turn]) -> int:
    """A number of a conversation's own: equal questions draw equally, wherever they stand."""
    return int.from_bytes(hashlib.sha256(msgspec.json.encode(turns)).digest()[:8], "big")


def hash_of(seed: int, key: int) -> int:
    """One seed of two numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:7], "big")


class RowNoise:
    """Gumbel noise on log-probabilities, of each row's own generator: the likeliest word of the sum
    is a sample."""

    def __init__(self, seeds: Sequence[int]) -> None:
        import torch

        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        words = scores.shape[-1]
        uniform = torch.stack([torch.rand(words, generator=one) for one in self.generators])
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores.float() + gumbel.to(scores.device)


def sampling_steps(temperature: float, top_k: int, top_p: float, seeds: Sequence[int]) -> list[Any]:
    """What is done to scores before the likeliest word is taken; nothing at temperature 0."""
    from transformers.generation import logits_process as steps

    made: list[Any] = []
    if temperature:
        made.append(steps.TemperatureLogitsWarper(temperature))
        if top_k:
            made.append(steps.TopKLogitsWarper(top_k))
        if top_p < 1:
            made.append(steps.TopPLogitsWarper(top_p))
        made.append(RowNoise(seeds))
    return made


class WrittenPenalty:
    """Takes from the score of each word that was written behind the prompt: ``presence`` once,
    ``frequency`` each time (OpenAI's penalties)."""

    def __init__(self, prompt: int, presence: float, frequency: float) -> None:
        self.prompt, self.presence, self.frequency = prompt, presence, frequency

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        counts = scores.new_zeros(scores.shape)
        written = input_ids[:, self.prompt :]
        counts.scatter_add_(1, written, scores.new_ones(written.shape))
        return scores - self.presence * (counts > 0) - self.frequency * counts


class FormError(Exception):
    """A form that cannot be held to; its words are the library's and name parts of the form."""


class Form(Value, frozen=True):
    """What an answer must look like: JSON of a schema, or one of several texts."""

    schema: dict[str, Any] | None = None
    choices: tuple[str, ...] = ()

    def grammar(self) -> str:
        """The same as a grammar of llguidance, which llama.cpp reads too. Raises ``FormError``."""
        from llguidance import LLMatcher

        words = " | ".join(json.dumps(one) for one in self.choices)
        if self.schema is not None:
            # without white space, which a small model else goes on writing for ever
            own = {**self.schema, "x-guidance": {"whitespace_flexible": False}}
            words = f"%json {json.dumps(own)}"
        grammar = f"%llguidance {{}}\nstart: {words}"
        if wrong := LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(grammar)):
            raise FormError(wrong)
        return grammar


class Held:
    """Allows only the words with which an answer can still get its form (llguidance). Of one
    row."""

    def __init__(self, tokens: Any, form: Form) -> None:
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_lark(form.grammar())
        self.matcher, self.read = LLMatcher(tokens, grammar, log_level=0), -1
        if self.matcher.is_error():
            raise FormError(self.matcher.get_error())

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """As a step of ``sampling_steps``, called once a word."""
        import numpy as np
        import torch

        if self.read >= 0:
            self.matcher.consume_token(int(input_ids[0, -1]))
        self.read += 1
        bits = np.frombuffer(self.matcher.compute_logit_bias(), dtype=np.uint8)
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        allowed[: len(bits)] = torch.from_numpy(bits[: scores.shape[-1]] != 0)
        return scores.masked_fill(~allowed.to(scores.device), float("-inf"))


class StopTexts:
    """Ends a row once it holds a stop text behind its prompt."""

    def __init__(self, chat: ChatTokeniser, prompt: int, stops: Sequence[str]) -> None:
        self.chat, self.prompt, self.stops = chat, prompt, stops
        self.reach = 2 * max(map(len, stops)) + 8
        """Tokens in which a stop text that has just been finished must lie."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        import torch

        tails = input_ids[:, max(self.prompt, input_ids.shape[1] - self.reach) :].tolist()
        words = (self.chat.tokenizer.decode(tail, skip_special_tokens=True) for tail in tails)
        ended = [any(stop in text for stop in self.stops) for text in words]
        return torch.tensor(ended, device=input_ids.device)


class Halted:
    """Ends everything once somebody asks for it."""

    def __init__(self, event: Any) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        import torch

        return torch.full(
            (len(input_ids),), self.event.is_set(), device=input_ids.device, dtype=torch.bool
        )
