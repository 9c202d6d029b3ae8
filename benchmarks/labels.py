"""Labelling: whether likely label errors are found, and what is worth labelling next."""

from __future__ import annotations

import math
import random
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

from msgspec.structs import replace

import _common as common
from _common import CORPORA, TINY, Subject, Table, report, say
from residency.core.types import Note, Span
from residency.core.units import units
from residency.metrics.quantiles import student
from residency.tasks.bio import encode
from residency.tasks.card import Card, load_card
from residency.tasks.examples import examples, fixed
from residency.train.stage import Stage

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure
Place = tuple[str, int, int]
"""Note, start, end."""
KINDS = ("label", "boundary", "missing")


def full(epochs: float) -> Stage:
    """Full tuning of so many passes, the last model kept."""
    return Stage.model_validate({"method": {"kind": "full"}, "epochs": epochs, "stop": None})


def threaded(given: Namespace) -> None:
    """So many threads in this process."""
    import torch

    torch.set_num_threads(given.threads)


@measure(
    "--corpus vietbioner --share 0.03 --seeds 0 1 2 --epochs 15.0",
    quick="--seeds 0 1 --epochs 1",
    corpus=CORPORA,
)
def errors(given: Namespace) -> None:
    """3 % of the labels of a real corpus are corrupted; the most suspicious 3 % are checked.

    Of the spans of the training part --share are drawn and, in turn, given another label, moved at
    one end by a word, or taken out. Models trained on four fifths are asked about the last, five
    times. ours is what `residency label errors` lists; cleanlab ranks the same predictions (lowest
    self-confidence of a token given its label; its tokens on one labelled span, or side by side,
    are one item). An item is right where it touches a corrupted place, and counts once for each.
    """
    threaded(given)
    folder = common.foreign_python("cleanlab", "cleanlab==2.9.0").parents[1]
    sys.path.append(str(next(folder.glob("lib/python*/site-packages"))))
    notes = common.corpus(given.corpus)[0][: 100 if given.quick else None]
    card = fixed(load_card("ner"), notes, given.corpus)
    with common.resumed(given) as (found, keep):
        for seed in given.seeds:
            if not any(one["seed"] == seed for one in found):
                found += listed(notes, card, given, seed)
                keep()
        table = Table(
            f"system | list | precision | recall | {' | '.join(f'of {k}' for k in KINDS)} | by seed"
        )
        for system in ("ours", "cleanlab"):
            here = [one for one in found if one["system"] == system]
            kinds = [f"{mean(one['kinds'][kind] for one in here):.2f}" for kind in KINDS]
            seeds = [f"{one['precision']:.2f}" for one in here]
            table.add(
                f"{system} | {mean(one['listed'] for one in here):.0f} | "
                f"{mean(one['precision'] for one in here):.3f} | "
                f"{mean(one['recall'] for one in here):.3f} | {' | '.join(kinds)} | "
                f"{', '.join(seeds)}"
            )
        report(given, table, base=TINY, measurements=found)


def listed(notes: list[Note], card: Card, given: Namespace, seed: int) -> list[dict[str, Any]]:
    """Both systems on the same corrupted notes and the same predictions."""
    from residency.label.suspects import find_suspects, rank_suspects
    from residency.workflows.suggest import cross_validate

    wrong, places = corrupted(notes, card, given.share, seed)
    beliefs = cross_validate(common.base_of(TINY), card, wrong, full(given.epochs), seed)
    spans, most = sum(len(note.spans) for note in wrong), len(places)
    every = [
        one
        for note, belief in zip(wrong, beliefs, strict=True)
        for one in find_suspects(note, belief.slots, belief.log_probabilities, card.names)
    ]
    ours = [(one.note, one.start, one.end) for one in rank_suspects(every, most / spans, spans)]
    found = []
    for system, items in (("ours", ours), ("cleanlab", by_cleanlab(wrong, beliefs, card))):
        one = {"system": system, "seed": seed, "corrupted": most}
        found.append({**one, "listed": len(items[:most]), **judged(items[:most], places)})
        say(f"{system} seed {seed}: precision {found[-1]['precision']:.3f}")
    return found


def corrupted(
    notes: Sequence[Note], card: Card, share: float, seed: int
) -> tuple[list[Note], dict[Place, str]]:
    """Notes with a share of their spans made wrong, and where, with the kind."""
    rng = random.Random(seed)
    every = [(n, span) for n, note in enumerate(notes) for span in note.spans]
    changed = [list(note.spans) for note in notes]
    places: dict[Place, str] = {}
    kinds = KINDS if len(card.names) > 1 else KINDS[1:]
    for number, (n, span) in enumerate(rng.sample(every, math.ceil(share * len(every)))):
        kind, new = kinds[number % len(kinds)], list[Span]()
        if kind == "label":
            others = [name for name in card.names if name != span.label]
            new = [replace(span, label=rng.choice(others))]
        elif kind == "boundary":
            new = [moved(notes[n], span, rng)]
        at = changed[n].index(span)
        changed[n][at : at + 1] = new
        both = [span, *new]
        places[notes[n].id, min(s.start for s in both), max(s.end for s in both)] = kind
    return [replace(note, spans=tuple(changed[n])) for n, note in enumerate(notes)], places


def moved(note: Note, span: Span, rng: random.Random) -> Span:
    """The span with one end a unit further in or out, where it touches no other span."""
    bounds = units(note.text)
    first = next(i for i, (_, end) in enumerate(bounds) if end > span.start)
    last = max(i for i, (start, _) in enumerate(bounds) if start < span.end)
    others, fit = [other for other in note.spans if other is not span], []
    for low, high in ((first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1)):
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
    _, info = get_label_quality_scores(tags, chances)
    order = sorted((score, n, i) for n, scores in enumerate(info) for i, score in enumerate(scores))
    items: list[Place] = []
    taken: set[tuple[int, int]] = set()
    for score, n, i in order:
        if (n, i) in taken or score > 0.5:
            continue
        note, slots = kept[n][0], kept[n][1].slots
        on = [s for s in note.spans if s.start < slots[i][1] and s.end > slots[i][0]]
        start, end = (on[0].start, on[0].end) if on else slots[i]
        taken |= {(n, j) for j, slot in enumerate(slots) if slot[0] < end and slot[1] > start}
        for step in (-1, 1):
            j = i + step
            while 0 <= j < len(slots) and info[n][j] <= 0.5:
                taken.add((n, j))
                j += step
        items.append((note.id, start, end))
    return items


def judged(items: Sequence[Place], places: dict[Place, str]) -> dict[str, Any]:
    """Precision and recall of a list against the corrupted places."""
    found: set[Place] = set()
    right = 0
    for note, start, end in items:
        here = (place for place in places if place[0] == note)
        hits = {place for place in here if place[1] < end and place[2] > start}
        right += bool(hits - found)
        found |= hits
    every, hit = list(places.values()), [places[place] for place in found]
    kinds = {kind: hit.count(kind) / max(1, every.count(kind)) for kind in KINDS}
    precision, recall = right / max(1, len(items)), len(found) / len(places)
    return {"precision": precision, "recall": recall, "kinds": kinds}


START, ROUNDS = 50, (100, 200, 400)


@measure(
    "--corpora ncbi cmedqaner --seeds 5 --epochs 15.0",
    quick="--seeds 2 --epochs 1",
    corpora=CORPORA,
)
def next_(given: Namespace) -> None:
    """F1 after 100, 200 and 400 labelled sentences, chosen by the model and drawn at random.

    The bundled encoder, full tuning. Each seed begins with 50 sentences at random, the same for
    both. chosen is what `residency label next` does with its defaults. The last column is for equal
    effort: the F1 that random reaches with as many characters read as chosen needed, on the line
    between its own measurements of that seed. Strict F1 on the authors' development parts; t
    intervals over seeds. The rule was chosen on another corpus, never on these.
    """
    threaded(given)
    with common.resumed(given) as (found, keep):
        done = {(one["corpus"], one["seed"]) for one in found}
        for seed, corpus in [(n, c) for n in range(given.seeds) for c in given.corpora]:
            if (corpus, seed) not in done:
                found += learned(corpus, seed, given)
                keep()
        columns = "chosen - random, 95 % | characters, chosen / random | at equal characters, 95 %"
        table = Table(f"corpus | labels | random | chosen | {columns}")
        for corpus, labels in [(c, n) for c in given.corpora for n in ROUNDS]:
            here = [one for one in found if (one["corpus"], one["labels"]) == (corpus, labels)]
            drawn, chosen = ([o for o in here if o["system"] == s] for s in ("random", "chosen"))
            gains = [a["f1"] - b["f1"] for a, b in zip(chosen, drawn, strict=True)]
            read = sum(o["characters"] for o in chosen) / sum(o["characters"] for o in drawn)
            equal = at_equal_reading([one for one in found if one["corpus"] == corpus], chosen)
            table.add(
                f"{corpus} | {labels} | {mean(one['f1'] for one in drawn):.3f} | "
                f"{mean(one['f1'] for one in chosen):.3f} | {over_seeds(gains)} | {read:.2f} | "
                f"{over_seeds(equal)}"
            )
        report(given, table, base=TINY, measurements=found)


def learned(corpus: str, seed: int, given: Namespace) -> list[dict[str, Any]]:
    """One corpus with one seed: both systems, each round."""
    from residency.label.active import choose, uncertainty
    from residency.workflows.suggest import fit_on_notes

    train, test = common.corpus(corpus)
    train, test = common.shuffled(train, seed), test[: 20 if given.quick else None]
    card, stage = fixed(load_card("ner"), train, corpus), full(given.epochs)
    fit: Callable[[list[Note]], Any] = lambda notes: fit_on_notes(  # noqa: E731
        common.base_of(TINY), card, notes, stage, seed
    )
    first, found = fit(train[:START]), []
    for system in ("random", "chosen"):
        labelled, model = train[:START], first
        for number, size in enumerate(ROUNDS):
            known = {note.id for note in labelled}
            pool, more = [note for note in train if note.id not in known], size - len(labelled)
            picked = pool[:more]
            if system == "chosen":
                beliefs = model.marginals(note.text for note in pool)
                doubts = [uncertainty(one.log_probabilities) for one in beliefs]
                texts = [note.text for note in labelled]
                chosen = {one.note for one in choose(pool, doubts, more, texts, seed=seed + number)}
                picked = [note for note in pool if note.id in chosen]
            labelled = [*labelled, *picked]
            model = fit(labelled)
            answers = [one.answer.spans for one in model.predict(examples(test, card))]
            one = {"corpus": corpus, "seed": seed, "system": system, "labels": size}
            one |= {"f1": common.strict_f1(test, answers)}
            one |= {"characters": sum(len(note.text) for note in labelled)}
            found.append({**one, "spans": sum(len(note.spans) for note in labelled)})
            say(f"{corpus} seed {seed} {system} {size}: F1 {one['f1']:.3f}")
    return found


def over_seeds(gains: Sequence[float]) -> str:
    """Mean and 95 % interval over seeds."""
    if len(gains) < 2:
        return "-"
    half = student(0.95, len(gains) - 1) * stdev(gains) / sqrt(len(gains))
    return f"{mean(gains):+.3f} ({mean(gains) - half:+.3f} to {mean(gains) + half:+.3f})"


def at_equal_reading(
    found: Sequence[dict[str, Any]], chosen: Sequence[dict[str, Any]]
) -> list[float]:
    """Chosen less random, by seed, where random reads as many characters; nothing unless every seed
    can be compared."""
    import numpy as np

    gains = []
    for one in chosen:
        own = [o for o in found if o["system"] == "random" and o["seed"] == one["seed"]]
        read, f1 = zip(*sorted((o["characters"], o["f1"]) for o in own), strict=True)
        if not read[0] <= one["characters"] <= read[-1]:
            return []
        gains.append(one["f1"] - float(np.interp(one["characters"], read, f1)))
    return gains


if __name__ == "__main__":
    SUBJECT.main()
