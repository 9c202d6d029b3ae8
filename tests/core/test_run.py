"""A step is done once, found again, borrowed, and never half-made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from residency.core.errors import UserError
from residency.core.run_folder import Run, Step, differences, memoised_digests


def step(value: int = 1, into: str = "train/x", **inputs: str) -> Step:
    return Step(
        name="train/x" if into else "report", settings={"value": value}, inputs=inputs, into=into
    )


def writes(text: str, calls: list[str] | None = None) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "file.txt").write_text(text, "utf-8")
        if calls is not None:
            calls.append(text)

    return work


def fails(error: BaseException) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        (folder / "half.txt").write_text("half", "utf-8")
        raise error

    return work


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "runs" / "a-1"
    folder.mkdir(parents=True)
    return Run(folder)


def test_a_step_is_worked_for_once_and_then_cached(run: Run) -> None:
    calls: list[str] = []
    assert [run.do(step(), writes("one", calls)) for _ in range(3)] == ["run", "cached", "cached"]
    assert calls == ["one"]
    assert (run.folder / "train/x/inner/file.txt").read_text() == "one"
    assert Run(run.folder).is_done(step())


@pytest.mark.parametrize(
    "other",
    [
        step(2),
        step(data="f00"),
        Step(name="train/x", settings={"value": 1}, inputs={}, version=2, into="train/x"),
    ],
)
def test_other_settings_inputs_or_code_are_another_result(run: Run, other: Step) -> None:
    run.do(step(), writes("one"))
    assert not run.is_done(other)
    assert run.do(other, writes("two")) == "run"
    assert (run.folder / "train/x/inner/file.txt").read_text() == "two"
    assert not run.is_done(step())


def test_a_result_whose_file_is_gone_or_of_another_size_is_made_again(run: Run) -> None:
    run.do(step(), writes("one"))
    (run.folder / "train/x/inner/file.txt").write_text("longer", "utf-8")
    assert run.do(step(), writes("one")) == "run"
    (run.folder / "train/x/inner/file.txt").unlink()
    assert run.do(step(), writes("one")) == "run"


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), UserError("no"), OSError(28, "full")]
)
def test_a_failed_step_leaves_nothing_but_a_line_in_the_log(run: Run, error: BaseException) -> None:
    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        run.do(step(), fails(error))
    assert [path.name for path in run.folder.rglob("*")] == ["log.jsonl"]
    assert [
        json.loads(line)["event"] for line in (run.folder / "log.jsonl").read_text().splitlines()
    ] == ["started", "failed"]


def test_a_failed_step_leaves_the_result_before_it(run: Run) -> None:
    run.do(step(), writes("one"))
    with pytest.raises(ValueError, match="no"):
        run.do(step(2), fails(ValueError("no")))
    assert run.is_done(step())
    assert (run.folder / "train/x/inner/file.txt").read_text() == "one"


def test_what_a_killed_process_left_is_cleared_away(run: Run) -> None:
    left = run.folder / ".train-x.partial"
    (left / "inner").mkdir(parents=True)
    (left / "stale.txt").write_text("stale", "utf-8")
    run.do(step(), writes("one"))
    assert not left.exists() and not (run.folder / "train/x/stale.txt").exists()


def test_checkpoints_outlive_a_failure_and_are_cleared_after_success(run: Run) -> None:
    scratch = run.scratch(step())
    scratch.mkdir(parents=True)
    with pytest.raises(ValueError, match="no"):
        run.do(step(), fails(ValueError("no")))
    assert scratch.is_dir()
    run.do(step(), writes("one"))
    assert not scratch.exists()


def test_a_run_of_the_same_name_lends_its_result(run: Run) -> None:
    run.do(step(), writes("one"))
    other = Run(run.folder.with_name("a-2"))
    other.folder.mkdir()
    assert other.explain(step()) == "found in an earlier run"
    assert other.do(step(), fails(AssertionError("not needed"))) == "borrowed"
    assert (other.folder / "train/x/inner/file.txt").read_text() == "one"
    assert other.is_done(step()) and Run(other.folder).record("train/x") is not None


def test_what_lies_in_the_runs_own_folder_is_never_borrowed_for_it_names_the_run(run: Run) -> None:
    run.do(step(into=""), writes("one"))
    other = Run(run.folder.with_name("a-2"))
    other.folder.mkdir()
    assert other.do(step(into=""), writes("two")) == "run"
    assert (other.folder / "inner/file.txt").read_text() == "two"


def test_a_neighbour_of_another_version_is_no_hindrance(run: Run) -> None:
    other = run.folder.with_name("a-2") / "steps"
    other.mkdir(parents=True)
    (other / "train-x.json").write_text('{"shape": "of another version"}', "utf-8")
    assert run.do(step(), writes("one")) == "run"


def test_the_log_holds_names_and_numbers_only(run: Run) -> None:
    run.do(step(), writes("Nguyễn"))
    assert "Nguy" not in (run.folder / "log.jsonl").read_text("utf-8")


def test_only_one_process_works_on_a_run(run: Run) -> None:
    with (
        run.locked(),
        pytest.raises(UserError, match="another process is working on this run"),
        Run(run.folder).locked(),
    ):
        pass
    with run.locked():
        pass


def test_a_manifest_of_another_schema_is_refused_whatever_else_is_in_it(run: Run) -> None:
    with pytest.raises(UserError, match=r"is not a run \(manifest\.json is missing\)"):
        _ = run.manifest
    (run.folder / "manifest.json").write_text('{"schema": 2}', "utf-8")
    with pytest.raises(
        UserError, match="schema 2 is not read by this version, which reads 1; use the version"
    ):
        _ = run.manifest


def test_explain_names_what_changed(run: Run) -> None:
    assert run.explain(step()) == "runs: no result yet"
    run.do(step(data="0" * 64), writes("one"))
    assert run.explain(step(data="0" * 64)) == "cached"
    assert run.explain(step(2, data="1" * 64)) == "runs: value 1 -> 2; data changed"


def test_differences_are_dotted_and_short() -> None:
    before = {"a": {"b": [1, {"c": 2}]}, "gone": 1, "text": "x" * 60, "hash": "0" * 64}
    after = {"a": {"b": [1, {"c": 3}]}, "new": True, "text": "y" * 60, "hash": "1" * 64}
    assert differences(before, after) == [
        "a.b[1].c 2 -> 3",
        "gone 1 -> nothing",
        f'text "{"x" * 36}... -> "{"y" * 36}...',
        "hash changed",
        "new nothing -> true",
    ]


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, memo = tmp_path / "f", tmp_path / "memo.json"

    def memoised_digest(file: Path, memo: Path) -> str:
        return memoised_digests([file], memo)[file]

    file.write_bytes(b"abc")
    # SHA-256 of "abc": FIPS 180-2, appendix B.1
    assert (
        memoised_digest(file, memo)
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    memo.write_text(json.dumps(dict.fromkeys(json.loads(memo.read_text()), "remembered")), "utf-8")
    assert memoised_digest(file, memo) == "remembered"
    os.utime(file, ns=(1, 1))
    assert memoised_digest(file, memo)[:4] == "ba78"
    memo.write_text("broken", "utf-8")
    assert memoised_digest(file, memo)[:4] == "ba78"
    assert memoised_digest(file, tmp_path / "no" / "memo.json")[:4] == "ba78"
    assert not (tmp_path / "no").exists()
