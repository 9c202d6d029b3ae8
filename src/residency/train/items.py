"""From examples to what a training step reads, with the proof of which tokens are trained."""

from __future__ import annotations

from collections.abc import Sequence

from residency.core.errors import UserError
from residency.core.types import SHOWABLE, Example, Labels, MaskProof, Spans, Value
from residency.models.tokens import Tokeniser
from residency.tasks.bio import encode, tag_names
from residency.tasks.card import MARKED, Card

IGNORED = -100
"""Target of a token that is not trained."""


class TrainingItem(Value, frozen=True):
    """One window of one example."""

    example: str
    ids: list[int]
    targets: list[int] | list[float]
    """Per token a tag or IGNORED; for classification the label's number, or one 0/1 per label."""


class Items(Value, frozen=True):
    """The training items of a stage, and what became of each example on the way."""

    items: list[TrainingItem]
    windowed: dict[str, int]
    """Example id -> windows, where more than one."""
    changed: dict[str, int]
    """Reason -> spans that tags could not say exactly, or conversations that were changed."""
    proof: MaskProof
    rejected: dict[str, str] = {}
    """Example id -> why nothing could be made of it."""


def build(examples: Sequence[Example], tokeniser: Tokeniser, card: Card) -> Items:
    """Training items of examples; every window of a long one, none cut.

    Raises ``UserError`` where an example has no gold answer, a label that the card does not know,
    or not a single token to learn from.
    """
    items: list[TrainingItem] = []
    windowed: dict[str, int] = {}
    changed: dict[str, int] = {}
    tokens_of = tokeniser([example.input for example in examples])
    for example, tokens in zip(examples, tokens_of, strict=True):
        check_gold(example, card)
        windows = tokeniser.windows(tokens)
        if not tokens.firsts:
            raise UserError(
                f"row {example.id}: has no token to learn from; remove rows without words."
            )
        if len(windows) > 1:
            windowed[example.id] = len(windows)
        tags: list[int] = []
        if isinstance(example.gold, Spans):
            tags, reasons = encode(example.gold.spans, tokens.slots, card.names)
            for reason, count in reasons.items():
                changed[reason] = changed.get(reason, 0) + count
        for window in windows:
            ids = tokeniser.inputs(tokens, window)
            if card.family == "labels":
                items.append(
                    TrainingItem(example=example.id, ids=ids, targets=class_targets(example, card))
                )
                continue
            if not window.slots:
                continue  # the inside of a word longer than a window: nothing is read off it
            targets = [IGNORED] * len(ids)
            for slot in window.slots:
                targets[tokens.firsts[slot] - window.start + len(tokeniser.prefix)] = tags[slot]
            items.append(TrainingItem(example=example.id, ids=ids, targets=targets))
    return Items(
        items=items,
        windowed=windowed,
        changed=changed,
        proof=prove(items, examples, tokeniser, card),
    )


def check_gold(example: Example, card: Card) -> None:
    """Raise ``UserError`` where an example's gold answer is missing, of another family, or has an
    unknown label."""
    if example.gold is None:
        raise UserError(f"row {example.id}: has no gold answer; label it or leave it out.")
    names: set[str] = set()
    family = card.family
    if isinstance(example.gold, Spans):
        names, family = {span.label for span in example.gold.spans}, "spans"
    elif isinstance(example.gold, Labels):
        names, family = set(example.gold.labels), "labels"
    elif family in MARKED:
        family = "answers"
    if family != card.family:
        raise UserError(
            f"row {example.id}: holds {family}, but card {card.name} is about {card.family}."
        )
    if unknown := sorted(names - set(card.asked_of(example).names)):
        raise UserError(
            f"row {example.id}: label {unknown[0]!r} is not in card {card.name}; "
            f"allowed: {', '.join(card.names)}; add it to the card, or rename it with "
            "data.NAME.labels."
        )


def class_targets(example: Example, card: Card) -> list[int] | list[float]:
    """The label's number, or one 0/1 per label."""
    given = (
        tuple(map(card.canonical, example.gold.labels)) if isinstance(example.gold, Labels) else ()
    )
    if card.multiple:
        return [1.0 if name in given else 0.0 for name in card.names]
    if len(given) != 1:
        raise UserError(
            f"row {example.id}: has {len(given)} labels, but card {card.name} takes one; use a "
            "card with multiple: true."
        )
    return [card.names.index(given[0])]


def prove(
    items: Sequence[TrainingItem], examples: Sequence[Example], tokeniser: Tokeniser, card: Card
) -> MaskProof:
    """Count the trained tokens; raise ``UserError`` for a row that has none."""
    names = tag_names(card.names) if card.family == "spans" else card.names
    labels: dict[str, int] = {}
    trained = 0
    by_row: dict[str, int] = {}
    for item in items:
        if card.family == "spans":
            found = [names[int(target)] for target in item.targets if target != IGNORED]
        elif card.multiple:
            found = [name for name, target in zip(names, item.targets, strict=True) if target]
        else:
            found = [names[int(item.targets[0])]]
        by_row[item.example] = by_row.get(item.example, 0) + (
            len(found) if card.family == "spans" else 1
        )
        trained += len(found) if card.family == "spans" else 1
        for name in found:
            labels[name] = labels.get(name, 0) + 1
    if empty := [row for row, count in by_row.items() if not count]:
        raise UserError(
            f"row {empty[0]}: has no trained token ({len(empty)} such rows); nothing would be "
            "learned from it."
        )
    return MaskProof(
        rows=len(by_row),
        tokens=sum(len(item.ids) for item in items),
        trained=trained,
        labels=dict(sorted(labels.items())),
        sample=_sample(items, examples, tokeniser, names) if card.family == "spans" else (),
    )


def _sample(
    items: Sequence[TrainingItem],
    examples: Sequence[Example],
    tokeniser: Tokeniser,
    names: Sequence[str],
) -> tuple[tuple[str, str], ...]:
    """The first window with an entity among rows that may be shown, as (token, target)."""
    shown = {example.id for example in examples if example.profile in SHOWABLE}
    for item in items:
        if item.example in shown and any(target > 0 for target in item.targets):
            pieces = [tokeniser.tokenizer.decode([token]) for token in item.ids[:80]]
            targets = ["" if t == IGNORED else names[int(t)] for t in item.targets[:80]]
            return tuple(zip(pieces, targets, strict=True))
    return ()
