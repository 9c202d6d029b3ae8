"""Splits and near-duplicates beside scikit-learn, iterative-stratification and datasketch."""

from __future__ import annotations

import random
import time
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from statistics import median
from typing import Any
from unicodedata import normalize

import _common as common
from _common import Subject, Table, report
from residency.core.types import PARTS, Note, PartName
from residency.corpus.near import near_duplicates
from residency.corpus.stratify import NOTES, stratify
from residency.synth.hospital_notes import notes as hospital_notes

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure
SHARES: dict[PartName, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}
Placed = list[PartName]
Patients, Carried = list[int], list[set[str]]
"""The patient and the labels of each note."""


@measure("--notes 20000 --labels 24 --seeds 5", quick="--notes 2000 --seeds 1")
def balance(given: Namespace) -> None:
    """Worst prevalence error and leaks of a split of 80, 10 and 10 per cent.

    Invented patients (1 to 60 notes each, labels that cluster within a patient). The error is the
    largest difference, over parts and labels, between the share of a part's notes that carry the
    label and that of all notes.
    """
    table = Table(
        "system | worst error, points: median (most) | patients in two parts | processor seconds"
    )
    systems: dict[str, Callable[[Patients, Carried, int], Placed]] = {
        "StratifiedGroupKFold": lambda p, c, seed: grouped(p, matrix(c), seed),
        "StratifiedGroupKFold, each set of labels a class": by_label_set,
        "iterative-stratification, no groups": iterative,
        "patients at random": at_random,
        "residency, without repair": lambda p, c, seed: ours(p, c, seed, repaired=False),
        "residency": ours,
    }
    for name, system in systems.items():
        errors, leaks, seconds = [], [], []
        for seed in range(given.seeds):
            patients, carried = ward(given.notes, given.labels, seed)
            begun = time.process_time()
            try:
                placed = system(patients, carried, seed)
            except ValueError as error:
                table.add(f"{name} | refuses: {str(error)[:60]}... | - | -")
                break
            seconds.append(time.process_time() - begun)
            errors.append(100 * worst(carried, placed))
            where = defaultdict[int, set[str]](set)
            for patient, part in zip(patients, placed, strict=True):
                where[patient].add(part)
            leaks.append(sum(len(parts) > 1 for parts in where.values()))
        else:
            error = f"{median(errors):.3f} ({max(errors):.3f})"
            table.add(f"{name} | {error} | {median(leaks):,.0f} | {median(seconds):.1f}")
    report(given, table)


def ward(notes: int, labels: int, seed: int) -> tuple[Patients, Carried]:
    """Notes of a ward; a chronic disease is in most notes of its patient."""
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


def worst(carried: Carried, placed: Placed) -> float:
    """Largest difference of a label's share of notes between a part and all."""
    every, gaps = Counter(label for labels in carried for label in labels), [0.0]
    for part in PARTS:
        inside = [labels for labels, where in zip(carried, placed, strict=True) if where == part]
        counts = Counter(label for labels in inside for label in labels)
        gaps += [abs(counts[one] / len(inside) - every[one] / len(carried)) for one in every]
    return max(gaps)


def ours(patients: Patients, carried: Carried, seed: int, repaired: bool = True) -> Placed:
    """Patients as groups."""
    counts = defaultdict[int, Counter[str]](Counter)
    for patient, labels in zip(patients, carried, strict=True):
        counts[patient].update([NOTES, *labels])
    order = common.shuffled(counts, seed)
    parts = stratify([counts[patient] for patient in order], SHARES, repaired)
    placed = dict(zip(order, parts, strict=True))
    return [placed[patient] for patient in patients]


def at_random(patients: Patients, carried: Carried, seed: int) -> Placed:
    """Patients in random order, parts filled one after another."""
    sizes, placed, count = Counter(patients), dict[int, PartName](), 0
    for patient in common.shuffled(sizes, seed):
        share = count / len(patients)
        placed[patient] = "train" if share < 0.8 else "dev" if share < 0.9 else "test"
        count += sizes[patient]
    return [placed[patient] for patient in patients]


def matrix(carried: Carried) -> Any:
    """Notes by labels, 0 and 1."""
    from sklearn.preprocessing import MultiLabelBinarizer

    return MultiLabelBinarizer().fit_transform(carried)


def folds(found: Iterable[tuple[Any, Any]], count: int) -> Placed:
    """Ten folds as eight of train, one of dev, one of test."""
    placed: Placed = ["train"] * count
    for (_, held), part in zip(found, ("test", "dev"), strict=False):
        for position in held:
            placed[position] = part
    return placed


def grouped(patients: Patients, classes: Any, seed: int) -> Placed:
    """scikit-learn's grouped splitter, as it is given classes."""
    from sklearn.model_selection import StratifiedGroupKFold

    split = StratifiedGroupKFold(10, shuffle=True, random_state=seed)
    return folds(split.split(patients, classes, patients), len(patients))


def by_label_set(patients: Patients, carried: Carried, seed: int) -> Placed:
    """The usual way around its refusal; sets of fewer than ten notes are one class."""
    sets = ["|".join(sorted(labels)) for labels in carried]
    times = Counter(sets)
    return grouped(patients, [one if times[one] >= 10 else "rare" for one in sets], seed)


def iterative(patients: Patients, carried: Carried, seed: int) -> Placed:
    """Notes, not patients."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    split = MultilabelStratifiedKFold(n_splits=10, shuffle=True, random_state=seed)
    return folds(split.split(patients, matrix(carried)), len(patients))


@measure("--compared 2000 --notes 20000", quick="--compared 300 --notes 2000")
def duplicates(given: Namespace) -> None:
    """Near-duplicates beside datasketch: precision, recall in pairs of one cluster, and speed.

    Real sentences and invented notes under forms that many of them share, a fifth of them copies in
    which some words were changed; the truth is every pair of --compared notes, compared exactly by
    scikit-learn's counts of character 5-grams, without the forms. Seconds are of the processor.
    """
    table = Table("notes | system | precision | recall | notes/s")
    form = "Form {}, for the use of all wards of the hospital and kept with the chart: page {} of {}.\n"
    forms = [form.format(n, n, n + 2) * 2 for n in range(8)]
    for kind in ("invented vi", "invented zh", "vietbioner", "ncbi"):
        bodies, rng = planted(kind, given.compared), random.Random(1)
        whole, bare = noted([rng.choice(forms) + body for body in bodies]), noted(bodies)
        truth = joined(compared(bodies, 0.8), len(bodies))
        for name, system, notes in (
            ("datasketch, whole text", sketched, whole),
            ("datasketch, forms taken out by hand", sketched, bare),
            ("residency, whole text", clustered, whole),
        ):
            found = system(notes)
            right = len(found & truth)
            shares = [right / max(len(found), 1), right / max(len(truth), 1)]
            what = f"{kind}, {len(bodies):,} notes, {len(truth):,} pairs"
            table.add(f"{what} | {name} | {shares[0]:.4f} | {shares[1]:.4f} | -")
    made = [(one.note.text * 2)[:1500] for one in hospital_notes("vi", given.notes, 5)]
    for name, system in (("datasketch, whole text", sketched), ("residency", clustered)):
        notes = noted(made[: 1000 if system is sketched else None])
        begun = time.process_time()
        system(notes)
        rate, length = len(notes) / (time.process_time() - begun), sum(map(len, made)) / len(made)
        table.add(
            f"{len(notes):,} notes of {length:,.0f} characters | {name} | - | - | {rate:,.0f}"
        )
    report(given, table)


def noted(texts: Sequence[str]) -> list[Note]:
    """Texts as notes of a patient each."""
    pairs = ((str(number), text) for number, text in enumerate(texts))
    return [Note(id=id, text=text, profile="synthetic", group=id) for id, text in pairs]


def planted(kind: str, count: int) -> list[str]:
    """Four fifths of the texts, and copies of some of them in which up to an eighth of the words is
    another word."""
    rng, most = random.Random(kind), count * 4 // 5
    if kind.startswith("invented"):
        made = hospital_notes(kind.split()[-1], most, 3)
        bodies = [one.note.text.replace("\n", " ") for one in made]
    else:
        bodies = [note.text for part in common.corpus(kind) for note in part][:most]
    words, copies = [word for body in bodies for word in body.split()], []
    for body in rng.choices(bodies, k=len(bodies) // 4):
        rate = rng.uniform(0, 0.125)
        new = (rng.choice(words) if rng.random() < rate else word for word in body.split())
        copies.append(" ".join(new))
    return [*bodies, *copies]


def compared(bodies: Sequence[str], threshold: float) -> set[tuple[int, int]]:
    """All pairs at or above a Jaccard similarity of character 5-grams, by counting every one."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    plain = [" ".join(normalize("NFC", body).casefold().split()).ljust(5, "_") for body in bodies]
    vectors = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True)
    grams = vectors.fit_transform(plain)
    sizes, pairs = np.asarray(grams.sum(axis=1)).ravel(), set()
    for begin in range(0, len(bodies), 100):
        both = (grams[begin : begin + 100] @ grams.T).toarray()
        similar = both >= threshold * (sizes[begin : begin + 100, None] + sizes[None, :] - both)
        found = zip(*np.nonzero(similar), strict=True)
        pairs |= {(begin + int(a), int(b)) for a, b in found if begin + a < b}
    return pairs


def joined(pairs: Iterable[tuple[int, int]], count: int) -> set[tuple[int, int]]:
    """Pairs of notes that stand in one cluster, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    graph = coo_array(([1] * len(rows), (rows, columns)), shape=(count, count))
    members = defaultdict[int, list[int]](list)
    for position, cluster in enumerate(connected_components(graph, directed=False)[1]):
        members[cluster].append(position)
    return {pair for inside in members.values() for pair in combinations(inside, 2)}


def clustered(notes: Sequence[Note]) -> set[tuple[int, int]]:
    """Ours."""
    groups = [sorted(map(int, inside)) for inside in near_duplicates(notes, 0.8)]
    return {pair for inside in groups for pair in combinations(inside, 2)}


def sketched(notes: Sequence[Note]) -> set[tuple[int, int]]:
    """datasketch as its documentation shows it."""
    from datasketch import MinHash, MinHashLSH

    index, pairs = MinHashLSH(threshold=0.8, num_perm=128), set()
    for number, note in enumerate(notes):
        text, sketch = " ".join(note.text.casefold().split()), MinHash(num_perm=128)
        sketch.update_batch([text[i : i + 5].encode() for i in range(max(len(text) - 4, 1))])
        pairs |= {(int(other), number) for other in index.query(sketch)}
        index.insert(str(number), sketch)
    return joined(pairs, len(notes))


if __name__ == "__main__":
    SUBJECT.main()
