"""Span metrics against hand-computed cases, seqeval and nervaluate."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.core.types import Span
from residency.metrics.counts import Counts
from residency.metrics.spans import Mode, confusion, count, errors

MODES: tuple[Mode, ...] = ("strict", "relaxed", "boundary")


def spans(*keys: tuple[int, int, str]) -> tuple[Span, ...]:
    return tuple(Span(start=start, end=end, label=label) for start, end, label in keys)


def total(counts: Iterable[Counts]) -> Counts:
    return sum(counts, Counts())


@st.composite
def any_spans(draw: st.DrawFn) -> tuple[Span, ...]:
    """Spans as they come: nested, crossing, repeated."""
    keys = draw(
        st.lists(
            st.tuples(st.integers(0, 12), st.integers(1, 6), st.sampled_from("AB")), max_size=6
        )
    )
    return spans(*((start, start + length, label) for start, length, label in keys))


def test_counts_give_precision_recall_and_f1() -> None:
    counts = Counts(tp=3, fp=1, fn=2)
    assert (counts.precision, counts.recall) == (0.75, 0.6)
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)


def test_ratios_without_denominator_are_zero() -> None:
    nothing = Counts()
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)


def test_strict_wants_start_end_and_label() -> None:
    gold = spans((0, 4, "drug"), (5, 9, "dose"), (10, 14, "drug"))
    predicted = spans((0, 4, "drug"), (5, 8, "dose"), (10, 14, "dose"))
    assert count(gold, predicted) == {
        "dose": Counts(tp=0, fp=2, fn=1),
        "drug": Counts(tp=1, fp=0, fn=1),
    }


def test_relaxed_wants_the_label_and_any_overlap() -> None:
    gold = spans((0, 4, "drug"), (5, 9, "dose"), (10, 14, "drug"))
    predicted = spans((3, 5, "drug"), (8, 20, "dose"), (14, 16, "drug"))
    assert count(gold, predicted, "relaxed") == {
        "dose": Counts(tp=1),
        "drug": Counts(tp=1, fp=1, fn=1),
    }


def test_boundary_ignores_the_label() -> None:
    gold, predicted = spans((0, 4, "drug"), (5, 9, "dose")), spans((0, 4, "dose"), (5, 8, "dose"))
    assert count(gold, predicted, "boundary") == {"dose": Counts(fp=1, fn=1), "drug": Counts(tp=1)}


def test_one_prediction_over_two_gold_spans_finds_one_and_misses_one() -> None:
    assert count(spans((0, 2, "A"), (3, 5, "A")), spans((0, 5, "A")), "relaxed") == {
        "A": Counts(tp=1, fn=1)
    }


def test_a_greedy_order_cannot_lose_a_relaxed_hit() -> None:
    # left to right, [0, 9) would take [1, 3) and leave [5, 8) without its only partner
    gold, predicted = spans((0, 9, "A"), (1, 3, "A")), spans((1, 3, "A"), (5, 8, "A"))
    assert count(gold, predicted, "relaxed") == {"A": Counts(tp=2)}


def test_a_long_chain_of_overlaps_is_matched_in_full() -> None:
    gold = spans(*((2 * i, 2 * i + 2, "A") for i in range(1500)))
    predicted = spans(*((2 * i - 1, 2 * i + 1, "A") for i in range(1, 1501)))
    assert count(gold, predicted, "relaxed") == {"A": Counts(tp=1500)}


def test_a_repeated_span_counts_once() -> None:
    twice = spans((0, 4, "drug"), (0, 4, "drug"))
    for mode in MODES:
        assert count(twice, twice, mode) == {"drug": Counts(tp=1)}


@given(any_spans(), any_spans())
def test_found_and_missed_are_the_distinct_gold_spans_in_every_mode(
    gold: tuple[Span, ...], predicted: tuple[Span, ...]
) -> None:
    for mode in MODES:
        counts = total(count(gold, predicted, mode).values())
        assert counts.tp + counts.fn == len({(s.start, s.end, s.label) for s in gold})
        assert counts.tp + counts.fp == len({(s.start, s.end, s.label) for s in predicted})


@given(any_spans(), any_spans())
def test_swapping_gold_and_predictions_swaps_false_positives_and_negatives(
    gold: tuple[Span, ...], predicted: tuple[Span, ...]
) -> None:
    for mode in MODES:
        one, other = (
            total(count(gold, predicted, mode).values()),
            total(count(predicted, gold, mode).values()),
        )
        assert (one.tp, one.fp, one.fn) == (other.tp, other.fn, other.fp)


@given(any_spans(), any_spans())
def test_relaxed_matching_is_as_large_as_the_best_of_all_assignments(
    gold: tuple[Span, ...], predicted: tuple[Span, ...]
) -> None:
    def key(span: Span) -> tuple[int, int, str]:
        return span.start, span.end, span.label

    pairs = [
        (g, p)
        for g, p in product({key(s) for s in gold}, {key(s) for s in predicted})
        if g[2] == p[2] and g[0] < p[1] and p[0] < g[1]
    ]
    tp = total(count(gold, predicted, "relaxed").values()).tp
    assert largest(pairs) == tp


def largest(pairs: Sequence[tuple[object, object]]) -> int:
    """Size of a maximum matching, by trying everything."""
    if not pairs:
        return 0
    (gold, predicted), rest = pairs[0], pairs[1:]
    free = [pair for pair in rest if pair[0] != gold and pair[1] != predicted]
    if len(free) == len(rest):
        return 1 + largest(rest)
    return max(1 + largest(free), largest(rest))


@given(any_spans(), any_spans())
def test_errors_explain_every_strict_false_positive_and_negative(
    gold: tuple[Span, ...], predicted: tuple[Span, ...]
) -> None:
    counts, found = total(count(gold, predicted).values()), errors(gold, predicted)
    assert sum(error.gold is not None for error in found) == counts.fn
    assert sum(error.predicted is not None for error in found) == counts.fp


def test_errors_are_missed_invented_boundary_or_type() -> None:
    gold = spans(
        (0, 4, "drug"), (5, 9, "dose"), (10, 14, "drug"), (20, 24, "drug"), (40, 44, "drug")
    )
    predicted = spans(
        (0, 4, "drug"), (5, 9, "drug"), (11, 14, "drug"), (30, 34, "dose"), (41, 44, "dose")
    )
    found = [
        (error.kind, error.gold and error.gold.start, error.predicted and error.predicted.start)
        for error in errors(gold, predicted)
    ]
    assert found == [
        ("type", 5, 5),
        ("boundary", 10, 11),
        ("missed", 20, None),
        ("invented", None, 30),
        ("missed", 40, None),  # other label and other offsets: one missed, one invented
        ("invented", None, 41),
    ]


def test_a_boundary_error_names_the_prediction_that_overlaps_most() -> None:
    found = errors(spans((0, 10, "A")), spans((1, 10, "A"), (0, 2, "A")))
    assert [(error.kind, error.predicted and error.predicted.end) for error in found] == [
        ("invented", 2),
        ("boundary", 10),
    ]


def test_confusion_pairs_by_largest_overlap_and_counts_the_rest_as_nothing() -> None:
    gold = spans((0, 10, "drug"), (20, 24, "dose"), (30, 34, "drug"))
    predicted = spans((0, 9, "dose"), (8, 11, "drug"), (20, 24, "dose"), (50, 52, "drug"))
    assert confusion(gold, predicted) == {
        ("drug", "dose"): 1,
        ("drug", "-"): 1,
        ("dose", "dose"): 1,
        ("-", "drug"): 2,
    }


def test_confusion_prefers_the_equal_label_among_equal_overlaps() -> None:
    assert confusion(spans((0, 4, "B")), spans((0, 4, "A"), (0, 4, "B"))) == {
        ("B", "B"): 1,
        ("-", "A"): 1,
    }


# -- reference libraries
# ------------------------------------------------------------------------------------------

TAGS = ("O", "B-A", "I-A", "B-B", "I-B", "B-C", "I-C")


def random_tags(seed: int, sentences: int = 60) -> list[list[str]]:
    """Random IOB2 tags, orphan I- among them."""
    source = random.Random(seed)
    return [
        source.choices(TAGS, weights=(4, 1, 2, 1, 2, 1, 2), k=source.randint(1, 25))
        for _ in range(sentences)
    ]


def noisy(tags: list[list[str]], seed: int) -> list[list[str]]:
    source = random.Random(seed)
    return [
        [source.choice(TAGS) if source.random() < 0.25 else tag for tag in sentence]
        for sentence in tags
    ]


def strict_spans(tags: Sequence[str]) -> tuple[Span, ...]:
    """IOB2 read strictly: a span is a B- and the I- of its type that follow; an orphan I- is
    nothing."""
    found: list[list[object]] = []
    open_label = ""
    for position, tag in enumerate(tags):
        kind, _, label = tag.partition("-")
        if kind == "B":
            found.append([position, position + 1, label])
            open_label = label
        elif kind == "I" and label == open_label:
            found[-1][1] = position + 1
        else:
            open_label = ""
    return tuple(
        Span(start=int(str(s)), end=int(str(e)), label=str(label)) for s, e, label in found
    )


def pooled(
    gold: list[tuple[Span, ...]], predicted: list[tuple[Span, ...]], mode: Mode
) -> dict[str, Counts]:
    counts: dict[str, Counts] = {}
    for one, other in zip(gold, predicted, strict=True):
        for label, found in count(one, other, mode).items():
            counts[label] = counts.get(label, Counts()) + found
    return counts


@pytest.mark.parametrize("seed", range(5))
def test_strict_agrees_with_seqeval_in_strict_mode(seed: int) -> None:
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2

    gold, predicted = random_tags(seed), noisy(random_tags(seed), seed + 100)
    counts = pooled([strict_spans(t) for t in gold], [strict_spans(t) for t in predicted], "strict")
    precision, recall, f1, support = precision_recall_fscore_support(
        gold, predicted, average=None, scheme=IOB2, zero_division=0
    )
    for position, label in enumerate(sorted(counts)):
        assert counts[label].precision == pytest.approx(precision[position])
        assert counts[label].recall == pytest.approx(recall[position])
        assert counts[label].f1 == pytest.approx(f1[position])
        assert counts[label].tp + counts[label].fn == support[position]
    micro = precision_recall_fscore_support(
        gold, predicted, average="micro", scheme=IOB2, zero_division=0
    )
    assert total(counts.values()).f1 == pytest.approx(micro[2])


def nervaluate(
    gold: list[tuple[Span, ...]], predicted: list[tuple[Span, ...]]
) -> dict[str, dict[str, object]]:
    from nervaluate import Evaluator

    def rows(spans: tuple[Span, ...]) -> list[dict[str, object]]:
        return [
            {"label": s.label, "start": s.start, "end": s.end - 1} for s in spans
        ]  # its ends are inclusive

    evaluator = Evaluator(
        [rows(s) for s in gold], [rows(s) for s in predicted], tags=["A", "B", "C"], loader="dict"
    )
    result: dict[str, dict[str, object]] = evaluator.evaluate()
    return result


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("mode", "strategy"), [("strict", "strict"), ("boundary", "exact")])
def test_strict_and_boundary_agree_with_nervaluate_on_flat_spans(
    seed: int, mode: Mode, strategy: str
) -> None:
    gold = [strict_spans(t) for t in random_tags(seed)]
    predicted = [strict_spans(t) for t in noisy(random_tags(seed), seed + 100)]
    theirs = nervaluate(gold, predicted)["overall"][strategy]
    ours = total(pooled(gold, predicted, mode).values())
    assert ours.tp == theirs.correct
    assert (ours.precision, ours.recall) == pytest.approx((theirs.precision, theirs.recall))


@pytest.mark.parametrize("seed", range(3))
def test_relaxed_agrees_with_nervaluate_type_where_overlaps_are_unambiguous(seed: int) -> None:
    """nervaluate pairs greedily, so texts in which a span overlaps several of the other side are
    left out."""
    gold = [strict_spans(t) for t in random_tags(seed, sentences=150)]
    predicted = [strict_spans(t) for t in noisy(random_tags(seed, sentences=150), seed + 100)]
    kept = [(g, p) for g, p in zip(gold, predicted, strict=True) if unambiguous(g, p)]
    assert len(kept) > 50
    gold, predicted = [g for g, _ in kept], [p for _, p in kept]
    theirs, ours = nervaluate(gold, predicted)["entities"], pooled(gold, predicted, "relaxed")
    for label in "ABC":
        one = theirs[label]["ent_type"]
        assert (ours[label].tp, ours[label].fp, ours[label].fn) == (
            one.correct,
            one.spurious,
            one.missed,
        )


def unambiguous(gold: Sequence[Span], predicted: Sequence[Span]) -> bool:
    pairs = [
        (g, p)
        for g, p in product(gold, predicted)
        if g.start < p.end and p.start < g.end and g.label == p.label
    ]
    return not any((a is c) != (b is d) for (a, b), (c, d) in combinations(pairs, 2))
