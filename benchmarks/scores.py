"""Scores: whether intervals hold the truth, metrics agree with people, and two implementations of
official scores with each other."""

from __future__ import annotations

import csv
import random
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import _common as common
from _common import ROOT, Subject, Table, report
from residency.core.types import Example, Prediction, Text
from residency.metrics.intervals import Array, bootstrap, group_sums

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure

TRUTHS = {"share, even": 0.7, "share, uneven": 0.7, "F1, uneven": 1.4 / 2.0}


@measure("--simulations 2000 --samples 500", quick="--simulations 50")
def coverage(given: Namespace) -> None:
    """How often the 95 % interval over patients holds the truth, few patients included.

    Simulated patients differ: each has a rate of its own (beta 2.8, 1.2). A share of patients with
    8 notes each, the same with 1 to 15 notes, and F1 with invented items as well. plain is the
    percentile interval of the cluster bootstrap.
    """
    table = Table("metric | patients | ours | plain | seconds")
    for kind, groups in [(k, n) for k in TRUTHS for n in (3, 5, 8, 12, 20, 29, 30, 40, 80)]:
        generator, held, truth = np.random.default_rng(groups), np.zeros(2), TRUTHS[kind]
        begun = time.process_time()
        for seed in range(given.simulations):
            stats, metric = draw(kind, groups, generator)
            names = [str(group) for group in range(groups)]
            _, low, high = bootstrap(stats, names, metric, given.samples, seed, shares=True)
            sums = group_sums(stats, names)
            drawn = np.random.default_rng(seed).integers(groups, size=(given.samples, groups))
            values = metric(sums[drawn].sum(axis=1))[:, 0]
            ends = np.quantile(values, [0.025, 0.975])
            held += (low[0] <= truth <= high[0], ends[0] <= truth <= ends[1])
        shares = " | ".join(f"{share:.1%}" for share in held / given.simulations)
        table.add(f"{kind} | {groups} | {shares} | {time.process_time() - begun:.1f}")
    report(given, table)


def draw(
    kind: str, groups: int, generator: np.random.Generator
) -> tuple[Array, Callable[[Array], Array]]:
    """Counts of simulated patients, and the metric of their sum."""
    sizes = np.full(groups, 8) if kind.endswith(", even") else generator.integers(1, 16, groups)
    found = generator.binomial(sizes, generator.beta(2.8, 1.2, groups))
    if kind.startswith("share"):
        stats = np.stack([found, sizes], axis=1).astype(float)
        return stats, lambda sums: sums[..., :1] / sums[..., 1:2]
    invented = generator.poisson(sizes * generator.gamma(1.5, 0.2, groups))
    stats = np.stack([found, sizes + invented], axis=1).astype(float)
    return stats, lambda sums: 2 * sums[..., :1] / (sums[..., :1] + sums[..., 1:2])


MANUAL = (
    "FactualF1 | FactualPrecision | FactualRecall | HallucinationRate | OmissionRate | "
    "Edit Distance (Correction)"
)


@measure("--samples 2000", quick="--samples 20")
def overlap(given: Namespace) -> None:
    """How our overlap metrics agree with 400 manually scored summaries of MTS-Dialog.

    Pearson's; Spearman's correlation of each metric with the manual scores of the correlation
    study; 95 % intervals by bootstrap over conversations, as each has four summaries.
    """
    folder = common.shared_data() / "en/mts_dialog"
    summaries = rows(folder / "MTS-Dialog-Automatic-Summaries-ValidationSet.csv")
    marks = rows(folder / "MTS-Dialog-Manual-Scores4CorrelationStudy.csv")
    assert len(summaries) == len(marks) == 400
    groups = [row["Dialogue"] for row in summaries]
    pairs = [(row["Reference Summary"], row["Automatic Summary"]) for row in summaries]
    table, details = Table(f"metric | {MANUAL}"), {}
    for name, values in metrics(pairs).items():
        cells = []
        for manual in MANUAL.split(" | "):
            wanted = np.array([float(row[manual]) for row in marks])
            both = [(values, wanted), (ranks(values), ranks(wanted))]
            each = [correlation(x, y, groups, given.samples) for x, y in both]
            details[f"{name} / {manual}"] = dict(zip(("pearson", "spearman"), each, strict=True))
            cells.append("; ".join(f"{r:.2f} ({low:.2f} to {high:.2f})" for r, low, high in each))
        table.add(f"{name} | {' | '.join(cells)}")
    report(given, table, conversations=len(set(groups)), correlations=details)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def metrics(pairs: Sequence[tuple[str, str]]) -> dict[str, Array]:
    """Each metric of each summary; BLEU and chrF of a summary as if it were the corpus."""
    from residency.tasks.card import Card
    from residency.tasks.families import of

    examples, predictions = [], []
    for number, (reference, answer) in enumerate(pairs):
        gold, text = Text(text=reference), Text(text=answer)
        examples.append(Example(id=str(number), task="x", input="", gold=gold, lang="en"))
        predictions.append(Prediction(id=str(number), answer=text, text=answer))
    card = Card(name="x", family="answers", language="en")
    tally = of(card).tally(examples, predictions, card)
    return dict(zip(tally.metrics, tally.statistic(tally.rows).T, strict=True))


def ranks(values: Array) -> Array:
    """Ranks, ties averaged."""
    _, where, times = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(times)
    return np.asarray((last - (times - 1) / 2)[where], dtype=float)


def correlation(x: Array, y: Array, groups: Sequence[str], samples: int) -> tuple[float, ...]:
    """Pearson's correlation with its interval over groups."""
    stats = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)

    def measure(sums: Array) -> Array:
        n, sx, sy, sxx, syy, sxy = np.moveaxis(sums, -1, 0)
        bottom = np.sqrt(np.maximum((n * sxx - sx**2) * (n * syy - sy**2), 1e-12))
        return np.asarray(((n * sxy - sx * sy) / bottom)[..., None])

    return tuple(float(one[0]) for one in bootstrap(stats, groups, measure, samples))


BATCH = 1000
"""Answers that are scored together."""


@measure(
    "--submissions 1000 --answers 100000 --seed 1", quick=f"--submissions 10 --answers {BATCH}"
)
def promptcblue(given: Namespace) -> None:
    """PromptCBLUE: official scores beside a second implementation, safe ones of spoiled answers.

    For each of the 18 tasks: valid and damaged submissions, scored by ours and by an implementation
    written from the facts alone (in tests/tasks): those whose answers the facts settle, which must
    agree, and those that agree whole. And spoiled answers read and scored in the safe mode, where
    nothing may raise. The answers are invented.
    """
    sys.path.insert(0, str(ROOT / "tests/tasks"))
    from test_promptcblue_blind import NAMES, compare

    table = Table(
        "task | submissions | valid: settled, equal | damaged: settled, equal | spoiled answers | "
        "exceptions | "
        "read as they are | repaired | unreadable | answers/s"
    )
    for task in NAMES:
        each = [compare(task, given.submissions, given.seed, damaged=one) for one in (False, True)]
        alike = " | ".join(f"{one.settled:,}, {one.equal:,}" for one in each)
        kinds, seconds = fuzz(task, given.answers, given.seed)
        shares = " | ".join(
            f"{kinds[k] / given.answers:.1%}" for k in ("read", "repaired", "unread")
        )
        table.add(
            f"{task} | {given.submissions:,} | {alike} | {given.answers:,} | "
            f"{kinds['raised']:,} | {shares} | {given.answers / seconds:,.0f}"
        )
    report(given, table)


def fuzz(task: str, count: int, seed: int) -> tuple[Counter[str], float]:
    """Exceptions of the safe mode, how the answers could be read, and the processor time."""
    from promptcblue_cases import answer, spoiled

    from residency.corpus.promptcblue_rows import cards
    from residency.tasks import scoring
    from residency.tasks.codec import read
    from residency.tasks.families import of

    rng, card, seconds = random.Random(f"fuzz/{seed}/{task}"), cards()[task], 0.0
    kinds = Counter[str]()
    for start in range(0, count, BATCH):
        examples, written, predictions = [], [], []
        for number in range(start, min(start + BATCH, count)):
            gold, choices = answer(task, rng)
            more = {"choices": tuple(choices or ()), "lang": "zh"}
            examples.append(Example(id=str(number), task=task, input="", gold=gold, **more))
            written.append(spoiled(of(card).render(gold, ""), rng))
        begun = time.process_time()
        for example, words in zip(examples, written, strict=True):
            try:
                found, failure = read(words, example, card)
            except Exception:  # what the benchmark counts
                kinds["raised"] += 1
                found, failure = None, "exception"
            kinds["unread" if found is None else "repaired" if failure else "read"] += 1
            predictions.append(Prediction(id=example.id, answer=found, failure=failure))
        try:
            assert 0 <= scoring.main_metric(examples, predictions, card) <= 1
        except Exception:
            kinds["raised"] += 1
        seconds += time.process_time() - begun
    return kinds, seconds


if __name__ == "__main__":
    SUBJECT.main()
