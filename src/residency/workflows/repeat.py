"""A finished run once more, from its own record: the same recipe on the same data, and whether the
same model came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from residency.core.errors import UserError
from residency.core.files import read_json
from residency.core.progress import Silent
from residency.core.run_folder import Run, packages
from residency.models.artefact import FILE, Artefact
from residency.recipe import Recipe, read_yaml
from residency.workflows.run import Work, open_run


def recorded(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a finished run, as its manifest has it.

    Raises ``UserError`` for a run that was not finished, and where its data is another than it was.
    """
    run, recipe = open_run(folder)
    manifest = run.manifest
    if manifest.status != "done":
        raise UserError(
            f"{folder}: this run was not finished; go on with residency run and its recipe."
        )
    now = Work(recipe, folder.parent, Silent()).input_digests
    changed = sorted(name for name, known in manifest.inputs.items() if now.get(name) != known)
    if changed:
        raise UserError(
            f"{folder}: {changed[0]} is not what it was when the run was made; restore it."
        )
    if not overrides:
        return recipe
    return Recipe.from_mapping(
        read_yaml(folder / "recipe.yaml"), recipe.root, overrides, str(folder / "recipe.yaml")
    )


def compared(before: Path, after: Path) -> list[str]:
    """For each stage whether both runs made the same weights, in words; where not, which packages
    are others now."""
    said, same = [], True
    for path in sorted(before.glob(f"train/*/{FILE}")):
        stage = path.parent.name
        other = after / "train" / stage / FILE
        if not other.is_file():
            said.append(f"{stage}: not trained again")
            continue
        old, new = read_json(path, Artefact), read_json(other, Artefact)
        equal = all(
            old.files.get(name) == new.files.get(name) for name in {*old.weights, *new.weights}
        )
        said.append(f"{stage}: {'the same weights, bit for bit' if equal else 'other weights'}")
        same = same and equal
    if not same:
        then = Run(before).manifest.packages
        said += [
            f"{name} {then.get(name, 'missing')} -> {now}"
            for name, now in packages().items()
            if then.get(name) != now
        ]
    return said
