"""Every shipped recipe is valid, and reads the corpus that it names without a fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from residency.recipe import Recipe
from residency.workflows import check

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))
SHARED = Path(os.environ.get("RESIDENCY_SHARED_DATA", ROOT / "../shared/data"))
PARTS = {
    "vietbioner": ("vietbioner", "vi/vietbioner/train.txt", "vi/vietbioner/dev.txt"),
    "cmedqaner": ("cmedqaner", "zh/cmedqaner/train.json", "zh/cmedqaner/dev.json"),
    "ncbi-disease": ("ncbi", "en/ncbi_disease/train.tsv", "en/ncbi_disease/devel.tsv"),
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_named_like_its_file(path: Path) -> None:
    recipe = Recipe.load(path)
    assert recipe.name == path.stem
    for data in recipe.data.values():
        assert data.license and data.citation and data.lang and data.profile == "public"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_reported_part_of_a_shipped_recipe_decides_nothing(path: Path) -> None:
    for data in Recipe.load(path).data.values():
        drawn = (
            data.path is not None and data.shares["test"] > 0
        )  # where the authors set no part aside
        assert (data.test or drawn) and data.dev is None


def test_the_guide_names_every_shipped_recipe() -> None:
    guide = (ROOT / "docs/guide/data-manifest.md").read_text("utf-8")
    assert [path.name for path in SHIPPED if f"recipes/{path.name}" not in guide] == []


@pytest.mark.data
@pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the real corpora are not at {SHARED}; set RESIDENCY_SHARED_DATA"
)
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_reads_its_corpus_without_an_error(path: Path) -> None:
    if path.stem == "zh-medical-qa":  # needs a tokenizer that writes
        given = [f"data.huatuo.path={(SHARED / 'zh/huatuo/general_qa.jsonl').resolve()}"]
    else:
        name, train, test = PARTS[path.stem]
        given = [
            f"data.{name}.train={(SHARED / train).resolve()}",
            f"data.{name}.test={(SHARED / test).resolve()}",
        ]
        given.append("base=bundled:tiny-encoder")  # the recipe's own may not be on this machine
    recipe = Recipe.load(path, given)
    findings, summaries = check.check(recipe)
    assert [finding.message for finding in findings if finding.level == "error"] == []
    assert all(summary.parts[part].notes for summary in summaries for part in ("train", "test"))


@pytest.mark.parametrize(
    ("base", "alone"),
    [
        ("bundled:tiny-encoder", ("data.", "base=", "base.")),
        ("bundled:tiny-lm", ("data.",)),
    ],
)
def test_a_base_of_the_demo_that_cannot_write_is_for_its_notes_alone(
    base: str, alone: tuple[str, ...]
) -> None:
    """Its second recipe asks questions, which an encoder cannot answer."""
    from residency.cli.projects import of_notes

    assert of_notes(Recipe.load(ROOT / "recipes" / "vietbioner.yaml", [f"base={base}"])) == alone
