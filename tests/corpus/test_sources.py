"""From files to a corpus: paths, ids, losses, limits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from residency.core import part
from residency.core.errors import DataError, UserError
from residency.core.part import parse
from residency.corpus.ledger import Ledger, count_entries
from residency.corpus.load import Corpus, Data, files, load
from residency.corpus.reader import Row, Source


def data(**settings: Any) -> Any:
    return parse(Data, settings, "data.x")


def put(folder: Path, name: str, *rows: object) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")


def rows(number: int, prefix: str = "") -> list[dict[str, str]]:
    return [{"text": f"{prefix}note {i}"} for i in range(number)]


def read(folder: Path, **settings: Any) -> Corpus:
    return load(data(format="jsonl", **settings), "x", folder, 7)


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no files are named"),
        ({"path": "a", "test": "b"}, "path and test exclude each other"),
        ({"path": "a", "shares": {"train": 0.5, "dev": 0.1}}, "shares must add up to 1"),
        (
            {"path": "a", "shares": {"dev": 0.5, "test": 0.5}},
            "shares must add up to 1 and give train some",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        data(format="jsonl", **settings)


def test_an_unknown_format_is_answered_with_the_known_ones():
    with pytest.raises(
        UserError,
        match=r"format: 'jsonI' is not known; allowed: .*brat, .*conll, .*pubtator.*did you mean jsonl",
    ):
        data(format="jsonI", path="a")


def test_shares_may_be_given_in_percent():
    assert data(format="jsonl", path="a", shares={"train": "70%", "test": "30%"}).shares == {
        "train": 0.7,
        "test": 0.3,
    }


# Files


def test_files_folders_and_patterns_are_found_sorted(tmp_path: Path):
    for name in ("b.jsonl", "a.jsonl", "deep/c.json", "other.md", ".hidden.jsonl"):
        put(tmp_path, f"d/{name}", {"text": "x"})

    def names(**settings: Any) -> list[str]:
        return [
            p.relative_to(tmp_path / "d").as_posix()
            for p in files(data(format="jsonl", **settings), tmp_path)
        ]

    assert names(path="d") == ["a.jsonl", "b.jsonl", "deep/c.json"]
    assert names(path="d/*.jsonl") == [".hidden.jsonl", "a.jsonl", "b.jsonl"]
    assert names(train=["d/b.jsonl"], test="d/**/c.json") == ["b.jsonl", "deep/c.json"]
    assert names(path=str(tmp_path / "d" / "other.md")) == ["other.md"]


def test_annotation_files_are_inputs_too(tmp_path: Path):
    for name in ("1.txt", "1.ann", "2.txt"):
        (tmp_path / name).write_text("")
    assert [p.name for p in files(data(format="brat", path="."), tmp_path)] == [
        "1.ann",
        "1.txt",
        "2.txt",
    ]


@pytest.mark.parametrize("pattern", ["a.jsonl", "a/*.jsonl"])
def test_a_path_that_matches_nothing_names_its_key_and_the_folder(tmp_path: Path, pattern: str):
    with pytest.raises(UserError) as error:
        read(tmp_path, train=pattern)
    assert str(error.value).startswith(f"data.x.train: {pattern} matches no file in {tmp_path};")


def test_a_folder_without_files_of_the_format_says_what_it_looked_for(tmp_path: Path):
    with pytest.raises(
        UserError, match=r"data.x.path: no file in .* ends in .jsonl or .json or .ndjson"
    ):
        read(tmp_path, path=".")


def test_a_file_in_two_parts_is_refused(tmp_path: Path):
    put(tmp_path, "a.jsonl", {"text": "x"})
    with pytest.raises(UserError, match=r"data.x.test: .*a.jsonl is in train too"):
        read(tmp_path, train="a.jsonl", test="*.jsonl")


# Rows


def test_every_row_has_exactly_one_entry(tmp_path: Path):
    bad = {"text": "y", "entities": [[0, 9, "X"]]}
    put(
        tmp_path,
        "a.jsonl",
        {"text": "x", "entities": []},
        {"text": "ab ", "entities": [[0, 3, "X"]]},
        bad,
        {"text": "", "entities": []},
    )
    corpus = read(tmp_path, path="a.jsonl", max_rejected=0.5)
    assert [(e.file, e.line, e.status) for e in corpus.ledger] == [
        ("a.jsonl", 1, "kept"),
        ("a.jsonl", 2, "repaired"),
        ("a.jsonl", 3, "rejected"),
        ("a.jsonl", 4, "rejected"),
    ]
    assert len(corpus.notes) == 2


def test_losing_more_than_is_allowed_names_the_commonest_reasons_and_where_they_first_stand(
    tmp_path: Path,
):
    bad = {"text": "secret", "entities": [[0, 9, "X"]]}
    empty = [{**row, "entities": []} for row in rows(97)]
    put(tmp_path, "a.jsonl", *empty, {"text": " ", "entities": []}, bad, bad)
    with pytest.raises(DataError) as error:
        read(tmp_path, path="a.jsonl", max_rejected="2%")
    assert str(error.value).startswith(
        "data.x: 3 of 100 rows (3.0%) would be lost, 2.0% is allowed: "
        "2 x span lies outside the text (first: a.jsonl:99), 1 x text is empty (first: a.jsonl:98);"
    )
    assert "secret" not in str(error.value)
    assert len(read(tmp_path, path="a.jsonl", max_rejected="3%").notes) == 97


def test_an_id_that_stands_twice_names_both_lines(tmp_path: Path):
    put(tmp_path, "a.jsonl", {"id": 1, "text": "x"}, {"id": 2, "text": "y"})
    put(tmp_path, "b.jsonl", {"id": "1", "text": "z"})
    with pytest.raises(DataError, match=r"b.jsonl:1: has the id of a.jsonl:1; ids must be unique"):
        read(tmp_path, train="a.jsonl", test="b.jsonl")


def test_files_with_the_same_name_in_two_folders_do_not_clash(tmp_path: Path):
    put(tmp_path, "one/a.jsonl", {"text": "x"})
    put(tmp_path, "two/a.jsonl", {"text": "y"})
    assert [n.id for n in read(tmp_path, train="one", test="two").notes] == [
        "one/a.jsonl-1",
        "two/a.jsonl-1",
    ]


def test_renaming_a_label_that_is_not_there_names_the_nearest(tmp_path: Path):
    put(tmp_path, "a.jsonl", {"text": "x", "entities": [[0, 1, "Disease"]]})
    with pytest.raises(
        UserError,
        match=r"data.x.labels: 'Disese' is no label of the data; allowed: Disease; did you mean "
        r"Disease",
    ):
        read(tmp_path, path="a.jsonl", labels={"Disese": "D"})


# Parts


def test_records_of_one_path_are_drawn_by_group(tmp_path: Path):
    put(tmp_path, "a.jsonl", *({"text": f"note {i}", "group": i // 5} for i in range(100)))
    corpus = read(tmp_path, path="a.jsonl")
    assert [len(corpus.part(part)) for part in ("train", "dev", "test")] == [80, 10, 10]
    assert not {n.group for n in corpus.part("train")} & {n.group for n in corpus.part("test")}


def test_dev_for_stopping_comes_from_train_where_the_shares_give_none(tmp_path: Path):
    put(tmp_path, "a.jsonl", *rows(100))
    corpus = read(tmp_path, path="a.jsonl", shares={"train": 0.5, "test": 0.5}, stop="20%")
    assert [len(corpus.part(part)) for part in ("train", "dev", "test")] == [40, 10, 50]
    assert corpus.split.how == "random by group: train 50%, test 50%; dev: 20% of train by group"


def test_a_limit_counts_what_is_learned_from_and_a_smaller_one_gives_a_subset(tmp_path: Path):
    put(tmp_path, "a.jsonl", *rows(100))
    put(tmp_path, "b.jsonl", *rows(20, "test "))
    small, large = (
        read(tmp_path, train="a.jsonl", test="b.jsonl", limit=limit, stop="10%")
        for limit in (20, 50)
    )
    assert [len(small.part(part)) for part in ("train", "dev", "test")] == [18, 2, 20]
    learned = [
        {n.id for part in ("train", "dev") for n in corpus.part(part)} for corpus in (small, large)
    ]
    assert learned[0] < learned[1]
    assert set(small.split.parts) == {n.id for n in small.notes}
    assert "train cut to 20 of 100 notes" in small.split.how
    assert len(small.ledger) == 120


def test_the_same_seed_gives_the_same_corpus(tmp_path: Path):
    put(tmp_path, "a.jsonl", *rows(50))
    assert read(tmp_path, path="a.jsonl", limit=10) == read(tmp_path, path="a.jsonl", limit=10)


def test_data_may_be_a_test_part_alone(tmp_path: Path):
    put(tmp_path, "a.jsonl", *rows(3))
    assert Counter(read(tmp_path, test="a.jsonl").split.parts.values()) == {"test": 3}


# Parts of other packages


class Words(Source):
    """One note for each word of a file."""

    format: Literal["words"] = "words"
    upper: bool = False

    def rows(self, path: Path) -> Iterator[Row]:
        for number, word in enumerate(path.read_text().split(), start=1):
            yield Row(line=number, text=word.upper() if self.upper else word)


def test_a_source_of_another_package_has_the_common_settings_and_its_own(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one two three")
    source = data(
        format="external",
        target=f"{__name__}:Words",
        path="a.txt",
        lang="en",
        options={"upper": True},
    )
    corpus = load(source, "x", tmp_path, 7)
    assert [(n.id, n.text, n.lang) for n in corpus.notes] == [
        ("a-1", "ONE", "en"),
        ("a-2", "TWO", "en"),
        ("a-3", "THREE", "en"),
    ]


def test_options_that_another_package_refuses_are_named(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(UserError, match=r"options: .*Words does not accept them"):
        load(
            data(format="external", target=f"{__name__}:Words", path="a.txt", options={"uper": 1}),
            "x",
            tmp_path,
            7,
        )


# The ledger


def test_the_ledger_sums_rows_by_status_and_reason():
    ledger, path = Ledger(), Path("a")
    ledger.add("kept", path, 1, "a-1")
    ledger.add("repaired", path, 2, "a-2", "moved", 3)
    ledger.add("repaired", path, 3, "a-3", "moved")
    ledger.add("rejected", path, 4, "a-4", "empty")
    ledger.add("windowed", path, 1, "a-1", count=2)
    assert count_entries(ledger.entries) == {
        "kept": {"": 1},
        "repaired": {"moved": 2},
        "rejected": {"empty": 1},
        "windowed": {"": 1},
    }
    ledger.check(0.25, "data.x")
    with pytest.raises(DataError, match=r"25.0%"):
        ledger.check(0.24, "data.x")


def test_an_empty_ledger_has_lost_nothing():
    Ledger().check(0.0, "data.x")


# Old keys


def test_the_old_name_of_max_rejected_is_read_with_one_line_that_names_the_new_one(
    caplog: pytest.LogCaptureFixture,
):
    part._tell_renamed.cache_clear()
    old, new = (data(format="jsonl", path="a", **{key: "5%"}) for key in ("loss", "max_rejected"))
    assert old == new and old.max_rejected == 0.05
    assert [record.message for record in caplog.records] == [
        "loss is called max_rejected now; the old name is read for two more releases."
    ]


def test_runs_are_told_by_the_old_name_so_that_those_of_before_are_found_again():
    assert data(format="jsonl", path="a", max_rejected=0.5).model_dump(by_alias=True)["loss"] == 0.5


def test_old_and_new_name_together_are_refused():
    with pytest.raises(UserError, match=r"data.x: loss: unknown key"):
        data(format="jsonl", path="a", loss=0.1, max_rejected=0.1)


# Progress


def test_progress_is_told_while_rows_are_read(tmp_path: Path):
    put(tmp_path, "a.jsonl", *rows(250))
    told: list[int] = []
    load(data(format="jsonl", path="a.jsonl"), "x", tmp_path, 7, told.append)
    assert told == [100, 200, 250]
