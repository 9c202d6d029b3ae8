"""From conversations to what a training step of a generative model reads, with the proof of what
is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from residency.core.errors import DataError, UserError
from residency.core.types import SHOWABLE, Example, MaskProof
from residency.models.chat_template import ChatTokeniser, Encoded
from residency.tasks.card import Card
from residency.tasks.codec import conversation
from residency.tasks.families import of
from residency.tasks.heads import IGNORED
from residency.train.items import Items, TrainingItem, check_gold

ANSWER, END = "answer", "end of turn"


def build(
    examples: Sequence[Example],
    chat: ChatTokeniser,
    card: Card,
    loss_on: Literal["all", "last"] = "all",
    max_rejected: float = 1.0,
    more: Sequence[Card] = (),
) -> Items:
    """Training items of conversations; no answer is cut unless the limits say so. Examples of other
    tasks name one of ``more``.

    Raises ``UserError`` where an example has no gold answer, and ``DataError`` where more than the
    share ``max_rejected`` of them cannot be learned from because they are too long.
    """
    items: list[TrainingItem] = []
    changed: Counter[str] = Counter()
    rejected: dict[str, str] = {}
    cut: set[str] = set()
    others = {one.name: one for one in more}
    for example in examples:
        own = others.get(example.task, card)
        check_gold(example, own)
        encoded = encode(example, chat, own, loss_on)
        if encoded.fault:
            rejected[example.id] = encoded.fault
            continue
        changed.update(encoded.changes)
        if any("cut off, not trained" in words for words in encoded.changes):
            cut.add(example.id)
        items.extend(
            TrainingItem(example=example.id, ids=row.ids, targets=row.targets)
            for row in encoded.rows
        )
    _check(rejected, len(examples), max_rejected)
    return Items(
        items=items,
        windowed={},
        changed=dict(changed),
        rejected=rejected,
        proof=prove(items, examples, chat, cut),
    )


def encode(
    example: Example, chat: ChatTokeniser, card: Card, loss_on: Literal["all", "last"]
) -> Encoded:
    """An example as tokens and targets."""
    assert example.gold is not None
    words = of(card).render(example.gold, example.input)
    return chat.encode(conversation(example, card), words, loss_on)


def _check(rejected: dict[str, str], count: int, max_rejected: float) -> None:
    if not rejected or len(rejected) / count <= max_rejected:
        return
    reason, times = Counter(rejected.values()).most_common(1)[0]
    first = next(id for id, why in rejected.items() if why == reason)
    raise DataError(
        f"{len(rejected)} of {count} training rows are too long ({times} x {reason}; first: row "
        f"{first}); set base.window higher, shorten them, cut them with tasks[0].limits.over=cut, "
        "or accept the loss with data.NAME.max_rejected."
    )


def prove(
    items: Sequence[TrainingItem], examples: Sequence[Example], chat: ChatTokeniser, cut: set[str]
) -> MaskProof:
    """Count the trained tokens.

    Raises ``UserError`` for a row that has none, and where an answer that was not cut does not
    teach its end.
    """
    end = chat.answer_ids("")
    counts = Counter[str]()
    for item in items:
        trained = sum(target != IGNORED for target in item.targets)
        if not trained:
            raise UserError(
                f"row {item.example}: has no trained token; nothing would be learned from it."
            )
        targets = [int(target) for target in item.targets]
        if item.example not in cut and (not end or targets[-len(end) :] != end):
            raise UserError(
                f"row {item.example}: its answer would not teach where it ends; the chat template "
                "writes nothing behind an answer; name another with base.chat_template."
            )
        ends = _ends(targets, end)
        counts.update({ANSWER: trained - ends * len(end), END: ends})
    return MaskProof(
        rows=len({item.example for item in items}),
        tokens=sum(len(item.ids) for item in items),
        trained=sum(target != IGNORED for item in items for target in item.targets),
        labels=dict(counts),
        sample=_sample(items, examples, chat),
    )


def _ends(targets: list[int], end: list[int]) -> int:
    """How many trained turns end in the template's way."""
    pairs = enumerate(zip(targets, [*targets[1:], IGNORED], strict=True), start=1)
    behind = [i for i, (one, following) in pairs if one != IGNORED and following == IGNORED]
    return sum(targets[i - len(end) : i] == end for i in behind) if end else 0


def _sample(
    items: Sequence[TrainingItem], examples: Sequence[Example], chat: ChatTokeniser
) -> tuple[tuple[str, str], ...]:
    """The tokens of the first row that may be shown, from a little before its first answer on."""
    shown = {example.id for example in examples if example.profile in SHOWABLE}
    for item in items:
        if item.example in shown:
            first = next(i for i, target in enumerate(item.targets) if target != IGNORED)
            pieces = range(max(0, first - 24), min(len(item.ids), first + 56))
            words = [chat.tokenizer.decode([item.ids[i]]) for i in pieces]
            return tuple(
                (word, "" if item.targets[i] == IGNORED else word)
                for i, word in zip(pieces, words, strict=True)
            )
    return ()


def longest_answer(items: Sequence[TrainingItem]) -> int:
    """Tokens of the longest trained turn."""
    longest = run = 0
    for item in items:
        run = 0
        for target in item.targets:
            run = run + 1 if target != IGNORED else 0
            longest = max(longest, run)
    return longest
