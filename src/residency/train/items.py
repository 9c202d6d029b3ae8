"""From examples to what a training step reads, with the proof of which tokens are trained."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from residency.core.errors import UserError
from residency.core.types import SHOWABLE, Example, MaskProof, Value
from residency.metrics.counts import Counts
from residency.models.tokens import TokenisedText, Tokeniser
from residency.tasks.card import Card
from residency.tasks.families import classifier_of, of
from residency.tasks.heads import IGNORED

MOST_UNKNOWN = 0.05
"""Share of unknown tokens above which a tokenizer does not read the text that it is given."""
FEW_UNKNOWN = 20
"""Unknown tokens that may as well be chance."""


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
    head = classifier_of(card)
    tokens_of = tokeniser([example.input for example in examples])
    unknown = unknown_share(tokens_of, tokeniser)
    said = Counts()
    for example, tokens in zip(examples, tokens_of, strict=True):
        check_gold(example, card)
        windows = tokeniser.windows(tokens)
        if not tokens.firsts:
            raise UserError(
                f"row {example.id}: has no token to learn from; remove rows without words."
            )
        if len(windows) > 1:
            windowed[example.id] = len(windows)
        targets, reasons = head.targets(example, tokens.slots, card)
        for reason, count in reasons.items():
            changed[reason] = changed.get(reason, 0) + count
        said += head.kept(example, targets, tokens.slots, card)
        for window in windows:
            ids = tokeniser.inputs(tokens, window)
            before = len(tokeniser.prefix) - window.start
            places = [(slot, tokens.firsts[slot] + before) for slot in window.slots]
            own = head.of_window(targets, places, len(ids))
            if own is not None:
                items.append(TrainingItem(example=example.id, ids=ids, targets=own))
    proof = prove(items, examples, tokeniser, card)
    ceiling = said.f1 if said.tp + said.fn else 1.0
    return Items(
        items=items,
        windowed=windowed,
        changed=changed,
        proof=replace(proof, ceiling=ceiling, unknown=unknown),
    )


def unknown_share(tokens: Sequence[TokenisedText], tokeniser: Tokeniser) -> float:
    """Share of unknown tokens; raises ``UserError`` where it is above ``MOST_UNKNOWN``."""
    total = sum(len(one.ids) for one in tokens)
    unknown = sum(one.ids.count(tokeniser.unknown_id) for one in tokens)
    if unknown > max(MOST_UNKNOWN * total, FEW_UNKNOWN):
        raise UserError(
            f"base: its tokenizer does not know {unknown / total:.0%} of the tokens of the "
            f"training part (at most {MOST_UNKNOWN:.0%} may be unknown); it was made for other "
            "languages or characters: choose another base."
        )
    return unknown / total if total else 0.0


def limits(proof: MaskProof) -> list[str]:
    """What the tokenizer keeps a model from."""
    capped = (
        f"the gold itself reaches strict F1 {proof.ceiling:.4f} once it has become tags and back; "
        "no model can exceed that with this tokenizer"
    )
    unknown = f"{proof.unknown:.2%} of the tokens are unknown to the base's tokenizer"
    return [*([capped] if proof.ceiling < 1 else []), *([unknown] if proof.unknown else [])]


def check_gold(example: Example, card: Card) -> None:
    """Raise ``UserError`` where an example's gold answer is missing, of another family, or has an
    unknown label."""
    if example.gold is None:
        raise UserError(f"row {example.id}: has no gold answer; label it or leave it out.")
    family = of(card)
    if not isinstance(example.gold, family.answer):
        raise UserError(
            f"row {example.id}: holds {type(example.gold).__name__.lower()}, but card {card.name} "
            f"is about {card.family}."
        )
    names = set(family.labels(example.gold, card)) if family.classifier is not None else set()
    if unknown := sorted(names - set(card.for_example(example).names)):
        raise UserError(
            f"row {example.id}: label {unknown[0]!r} is not in card {card.name}; allowed: "
            f"{', '.join(card.names)}; add it to the card, or rename it with data.NAME.labels."
        )


def prove(
    items: Sequence[TrainingItem], examples: Sequence[Example], tokeniser: Tokeniser, card: Card
) -> MaskProof:
    """Count the trained tokens; raise ``UserError`` for a row that has none."""
    head = classifier_of(card)
    labels: dict[str, int] = {}
    by_row: dict[str, int] = {}
    for item in items:
        found = head.trained(item.targets, card)
        count = len(found) if head.by_token else 1
        by_row[item.example] = by_row.get(item.example, 0) + count
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
        trained=sum(by_row.values()),
        labels=dict(sorted(labels.items())),
        sample=_sample(items, examples, tokeniser, head.outputs(card)) if head.by_token else (),
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
