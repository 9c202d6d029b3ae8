"""A LLaMA-Factory configuration with its dataset_info.json as a recipe; every key is accounted for,
none silently dropped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import yaml

from residency.core.errors import UserError, allowed
from residency.core.files import NO_JSON
from residency.core.types import Value
from residency.recipe import Recipe, read_yaml


class Fate(Value, frozen=True):
    """What became of a key."""

    key: str
    became: str


Fates = dict[str, str]
"""Key -> what became of it."""

KEYS = Path(__file__).parent / "templates" / "llamafactory.yaml"
METHODS = ("lora", "full", "freeze")
STAGE = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "num_train_epochs",
    "weight_decay",
    "adam_epsilon",
    "max_grad_norm",
    "label_smoothing_factor",
)
"""Keys whose value is a stage's as it is."""
LOST = {
    **dict.fromkeys(
        ("images", "videos", "audios"), "images, videos and sound are not learned from"
    ),
    **dict.fromkeys(("chosen", "rejected", "kto_tag"), "preferences are not learned from"),
    "tools": "calls of tools are not learned",
}
"""Columns of dataset_info.json whose loss would change the result."""
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

    What a configuration leaves out has LLaMA-Factory's own defaults. Raises ``UserError`` where it
    cannot be read, is no training of answers, names data that dataset_info.json does not have, has
    a key that is not known, or asks for what would change the result and is not there (unless in
    ``ignore``).
    """
    given = read_yaml(file)
    _check_kind(given, file)
    fates = _without_counterpart(given, file, ignore)
    value = {key: one for key, one in given.items() if key not in ignore}
    settings = keys()["defaults"] | {key: one for key, one in value.items() if one is not None}
    carried = keys()["carried"]
    fates |= {key: carried[key] for key in given if key in carried and key not in fates}
    data = _data(value, file, info, fates)
    task: dict[str, Any] = {"card": "qa", "data": "data"}
    if generate := _generate(value, settings, fates):
        task["generate"] = generate
    wanted = str(given.get("output_dir") or file.stem)
    name = re.sub(r"[^\w.-]+", "-", wanted, flags=re.ASCII).strip("-._")[:64] or "imported"
    recipe = {
        "schema": 1,
        "name": name,
        "seed": settings["seed"],
        "base": _base(value, settings, file, base, fates),
        "data": {"data": data},
        "tasks": [task],
        "stages": [_stage(value, settings, fates, file)],
    }
    if "output_dir" in given:
        fates["output_dir"] = f"name: {name}; runs go to runs/"
    for key, default in keys()["defaults"].items():
        counts = key not in keys()["generate"] or "generate" in task
        if key not in given and counts and _of_method(key, value):
            fates[key] = f"not given: {default}, LLaMA-Factory's default, in {carried[key]}"
    if "lora_alpha" not in given and _of_method("lora_alpha", value):
        fates["lora_alpha"] = "not given: twice the rank, LLaMA-Factory's default"
    found = Recipe.from_mapping(recipe, file.parent, where=str(file))
    return found, [Fate(key=str(key), became=_shown(fates[key])) for key in sorted(fates, key=str)]


def _shown(became: str) -> str:
    """Places of the recipe as overrides name them: there is one stage and one task."""
    return re.sub(r"\b(stages|tasks)\.", r"\1[0].", became)


def _check_kind(given: Mapping[str, Any], file: Path) -> None:
    """Raise ``UserError`` where a file is no configuration of instruction tuning."""
    for key, what in keys()["others"].items():
        if key in given and not given.get("dataset"):
            raise UserError(f"{file}: is {what}.")
    stage = given.get("stage", "sft")
    if stage != "sft":
        raise UserError(
            f"{file}: stage: {stage!r} is not imported; only sft (instruction tuning) is."
        )
    if not given.get("dataset"):
        verb = "residency eval RUN measures" if given.get("eval_dataset") else "residency chat RUN"
        verb += "" if given.get("eval_dataset") else " and residency serve RUN answer"
        raise UserError(f"{file}: dataset: is missing, so that nothing is trained; {verb}.")
    if given.get("do_train") is False:
        raise UserError(f"{file}: do_train: is false, so that nothing is trained; set it to true.")


def _without_counterpart(given: Mapping[str, Any], file: Path, ignore: tuple[str, ...]) -> Fates:
    """What became of keys that need no counterpart, or are left out on purpose; raises
    ``UserError`` for one that would change the result, and for one that is not known."""
    table, fates = keys(), Fates()
    every = {*table["carried"], *table["harmless"], *table["refused"]}
    for key, value in given.items():
        switch = next((to for of, to in table["belongs"].items() if _begins(of, str(key))), "")
        still = table["neutral"].get(key, ())
        neutral = value is None or value in still or (not _set(value) and True not in still)
        if key in ignore:
            fates[key] = f"left out: {table['refused'].get(key, 'as you said')}"
        elif key in table["harmless"]:
            fates[key] = table["harmless"][key]
        elif key in table["carried"]:
            continue
        elif key in table["refused"]:
            if not neutral:
                _refuse(file, key, table["refused"][key])
            fates[key] = "off"
        elif switch:
            fates[key] = f"belongs to {switch}"
        else:
            close = get_close_matches(str(key), sorted(every), n=1, cutoff=0.7)
            hint = f"; did you mean {close[0]}?" if close else "; correct it, or leave it out."
            raise UserError(f"{file}: {key}: is no key of LLaMA-Factory that is known{hint}")
    return fates


def _begins(part: str, key: str) -> bool:
    """Whether a key is the one, or one of those whose names begin so."""
    return key == part or (part.endswith("_") and key.startswith(part))


def _refuse(file: Path, key: str, why: str) -> NoReturn:
    raise UserError(
        f"{file}: {key}: {why}, and leaving it out would change the result; take it out, or accept "
        f"that with --ignore {key}."
    )


def _set(value: object) -> bool:
    return value not in (None, False, "", 0)


def _of_method(key: str, given: Mapping[str, Any]) -> bool:
    """Whether a key says something under the tuning method that is asked for."""
    kind = str(given.get("finetuning_type") or "lora")
    of = next((one for one in ("lora", "freeze") if key.startswith(f"{one}_")), kind)
    return of == kind


def _number(value: object) -> Any:
    """YAML reads ``1e-4`` as text."""
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _base(
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    file: Path,
    base: str | None,
    fates: Fates,
) -> dict[str, Any]:
    """Where training starts."""
    name = base or given.get("model_name_or_path")
    if not name:
        raise UserError(f"{file}: model_name_or_path: is missing; add it, or name one with --base.")
    fates["model_name_or_path"] = f"base.id: {name}"
    fates["cutoff_len"] = "base.window; an answer is never cut, a row that does not fit is counted"
    found: dict[str, Any] = {"id": name, "window": settings["cutoff_len"]}
    revision = given.get("model_revision", "main")
    if revision != "main" and not base:
        found["revision"] = revision
    if _set(bits := given.get("quantization_bit")):
        if bits not in keys()["quantise"]:
            _refuse(file, "quantization_bit", f"only 4 and 8 bits are there, not {bits}")
        found["quantise"] = keys()["quantise"][bits]
        fates["quantization_bit"] = f"base.quantise: {found['quantise']}"
    return found


def _generate(
    given: Mapping[str, Any], settings: Mapping[str, Any], fates: Fates
) -> dict[str, Any]:
    """How answers are written: with LLaMA-Factory's defaults where they are asked for there."""
    names = keys()["generate"]
    wanted = names if given.get("predict_with_generate") else [one for one in names if one in given]
    found = {keys()["carried"][name].rpartition(".")[2]: _number(settings[name]) for name in wanted}
    if given.get("do_sample") is False:
        found["temperature"] = 0.0
        fates["temperature"] = fates["do_sample"] = "tasks.generate.temperature: 0"
    return found


def _stage(
    given: Mapping[str, Any], settings: Mapping[str, Any], fates: Fates, file: Path
) -> dict[str, Any]:
    """The stage, and what became of its keys."""
    stage: dict[str, Any] = {
        keys()["carried"][name].removeprefix("stages."): _number(settings[name])
        for name in STAGE
        if name in settings
    }
    stage["method"] = _method(given, settings, fates, file)
    if _set(workers := given.get("ray_num_workers", 0)):
        stage["accumulation"] *= workers
        fates["ray_num_workers"] = f"stages.accumulation: {workers} times as much, in one process"
    steps = _number(given.get("max_steps", -1))
    if _set(steps) and steps > 0:
        stage["steps"] = int(steps)
        del stage["epochs"]
        fates["num_train_epochs"] = "left out: max_steps says how long"
    _schedule(given, settings, stage, file)
    betas = [_number(given.get("adam_beta1", 0.9)), _number(given.get("adam_beta2", 0.999))]
    if betas != [0.9, 0.999]:
        stage["betas"] = betas
    half = next((one for one in ("fp16", "bf16", "pure_bf16") if given.get(one)), "fp32")
    stage["precision"] = half.removeprefix("pure_")
    stage["packing"] = "off"
    if given.get("packing") or given.get("neat_packing"):
        stage["packing"] = "auto"
        how = "stages.packing: rows end to end, none sees another; a batch counts rows, not packs"
        fates |= {key: how for key in ("packing", "neat_packing") if key in given}
    if given.get("mask_history"):
        stage["loss_on"] = "last"
    for key, on in (("gradient_checkpointing", True), ("disable_gradient_checkpointing", False)):
        if key in given:
            stage["checkpointing"] = on == bool(given[key])
    stage["stop"] = _stop(given, file, fates)
    return stage


def _schedule(
    given: Mapping[str, Any], settings: Mapping[str, Any], stage: dict[str, Any], file: Path
) -> None:
    """How the rate goes, and by which optimiser."""
    for key, table, to in (
        ("lr_scheduler_type", "schedules", "schedule"),
        ("optim", "optimisers", "optimiser"),
    ):
        if (wanted := settings[key]) not in keys()[table]:
            raise UserError(
                f"{file}: {key}: {wanted!r} is not there, and another would change the result; "
                f"{allowed(keys()[table], wanted)}."
            )
        stage[to] = keys()[table][wanted]
    share, steps = _number(given.get("warmup_ratio") or 0), _number(given.get("warmup_steps") or 0)
    if steps and steps < 1:
        share = steps
    elif steps and "steps" not in stage:
        _refuse(file, "warmup_steps", "the warm-up is a share of all steps: give warmup_ratio")
    elif steps:
        share = min(steps / stage["steps"], 0.999)
    stage["warmup"] = 0.0 if settings["lr_scheduler_type"] == "constant" else share


def _stop(given: Mapping[str, Any], file: Path, fates: Fates) -> dict[str, Any] | None:
    """When training ends early, and which model is kept: the last, unless the best is asked for."""
    patience = given.get("early_stopping_steps")
    if not given.get("load_best_model_at_end") and not patience:
        for key in ("metric_for_best_model", "eval_steps"):
            if key in given:
                fates[key] = "the last model is kept, as load_best_model_at_end is off"
        return None
    metric = str(given.get("metric_for_best_model") or "loss").removeprefix("eval_")
    if metric != "loss":
        _refuse(
            file, "metric_for_best_model", f"{metric} does not choose the best model; loss does"
        )
    found: dict[str, Any] = {"metric": "loss", "patience": patience or 10**6}
    if _set(every := _number(given.get("eval_steps"))):
        if every < 1:
            _refuse(file, "eval_steps", "a share of all steps is not there: give a number")
        found["every"] = int(every)
    return found


def _method(
    given: Mapping[str, Any], settings: Mapping[str, Any], fates: Fates, file: Path
) -> dict[str, Any]:
    """The tuning method."""
    kind = str(given.get("finetuning_type") or "lora")
    if kind not in METHODS:
        raise UserError(
            f"{file}: finetuning_type: {kind!r} is not there, and another would change the result; "
            f"{allowed(METHODS, kind)}."
        )
    fates["finetuning_type"] = f"stages.method.kind: {kind}"
    for key in given:
        if key in keys()["carried"] and not _of_method(key, given):
            fates[key] = f"not used by finetuning_type {kind}"
    adapter = given.get("adapter_name_or_path")
    if kind != "lora":
        if _set(adapter):
            _refuse(file, "adapter_name_or_path", f"{kind} tuning does not start from an adapter")
        lost = [one for one in ("use_dora", "use_rslora") if one in given]
        fates |= dict.fromkeys(lost, f"not used by finetuning_type {kind}")
        layers = int(settings["freeze_trainable_layers"])
        where = "last" if layers > 0 else "first"
        return {"kind": kind, **({where: abs(layers)} if kind == "freeze" else {})}
    method: dict[str, Any] = {"kind": kind}
    if _set(adapter):
        if "," in str(adapter) or isinstance(adapter, list):
            _refuse(file, "adapter_name_or_path", "several adapters are not there")
        fates |= {key: "as the adapter has it" for key in given if key.startswith("lora_")}
        return {**method, "adapter": adapter}
    rank = _number(settings["lora_rank"])
    method |= {"r": rank, "alpha": _number(given.get("lora_alpha") or 2 * rank)}
    for key, name in (("lora_dropout", "dropout"), ("use_dora", "dora"), ("use_rslora", "rslora")):
        if _set(given.get(key)):
            method[name] = _number(given[key])
    target = settings["lora_target"]
    names = target.split(",") if isinstance(target, str) else list(target)
    names = [str(name).strip() for name in names]
    method["targets"] = "linear" if names == ["all"] else names
    fates["lora_target"] = f"stages.method.targets: {method['targets']}"
    return method


def _data(given: Mapping[str, Any], file: Path, info: Path | None, fates: Fates) -> dict[str, Any]:
    """The data set of the recipe; several files of one form become one."""
    path, known = _dataset_info(given, file, info)
    how, files = _entries(_names(given.get("dataset")), known, path, file, fates)
    data: dict[str, Any] = {**how}
    fates["dataset"] = f"data.data: {', '.join(files)}"
    share = float(_number(given.get("val_size") or 0))
    if given.get("eval_dataset"):
        other, tests = _entries(_names(given["eval_dataset"]), known, path, file, fates)
        if other != how:
            raise UserError(
                f"{file}: eval_dataset: is of another form than dataset; bring both into one form."
            )
        data |= {"train": files, "test": tests, "stop": share if share < 1 else "auto"}
        fates["eval_dataset"] = "data.data.test"
        if "val_size" in given:
            fates["val_size"] = f"data.data.stop: {data['stop']}"
    else:
        dev = share if share < 1 else 0.1
        data |= {"path": files, "stop": 0.0}
        data["shares"] = {"train": round(0.9 - dev, 6), "dev": dev, "test": 0.1}
        if dev >= 0.9:
            raise UserError(f"{file}: val_size: leaves nothing to learn from; give less than 0.9.")
        held = "a tenth is held out, so that the report is about rows that were not learned"
        fates["eval_dataset"] = f"none given: {held}"
        if "val_size" in given:
            counted = "; a number of rows becomes a tenth" if share >= 1 else ""
            fates["val_size"] = f"data.data.shares: dev {dev}{counted}"
    if _set(given.get("max_samples")):
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
    except NO_JSON:
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
                f"{path}: {name}: holds preferences (ranking), which are not learned from."
            )
        lost = next((one for one in entry.get("columns", {}) if one in LOST), "")
        if lost or entry.get("num_samples"):
            why = LOST.get(lost, "so many rows of one set are not drawn; cut the file")
            raise UserError(f"{path}: {name}: {lost or 'num_samples'}: {why}.")
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
