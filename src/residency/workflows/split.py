"""The split of every data set of a recipe, without a run."""

from __future__ import annotations

from pathlib import Path

from residency.core.progress import Silent, Tracker
from residency.core.run_folder import now
from residency.core.zones import assert_outside
from residency.corpus import splitfile
from residency.corpus.splitfile import SplitFile
from residency.recipe import Recipe
from residency.workflows.material import read_data
from residency.workflows.steps import hash_files


def split(recipe: Recipe, folder: Path, tracker: Tracker | None = None) -> list[SplitFile]:
    """Write the split of every data set of a recipe, as a run has it in ``data/``, and a page on
    them into a folder."""
    assert_outside(folder)
    files = hash_files(recipe)
    corpora = read_data(recipe, tracker or Silent())
    return splitfile.write(corpora, recipe.data, recipe.root, folder, files, now())
