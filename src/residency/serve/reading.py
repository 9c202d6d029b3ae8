"""What a served model's tokenizer knows: how long a text is, its tokens, and their words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from residency.core.types import Turn
from residency.serve.types import Refusal, Served

if TYPE_CHECKING:
    from residency.models.chat import Chat
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
    from residency.models import artefact, onnx
    from residency.models.base import load_tokenizer
    from residency.models.tokens import Tokeniser

    if (folder / onnx.FILE).is_file():
        export = onnx.read(folder)
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

    def __init__(self, chat: Chat) -> None:
        self.chat, self.size = chat, len(chat.tokenizer)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return self.chat.count(text)

    def count_turns(self, turns: Sequence[Turn]) -> int:
        """Tokens of a whole prompt."""
        return self.chat.count_turns(turns)

    def tokens(self, text: str) -> tuple[int, ...]:
        """A text as tokens, nothing added."""
        return tuple(self.chat._ids(text))

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text."""
        self.check(ids)
        return str(self.chat.tokenizer.decode([*ids], clean_up_tokenization_spaces=False))

    def check(self, ids: Sequence[int]) -> None:
        """Raises ``Refusal`` 400 for what are no tokens of this model."""
        if not ids or min(ids) < 0 or max(ids) >= self.size:
            raise Refusal(400, "bad_tokens", f"Token ids go from 0 to {self.size - 1}, and a prompt has at least one.")

    def word(self, token: int) -> str:
        """One token as text; parts of a character as the tokenizer names them, so that no two tokens look alike."""
        text = str(self.chat.tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return f"bytes:{self.chat.tokenizer.convert_ids_to_tokens(token)}" if "\ufffd" in text else text

    def offsets(self, ids: Sequence[int]) -> list[int]:
        """Where each token's text begins."""
        position, found = 0, []
        for token in ids:
            found.append(position)
            position += len(self.word(token))
        return found


def silent_model(name: str) -> Refusal:
    """400: the model has no words."""
    return Refusal(400, "wrong_model", f"Model {name} marks notes and does not write; use /extract or /diagnose.")
