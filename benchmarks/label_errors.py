"""Likely label errors: 3 % of the labels of a real corpus are corrupted, and the list of the most
suspicious 3 % is checked.

VietBioNER, the authors' training part. Of its spans 3 % are drawn and, in turn, given another
label, moved at one end by a word, or taken out. Models are trained on four fifths of the corrupted
notes and asked about the last, five times. *ours* is what `residency label errors` lists;
*cleanlab* ranks the same predictions (token classification, lowest self-confidence of a token given
its label; its tokens on one labelled span, or side by side, are one item). An item is right where
it touches a corrupted place, and counts once for each; both lists have as many items as there are
corrupted labels, so a perfect list has precision and recall 1. The corpus has errors of its own,
which count as false here. Seed 100 served to choose the score, and is not in the table.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from msgspec.structs import replace

from _common import RESULTS, ROOT, TINY, parser, report, run, say, shared_data
from corpora import CORPORA
from residency.core.errors import UserError
from residency.core.part import parse
from residency.core.types import Note, Span
from residency.corpus.load import Data, load
from residency.locale.tokenise import units
from residency.models.base import BaseModelSettings, resolve
from residency.tasks.bio import encode, tag_names
from residency.tasks.card import Card, load_card
from residency.tasks.examples import fixed
from residency.train.stage import Stage

Place = tuple[str, int, int]
"""Note, start, end."""
CLEANLAB = ("cleanlab==2.9.0", "pandas==3.1.1", "termcolor==3.3.0", "python-dateutil", "six")
KINDS = ("label", "boundary", "missing")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--corpus", choices=CORPORA, default="vietbioner")
    options.add_argument(
        "--share", type=float, default=0.03, help="of the labels that are corrupted (default 0.03)"
    )
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--epochs", type=float, default=15, help="of full tuning (default 15)")
    given = options.parse_args()
    if given.quick:
        given.seeds, given.epochs = [0, 1], 1
    import torch

    torch.set_num_threads(given.threads)
    version = cleanlab_ready()
    kept = RESULTS / "label_errors.partial.json"
    found: list[dict[str, Any]] = (
        json.loads(kept.read_text("utf-8")) if kept.is_file() and not given.quick else []
    )
    for seed in given.seeds:
        if not any(one["seed"] == seed for one in found):
            found += measured(given, seed)
            if not given.quick:
                kept.write_text(json.dumps(found), "utf-8")
    rows = [row(found, system) for system in dict.fromkeys(one["system"] for one in found)]
    columns = (
        "system",
        "list",
        "precision",
        "recall",
        *(f"of {kind}" for kind in KINDS),
        "by seed",
    )
    report("label_errors", given, columns, rows, base=TINY, cleanlab=version, measurements=found)
    kept.unlink(missing_ok=True)


def cleanlab_ready() -> str:
    """cleanlab's version; installed into a folder of its own where it is not there, so that it
    changes nothing here."""
    folder = ROOT / ".bench" / "cleanlab"
    if not folder.is_dir():
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(folder),
            *CLEANLAB,
        ]
        if subprocess.run(pip, check=False).returncode:
            raise UserError("cleanlab could not be installed; see what pip said above.")
    sys.path.append(str(folder))
    import cleanlab

    return str(cleanlab.__version__)


def measured(given: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Both systems on the same corrupted notes and the same predictions."""
    from residency.label.suspects import ranked, suspects
    from residency.workflows.suggest import cross_validate

    notes, card = corpus(given.corpus, given.quick)
    wrong, places = corrupted(notes, card, given.share, seed)
    base = resolve(BaseModelSettings(id=TINY), Path.cwd())
    stage = Stage.model_validate({"method": {"kind": "full"}, "epochs": given.epochs, "stop": None})
    beliefs = cross_validate(base, card, wrong, stage, seed)
    spans = sum(len(note.spans) for note in wrong)
    most = len(places)
    every = [
        one
        for note, belief in zip(wrong, beliefs, strict=True)
        for one in suspects(note, belief.slots, belief.log_probabilities, card.names)
    ]
    ours = [(one.note, one.start, one.end) for one in ranked(every, most / spans, spans)]
    lists = {"ours": ours[:most], "cleanlab": by_cleanlab(wrong, beliefs, card)[:most]}
    found = []
    for system, listed in lists.items():
        one = {
            "system": system,
            "seed": seed,
            "corrupted": most,
            "listed": len(listed),
            **judged(listed, places),
        }
        say(f"{system} seed {seed}: precision {one['precision']:.3f}, recall {one['recall']:.3f}")
        found.append(one)
    return found


def corpus(name: str, quick: bool) -> tuple[list[Note], Card]:
    """The training notes as their authors labelled them."""
    how = CORPORA[name][1]
    notes = load(
        parse(Data, {**how, "stop": 0, "profile": "public"}, name), name, shared_data(), 0
    ).part("train")
    notes = notes[: 100 if quick else None]
    return notes, fixed(load_card("ner"), notes, name)


def corrupted(
    notes: Sequence[Note], card: Card, share: float, seed: int
) -> tuple[list[Note], dict[Place, str]]:
    """Notes with a share of their spans made wrong, and where, with the kind."""
    rng = random.Random(seed)
    every = [(n, s) for n, note in enumerate(notes) for s in range(len(note.spans))]
    drawn = rng.sample(every, math.ceil(share * len(every)))
    changed = {n: list(note.spans) for n, note in enumerate(notes)}
    places: dict[Place, str] = {}
    kinds = KINDS if len(card.names) > 1 else KINDS[1:]
    for number, (n, s) in enumerate(drawn):
        note, span, kind = notes[n], notes[n].spans[s], kinds[number % len(kinds)]
        new: Span | None = None
        if kind == "label":
            new = replace(
                span, label=rng.choice([name for name in card.names if name != span.label])
            )
        elif kind == "boundary":
            new = moved(note, span, rng)
        old = changed[n].index(span)
        changed[n][old : old + 1] = [new] if new else []
        low, high = (
            min(span.start, new.start if new else span.start),
            max(span.end, new.end if new else span.end),
        )
        places[note.id, low, high] = kind
    return [replace(note, spans=tuple(changed[n])) for n, note in enumerate(notes)], places


def moved(note: Note, span: Span, rng: random.Random) -> Span:
    """The span with one end a unit further in or out, where it touches no other span; unchanged
    never."""
    bounds = units(note.text)
    first = next(i for i, (start, end) in enumerate(bounds) if end > span.start)
    last = max(i for i, (start, end) in enumerate(bounds) if start < span.end)
    ends = [(first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1)]
    others = [other for other in note.spans if other is not span]
    fit = []
    for low, high in ends:
        if 0 <= low <= high < len(bounds):
            start, end = bounds[low][0], bounds[high][1]
            if not any(start < other.end and end > other.start for other in others):
                fit.append((start, end))
    start, end = rng.choice(fit)
    return replace(span, start=start, end=end, quote=note.text[start:end])


def by_cleanlab(notes: Sequence[Note], beliefs: Sequence[Any], card: Card) -> list[Place]:
    """cleanlab's ranking of tokens, tokens of one span or side by side joined to one item where the
    first of them stands."""
    import numpy as np
    from cleanlab.token_classification.rank import get_label_quality_scores

    kept = [(note, belief) for note, belief in zip(notes, beliefs, strict=True) if belief.slots]
    tags = [encode(note.spans, belief.slots, card.names)[0] for note, belief in kept]
    chances = [np.exp(belief.log_probabilities.astype(np.float64)) for _, belief in kept]
    chances = [chance / chance.sum(axis=1, keepdims=True) for chance in chances]
    assert chances[0].shape[1] == len(tag_names(card.names))
    _, info = get_label_quality_scores(tags, chances)
    order = sorted((score, n, i) for n, scores in enumerate(info) for i, score in enumerate(scores))
    items: list[Place] = []
    taken: set[tuple[int, int]] = set()
    for score, n, i in order:
        if (n, i) in taken or score > 0.5:
            continue
        note, belief = kept[n]
        slot = belief.slots[i]
        start, end = next(
            ((s.start, s.end) for s in note.spans if s.start < slot[1] and s.end > slot[0]), slot
        )
        near = [j for j, other in enumerate(belief.slots) if other[0] < end and other[1] > start]
        near += [j for step in (-1, 1) for j in beside(info[n], i, step)]
        taken |= {(n, j) for j in near}
        items.append((note.id, start, end))
    return items


def beside(scores: Sequence[float], i: int, step: int) -> list[int]:
    """Suspicious tokens that follow each other from a token on."""
    found = []
    j = i + step
    while 0 <= j < len(scores) and scores[j] <= 0.5:
        found.append(j)
        j += step
    return found


def judged(listed: Sequence[Place], places: dict[Place, str]) -> dict[str, Any]:
    """Precision and recall of a list against the corrupted places."""
    found: set[Place] = set()
    right = 0
    for note, start, end in listed:
        hits = {
            place for place in places if place[0] == note and place[1] < end and place[2] > start
        }
        right += bool(hits - found)
        found |= hits
    kinds = {
        kind: sum(places[place] == kind for place in found)
        / max(1, sum(k == kind for k in places.values()))
        for kind in KINDS
    }
    return {
        "precision": right / max(1, len(listed)),
        "recall": len(found) / len(places),
        "kinds": kinds,
    }


def row(found: Sequence[dict[str, Any]], system: str) -> list[str]:
    """One line of the table."""
    here = [one for one in found if one["system"] == system]
    return [
        system,
        f"{mean(one['listed'] for one in here):.0f}",
        f"{mean(one['precision'] for one in here):.3f}",
        f"{mean(one['recall'] for one in here):.3f}",
        *(f"{mean(one['kinds'][kind] for one in here):.2f}" for kind in KINDS),
        ", ".join(f"{one['precision']:.2f}" for one in here),
    ]


if __name__ == "__main__":
    run(main)
