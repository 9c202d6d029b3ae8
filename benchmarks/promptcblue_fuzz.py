"""PromptCBLUE: official scores beside a second implementation, and safe scores under spoiled
answers.

For each of the 18 tasks: 1,000 generated submissions, half of them with spoiled rows, scored by
both implementations of the official scorer (the second one is
tests/tasks/promptcblue_reference.py); and 100,000 spoiled answers read and scored in the safe mode,
where nothing may raise. The answers are invented.
"""

from __future__ import annotations

import random
import sys
import time

from _common import ROOT, parser, report, run, say

BATCH = 1000
"""Answers that are scored together."""


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--submissions", type=int, default=1000, help="per task, official (default 1,000)"
    )
    options.add_argument(
        "--answers", type=int, default=100_000, help="per task, safe (default 100,000)"
    )
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    if given.quick:
        given.submissions, given.answers = 10, BATCH
    sys.path.insert(0, str(ROOT / "tests/tasks"))
    from test_promptcblue import NAMES, agree

    rows: list[list[str]] = []
    for task in NAMES:
        refused, largest = agree(task, given.submissions, given.seed)
        failures, kinds, seconds = fuzz(task, given.answers, given.seed)
        rows.append(
            [
                task,
                f"{given.submissions:,}",
                f"{refused:,}",
                f"{largest:.1e}",
                f"{given.answers:,}",
                f"{failures:,}",
                f"{kinds['read'] / given.answers:.1%}",
                f"{kinds['repaired'] / given.answers:.1%}",
                f"{kinds['unread'] / given.answers:.1%}",
                f"{given.answers / seconds:,.0f}",
            ]
        )
        say(" | ".join(rows[-1]))
    columns = (
        "task",
        "submissions",
        "refused by both",
        "largest difference",
        "spoiled answers",
        "exceptions",
        "read as they are",
        "repaired",
        "unreadable",
        "answers/s",
    )
    report("promptcblue-fuzz", given, columns, rows)


def fuzz(task: str, count: int, seed: int) -> tuple[int, dict[str, int], float]:
    """Exceptions of the safe mode, how the answers could be read, and the processor time."""
    from promptcblue_cases import answer, spoiled

    from residency.core.types import Example, Prediction
    from residency.corpus.promptcblue_rows import cards
    from residency.tasks import scoring
    from residency.tasks.codec import read
    from residency.tasks.families import of

    rng, card = random.Random(f"fuzz/{seed}/{task}"), cards()[task]
    failures, kinds, seconds = 0, dict.fromkeys(("read", "repaired", "unread"), 0), 0.0
    for start in range(0, count, BATCH):
        examples, written = [], []
        for number in range(start, min(start + BATCH, count)):
            gold, choices = answer(task, rng)
            offered = tuple(choices or ())
            examples.append(
                Example(id=str(number), task=task, input="", gold=gold, choices=offered, lang="zh")
            )
            written.append(spoiled(of(card).render(gold, ""), rng))
        predictions = []
        begun = time.process_time()
        for example, words in zip(examples, written, strict=True):
            try:
                found, failure = read(words, example, card)
            except Exception:  # what the benchmark counts
                failures += 1
                found, failure = None, "exception"
            kinds["unread" if found is None else "repaired" if failure else "read"] += 1
            predictions.append(Prediction(id=example.id, answer=found, failure=failure))
        try:
            assert 0 <= scoring.main_metric(examples, predictions, card) <= 1
        except Exception:
            failures += 1
        seconds += time.process_time() - begun
    return failures, kinds, seconds


if __name__ == "__main__":
    run(main)
