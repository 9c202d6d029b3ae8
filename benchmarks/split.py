"""Splits: worst prevalence error and leaks at 20,000 notes beside scikit-learn and
iterative-stratification; near-duplicates beside datasketch.

Invented patients (1 to 60 notes each, labels that cluster within a patient), parts of 80, 10 and 10
per cent. The error is the largest difference, over parts and labels, between the share of a part's
notes that carry the label and that of all notes. Near-duplicates: real sentences and invented notes
under forms that many of them share, a fifth of them copies in which some words were changed; the
truth is every pair compared exactly by scikit-learn's counts of character 5-grams, without the
forms. Seconds are processor time.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from statistics import median
from typing import Any
from unicodedata import normalize

from _common import parser, report, run, say, shared_data
from residency.core.errors import UserError
from residency.core.types import PARTS, Note, PartName
from residency.corpus.formats.conll import Conll
from residency.corpus.formats.jsonl import Jsonl
from residency.corpus.load import load
from residency.corpus.near import near_duplicates
from residency.corpus.stratify import NOTES, stratify

SHARES: dict[PartName, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}
Placed = list[PartName]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--notes", type=int, default=20_000)
    options.add_argument("--labels", type=int, default=24)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument(
        "--compared",
        type=int,
        default=2000,
        help="notes of which all pairs are compared (default 2,000)",
    )
    given = options.parse_args()
    if given.quick:
        given.notes, given.seeds, given.compared = 2000, 1, 300
    splits = balance(given.notes, given.labels, given.seeds)
    near = duplicates(given.compared)
    speed = rates(given.notes)
    columns = (
        "part",
        "system",
        "worst error, points: median (most)",
        "patients in two parts",
        "precision",
        "recall",
        "seconds or notes/s",
    )
    report("split", given, columns, [*splits, *near, *speed])


# Splits


def ward(notes: int, labels: int, seed: int) -> tuple[list[int], list[set[str]]]:
    """The patient and the labels of each note; a chronic disease is in most notes of its patient."""
    rng = random.Random(seed)
    patients, carried, patient = list[int](), list[set[str]](), 0
    common = [0.4 * 0.82**k for k in range(labels)]
    while len(patients) < notes:
        has = [min(0.95, share * rng.choice([0.1, 0.1, 0.3, 1, 4])) for share in common]
        for _ in range(min(60, 1 + int(rng.expovariate(1 / 6)), notes - len(patients))):
            patients.append(patient)
            carried.append({f"label {k}" for k in range(labels) if rng.random() < has[k]})
        patient += 1
    return patients, carried


def balance(notes: int, labels: int, seeds: int) -> list[list[str]]:
    """Every system on the same wards."""
    systems: dict[str, Callable[[list[int], list[set[str]], int], Placed]] = {
        "StratifiedGroupKFold": stratified_group_kfold,
        "StratifiedGroupKFold, each set of labels a class": by_label_set,
        "iterative-stratification, no groups": iterative,
        "patients at random": at_random,
        "residency, without repair": lambda *ward: ours(*ward, repaired=False),
        "residency": ours,
    }
    rows = []
    for name, system in systems.items():
        errors, leaks, seconds, refused = [], [], [], ""
        for seed in range(seeds):
            patients, carried = ward(notes, labels, seed)
            begun = time.process_time()
            try:
                placed = system(patients, carried, seed)
            except ValueError as error:
                refused = str(error)
                break
            seconds.append(time.process_time() - begun)
            errors.append(worst_by_hand(carried, placed))
            leaks.append(len(in_two(patients, placed)))
        if refused:
            rows.append(
                [
                    f"{notes:,} notes, {labels} labels",
                    name,
                    f"refuses: {refused[:60]}...",
                    "-",
                    "-",
                    "-",
                    "-",
                ]
            )
        else:
            shown = f"{100 * median(errors):.3f} ({100 * max(errors):.3f})"
            rows.append(
                [
                    f"{notes:,} notes, {labels} labels",
                    name,
                    shown,
                    f"{median(leaks):,.0f}",
                    "-",
                    "-",
                    f"{median(seconds):.1f} s",
                ]
            )
        say(" | ".join(rows[-1]))
    return rows


def worst_by_hand(carried: Sequence[set[str]], placed: Placed) -> float:
    """Largest difference of a label's share of notes between a part and all."""
    every = Counter(label for labels in carried for label in labels)
    found = 0.0
    for part in PARTS:
        inside = [labels for labels, where in zip(carried, placed, strict=True) if where == part]
        counts = Counter(label for labels in inside for label in labels)
        found = max(
            found,
            *(abs(counts[label] / len(inside) - every[label] / len(carried)) for label in every),
        )
    return found


def in_two(patients: Sequence[int], placed: Placed) -> set[int]:
    """Patients with notes in more than one part."""
    where: dict[int, set[str]] = {}
    for patient, part in zip(patients, placed, strict=True):
        where.setdefault(patient, set()).add(part)
    return {patient for patient, parts in where.items() if len(parts) > 1}


def ours(patients: list[int], carried: list[set[str]], seed: int, repaired: bool = True) -> Placed:
    """Patients as groups."""
    counts: dict[int, Counter[str]] = {}
    for patient, labels in zip(patients, carried, strict=True):
        counts.setdefault(patient, Counter()).update([NOTES, *labels])
    order = list(counts)
    random.Random(seed).shuffle(order)
    placed = dict(
        zip(order, stratify([counts[patient] for patient in order], SHARES, repaired), strict=True)
    )
    return [placed[patient] for patient in patients]


def at_random(patients: list[int], carried: list[set[str]], seed: int) -> Placed:
    """Patients in random order, parts filled one after another."""
    order = list(dict.fromkeys(patients))
    random.Random(seed).shuffle(order)
    sizes, placed, count = Counter(patients), dict[int, PartName](), 0
    for patient in order:
        share = count / len(patients)
        placed[patient] = "train" if share < 0.8 else "dev" if share < 0.9 else "test"
        count += sizes[patient]
    return [placed[patient] for patient in patients]


def matrix(carried: list[set[str]]) -> Any:
    """Notes by labels, 0 and 1."""
    from sklearn.preprocessing import MultiLabelBinarizer

    return MultiLabelBinarizer().fit_transform(carried)


def folds(found: Iterable[tuple[Any, Any]], count: int) -> Placed:
    """Ten folds as eight of train, one of dev, one of test."""
    placed: Placed = ["train"] * count
    for number, (_, held) in enumerate(found):
        for position in held if number < 2 else ():
            placed[position] = "dev" if number else "test"
    return placed


def stratified_group_kfold(patients: list[int], carried: list[set[str]], seed: int) -> Placed:
    """As it is given several labels."""
    from sklearn.model_selection import StratifiedGroupKFold

    split = StratifiedGroupKFold(10, shuffle=True, random_state=seed)
    return folds(split.split(patients, matrix(carried), patients), len(patients))


def by_label_set(patients: list[int], carried: list[set[str]], seed: int) -> Placed:
    """The usual way around that; sets of which there are fewer than ten notes are one class."""
    from sklearn.model_selection import StratifiedGroupKFold

    sets = ["|".join(sorted(labels)) for labels in carried]
    times = Counter(sets)
    classes = [one if times[one] >= 10 else "rare" for one in sets]
    return folds(
        StratifiedGroupKFold(10, shuffle=True, random_state=seed).split(
            patients, classes, patients
        ),
        len(patients),
    )


def iterative(patients: list[int], carried: list[set[str]], seed: int) -> Placed:
    """Notes, not patients."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    split = MultilabelStratifiedKFold(n_splits=10, shuffle=True, random_state=seed)
    return folds(split.split(patients, matrix(carried)), len(patients))


# Near-duplicates


def texts_of(kind: str, count: int) -> list[str]:
    """Texts to plant copies among."""
    from residency.synth.hospital_notes import notes

    if kind.startswith("invented"):
        return [
            planted.note.text.replace("\n", " ") for planted in notes(kind.split()[-1], count, 3)
        ]
    corpora = {
        "VietBioNER": Conll(
            format="conll", train="vi/vietbioner/train.txt", near="off", max_rejected=0.9
        ),
        "cMedQANER": Jsonl.model_validate(
            {
                "format": "jsonl",
                "train": "zh/cmedqaner/train.json",
                "near": "off",
                "max_rejected": 0.9,
            }
        ),
        "NCBI disease": Conll(
            format="conll", train="en/ncbi_disease/train.tsv", near="off", max_rejected=0.9
        ),
    }
    return [note.text for note in load(corpora[kind], "x", shared_data(), 0).notes][:count]


def planted(kind: str, count: int) -> list[str]:
    """Four fifths of the texts, and copies of some of them in which up to an eighth of the words is
    another word."""
    rng = random.Random(kind)
    bodies = texts_of(kind, count * 4 // 5)
    words = [word for body in bodies for word in body.split()]
    copies = []
    for body in rng.choices(bodies, k=len(bodies) // 4):
        rate = rng.uniform(0, 0.125)
        copies.append(
            " ".join(rng.choice(words) if rng.random() < rate else word for word in body.split())
        )
    return [*bodies, *copies]


def duplicates(count: int) -> list[list[str]]:
    """Precision and recall, in pairs of notes that stand in one cluster."""
    rows = []
    for kind in ("invented vi", "invented zh", "VietBioNER", "NCBI disease"):
        try:
            bodies = planted(kind, count)
        except UserError as error:
            say(f"{kind}: {error}")
            continue
        forms = [
            f"Form {form}, for the use of all wards of the hospital and kept with the chart: page "
            f"{form} of {form + 2}.\n" * 2
            for form in range(8)
        ]
        rng = random.Random(1)
        notes = [
            Note(
                id=str(number),
                text=rng.choice(forms) + body,
                profile="synthetic",
                group=str(number),
            )
            for number, body in enumerate(bodies)
        ]
        truth = joined(compared(bodies, 0.8), len(notes))
        bare = [
            Note(id=note.id, text=body, profile="synthetic")
            for note, body in zip(notes, bodies, strict=True)
        ]
        for name, system, given in (
            ("datasketch, whole text", sketched, notes),
            ("datasketch, forms taken out by hand", sketched, bare),
            ("residency, whole text", clustered, notes),
        ):
            found = system(given)
            right = len(found & truth)
            rows.append(
                [
                    f"near-duplicates, {kind}, {len(notes):,} notes, {len(truth):,} pairs",
                    name,
                    "-",
                    "-",
                    f"{right / max(len(found), 1):.4f}",
                    f"{right / max(len(truth), 1):.4f}",
                    "-",
                ]
            )
            say(" | ".join(rows[-1]))
    return rows


def compared(bodies: Sequence[str], threshold: float) -> set[tuple[int, int]]:
    """All pairs at or above a Jaccard similarity of character 5-grams, by counting every one."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    grams = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True).fit_transform(
        [" ".join(normalize("NFC", body).casefold().split()).ljust(5, "_") for body in bodies]
    )
    sizes = np.asarray(grams.sum(axis=1)).ravel()
    pairs = set()
    for begin in range(0, len(bodies), 100):
        common = (grams[begin : begin + 100] @ grams.T).toarray()
        similar = common >= threshold * (sizes[begin : begin + 100, None] + sizes[None, :] - common)
        pairs |= {
            (begin + int(a), int(b))
            for a, b in zip(*np.nonzero(similar), strict=True)
            if begin + a < b
        }
    return pairs


def joined(pairs: Iterable[tuple[int, int]], count: int) -> set[tuple[int, int]]:
    """Pairs of notes that stand in one cluster, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = list(pairs)
    graph = coo_array(
        ([1] * len(rows), ([a for a, _ in rows], [b for _, b in rows])), shape=(count, count)
    )
    members: dict[int, list[int]] = {}
    for position, cluster in enumerate(connected_components(graph, directed=False)[1]):
        members.setdefault(cluster, []).append(position)
    return {pair for inside in members.values() for pair in combinations(inside, 2)}


def clustered(notes: Sequence[Note]) -> set[tuple[int, int]]:
    """Ours."""
    return {
        pair
        for inside in near_duplicates(notes, 0.8)
        for pair in combinations(sorted(map(int, inside)), 2)
    }


def sketched(notes: Sequence[Note]) -> set[tuple[int, int]]:
    """datasketch as its documentation shows it."""
    from datasketch import MinHash, MinHashLSH

    index, pairs = MinHashLSH(threshold=0.8, num_perm=128), set()
    for number, note in enumerate(notes):
        text = " ".join(note.text.casefold().split())
        sketch = MinHash(num_perm=128)
        sketch.update_batch([text[i : i + 5].encode() for i in range(max(len(text) - 4, 1))])
        pairs |= {(int(other), number) for other in index.query(sketch)}
        index.insert(str(number), sketch)
    return joined(pairs, len(notes))


def rates(count: int) -> list[list[str]]:
    """Notes a second, from notes in memory to clusters."""
    from residency.synth.hospital_notes import notes as hospital

    made = [planted.note for planted in hospital("vi", count, 5)]
    notes = [
        Note(id=str(number), text=(raw.text * 2)[:1500], profile="synthetic", group=raw.patient)
        for number, raw in enumerate(made)
    ]
    length = sum(len(note.text) for note in notes) / len(notes)
    rows = []
    for name, system, number in (
        ("datasketch, whole text", sketched, min(1000, count)),
        ("residency", clustered, count),
    ):
        begun = time.process_time()
        system(notes[:number])
        rate = number / (time.process_time() - begun)
        rows.append(
            [
                f"speed, {number:,} notes of {length:,.0f} characters",
                name,
                "-",
                "-",
                "-",
                "-",
                f"{rate:,.0f} notes/s",
            ]
        )
        say(" | ".join(rows[-1]))
    return rows


if __name__ == "__main__":
    run(main)
