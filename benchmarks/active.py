"""What to label next: F1 after 100, 200 and 400 labelled sentences, chosen by the model and drawn
at random.

Two public corpora with the bundled encoder, full tuning, the same number of passes for all. Each
seed begins with 50 sentences at random, the same for both systems. *chosen* is what `residency
label next` does with its defaults, a fifth of it drawn at random; *random* draws everything. The
last column is for equal effort: the F1 that *random* reaches with as many characters read as
*chosen* needed, read off the straight line between its own measurements of that seed; none where
*chosen* read more than *random* ever did. Scores are strict F1 on the authors' development parts;
the interval of the difference is over seeds (t, 95 %). The rule was chosen on another corpus
(VietBioNER, seeds 100 to 102), never on these.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from _common import RESULTS, TINY, parser, report, run, say, shared_data, strict_f1
from corpora import CORPORA
from residency.core.part import parse
from residency.core.types import Note
from residency.corpus.load import Data, load
from residency.models.base import BaseModelSettings, resolve
from residency.tasks.card import Card, load_card
from residency.tasks.examples import examples, fixed
from residency.train.stage import Stage

START = 50
ROUNDS = (100, 200, 400)
STUDENT = {
    2: 12.706,
    3: 4.303,
    4: 3.182,
    5: 2.776,
    6: 2.571,
    7: 2.447,
    8: 2.365,
    9: 2.306,
    10: 2.262,
}
"""Number of seeds -> the 97.5 % point of Student's t with one degree of freedom less."""


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--corpora", nargs="+", choices=CORPORA, default=["ncbi", "cmedqaner"])
    options.add_argument("--seeds", type=int, default=5, help="how many, from 0 (default 5)")
    options.add_argument("--epochs", type=float, default=15, help="of full tuning (default 15)")
    given = options.parse_args()
    if given.quick:
        given.seeds, given.epochs = 2, 1
    import torch

    torch.set_num_threads(given.threads)
    kept = RESULTS / "active.partial.json"  # an interrupted run goes on behind the last measurement
    found: list[dict[str, Any]] = (
        json.loads(kept.read_text("utf-8")) if kept.is_file() and not given.quick else []
    )
    done = {(one["corpus"], one["seed"], one["system"], one["labels"]) for one in found}
    for seed in range(given.seeds):
        for corpus in given.corpora:
            if (corpus, seed, "chosen", ROUNDS[-1]) in done:
                continue
            found += measured(corpus, seed, given.epochs, given.quick)
            if not given.quick:
                kept.write_text(json.dumps(found), "utf-8")
    rows = [row(found, corpus, labels) for corpus in given.corpora for labels in ROUNDS]
    columns = (
        "corpus",
        "labels",
        "random",
        "chosen",
        "chosen - random, 95 %",
        "characters, chosen / random",
        "at equal characters, 95 %",
    )
    report("active", given, columns, rows, base=TINY, measurements=found)
    kept.unlink(missing_ok=True)


def measured(corpus: str, seed: int, epochs: float, quick: bool) -> list[dict[str, Any]]:
    """One corpus with one seed: both systems, each round."""
    from residency.label.active import choose, uncertainty
    from residency.workflows.suggest import fit_on_notes

    _, how = CORPORA[corpus]
    notes = load(
        parse(Data, {**how, "stop": 0, "profile": "public"}, corpus), corpus, shared_data(), 0
    )
    train, test = notes.part("train"), notes.part("test")[: 20 if quick else None]
    card = fixed(load_card("ner"), train, corpus)
    base = resolve(BaseModelSettings(id=TINY), Path.cwd())
    stage = Stage.model_validate({"method": {"kind": "full"}, "epochs": epochs, "stop": None})
    train = train[: 500 if quick else None]
    random.Random(seed).shuffle(train)
    first = fit_on_notes(base, card, train[:START], stage, seed)
    found = []
    for system in ("random", "chosen"):
        labelled, model = train[:START], first
        for number, size in enumerate(ROUNDS):
            known = {note.id for note in labelled}
            pool = [note for note in train if note.id not in known]
            more = size - len(labelled)
            if system == "chosen":
                doubts = [
                    uncertainty(one.log_probabilities)
                    for one in model.marginals(note.text for note in pool)
                ]
                picked = {
                    one.note
                    for one in choose(
                        pool, doubts, more, [note.text for note in labelled], seed=seed + number
                    )
                }
                labelled = [*labelled, *(note for note in pool if note.id in picked)]
            else:
                labelled = [*labelled, *pool[:more]]
            model = fit_on_notes(base, card, labelled, stage, seed)
            one = {
                "corpus": corpus,
                "seed": seed,
                "system": system,
                "labels": size,
                "f1": score(model, test, card),
                "characters": sum(len(note.text) for note in labelled),
                "spans": sum(len(note.spans) for note in labelled),
            }
            say(f"{corpus} seed {seed} {system} {size}: F1 {one['f1']:.3f}")
            found.append(one)
    return found


def score(model: Any, test: Sequence[Note], card: Card) -> float:
    """Strict F1."""
    return strict_f1(test, [one.answer.spans for one in model.predict(examples(test, card))])


def row(found: Sequence[dict[str, Any]], corpus: str, labels: int) -> list[str]:
    """One line of the table."""
    here = [one for one in found if one["corpus"] == corpus and one["labels"] == labels]
    f1 = {
        system: [one["f1"] for one in here if one["system"] == system]
        for system in ("random", "chosen")
    }
    read = {
        system: mean(one["characters"] for one in here if one["system"] == system) for system in f1
    }
    gains = [chosen - drawn for drawn, chosen in zip(f1["random"], f1["chosen"], strict=True)]
    return [
        corpus,
        str(labels),
        f"{mean(f1['random']):.3f}",
        f"{mean(f1['chosen']):.3f}",
        interval(gains),
        f"{read['chosen'] / read['random']:.2f}",
        interval(equal(found, corpus, labels)),
    ]


def interval(gains: Sequence[float]) -> str:
    """Mean and 95 % interval over seeds."""
    if len(gains) < 2:
        return "-"
    half = STUDENT[len(gains)] * stdev(gains) / sqrt(len(gains))
    return f"{mean(gains):+.3f} ({mean(gains) - half:+.3f} to {mean(gains) + half:+.3f})"


def equal(found: Sequence[dict[str, Any]], corpus: str, labels: int) -> list[float]:
    """Chosen less random, by seed, where random reads as many characters; nothing unless every seed
    can be compared."""
    import numpy as np

    gains = []
    here = [one for one in found if one["corpus"] == corpus]
    chosen = [one for one in here if one["system"] == "chosen" and one["labels"] == labels]
    for one in chosen:
        drawn = sorted(
            (other["characters"], other["f1"])
            for other in here
            if other["system"] == "random" and other["seed"] == one["seed"]
        )
        if drawn[0][0] <= one["characters"] <= drawn[-1][0]:
            gains.append(
                one["f1"]
                - float(np.interp(one["characters"], [x for x, _ in drawn], [y for _, y in drawn]))
            )
    return gains if len(gains) == len(chosen) else []


if __name__ == "__main__":
    run(main)
