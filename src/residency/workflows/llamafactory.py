"""A LLaMA-Factory configuration with its dataset_info.json as a recipe; every key is accounted for,
none silently dropped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from residency.core.errors import UserError, allowed
from residency.core.types import Value
from residency.recipe import Recipe, read_yaml


class Fate(Value, frozen=True):
    """What became of a key."""

    key: str
    became: str


Fates = dict[str, str]
"""Key -> what became of it."""

KEYS = Path(__file__).parent / "templates" / "llamafactory.yaml"
ALPACA = ("prompt", "query", "response", "system", "history")


@cache
def keys() -> dict[str, Any]:
    """Every key that is known, by what becomes of it."""
    found: dict[str, Any] = yaml.safe_load(KEYS.read_text("utf-8"))
    return found


def import_recipe(
    file: Path, info: Path | None = None, base: str | None = None, ignore: tuple[str, ...] = ()
) -> tuple[Recipe, list[Fate]]:
    """The recipe, with paths relative to the folder of ``file``, and what became of every key.

    Raises ``UserError`` where the configuration cannot be read, is not instruction tuning, names
    data that dataset_info.json does not have, or asks for what would change the result and is not
    there yet (unless in ``ignore``).
    """
    given = read_yaml(file)
    if given.get("stage", "sft") != "sft":
        raise UserError(
            f"{file}: stage: {given['stage']!r} is not imported; only sft (instruction tuning) is."
        )
    refused = keys()["refused"]
    if lost := [key for key in refused if _set(given.get(key)) and key not in ignore]:
        raise UserError(
            f"{file}: {lost[0]}: {refused[lost[0]]}, and leaving it out would change the result; "
            f"take it out, or accept that with --ignore {lost[0]}."
        )
    fates = _without_counterpart(given)
    data = _data(given, file, info, fates)
    stage = _stage(given, fates, file)
    task: dict[str, Any] = {"card": "qa", "data": "data"}
    if generate := _moved(given, "generate", "tasks[0].generate", fates):
        task["generate"] = generate
    settings: dict[str, Any] = {"id": base or given.get("model_name_or_path") or "bundled:tiny-lm"}
    fates["model_name_or_path"] = f"base.id: {settings['id']}"
    if "cutoff_len" in given:
        settings["window"] = given["cutoff_len"]
        fates["cutoff_len"] = (
            "base.window; an answer is never cut, a row that does not fit is counted"
        )
    wanted = str(given.get("output_dir") or file.stem)
    name = re.sub(r"[^\w.-]+", "-", wanted).strip("-.")[:64] or "imported"
    if "seed" in given:
        fates["seed"] = "seed"
    if "output_dir" in given:
        fates["output_dir"] = f"name: {name}; runs go to runs/"
    value = {
        "schema": 1,
        "name": name,
        "seed": given.get("seed", 42),
        "base": settings,
        "data": {"data": data},
        "tasks": [task],
        "stages": [stage],
    }
    recipe = Recipe.from_mapping(value, file.parent, where=str(file))
    names = sorted({*given, *fates})
    return recipe, [Fate(key=key, became=fates.get(key, "not looked at")) for key in names]


def _without_counterpart(given: Mapping[str, Any]) -> Fates:
    """What became of keys that need no counterpart, are left out, or are not known."""
    table, fates = keys(), {}
    known = {
        key for group in ("stage", "generate", "always", "refused", "own") for key in table[group]
    }
    for key in given:
        if key not in known:
            close = get_close_matches(str(key), sorted(known), n=1, cutoff=0.7)
            what = f"did you mean {close[0]}?" if close else "left out"
            fates[str(key)] = f"unknown key; {what}"
        elif key in table["always"]:
            fates[key] = table["always"][key]
        elif key in table["refused"]:
            fates[key] = f"left out: {table['refused'][key]}" if _set(given[key]) else "off"
    return fates


def _set(value: object) -> bool:
    return value not in (None, False, "", 0)


def _moved(given: Mapping[str, Any], group: str, where: str, fates: Fates) -> dict[str, Any]:
    """The settings of a group of keys that go into the recipe as they are. YAML reads ``1e-4`` as
    text."""
    found = {}
    for key, target in keys()[group].items():
        if key in given:
            value = given[key]
            with suppress(ValueError):
                value = float(value) if isinstance(value, str) else value
            found[target] = value
            fates[key] = f"{where}.{target}"
    return found


def _stage(given: Mapping[str, Any], fates: Fates, file: Path) -> dict[str, Any]:
    """The stage, and what became of its keys."""
    stage = _moved(given, "stage", "stages[0]", fates)
    stage["method"] = _method(given, fates, file)
    if _set(given.get("max_steps")) and int(given["max_steps"]) > 0:
        stage["steps"] = given["max_steps"]
        fates["max_steps"] = "stages[0].steps"
        if stage.pop("epochs", None) is not None:
            fates["num_train_epochs"] = "left out: max_steps says how long"
    elif "max_steps" in given:
        fates["max_steps"] = "off"
    schedules = keys()["schedules"]
    if (wanted := given.get("lr_scheduler_type")) in schedules:
        stage["schedule"] = schedules[wanted]
        fates["lr_scheduler_type"] = "stages[0].schedule"
    elif "lr_scheduler_type" in given:
        raise UserError(
            f"{file}: lr_scheduler_type: {wanted!r} is not there; {allowed(schedules, wanted)}."
        )
    if "warmup_steps" in given:
        fates["warmup_steps"] = "no counterpart: set stages[0].warmup, a share of all steps"
    betas = (given.get("adam_beta1", 0.9), given.get("adam_beta2", 0.999))
    if betas != (0.9, 0.999):
        stage["betas"] = list(betas)
    for number, key in enumerate(("adam_beta1", "adam_beta2")):
        if key in given:
            fates[key] = f"stages[0].betas[{number}]"
    for key, precision in keys()["precisions"].items():
        if key in given:
            fates[key] = f"stages[0].precision: {precision}" if given[key] else "off"
            stage |= {"precision": precision} if given[key] else {}
    for key in ("packing", "neat_packing"):
        if key in given:
            stage["packing"] = "auto" if given[key] else stage.get("packing", "off")
            how = "stages[0].packing: rows end to end, none sees another"
            fates[key] = how if given[key] else "off"
    if "mask_history" in given:
        stage["loss_on"] = "last" if given["mask_history"] else "all"
        fates["mask_history"] = f"stages[0].loss_on: {stage['loss_on']}"
    if "disable_gradient_checkpointing" in given:
        fates["disable_gradient_checkpointing"] = "no counterpart: it is always off"
    return stage


def _method(given: Mapping[str, Any], fates: Fates, file: Path) -> dict[str, Any]:
    """The tuning method."""
    kind = given.get("finetuning_type", "lora")
    if kind not in ("lora", "full"):
        raise UserError(
            f"{file}: finetuning_type: {kind!r} is not there yet; "
            f"{allowed(('lora', 'full'), kind)}."
        )
    fates["finetuning_type"] = f"stages[0].method.kind: {kind}"
    if kind == "full":
        return {"kind": kind}
    method = {"kind": kind, "r": 8, **_moved(given, "method", "stages[0].method", fates)}
    target = given.get("lora_target", "all")
    names = target.split(",") if isinstance(target, str) else list(target)
    names = [name.strip() for name in names]
    method["targets"] = "linear" if names == ["all"] else names
    fates["lora_target"] = f"stages[0].method.targets: {method['targets']}"
    return method


def _data(given: Mapping[str, Any], file: Path, info: Path | None, fates: Fates) -> dict[str, Any]:
    """The data set of the recipe; several files of one form become one."""
    path, known = _dataset_info(given, file, info)
    how, files = _entries(_names(given.get("dataset")), known, path, file, fates)
    data: dict[str, Any] = {**how}
    fates["dataset"] = f"data.data: {', '.join(files)}"
    held_out = bool(given.get("eval_dataset"))
    if held_out:
        other, tests = _entries(_names(given["eval_dataset"]), known, path, file, fates)
        if other != how:
            raise UserError(
                f"{file}: eval_dataset: is of another form than dataset; bring both into one form."
            )
        data |= {"train": files, "test": tests}
        fates["eval_dataset"] = "data.data.test"
    else:
        data |= {"path": files}
        fates["eval_dataset"] = "none given: parts are drawn 80/10/10, by group"
    if "val_size" in given and held_out:
        share = float(given["val_size"])
        data["stop"] = share if share < 1 else "auto"
        how_far = "what early stopping looks at" if share < 1 else "auto"
        fates["val_size"] = f"data.data.stop: {how_far}"
    elif "val_size" in given:
        fates["val_size"] = (
            "a tenth is drawn for early stopping, another for the report: set data.data.shares"
        )
    if "max_samples" in given:
        data["limit"] = given["max_samples"]
        fates["max_samples"] = "data.data.limit: training records; the other parts stay whole"
    return data


def _dataset_info(
    given: Mapping[str, Any], file: Path, info: Path | None
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Path and content of dataset_info.json."""
    folder = file.parent / str(given.get("dataset_dir", "data"))
    places = (info,) if info else tuple(one / "dataset_info.json" for one in (folder, file.parent))
    path = next((one for one in places if one.is_file()), None)
    if path is None:
        raise UserError(
            f"{file}: dataset_info.json is not in {folder}; name it with --dataset-info."
        )
    try:
        return path, msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except msgspec.DecodeError:
        raise UserError(
            f"{path}: is not a JSON object of data sets; see its documentation."
        ) from None


def _names(value: object) -> list[str]:
    names = value if isinstance(value, list) else str(value or "").split(",")
    return [str(name).strip() for name in names if str(name).strip()]


def _entries(
    names: list[str],
    known: Mapping[str, Mapping[str, Any]],
    path: Path,
    file: Path,
    fates: Fates,
) -> tuple[dict[str, Any], list[str]]:
    """The form that entries of dataset_info.json share, and their files."""
    if not names:
        raise UserError(f"{file}: dataset: is missing; name an entry of {path.name}.")
    forms: list[dict[str, Any]] = []
    files: list[str] = []
    for name in names:
        if name not in known:
            raise UserError(f"{file}: dataset: {name!r} is not in {path}; {allowed(known, name)}.")
        entry = dict(known[name])
        if entry.pop("ranking", False):
            raise UserError(
                f"{path}: {name}: holds preferences (ranking), which are not learned from yet."
            )
        if not entry.get("file_name"):
            raise UserError(
                f"{path}: {name}: names no local file (file_name); download it first and name it."
            )
        files.append(str((path.parent / entry.pop("file_name")).resolve()))
        form = str(entry.pop("formatting", "alpaca"))
        columns, tags = dict(entry.pop("columns", {})), dict(entry.pop("tags", {}))
        made: dict[str, Any] = {"format": form}
        if form == "alpaca":
            made["columns"] = {key: columns.pop(key) for key in ALPACA if key in columns}
        elif form in ("sharegpt", "openai"):
            made["format"] = "sharegpt"
            both = ("messages", "system")
            made["columns"] = {key: columns.pop(key) for key in both if key in columns}
            table = keys()["tags"].items()
            made["tags"] = {new: tags.pop(old) for old, new in table if old in tags}
        else:
            raise UserError(
                f"{path}: {name}: formatting: {form!r} is not read; "
                f"{allowed(('alpaca', 'sharegpt'), form)}."
            )
        for key in (*entry, *(f"columns.{c}" for c in columns), *(f"tags.{t}" for t in tags)):
            fates[f"{path.name}: {name}.{key}"] = "no counterpart; left out"
        forms.append({key: value for key, value in made.items() if value})
    if any(form != forms[0] for form in forms):
        raise UserError(
            f"{file}: dataset: its entries are of several forms; bring them into one, or import "
            "one of them."
        )
    return forms[0], files


def recipe_text(recipe: Recipe) -> str:
    """The recipe as a file."""
    return "# Imported from a LLaMA-Factory configuration.\n" + recipe.yaml()
