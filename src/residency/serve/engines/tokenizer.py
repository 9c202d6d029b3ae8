"""What a served model's tokenizer knows: how long a text is, its tokens, and their words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from residency.core.errors import UserError
from residency.core.types import Turn
from residency.serve.types import Refusal, Scored, Served

if TYPE_CHECKING:
    from residency.models.chat_template import ChatTokeniser
    from residency.models.tokens import Tokeniser


class Reader(Protocol):
    """A tokenizer as engines need it."""

    def count(self, text: str) -> int: ...

    def count_turns(self, turns: Sequence[Turn]) -> int: ...

    def tokens(self, text: str) -> tuple[int, ...]: ...

    def text(self, ids: Sequence[int]) -> str: ...


class Reading:
    """The part of an engine that reads: the same wherever it computes."""

    def __init__(self, served: Served, reader: Reader) -> None:
        self.served, self.reader = served, reader

    def count(self, text: str) -> int:
        """Tokens of a text, nothing added."""
        return self.reader.count(text)

    def count_turns(self, turns: Sequence[Turn]) -> int:
        """Tokens of a whole prompt, template included."""
        return self.reader.count_turns(turns)

    def tokens(self, text: str) -> tuple[int, ...]:
        """A text as tokens, nothing added; of a model that writes."""
        return self.reader.tokens(text)

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text; of a model that writes."""
        return self.reader.text(ids)


def reader_of(folder: Path, name: str) -> Chats | Texts:
    """The tokenizer of an artefact, without its weights."""
    from residency.models import artefact, onnx_encoder
    from residency.models.base import load_tokenizer
    from residency.models.tokens import Tokeniser

    if (folder / onnx_encoder.FILE).is_file():
        export = onnx_encoder.read(folder)
        return Texts(Tokeniser(load_tokenizer(folder), export.segmenter, export.window), name)
    found = artefact.read(folder)
    if found.output == "text":
        return Chats(artefact.chat_of(found, folder))
    return Texts(artefact.tokeniser(found.base, folder), name)


class Texts:
    """The tokenizer of a model that marks."""

    def __init__(self, tokeniser: Tokeniser, name: str) -> None:
        self.tokeniser, self.name = tokeniser, name

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokeniser([text])[0].ids)

    def count_turns(self, turns: Sequence[Turn]) -> int:
        """Tokens of a conversation's texts: this model has no template."""
        return sum(self.count(turn.text) for turn in turns)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Refused: what this model reads is no prompt."""
        raise silent_model(self.name)

    def text(self, ids: Sequence[int]) -> str:
        """Refused: what this model reads is no prompt."""
        raise silent_model(self.name)


class Chats:
    """The tokenizer of a model that writes."""

    def __init__(self, chat: ChatTokeniser) -> None:
        self.chat, self.size = chat, len(chat.tokenizer)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return self.chat.count(text)

    def count_turns(self, turns: Sequence[Turn]) -> int:
        """Tokens of a whole prompt."""
        return self.chat.count_turns(turns)

    def tokens(self, text: str) -> tuple[int, ...]:
        """A text as tokens, nothing added."""
        return tuple(self.chat.ids(text))

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text."""
        self.check(ids)
        return str(self.chat.tokenizer.decode([*ids], clean_up_tokenization_spaces=False))

    def prompt(self, turns: Sequence[Turn], answer: int, window: int) -> list[int]:
        """Tokens of a conversation that waits for an answer of at most ``answer`` tokens. Raises
        ``Refusal`` 400 where they do not fit the window whole: no turn is ever left out."""
        try:
            ids, changes = self.chat.prompt(turns, window - answer)
        except UserError:
            raise Refusal(
                400, "bad_turns", "The model's chat template refuses this order of turns."
            ) from None
        if ids is None or changes:
            raise Refusal(
                400,
                "too_long",
                f"The conversation does not fit the {window} tokens that this model reads.",
            )
        return ids

    def room(self, ids: Sequence[int], answer: int, window: int) -> None:
        """Raises ``Refusal`` 400 for tokens that are none, or that do not fit the window together
        with what follows them."""
        self.check(ids)
        if len(ids) + answer > window:
            raise Refusal(
                400, "too_long", f"Prompt and answer exceed the {window} tokens of this model."
            )

    def scored(
        self,
        ids: Sequence[int],
        values: Sequence[float | None],
        top: Sequence[dict[str, float] | None],
    ) -> Scored:
        """How likely tokens are, with their words and places."""
        texts = tuple(self.word(token) for token in ids)
        return Scored(
            ids=tuple(ids),
            texts=texts,
            offsets=tuple(accumulate(map(len, texts[:-1]), initial=0)),
            log_probabilities=tuple(values),
            top=tuple(top),
        )

    def check(self, ids: Sequence[int]) -> None:
        """Raises ``Refusal`` 400 for what are no tokens of this model."""
        if not ids or min(ids) < 0 or max(ids) >= self.size:
            raise Refusal(
                400,
                "bad_tokens",
                f"Token ids go from 0 to {self.size - 1}, and a prompt has at least one.",
            )

    def word(self, token: int) -> str:
        """One token as text; parts of a character as the tokenizer names them, so that no two
        tokens look alike."""
        text = str(self.chat.tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return (
            f"bytes:{self.chat.tokenizer.convert_ids_to_tokens(token)}"
            if "\ufffd" in text
            else text
        )


def silent_model(name: str) -> Refusal:
    """400: the model has no words."""
    return Refusal(
        400,
        "wrong_model",
        f"Model {name} marks notes and does not write; use /extract or /diagnose.",
    )
