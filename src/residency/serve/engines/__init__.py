"""What an engine is: what it is asked and answers, how it reads, and which one answers for a name.

Engines that compute in this process are in ``in_process``, those that stand for another server
(vLLM, llama.cpp, Triton) in ``servers``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, Protocol

from residency.core.errors import UserError
from residency.core.types import (
    Answer,
    Calibration,
    Labels,
    Prediction,
    Spans,
    Text,
    Turn,
    Value,
)
from residency.models.sampling import Form, hash_of
from residency.models.side_by_side import Prompt
from residency.serve import Refusal
from residency.tasks.card import Card
from residency.tasks.families import of
from residency.tasks.families.answers import consults

if TYPE_CHECKING:
    from residency.models.chat_template import ChatTokeniser, ToolForm
    from residency.models.crf import LexicalTokeniser
    from residency.models.tokens import Tokeniser

Kind = Literal["process", "onnx", "vllm", "llama", "triton"]
"""Where a model computes: in this project's own process, as an export (OpenVINO, ONNX Runtime), in
a vLLM or llama.cpp server on loopback, in a Triton that others run."""


Tools = tuple[dict[str, Any], ...]


ASKER: ContextVar[str] = ContextVar("asker", default="")
"""Whose request is computed, by his hash: an engine shares its time between users."""


class Served(Value, frozen=True):
    """What is known of a served model."""

    name: str
    """The alias that requests name, e.g. ``cardiology``."""
    digest: str
    """Content address of the artefact (SHA-256 of its ``artefact.json``), the same in ledger, audit
    log and answers."""
    base: str
    method: str
    """``lora``; ``prefix, freeze``: the methods of all stages."""
    output: Literal["head", "text"]
    card: Card
    kind: Kind = "process"
    dtype: str = "float32"
    window: int = 0
    """Most tokens that are read at once."""
    calibration: Calibration | None = None
    """What makes its confidence a chance of being right."""
    abstains_below: float | None = None
    """Confidence below which it abstains, where its training chose one for a stated error."""
    erased: str = ""
    """What was erased after it had learned from it, in one line; empty where nothing was."""

    @property
    def answers(self) -> type[Answer]:
        """The kind of answer of its task: ``Spans``, ``Labels``, ``Text``, ..."""
        return of(self.card).answer

    @property
    def routes(self) -> tuple[str, ...]:
        """The routes that it answers: ``chat``, ``diagnose``, ``extract``."""
        # the one place that goes by what is answered
        own = ROUTES[self.answers](self.card) if self.answers in ROUTES else ()
        # A record holds the word of the artefact, so the word is what is asked.
        return ("chat", *own) if self.output == "text" else own


def _consultation(card: Card) -> tuple[str, ...]:
    """``diagnose`` where a card asks for it from what ``/diagnose`` is sent. A model that learned
    to write anything else would answer too, and its answer would look like a diagnosis."""
    return ("diagnose",) if consults(card) else ()


ROUTES: dict[type[Answer], Callable[[Card], tuple[str, ...]]] = {
    Labels: lambda _: ("diagnose",),
    Text: _consultation,
    Spans: lambda _: ("extract",),
}
"""Answers of a task, and which route is theirs, by its card."""


class WritingRequest(Value, frozen=True):
    """A conversation that waits for its next turn, and how that is to be written."""

    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    """Equal seeds draw equally; without one each answer is drawn anew."""
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    form: Form | None = None
    whole: bool = False
    """Nobody reads along: one piece is enough, where that is cheaper."""
    tools: Tools = ()
    """Tools that the answer may call, as OpenAI describes them."""
    begun: str = ""
    """Words with which the answer begins; they are not written again."""


def prompt_of(ids: Sequence[int], key: int, request: WritingRequest) -> Prompt:
    """Tokens that wait for an answer as a request wants it. Equal keys and seeds draw equally."""
    seed = secrets.randbits(60) if request.seed is None else request.seed
    return Prompt(
        ids=tuple(ids),
        max_tokens=request.max_tokens,
        stop=request.stop,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=hash_of(seed, key),
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        form=request.form,
    )


WRITERS: tuple[Kind, ...] = ("process", "vllm", "llama", "triton")
"""Engines that write."""
COUNTERS: tuple[Kind, ...] = ("process", "vllm", "triton")
"""Engines whose penalties count words of the answer alone: llama.cpp's count the prompt's too."""
SCORERS: tuple[Kind, ...] = ("process", "vllm")
"""Engines that say how likely every token is: llama.cpp says nothing of tokens that end within a
character, and Triton is not asked."""
FIELDS: dict[str, tuple[tuple[Kind, ...], str]] = {
    "model": (WRITERS, "a name of `/v1/models`"),
    "messages": (WRITERS, "text; roles system (or developer), user, assistant, tool"),
    "prompt": (WRITERS, "text or token ids, up to 64 of them"),
    "max_tokens": (WRITERS, "of each answer"),
    "max_completion_tokens": (WRITERS, "the same, by its newer name"),
    "temperature": (WRITERS, "0 to 2; 0, the likeliest word, where not given"),
    "top_p": (WRITERS, "above 0, to 1"),
    "seed": (WRITERS, "equal seeds draw equally; without one each answer is drawn anew"),
    "n": (WRITERS, "1 to 16 answers; above 1 not as a stream"),
    "best_of": (WRITERS, "1"),
    "stop": (WRITERS, "up to 8 texts, none of which is part of the answer"),
    "stream": (WRITERS, "server-sent events"),
    "stream_options": (WRITERS, "`include_usage`"),
    "presence_penalty": (COUNTERS, "-2 to 2"),
    "frequency_penalty": (COUNTERS, "-2 to 2"),
    "logprobs": (SCORERS, "by the model itself, before temperature and form; not as a stream"),
    "top_logprobs": (SCORERS, "0 to 20; needs `logprobs`"),
    "echo": (SCORERS, "the prompt comes back, with its likelihoods; not as a stream"),
    "response_format": (WRITERS, "`json_schema`, `json_object`, `text`"),
    "structured_outputs": (WRITERS, "`choice`: one of these texts"),
    "tools": (WRITERS, "functions, where the chat template has them and writes calls as JSON"),
    "tool_choice": (WRITERS, "`auto`, `none`, `required`, or one by its name: held to its schema"),
    "parallel_tool_calls": (WRITERS, "false: the first call alone"),
    "user": (WRITERS, "taken, not read: who asks is known by the token"),
    "store": (WRITERS, "false: nothing is stored"),
}
"""Fields of OpenAI's bodies, the kinds of engines that do them, and what they may be. What is not
here is refused where it is not null."""


def unsupported(name: str, kind: Kind) -> Refusal:
    """400: a field that the engine of this model does not have."""
    said = f"The engine of this model ({kind}) does not do {name}; leave it out, or set it to null."
    return Refusal(400, "unsupported_field", said)


class Piece(Value, frozen=True):
    """A part of an answer. The last one names why writing ended."""

    text: str
    tokens: int = 0
    """Tokens written so far."""
    end: Literal["stop", "length"] | None = None
    ids: tuple[int, ...] = ()
    """The tokens that have been written since the last piece."""
    log_probability: float = 0.0
    """Sum of log p over the tokens written so far."""


class TokenScores(Value, frozen=True):
    """How likely given tokens are, each after those before it (the first has no value)."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    """Each token's own words."""
    offsets: tuple[int, ...]
    log_probabilities: tuple[float | None, ...]
    top: tuple[dict[str, float] | None, ...]
    """The likeliest tokens at each place."""


class Reader(Protocol):
    """A tokenizer as engines need it."""

    def count(self, text: str) -> int:
        """Tokens of a text, by the served tokenizer, nothing added."""
        ...

    def count_turns(self, turns: Sequence[Turn], tools: Tools = ()) -> int:
        """Tokens of a whole prompt, template included."""
        ...

    def tokens(self, text: str) -> tuple[int, ...]:
        """A text as tokens, nothing added; of a generative model."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as text; of a generative model."""
        ...

    def prompt(self, request: WritingRequest, window: int) -> list[int]:
        """Tokens of a conversation that waits for an answer; of a generative model."""
        ...

    @property
    def tool_form(self) -> ToolForm | None:
        """How its template writes the call of a tool; none where it has none."""
        ...


class ModelEngine(Protocol):
    """One served model. Methods raise ``Refusal`` (503) while it cannot answer; closing an iterator
    ends the writing."""

    served: Served

    @property
    def reader(self) -> Reader:
        """Its tokenizer."""
        ...

    async def classify(self, text: str) -> Prediction:
        """Spans or labels of a text, by a classifier; or by a generative model, whose words are
        read back."""
        ...

    def write(self, request: WritingRequest) -> AsyncIterator[Piece]:
        """The answer to a conversation, piece by piece."""
        ...

    def continue_(self, ids: Sequence[int], request: WritingRequest) -> AsyncIterator[Piece]:
        """What follows tokens as they are, without a template: ``/v1/completions``."""
        ...

    async def score(self, ids: Sequence[int], top: int = 1) -> TokenScores:
        """How likely given tokens are."""
        ...

    async def probe(self) -> bool:
        """Whether a fixed question gets the answer that it got when the model was loaded: readiness
        is this, not a flag."""
        ...

    def fault(self) -> str:
        """Why the engine will never answer again, in a sentence; nothing while it may."""
        ...

    async def close(self) -> None:
        """End what runs, free the memory."""
        ...


# Tokenizers


class TextReader:
    """The tokenizer of a classifier."""

    def __init__(self, tokeniser: Tokeniser | LexicalTokeniser, name: str) -> None:
        self.tokeniser, self.name = tokeniser, name

    def count(self, text: str) -> int:
        """As of ``Reader``."""
        return self.tokeniser.count(text)

    def count_turns(self, turns: Sequence[Turn], tools: Tools = ()) -> int:
        """Tokens of a conversation's texts: this model has no template."""
        return sum(self.count(turn.text) for turn in turns)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Refused: what this model reads is no prompt."""
        raise not_generative(self.name)

    def text(self, ids: Sequence[int]) -> str:
        """Refused: what this model reads is no prompt."""
        raise not_generative(self.name)

    def prompt(self, request: WritingRequest, window: int) -> list[int]:
        """Refused: what this model reads is no prompt."""
        raise not_generative(self.name)

    @property
    def tool_form(self) -> None:
        """None."""
        return None


class ChatReader:
    """The tokenizer of a generative model."""

    def __init__(self, chat: ChatTokeniser) -> None:
        self.chat, self.size = chat, len(chat.tokenizer)

    def count(self, text: str) -> int:
        """As of ``Reader``."""
        return self.chat.count(text)

    def count_turns(self, turns: Sequence[Turn], tools: Tools = ()) -> int:
        """As of ``Reader``."""
        return self.chat.count_turns(turns, tools)

    @property
    def tool_form(self) -> ToolForm | None:
        """As of ``Reader``."""
        return self.chat.tool_form

    def tokens(self, text: str) -> tuple[int, ...]:
        """As of ``Reader``."""
        return tuple(self.chat.ids(text))

    def text(self, ids: Sequence[int]) -> str:
        """As of ``Reader``."""
        self.check(ids)
        return self._decoded(ids)

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.chat.tokenizer.decode([*ids], clean_up_tokenization_spaces=False))

    def prompt(self, request: WritingRequest, window: int) -> list[int]:
        """Tokens of a conversation that waits for its answer, or for the rest of it. Raises
        ``Refusal`` 400 where they do not fit the window whole: no turn is ever left out."""
        begun = self.chat.ids(request.begun)
        room = window - request.max_tokens - len(begun)
        try:
            ids, changes = (
                self.chat.prompt(request.turns, room)
                if not request.tools
                else (self.chat.offering(request.turns, request.tools), ())
            )
        except UserError:
            raise bad_order() from None
        if not ids or changes or len(ids) > room:
            fits = f"The conversation does not fit the {window} tokens that this model reads."
            raise Refusal(400, "too_long", fits)
        return [*ids, *begun]

    def check_room(self, ids: Sequence[int], answer: int, window: int) -> None:
        """Raises ``Refusal`` 400 for tokens that are none, or that do not fit the window together
        with what follows them."""
        self.check(ids)
        if len(ids) + answer > window:
            fits = f"Prompt and answer exceed the {window} tokens of this model."
            raise Refusal(400, "too_long", fits)

    def scores(
        self,
        ids: Sequence[int],
        values: Sequence[float | None],
        top: Sequence[dict[str, float] | None],
    ) -> TokenScores:
        """How likely tokens are, with their words and places."""
        texts = tuple(self.word(token) for token in ids)
        offsets = tuple(accumulate(map(len, texts[:-1]), initial=0))
        return TokenScores(tuple(ids), texts, offsets, tuple(values), tuple(top))

    def check(self, ids: Sequence[int]) -> None:
        """Raises ``Refusal`` 400 for what are no tokens of this model."""
        if not ids or min(ids) < 0 or max(ids) >= self.size:
            said = f"Token ids go from 0 to {self.size - 1}, and a prompt has at least one."
            raise Refusal(400, "bad_tokens", said)

    def word(self, token: int) -> str:
        """One token as text; parts of a character as the tokenizer names them, so that no two
        tokens look alike."""
        text = self._decoded([token])
        if "\ufffd" in text:
            return f"bytes:{self.chat.tokenizer.convert_ids_to_tokens(token)}"
        return text


def not_generative(name: str) -> Refusal:
    """400: the model has no words."""
    said = f"Model {name} marks notes and does not write; use /extract or /diagnose."
    return Refusal(400, "wrong_model", said)


def unknown_model(names: Iterable[str]) -> Refusal:
    """404, with the names that there are."""
    said = f"There is no model of that name here; there is: {', '.join(names)}."
    return Refusal(404, "model_not_found", said)


def bad_form() -> Refusal:
    """400: a form that nothing can be held to."""
    said = "The form that is asked for cannot be held to: it is no JSON schema, or too large."
    return Refusal(400, "bad_form", said)


def bad_order() -> Refusal:
    """400: a conversation that the template does not know."""
    return Refusal(400, "bad_turns", "The model's chat template refuses this order of turns.")


# Names


class Slot:
    """An engine that answers, or answered, for a name, and how many requests run on it."""

    def __init__(self, engine: ModelEngine) -> None:
        self.engine, self.running, self.retired, self.closed = engine, 0, False, False

    async def close(self) -> None:
        """Close the engine, once."""
        if not self.closed:
            self.closed = True
            await self.engine.close()


class Aliases:
    """Names of models and the engines behind them. For one event loop.

    An engine that another has taken the place of is closed after its last request.
    """

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._leaving: set[Slot] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def engines(self) -> dict[str, ModelEngine]:
        """What answers now, by name."""
        return {name: slot.engine for name, slot in self._slots.items()}

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[ModelEngine]:
        """The engine behind a name for the length of a request: it is not closed before, whatever
        takes its place meanwhile."""
        slot = self.hold(name)
        try:
            yield slot.engine
        finally:
            if (closing := self.release(slot)) is not None:
                await asyncio.shield(closing)

    def hold(self, name: str) -> Slot:
        """The same where a request's end is not the end of a block; give it to ``release``. Raises
        ``Refusal`` (404)."""
        if (slot := self._slots.get(name)) is None:
            raise unknown_model(self._slots)
        slot.running += 1
        return slot

    def release(self, slot: Slot) -> asyncio.Task[None] | None:
        """A request has ended; where its engine is retired, what may close it now."""
        slot.running -= 1
        if not slot.retired:
            return None
        closing = asyncio.get_running_loop().create_task(self._leave(slot))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing

    async def _leave(self, slot: Slot) -> None:
        if not slot.running:
            self._leaving.discard(slot)
            await slot.close()

    async def put(self, name: str, engine: ModelEngine) -> None:
        """Let an engine answer for a name from now on. Requests that run end on the one before."""
        before = self.start(name, engine)
        if before is not None:
            before.retired = True
            self._leaving.add(before)
            await self._leave(before)

    def start(self, name: str, engine: ModelEngine) -> Slot | None:
        """The same before any request; what answered before."""
        before, self._slots[name] = self._slots.get(name), Slot(engine)
        return before

    async def close(self) -> None:
        """Close every engine, also those that requests still run on."""
        slots = [*self._slots.values(), *self._leaving]
        self._slots.clear()
        self._leaving.clear()
        for slot in slots:
            await slot.close()
