"""Conversations as tokens: a tokenizer with its chat template, the same for training, evaluation,
prediction and chat.

Each answer is tokenised by itself, behind what the model reads before it: so what is trained is
what will be asked for. Its end, as the template writes it, is trained with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from residency.core.errors import UserError
from residency.core.files import digest
from residency.core.types import ToolTurn, Turn, Value
from residency.models.generation import TokenLimits
from residency.models.tokens import apart, special_texts
from residency.tasks.heads import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATE = "1 January 2025"
"""What templates that write today's date are given: the same prompt gives the same tokens on every
day."""
PROBE = (
    Turn(role="system", text="S 系统 hệ thống"),
    Turn(role="user", text="Q 问题 câu hỏi 1."),
    Turn(role="assistant", text="A 回答 câu trả lời"),
    Turn(role="user", text="Q2"),
)
"""A conversation whose rendering tells templates apart."""


class ToolForm(Value, frozen=True):
    """How a template writes the call of a tool: ``begin``, a JSON object of two fields, ``end``."""

    begin: str
    name: str
    arguments: str
    end: str


TOOL = "probe_tool"
"""A tool whose call shows how a template writes one."""


class TokenRow(Value, frozen=True):
    """What a training step reads: tokens, and per token the target (its own id) or IGNORED."""

    ids: list[int]
    targets: list[int]

    @property
    def trained(self) -> int:
        """Tokens that carry a loss."""
        return sum(target != IGNORED for target in self.targets)


class Encoded(Value, frozen=True):
    """A conversation to learn from."""

    rows: list[TokenRow] = []
    changes: tuple[str, ...] = ()
    """What was left out or cut, as the ledger says it."""
    fault: str = ""
    """Why nothing can be made of it."""


class ChatTokeniser:
    """A tokenizer with its chat template and limits."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        window: int,
        limits: TokenLimits = TokenLimits(),
        where: str = "base",
    ) -> None:
        if not tokenizer.chat_template:
            raise UserError(
                f"{where}: its tokenizer has no chat template; name a Jinja file with "
                "base.chat_template "
                "(it gets messages, bos_token, eos_token and add_generation_prompt)."
            )
        self.tokenizer, self.window, self.limits, self.where = tokenizer, window, limits, where
        self.system = self._knows_system()
        self.end, self.behind = self._tail()
        pad = tokenizer.pad_token_id
        self.pad_id = int(pad if pad is not None else tokenizer.eos_token_id or 0)
        self.special = special_texts(tokenizer)

    # Words

    def render(
        self, turns: Sequence[Turn], open: bool, tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        """A conversation as the template writes it; ``open``: up to where the assistant begins to
        write.

        Raises ``UserError`` where the template refuses it.
        """
        import jinja2

        messages = [_message(turn) for turn in turns]
        offered: dict[str, Any] = {"tools": [*tools]} if tools else {}
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=open,
                date_string=DATE,
                enable_thinking=False,
                **offered,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.where}: the chat template refuses a conversation ({type(error).__name__})."
            ) from None
        return str(text)

    def _knows_system(self) -> bool:
        """Whether the template writes a system turn; if not, it goes before the first question."""
        try:
            return PROBE[0].text in self.render(PROBE[:2], open=True)
        except UserError:
            return False

    @cached_property
    def tool_form(self) -> ToolForm | None:
        """How a call of a tool is written, as the template writes one; none where it knows no
        tools, or writes calls otherwise than as JSON."""
        given = {"name": TOOL, "description": "", "parameters": {"type": "object"}}
        tools = ({"type": "function", "function": given},)
        turns = (PROBE[1], ToolTurn(role="assistant", text="", calls=((TOOL, {"key": "value"}),)))
        try:
            opened = self.render(turns[:1], True, tools)
            words = self.render(turns, False, tools)
        except UserError:
            return None
        said = words.removeprefix(opened)
        start = said.rfind("{", 0, said.find(f'"{TOOL}"') + 1)
        if TOOL not in opened or said == words or start < 0:
            return None
        try:
            call, end = json.JSONDecoder().raw_decode(said, start)
            keys = {repr(value): key for key, value in call.items()}
            name, arguments = keys[repr(TOOL)], keys[repr({"key": "value"})]
        except (ValueError, AttributeError, KeyError):
            return None
        behind = said[end:].rpartition(self.end)[0] if self.end in said[end:] else said[end:]
        return ToolForm(begin=said[:start], name=name, arguments=arguments, end=behind)

    def _tail(self) -> tuple[str, str]:
        """What the template writes behind an answer: its end, which is trained, and what else
        follows it."""
        question, answer = PROBE[1], Turn(role="assistant", text="\u4e00END\u4e00")
        words = self.render((question, answer), open=False)
        if answer.text not in words:
            raise UserError(
                f"{self.where}: the chat template does not write what the assistant says."
            )
        tail = words.rpartition(answer.text)[2]
        special = [s for s in self.tokenizer.all_special_tokens if s in tail]
        if not special:
            return str(self.tokenizer.eos_token or "") if not tail.strip() else tail, ""
        first = min(special, key=tail.index)
        cut = tail.index(first) + len(first)
        return tail[:cut], tail[cut:]

    @property
    def ends(self) -> list[int]:
        """Tokens at which writing ends: what ends a turn, and what only the template writes, such
        as the next turn's begin."""
        ids = self.ids(self.end)
        known = set(self.tokenizer.all_special_ids)
        found = {id for id in self.ids(self.render(PROBE[1:], open=True)) if id in known}
        found.update(ids[-1:] if self.end.endswith(self.special) else [])
        if self.tokenizer.eos_token_id is not None:
            found.add(int(self.tokenizer.eos_token_id))
        return sorted(found)

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts at which writing ends where the template has no special token for it."""
        end = self.end.strip()
        return (end,) if end and not self.end.endswith(self.special) else ()

    @property
    def digest(self) -> str:
        """Hash of what the template makes of a fixed conversation, as words and as tokens."""
        chosen = PROBE if self.system else PROBE[1:]
        words = self.render(chosen, open=True)
        return digest([words, self.ids(words), self.end, self.behind])

    def safe(self, text: str) -> str:
        """A text in which no special token can be spoken: nobody but the template begins or ends a
        turn."""
        return apart(text, self.special).apply(text).strip()

    def _turns(self, turns: Sequence[Turn]) -> list[Turn]:
        """Turns that the template can write: safe texts, the system turn where it belongs."""
        made = [msgspec.structs.replace(turn, text=self.safe(turn.text)) for turn in turns]
        if made and made[0].role == "system" and not self.system:
            system, question, *rest = made
            made = [Turn(role="user", text=f"{system.text}\n\n{question.text}"), *rest]
        return made

    # Tokens

    def ids(self, text: str) -> list[int]:
        """Tokens of a text, nothing added."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def count(self, text: str) -> int:
        """Tokens of a text, nothing added."""
        return len(self.ids(text))

    def count_turns(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]] = ()) -> int:
        """Tokens of what is read before an answer to these turns is written, template included."""
        if tools:
            return len(self.offering(turns, tools))
        return len(self._read(self._turns(turns)))

    def offering(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> list[int]:
        """Tokens of a conversation that waits for an answer, which may call tools."""
        return self.ids(self.render(self._turns(turns), True, tools))

    def answer_ids(self, text: str) -> list[int]:
        """An answer and its end."""
        return [*self.ids(self.safe(text)), *self.ids(self.end)]

    def _pieces(self, turns: Sequence[Turn]) -> list[list[int]] | None:
        """Tokens up to the next answer: what is read, an answer, what is read, an answer, ..., what
        is read. None where the template writes earlier turns differently once others follow."""
        answers = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
        words, pieces = "", []
        for i in answers:
            opened = self.render(turns[:i], open=True)
            if not opened.startswith(words):
                return None
            answer = [*self.ids(turns[i].text), *self.ids(self.end)]
            pieces += [self.ids(opened[len(words) :]), answer]
            words = opened + turns[i].text + self.end
        opened = self.render(turns, open=True)
        return [*pieces, self.ids(opened[len(words) :])] if opened.startswith(words) else None

    def _read(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens of what a model reads before it writes."""
        pieces = self._pieces(turns)
        if pieces is None:
            return self.ids(self.render(turns, open=True))
        return [id for piece in pieces for id in piece]

    def beginnings(self, texts: Sequence[str], most: int) -> list[list[int]]:
        """The first tokens of texts, without a template, at most so many."""
        most = min(most, self.window or most)
        return [list(self.tokenizer(text)["input_ids"][:most]) for text in texts]

    def prompt(self, turns: Sequence[Turn], room: int) -> tuple[list[int] | None, tuple[str, ...]]:
        """Tokens of a conversation that waits for an answer, at most ``room`` of them (and
        ``limits.source``), and what was left out for it; None where it does not fit even so."""
        room = min(room, self.limits.source or room)
        made, changes = self._turns(turns), []
        ids = self._read(made)
        while len(ids) > room and (shorter := _without_oldest(made)) is not None:
            made, ids = shorter, self._read(shorter)
            changes = ["earlier turns left out"]
        if len(ids) > room and self.limits.over == "cut":
            cut = self._cut(made, room)
            words = (*changes, "the end of the question cut off")
            return (None if cut is None else self._read(cut)), words
        return (ids if len(ids) <= room else None), tuple(changes)

    def _cut(self, turns: list[Turn], room: int) -> list[Turn] | None:
        """The last question as long as there is room for it; None where there is none."""
        *before, question = turns

        def shortened(length: int) -> list[Turn]:
            return [*before, Turn(role="user", text=question.text[:length].rstrip())]

        length = _largest(len(question.text), lambda n: len(self._read(shortened(n))) <= room)
        return shortened(length) if length else None

    def encode(
        self, turns: Sequence[Turn], answer: str, loss_on: Literal["all", "last"] = "all"
    ) -> Encoded:
        """A conversation and its last answer, to learn from. One row; several where the template or
        the window does not let all answers stand in one. No answer is cut unless the limits say
        so."""
        made, changes = self._turns(turns), tuple[str, ...]()
        if self._spoken(turns, answer):
            changes = ("a token of the template inside a text, spaced",)
        final, cut, fault = self._target(answer)
        if fault:
            return Encoded(fault=fault)
        answers = [i for i, turn in enumerate(made) if turn.role == "assistant"]
        earlier = answers if loss_on == "all" else []
        pieces = self._pieces(made)
        if pieces is not None and not self._limited(pieces):
            whole = sum(map(len, pieces)) + len(final)
            if whole <= self.window and len(final) + 1 <= self.window:
                row = _row([*pieces, final], learned=len(earlier))
                return Encoded(rows=[row], changes=(*changes, *cut))
        rows: list[TokenRow] = []
        for i in (*earlier, len(made)):
            target, words, fault = final, cut, ""
            if i < len(made):
                target, words, fault = self._target(made[i].text)
            if fault:
                return Encoded(fault=fault)
            ids, left_out = self.prompt(made[:i], self.window - len(target))
            changes = (*changes, *words, *left_out)
            if ids is None:
                return Encoded(fault="question and answer are longer than the model reads at once")
            rows.append(TokenRow(ids=[*ids, *target], targets=[*[IGNORED] * len(ids), *target]))
        return Encoded(rows=rows, changes=tuple(dict.fromkeys(changes)))

    def _limited(self, pieces: list[list[int]]) -> bool:
        """Whether a conversation is longer than the limits allow, in what is read or in an earlier
        answer."""
        source, target = self.limits.source, self.limits.target
        too_long = source is not None and sum(map(len, pieces)) > source
        return too_long or (
            target is not None and any(len(piece) > target for piece in pieces[1::2])
        )

    def _target(self, answer: str) -> tuple[list[int], tuple[str, ...], str]:
        """Tokens of an answer; what was cut; why it cannot be learned."""
        ids = self.answer_ids(answer)
        most = min(self.limits.target or self.window, self.window - 4)
        if len(ids) <= most:
            return ids, (), ""
        if self.limits.over == "cut":
            return ids[:most], ("the end of the answer cut off, not trained to end there",), ""
        limited = self.limits.target and self.limits.target <= self.window - 4
        limit = "limits.target" if limited else "the model reads at once"
        return [], (), f"the answer is longer than {limit}"

    def _spoken(self, turns: Sequence[Turn], answer: str) -> bool:
        texts = (*(turn.text for turn in turns), answer)
        return any(token in text for text in texts for token in self.special)


def _message(turn: Turn) -> dict[str, Any]:
    """A turn as templates read it."""
    made: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if not isinstance(turn, ToolTurn):
        return made
    if turn.role == "user":
        return made | {"role": "tool"}
    calls = [{"name": name, "arguments": given} for name, given in turn.calls]
    return made | {"tool_calls": [{"type": "function", "function": one} for one in calls]}


def _without_oldest(turns: list[Turn]) -> list[Turn] | None:
    """A conversation without its oldest question and answer; None where one question is left."""
    first = 1 if turns[0].role == "system" else 0
    return [*turns[:first], *turns[first + 2 :]] if len(turns) - first > 2 else None


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 0 to ``most`` that fits (fitting is monotone)."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _row(pieces: list[list[int]], learned: int) -> TokenRow:
    """One row of pieces, read and written in turn; the last answer is trained, and so many before
    it."""
    answers = len(pieces) // 2
    ids: list[int] = []
    targets: list[int] = []
    for number, piece in enumerate(pieces):
        trained = number % 2 == 1 and answers - number // 2 <= learned + 1
        ids += piece
        targets += piece if trained else [IGNORED] * len(piece)
    return TokenRow(ids=ids, targets=targets)
