"""From a text to a model's tokens and back, with offsets in the text that the user gave.

A *slot* is the smallest stretch that can be labelled: a unit of ``locale.text``, or several where
one token covers them. Each slot is read off its first token; so no answer begins or ends inside a
character, a mark or a letter run.

What a text is changed in on its way is edits, so places lead back: it is composed (NFC, as what
models were trained on), and no special token can be spoken in it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from residency.core.edits import Edits, normalise
from residency.core.types import Value
from residency.core.units import units
from residency.locale.segment import segment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


class TokenisedText(Value, frozen=True):
    """A text as tokens, without special tokens."""

    ids: list[int]
    firsts: list[int]
    """Position of each slot's first token."""
    slots: list[tuple[int, int]]
    """Each slot's offsets in the text."""


class Marginals(Value, frozen=True):
    """What a model believes of each slot of a text."""

    slots: list[tuple[int, int]]
    """Each slot's offsets in the text."""
    log_probabilities: NDArray[np.float32]
    """[slots, tags]; the tags are those of ``tag_names``."""


class Window(Value, frozen=True):
    """A stretch of tokens that the model reads at once, and the slots that are read off it."""

    start: int
    end: int
    slots: range


class Tokeniser:
    """A tokenizer with its word segmentation: what an artefact carries and every step shares."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, segmenter: str, window: int) -> None:
        self.tokenizer, self.segmenter = tokenizer, segmenter
        if tokenizer.is_fast:
            empty = list(tokenizer("")["input_ids"])
        else:
            empty = list(tokenizer.build_inputs_with_special_tokens([]))
        self.prefix, self.suffix = _specials(tokenizer, empty)
        self.longest, self.room = window, window - len(empty)
        self.pad_id = int(tokenizer.pad_token_id or 0)
        self.special = special_texts(tokenizer)
        self.unknown_id = unknown_id(tokenizer)

    def __call__(self, texts: Sequence[str]) -> list[TokenisedText]:
        """Tokens of texts; long ones whole."""
        edits = [self.edits(text) for text in texts]
        read = [edit.apply(text) for edit, text in zip(edits, texts, strict=True)]
        return [
            slotted(text, ids, placed(edit, said, offsets))
            for text, edit, said, (ids, offsets) in zip(
                texts, edits, read, self._encode(read), strict=True
            )
        ]

    def count(self, text: str) -> int:
        """Tokens of a text, as many as reading it gives."""
        return len(self._encode([self.edits(text).apply(text)])[0][0])

    def beginnings(self, texts: Sequence[str], most: int) -> list[list[int]]:
        """What a model reads of the first tokens of texts, at most so many in all."""
        most = min(most, self.longest)
        kept = most - len(self.prefix) - len(self.suffix)
        return [[*self.prefix, *found.ids[:kept], *self.suffix] for found in self(texts)]

    def edits(self, text: str) -> Edits:
        """From a text to what is given to the tokenizer: composed, without special tokens,
        segmented."""
        found = normalise(text, "NFC")
        found = found.then(apart(found.apply(text), self.special))
        return found.then(segment(found.apply(text), self.segmenter)) if self.segmenter else found

    def _encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        if self.tokenizer.is_fast:
            # the wrapper's conversions cost as much as the tokenising
            encode = self.tokenizer.backend_tokenizer.encode_batch
            found = encode(list(texts), add_special_tokens=False)
            return [(one.ids, one.offsets) for one in found]
        return [self._slowly(text) for text in texts]

    def _slowly(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """A tokenizer without offsets, word by word: each piece gets its word's place."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        position = 0
        for word in text.split():
            start = text.index(word, position)
            position = start + len(word)
            pieces = self.tokenizer.convert_tokens_to_ids(self.tokenizer.tokenize(word))
            ids.extend(pieces)
            offsets.extend([(start, position)] * len(pieces))
        return ids, offsets

    def windows(self, tokens: TokenisedText) -> list[Window]:
        """Overlapping windows over a text; each slot is read off the window in which it has most
        context."""
        return windows(len(tokens.ids), tokens.firsts, self.room)

    def inputs(self, tokens: TokenisedText, window: Window) -> list[int]:
        """What the model reads: the window's tokens between special ones; never nothing."""
        return [*self.prefix, *tokens.ids[window.start : window.end], *self.suffix] or [self.pad_id]


def special_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Texts that a tokenizer reads as special tokens, whether or not they have a role by name
    (``<|start_header_id|>``); those of one character are only text."""
    marked = (str(one) for one in tokenizer.added_tokens_decoder.values() if one.special)
    return tuple(sorted({text for text in (*tokenizer.all_special_tokens, *marked) if text[1:]}))


def unknown_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that says that a text has no token; -1 where there is none, or it also says
    something else."""
    other = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    found = tokenizer.unk_token_id
    return -1 if found is None or found in other else int(found)


def apart(text: str, special: Sequence[str]) -> Edits:
    """Edits after which none of these is in a text: a space goes behind its first character."""
    if not any(one in text for one in special):
        return Edits(source_length=len(text))
    begins = re.finditer(f"(?={'|'.join(map(re.escape, special))})", text)
    return Edits.of(text, ((at.start() + 1, at.start() + 1, " ") for at in begins))


def placed(
    edits: Edits, edited: str, offsets: Sequence[tuple[int, int]]
) -> Sequence[tuple[int, int]]:
    """Places in an edited text as places in its source. A token that ends inside an edit (a joined
    word) has none of its own: it belongs to the whole of it."""
    if not edits.pieces:
        return offsets
    places = (trimmed(edited, start, end) for start, end in offsets)
    back = (edits.back(start, end) if end > start else None for start, end in places)
    return [place or (0, 0) for place in back]


def _specials(tokenizer: PreTrainedTokenizerBase, empty: list[int]) -> tuple[list[int], list[int]]:
    """What stands before and behind a text."""
    if len(empty) < 2:
        opening = empty and tokenizer.bos_token_id in empty
        return (empty, []) if opening else ([], empty)
    return empty[: len(empty) // 2], empty[len(empty) // 2 :]


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A stretch without the white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def slotted(text: str, ids: list[int], offsets: Sequence[tuple[int, int]]) -> TokenisedText:
    """Tokens joined with the units of their text."""
    bounds = units(text)
    firsts: list[int] = []
    slots: list[tuple[int, int]] = []
    last, unit = -1, -1
    for position, (start, end) in enumerate(offsets):
        start, end = trimmed(text, start, end)
        if start == end:
            continue
        if start >= last:
            unit += 1
            while bounds[unit][1] <= start:
                unit += 1
            firsts.append(position)
            slots.append(bounds[unit])
            last = bounds[unit][1]
        if end > last:
            while last < end:
                unit += 1
                last = bounds[unit][1]
            slots[-1] = (slots[-1][0], last)
    return TokenisedText(ids=ids, firsts=firsts, slots=slots)


def windows(count: int, firsts: Sequence[int], room: int) -> list[Window]:
    """Windows of at most ``room`` tokens that overlap by a quarter, in order; together they hold
    every token.

    Each begins at a slot where one begins in the overlap, so that a word is only cut where it is
    longer than that. Their ``slots`` partition all slots: the overlap is shared out at its middle.
    """
    starts = [0]
    while starts[-1] + room < count:
        target = starts[-1] + room - room // 4
        slot = bisect_left(firsts, target)
        begins = slot < len(firsts) and firsts[slot] < starts[-1] + room
        starts.append(firsts[slot] if begins else target)
    ends = [min(start + room, count) for start in starts]
    middles = [(start + end) // 2 for start, end in zip(starts[1:], ends[:-1], strict=True)]
    cuts = [0, *(bisect_left(firsts, middle) for middle in middles), len(firsts)]
    return [
        Window(start=start, end=end, slots=range(*cut))
        for start, end, cut in zip(starts, ends, pairwise(cuts), strict=True)
    ]
