"""Scores: whether intervals hold the truth, metrics agree with people, and two implementations of
official scores with each other."""

from __future__ import annotations

import random
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

import _common as common
from _common import ROOT, Subject, Table, report
from residency.core.files import csv_records
from residency.core.types import Example, Prediction, Text
from residency.metrics.intervals import Array, bootstrap
from residency.workflows.curve import fit_law

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure

KINDS = [f"share {one}" for one in ("uneven 0", "even 0.1", "uneven 0.1", "uneven 0.2")]
TRUTHS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


@measure("--simulations 2000 --samples 500 --seed 1", quick="--simulations 5")
def coverage(given: Namespace) -> None:
    """How often 95 % intervals hold the truth: of shares and F1 over patients, of a curve's gain.

    Patients have a rate of their own (beta; the number is their intraclass correlation), and 8
    (even) or 1 to 15 notes each. Of a curve: three runs of 100, 200, 350 and 500 records on a law.
    """
    table = Table(f"metric | patients | {' | '.join(map(str, TRUTHS))} | mean | width")
    for kind, groups in [(k, n) for k in (*KINDS, "F1 uneven 0.2") for n in (3, 5, 8, 15, 30)]:
        cells = np.array([_held(given, kind, groups, truth) for truth in TRUTHS])
        shares = " | ".join(f"{share:.1%}" for share in cells[:, 0])
        held, width = cells.mean(axis=0)
        table.add(f"{kind} | {groups} | {shares} | {held:.1%} | {width:.2f}")
    for spread in (0.006, 0.012, 0.024):
        gains = (_gains(end, spread, given) for end in (0.6, 0.7, 0.8, 0.9, 0.95, 1.0))
        table.add(f"gain, law's end, scatter {spread} | – | {' | '.join(gains)} | – | –")
    report(given, table)


def _held(given: Namespace, kind: str, groups: int, truth: float) -> tuple[float, float]:
    """Share of intervals that hold a truth, and their mean width."""
    generator = np.random.default_rng([given.seed, groups, round(1000 * truth), len(kind)])
    names, found = [str(group) for group in range(groups)], np.zeros(2)
    for seed in range(given.simulations):
        stats, metric = draw(kind, groups, truth, generator)
        _, low, high = bootstrap(stats, names, metric, given.samples, seed, shares=True)
        found += (low[0] <= truth <= high[0], high[0] - low[0])
    return tuple(found / given.simulations)


def _gains(end: float, spread: float, given: Namespace) -> str:
    """Share of intervals of a curve's gain that hold it, and how many give advice."""
    sizes, held = np.repeat([100, 200, 350, 500], 3), []
    generator = np.random.default_rng([given.seed, round(1000 * end), round(1e4 * spread)])
    for _ in range(max(5, given.simulations // 10)):
        values = end - 2 * sizes**-0.5 + generator.normal(0, spread, len(sizes))
        if law := fit_law([*zip(sizes.tolist(), values.tolist(), strict=True)]):
            held.append(law.low <= 2 * (500**-0.5 - 600**-0.5) <= law.high)
    return f"{end}: {np.mean(held):.1%} of {len(held)}"


def draw(
    kind: str, groups: int, truth: float, generator: np.random.Generator
) -> tuple[Array, Callable[[Array], Array]]:
    """Counts of simulated patients, and the metric of their sum."""
    what, notes, alike = kind.split()
    sizes = np.full(groups, 8) if notes == "even" else generator.integers(1, 16, groups)
    beta = 1 / max(float(alike), 1e-6) - 1
    found = generator.binomial(sizes, generator.beta(beta * truth, beta * (1 - truth), groups))
    f1 = what == "F1"
    invented = f1 * generator.poisson(sizes * generator.gamma(2, (1 - truth) / 2, groups))
    stats = np.stack([found * (1 + f1), sizes + invented + found * f1], axis=1).astype(float)
    return stats, lambda sums: sums[..., :1] / sums[..., 1:2]


MANUAL = "FactualF1 | FactualPrecision | FactualRecall | HallucinationRate | OmissionRate | "
MANUAL += "Edit Distance (Correction)"


@measure("--samples 2000", quick="--samples 20")
def overlap(given: Namespace) -> None:
    """How our overlap metrics agree with 400 manually scored summaries of MTS-Dialog.

    Pearson's; Spearman's correlation of each metric with the manual scores of the correlation
    study; 95 % intervals by bootstrap over conversations, as each has four summaries.
    """
    from scipy.stats import rankdata

    folder = common.shared_data() / "en/mts_dialog"
    names = "Automatic-Summaries-ValidationSet", "Manual-Scores4CorrelationStudy"
    files = (csv_records(folder / f"MTS-Dialog-{name}.csv", ()) for name in names)
    summaries, marks = ([row for _, row in file] for file in files)
    assert len(summaries) == len(marks) == 400
    groups = [row["Dialogue"] for row in summaries]
    pairs = [(row["Reference Summary"], row["Automatic Summary"]) for row in summaries]
    table, details = Table(f"metric | {MANUAL}"), {}
    for name, values in metrics(pairs).items():
        cells = []
        for manual in MANUAL.split(" | "):
            wanted = np.array([float(row[manual]) for row in marks])
            both = [(values, wanted), (rankdata(values), rankdata(wanted))]
            each = [correlation(x, y, groups, given.samples) for x, y in both]
            details[f"{name} / {manual}"] = dict(zip(("pearson", "spearman"), each, strict=True))
            cells.append("; ".join(f"{r:.2f} ({low:.2f} to {high:.2f})" for r, low, high in each))
        table.add(f"{name} | {' | '.join(cells)}")
    report(given, table, conversations=len(set(groups)), correlations=details)


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


def correlation(x: Array, y: Array, groups: Sequence[str], samples: int) -> tuple[float, ...]:
    """Pearson's correlation with its interval over groups."""
    stats = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)

    def measure(sums: Array) -> Array:
        n, sx, sy, sxx, syy, sxy = np.moveaxis(sums, -1, 0)
        bottom = np.sqrt(np.maximum((n * sxx - sx**2) * (n * syy - sy**2), 1e-12))
        return np.asarray(((n * sxy - sx * sy) / bottom)[..., None])

    return tuple(float(one[0]) for one in bootstrap(stats, groups, measure, samples))


BATCH = 1000  # answers that are scored together


@measure("--submissions 1000 --answers 100000 --seed 1", quick="--submissions 9 --answers 1000")
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
        "exceptions | read as they are | repaired | unreadable | answers/s"
    )
    for task in NAMES:
        each = [compare(task, given.submissions, given.seed, damaged=one) for one in (False, True)]
        alike = " | ".join(f"{one.settled:,}, {one.equal:,}" for one in each)
        kinds, seconds = fuzz(task, given.answers, given.seed)
        each = (kinds[kind] for kind in ("read", "repaired", "unread"))
        shares = " | ".join(f"{count / given.answers:.1%}" for count in each)
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
