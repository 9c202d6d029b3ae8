"""Chromium takes three public corpora, as they are published, from the file to the report of a run:
Vietnamese, Chinese and English, in the language of each; clicks are counted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_pages_in_a_browser import Reader, pages  # noqa: F401 - a fixture

from residency.core.run_folder import Run

SHARED = Path(os.environ.get("RESIDENCY_SHARED_DATA", ""))
RECORDS = 200
MOST_CLICKS = 6


def sentences(path: Path) -> str:
    """The first records of a CoNLL file, which blank lines part."""
    return "\n\n".join(path.read_text("utf-8").strip().split("\n\n")[:RECORDS]) + "\n"


def rows(path: Path) -> str:
    """The first records of JSON lines."""
    return "\n".join(path.read_text("utf-8").splitlines()[:RECORDS]) + "\n"


CORPORA = {
    "vietbioner": (
        "vi",
        "vi/vietbioner/train.txt",
        sentences,
        {"Symptom_and_Disease", "DiagnosticProcedure"},
    ),
    "cmedqaner": ("zh", "zh/cmedqaner/train.json", rows, {"disease", "drug"}),
    "ncbi": ("en", "en/ncbi_disease/train.tsv", sentences, {"Disease"}),
}


def make_small(recipe: Path) -> None:
    """The recipe as it was written, for a run of seconds."""
    value = yaml.safe_load(recipe.read_text("utf-8"))
    value["base"] = "bundled:tiny-encoder"
    value["stages"] = [{"method": "auto", "steps": 2, "lexical": "off", "batch": 4}]
    value["evaluate"] = {"bootstrap": 20, "baselines": ["base"]}
    recipe.write_text(yaml.safe_dump(value, allow_unicode=True), "utf-8")


@pytest.mark.parametrize("corpus", [*CORPORA])
def test_a_corpus_goes_from_its_file_to_a_report_in_at_most_six_clicks_to_training(
    chromium: Any,
    pages: tuple[Path, str],  # noqa: F811
    tmp_path: Path,
    corpus: str,
) -> None:
    lang, place, first, labels = CORPORA[corpus]
    if not (SHARED / place).is_file():
        pytest.skip(f"needs RESIDENCY_SHARED_DATA with {place}")
    folder, address = pages
    file = tmp_path / f"{corpus}{Path(place).suffix}"
    file.write_text(first(SHARED / place), "utf-8")
    reader = Reader(chromium, address, locale={"vi": "vi-VN", "zh": "zh-CN", "en": "en-GB"}[lang])
    page = reader.page
    clicks = 1
    page.set_input_files("#files", str(file))
    clicks += 1
    page.locator("main button").first.click()
    page.locator("#found").wait_for()
    reader.shown(f"{corpus}-found")
    clicks += 1
    page.locator("form[action$='/make'] button").click()
    page.locator("form[action$='/start'] button").wait_for()
    reader.shown(f"{corpus}-project")
    make_small(folder / corpus / "recipe.yaml")
    clicks += 1
    page.locator("form[action$='/start'] button").click()
    page.locator("#work").wait_for()
    assert clicks <= MOST_CLICKS
    page.locator("a[href$='/report']").wait_for()
    reader.shown(f"{corpus}-done")
    [run] = (folder / corpus / "runs").glob("*/report.html")
    assert Run(run.parent).manifest.status == "done"
    page.locator("a[href$='/report']").click()
    page.locator("h1").wait_for()
    assert page.locator("html").get_attribute("lang") == lang
    text = page.locator("body").inner_text()
    assert all(label in text for label in labels), "the corpus' own labels are in the report"
    assert reader.complaints == []
    reader.context.close()
