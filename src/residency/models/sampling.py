"""How words are chosen and where writing ends: sampling that a batch does not change, stop texts,
an end from outside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.types import Turn

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
