"""The speed of a model: figures that belong together, and a page that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import CLI, SECRET
from residency.workflows.bench import Timing, _cut

pytestmark = pytest.mark.training


def test_a_run_is_measured_beside_plain_transformers(finished: tuple[Path, Path], cli: CLI) -> None:
    run = finished[1]
    done = cli("bench", run, "--tokens", 64, "--batches", "1,2", "--times", 2, check=0)
    speed = json.loads((run / "bench/bench.json").read_text("utf-8"))
    assert speed["length"] == 64 and [
        (one["system"], one["batch"]) for one in speed["timings"]
    ] == [
        ("residency", 1),
        ("transformers", 1),
        ("residency", 2),
        ("transformers", 2),
    ]
    for one in speed["timings"]:
        assert (
            0 < one["p50_ms"] <= one["p95_ms"]
            and 60 * one["batch"] <= one["tokens"] <= 64 * one["batch"]
        )
    assert speed["memory_mb"] > 50
    page = (run / "bench/report.html").read_text("utf-8")
    assert "ms per 100 tokens" in page and "<svg" in page and SECRET not in page + done.stdout


def test_a_long_input_is_as_long_as_the_window_holds(finished: tuple[Path, Path], cli: CLI) -> None:
    cli("bench", finished[1], "--tokens", 5000, "--batches", "1", "--times", 1, check=0)
    assert json.loads((finished[1] / "bench/bench.json").read_text("utf-8"))["length"] < 128


@pytest.mark.parametrize(
    "arguments", [("--batches", "1,x"), ("--batches", "0"), ("--tokens", "1"), ("--times", "0")]
)
def test_sizes_that_mean_nothing_are_one_sentence(
    finished: tuple[Path, Path], cli: CLI, arguments: tuple[str, str]
) -> None:
    done = cli("bench", finished[1], *arguments, check=1)
    assert done.stderr.startswith("residency: ") and done.stderr.count("\n") == 1


def test_figures_by_hand() -> None:
    one = Timing(system="x", batch=2, p50_ms=50.0, p95_ms=60.0, tokens=200)
    assert (one.tokens_per_second, one.ms_per_100) == (4000.0, 25.0)


def test_a_text_is_cut_or_repeated_to_a_number_of_tokens() -> None:
    assert _cut("abcdef", 4, len) == "abcd"
    assert len(_cut("ab", 7, len)) == 7
