"""Folders to begin with: the demo's invented hospital, and an empty project with a commented
recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from shlex import quote
from string import Template

from residency.core.errors import UserError, allowed
from residency.core.files import write_jsonl, write_text
from residency.models.base import encoder_at_hand
from residency.recipe import Recipe, load_yaml
from residency.synth.questions import questions
from residency.workflows.columns import Answers
from residency.workflows.look import Looked, look

TEMPLATES = Path(__file__).parent / "templates"
LANGUAGES = ("vi", "zh", "en")
DEMO_PATIENTS = 120
"""Invented patients of the demo; four minutes on two cores have to hold the training too."""
DEMO_QUESTIONS = 400
"""Invented questions of the demo."""


def write_demo(folder: Path, lang: str, patients: int = DEMO_PATIENTS, seed: int = 0) -> Path:
    """Write an invented hospital and a recipe that learns from its notes, as ``init --hospital``
    does; returns the recipe's path.

    What is there already stays, so that a second demo finds its work done.
    """
    project = folder / f"hospital-{lang}"
    if not (project / "recipe.yaml").exists():
        write_hospital_project(project, lang, patients, seed, "bundled:tiny-encoder")
    return project / "recipe.yaml"


def demo_key(folder: Path) -> str:
    """The key of the demo's zone, drawn once. It lies beside the data, as no key may where patients
    are real."""
    path = folder / "zone.key"
    if not path.exists():
        write_text(path, token_hex(32), private=True)
    return path.read_text("utf-8")


def write_demo_questions(
    folder: Path, lang: str, count: int = DEMO_QUESTIONS, seed: int = 0
) -> Path:
    """Write invented questions with their answers and a recipe that learns to answer; returns the
    recipe's path."""
    rows = [
        {
            "id": note.id,
            "group": note.group,
            "lang": note.lang,
            "kind": note.kind,
            "origin": note.origin,
            "messages": [{"role": turn.role, "content": turn.text} for turn in note.turns],
        }
        for note in questions(lang, count, seed + 1000)
    ]
    write_jsonl(folder / "data" / f"questions-{lang}.jsonl", rows)
    recipe = folder / f"recipe-questions-{lang}.yaml"
    text = Template((TEMPLATES / "demo-questions.yaml").read_text("utf-8")).substitute(
        lang=lang, seed=seed + 7
    )
    write_text(recipe, text)
    return recipe


def write_hospital_project(
    folder: Path, lang: str, patients: int = DEMO_PATIENTS, seed: int = 0, base: str = ""
) -> list[Path]:
    """Write an invented hospital's database and a recipe that starts from it and from a base, the
    best encoder at hand where none is given; returns what was written.

    Never overwrites: raises ``UserError`` where either is there already.
    """
    from residency.synth.hospital_notes import write_hospital

    if lang not in LANGUAGES:
        raise UserError(f"lang: {lang!r} is not known; {allowed(LANGUAGES, lang)}.")
    recipe, database = folder / "recipe.yaml", folder / "hospital.db"
    for path in (recipe, database):
        if path.exists():
            raise UserError(f"{path}: is there already; choose another folder.")
    write_hospital(database, lang, patients, seed)
    text = Template((TEMPLATES / "hospital.yaml").read_text("utf-8")).substitute(
        lang=lang, folder=quote(str(folder)), base=base or encoder_at_hand()
    )
    write_text(recipe, text)
    write_text(folder / ".gitignore", "data/\nidentified/\nlabelling/\nruns/\nhospital.db\n")
    return [recipe, database, folder / ".gitignore"]


def write_for(files: Sequence[Path], folder: Path, answers: Answers) -> tuple[list[Path], Looked]:
    """Look at files, and write a recipe that reads them, and copies in UTF-8 of those that are in
    another encoding; returns what was written, and what was found.

    Never overwrites: raises ``UserError`` where a recipe or a copy is there already, and where what
    the files are does not show and nobody is there to be asked.
    """
    recipe = folder / "recipe.yaml"
    if recipe.exists():
        raise UserError(f"{recipe}: is there already; choose another folder, or edit it.")
    found = look(files, folder, answers)
    lines = "\n".join(_line(one.key, one.value, one.why) for one in found.settings)
    template = "looked-source.yaml" if found.source else "looked.yaml"
    values = Template((TEMPLATES / template).read_text("utf-8")).substitute(
        name=json.dumps(name_of(folder)),
        base="bundled:tiny-lm" if found.writes else encoder_at_hand(),
        settings=re.sub("^  ", "", lines, flags=re.M) if found.source else lines,
        lang=next((one.value for one in found.settings if one.key == "lang"), ""),
        card=_line("card", found.card, found.why).replace("    card", "  - card", 1),
        label="label: {data: notes, via: browser, annotators: 2}\n\n" if found.unlabelled else "",
    )
    Recipe.from_mapping(load_yaml(values, recipe), folder, where=str(recipe))
    new = {folder / place: text for place, text in found.copies.items()}
    if there := next((path for path in new if path.exists()), None):
        raise UserError(f"{there}: is there already; choose another folder.")
    if not (folder / ".gitignore").exists():
        new[folder / ".gitignore"] = (
            "data/\nidentified/\nlabelling/\nruns/\n"
            if found.source
            else "data/\nlabelling/\nruns/\n"
        )
    new[recipe] = values
    for path, text in new.items():
        write_text(path, text)
    return list(new), found


def _line(key: str, value: object, why: str) -> str:
    """A key of a data set with the reason for its value; JSON is YAML."""
    plain = isinstance(value, str) and re.fullmatch(r"[a-zA-Z][\w./-]*", value)
    safe = plain and value not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    shown = value if safe else json.dumps(value, ensure_ascii=False)
    line = f"    {key}: {shown}"
    return f"{line:<34}  # {why}" if why else line


def name_of(folder: Path) -> str:
    """The name of a recipe in a folder: the folder's, of letters that names may have."""
    found = folder.resolve().name
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in found)
    return kept.lstrip("-._")[:64] or "project"


def write_project(folder: Path) -> list[Path]:
    """Write a commented recipe, and data folders with a word on what goes in; returns what was
    written.

    Never overwrites: raises ``UserError`` where the recipe is there already, and leaves other files
    as they are.
    """
    recipe = folder / "recipe.yaml"
    if recipe.exists():
        raise UserError(f"{recipe}: is there already; choose another folder, or edit it.")
    files = {
        recipe: Template((TEMPLATES / "project.yaml").read_text("utf-8")).substitute(
            name=name_of(folder), base=encoder_at_hand()
        ),
        folder / "data" / "README.md": (TEMPLATES / "data.md").read_text("utf-8"),
        folder / "cards" / "my-card.yaml": (TEMPLATES / "card.yaml").read_text("utf-8"),
        folder / ".gitignore": "data/*\n!data/README.md\nruns/\n",
    }
    new = {path: text for path, text in files.items() if not path.exists()}
    for path, text in new.items():
        write_text(path, text)
    return list(new)
