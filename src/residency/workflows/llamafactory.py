"""A LLaMA-Factory configuration with its dataset_info.json as a recipe; every key is accounted for,
none silently dropped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import UserError, allowed
from residency.core.types import Value
from residency.recipe import Recipe, read_yaml


class Fate(Value, frozen=True):
    """What became of a key."""

    key: str
    became: str


# Key -> where it goes in the recipe.
STAGE = {
    "per_device_train_batch_size": "micro_batch",
    "gradient_accumulation_steps": "accumulation",
    "learning_rate": "learning_rate",
    "num_train_epochs": "epochs",
    "warmup_ratio": "warmup",
    "weight_decay": "weight_decay",
    "adam_epsilon": "epsilon",
    "max_grad_norm": "clip",
}
GENERATE = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
}
SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
# Key -> why it needs no counterpart, or what takes its place.
ALWAYS = {
    "do_train": "a run trains, evaluates and reports",
    "do_eval": "a run trains, evaluates and reports",
    "do_predict": "a run answers the test part; residency predict answers other files",
    "predict_with_generate": "answers are written and scored in every run",
    "template": "the tokenizer's own chat template is used; name another with base.chat_template",
    "overwrite_cache": "steps are done again when their inputs change",
    "overwrite_output_dir": "each recipe has a run of its own",
    "preprocessing_num_workers": "no counterpart: tokenising takes seconds",
    "dataloader_num_workers": "no counterpart: batches are made beside training",
    "logging_steps": "about 60 points are logged in every run",
    "save_steps": "a resumable state is kept every 30 seconds",
    "save_total_limit": "one resumable state is kept",
    "save_only_model": "the finished stage holds the model alone",
    "plot_loss": "the report shows the loss",
    "resume_from_checkpoint": "the same command goes on from where it was cut off",
    "per_device_eval_batch_size": "batches of evaluation are made by length",
    "eval_strategy": "the stop part is measured after every epoch",
    "eval_steps": "the stop part is measured after every epoch",
    "load_best_model_at_end": "the best model is kept wherever there is a stop part",
    "metric_for_best_model": "stages[0].stop.metric; the loss of the answers unless given",
    "ddp_timeout": "no counterpart: one process trains",
    "trust_remote_code": "no counterpart: code of a model is never run",
    "flash_attn": "no counterpart: PyTorch's attention is used",
    "use_cache": "no counterpart: it is off in training",
    "report_to": "no tracker; name some in stages[0].track",
    "run_name": "the recipe's name",
    "dataset_dir": "the folder of dataset_info.json",
    "media_dir": "no counterpart: texts only",
    "stage": "instruction tuning",
    "compute_accuracy": "ROUGE, BLEU, chrF, token F1 and exact match are always computed",
    "enable_thinking": "no counterpart: templates are told to leave thinking out",
    "train_on_prompt": "answers alone are learned",
}
# Keys whose loss would change the result: refused unless the user names them.
REFUSED = {
    "quantization_bit": "4- and 8-bit bases are not there yet",
    "quantization_method": "4- and 8-bit bases are not there yet",
    "adapter_name_or_path": "tuning on top of a published adapter is not there yet",
    "deepspeed": "several processes are not there yet",
    "fsdp": "several processes are not there yet",
    "use_dora": "DoRA is not there yet",
    "use_rslora": "rank-stabilised scaling is not there yet",
    "loraplus_lr_ratio": "LoRA+ is not there yet",
    "pissa_init": "PiSSA is not there yet",
    "additional_target": "trained embeddings beside LoRA are not there yet",
    "freeze_trainable_layers": "freezing is not there yet",
    "neftune_noise_alpha": "noise on embeddings is not there yet",
    "gradient_checkpointing": "it is not there yet; training needs more memory without it",
}
OWN = [
    "model_name_or_path",
    "finetuning_type",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target",
    "dataset",
    "eval_dataset",
    "cutoff_len",
    "max_samples",
    "val_size",
    "output_dir",
    "max_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "adam_beta1",
    "adam_beta2",
    "bf16",
    "pure_bf16",
    "fp16",
    "packing",
    "neat_packing",
    "mask_history",
    "seed",
    "disable_gradient_checkpointing",
]


def imported(
    file: Path, info: Path | None = None, base: str | None = None, ignore: tuple[str, ...] = ()
) -> tuple[Recipe, list[Fate]]:
    """The recipe, with paths relative to the folder of ``file``, and what became of every key.

    Raises ``UserError`` where the configuration cannot be read, is not instruction tuning, names
    data that dataset_info.json does not have, or asks for what would change the result and is not
    there yet (unless in ``ignore``).
    """
    given = read_yaml(file)
    known = {*STAGE, *GENERATE, *ALWAYS, *REFUSED, *OWN}
    if given.get("stage", "sft") != "sft":
        raise UserError(
            f"{file}: stage: {given['stage']!r} is not imported; only sft (instruction tuning) is."
        )
    if lost := [key for key in REFUSED if _set(given.get(key)) and key not in ignore]:
        raise UserError(
            f"{file}: {lost[0]}: {REFUSED[lost[0]]}, and leaving it out would change the result; "
            f"take it out, or accept that with --ignore {lost[0]}."
        )
    fates: dict[str, str] = {}
    for key in given:
        if key not in known:
            close = get_close_matches(str(key), sorted(known), n=1, cutoff=0.7)
            fates[str(key)] = "unknown key" + (
                f"; did you mean {close[0]}?" if close else "; left out"
            )
        elif key in ALWAYS:
            fates[key] = ALWAYS[key]
        elif key in REFUSED:
            fates[key] = f"left out: {REFUSED[key]}" if _set(given[key]) else "off"
    data = _data(given, file, info, fates)
    stage = _stage(given, fates, file)
    task: dict[str, Any] = {"card": "qa", "data": "data"}
    if generate := _moved(given, GENERATE, "tasks[0].generate", fates):
        task["generate"] = generate
    settings: dict[str, Any] = {"id": base or given.get("model_name_or_path") or "bundled:tiny-lm"}
    fates["model_name_or_path"] = f"base.id: {settings['id']}"
    if "cutoff_len" in given:
        settings["window"] = given["cutoff_len"]
        fates["cutoff_len"] = (
            "base.window; an answer is never cut, a row that does not fit is counted"
        )
    if "seed" in given:
        fates["seed"] = "seed"
    name = (
        re.sub(r"[^\w.-]+", "-", str(given.get("output_dir") or file.stem)).strip("-.")[:64]
        or "imported"
    )
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
    return recipe, [
        Fate(key=key, became=fates.get(key, "not looked at")) for key in sorted({*given, *fates})
    ]


def _set(value: object) -> bool:
    return value not in (None, False, "", 0)


def _moved(
    given: Mapping[str, Any], keys: Mapping[str, str], where: str, fates: dict[str, str]
) -> dict[str, Any]:
    found = {}
    for key, target in keys.items():
        if key in given:
            found[target] = _number(given[key])
            fates[key] = f"{where}.{target}"
    return found


def _number(value: object) -> object:
    """YAML reads ``1e-4`` as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _stage(given: Mapping[str, Any], fates: dict[str, str], file: Path) -> dict[str, Any]:
    stage = _moved(given, STAGE, "stages[0]", fates)
    kind = given.get("finetuning_type", "lora")
    if kind not in ("lora", "full"):
        raise UserError(
            f"{file}: finetuning_type: {kind!r} is not there yet; "
            f"{allowed(('lora', 'full'), kind)}."
        )
    fates["finetuning_type"] = f"stages[0].method.kind: {kind}"
    method: dict[str, Any] = {"kind": kind}
    if kind == "lora":
        method |= _moved(
            given,
            {"lora_rank": "r", "lora_alpha": "alpha", "lora_dropout": "dropout"},
            "stages[0].method",
            fates,
        )
        method.setdefault("r", 8)
        target = given.get("lora_target", "all")
        names = (
            [name.strip() for name in target.split(",")]
            if isinstance(target, str)
            else list(target)
        )
        method["targets"] = "linear" if names == ["all"] else names
        fates["lora_target"] = f"stages[0].method.targets: {method['targets']}"
    stage["method"] = method
    if _set(given.get("max_steps")) and int(given["max_steps"]) > 0:
        stage["steps"] = given["max_steps"]
        fates["max_steps"] = "stages[0].steps"
        if stage.pop("epochs", None) is not None:
            fates["num_train_epochs"] = "left out: max_steps says how long"
    elif "max_steps" in given:
        fates["max_steps"] = "off"
    if "lr_scheduler_type" in given:
        wanted = given["lr_scheduler_type"]
        if wanted not in SCHEDULES:
            raise UserError(
                f"{file}: lr_scheduler_type: {wanted!r} is not there; {allowed(SCHEDULES, wanted)}."
            )
        stage["schedule"] = SCHEDULES[wanted]
        fates["lr_scheduler_type"] = "stages[0].schedule"
    if "warmup_steps" in given:
        fates["warmup_steps"] = "no counterpart: set stages[0].warmup, a share of all steps"
    betas = (given.get("adam_beta1", 0.9), given.get("adam_beta2", 0.999))
    if betas != (0.9, 0.999):
        stage["betas"] = list(betas)
    for number, key in enumerate(("adam_beta1", "adam_beta2")):
        if key in given:
            fates[key] = f"stages[0].betas[{number}]"
    for key, precision in (("bf16", "bf16"), ("pure_bf16", "bf16"), ("fp16", "fp16")):
        if key in given:
            fates[key] = f"stages[0].precision: {precision}" if given[key] else "off"
            if given[key]:
                stage["precision"] = precision
    for key in ("packing", "neat_packing"):
        if key in given:
            stage["packing"] = "auto" if given[key] else stage.get("packing", "off")
            fates[key] = (
                "stages[0].packing: rows end to end, none sees another" if given[key] else "off"
            )
    if "mask_history" in given:
        stage["loss_on"] = "last" if given["mask_history"] else "all"
        fates["mask_history"] = f"stages[0].loss_on: {stage['loss_on']}"
    if "disable_gradient_checkpointing" in given:
        fates["disable_gradient_checkpointing"] = "no counterpart: it is always off"
    return stage


def _data(
    given: Mapping[str, Any], file: Path, info: Path | None, fates: dict[str, str]
) -> dict[str, Any]:
    """The data set of the recipe; several files of one form become one."""
    folder = file.parent / str(given.get("dataset_dir", "data"))
    path = info or next(
        (
            p
            for p in (folder / "dataset_info.json", file.parent / "dataset_info.json")
            if p.is_file()
        ),
        None,
    )
    if path is None or not path.is_file():
        raise UserError(
            f"{file}: dataset_info.json is not in {folder}; name it with --dataset-info."
        )
    try:
        known: dict[str, dict[str, Any]] = msgspec.json.decode(
            path.read_bytes(), type=dict[str, dict[str, Any]]
        )
    except msgspec.DecodeError:
        raise UserError(
            f"{path}: is not a JSON object of data sets; see its documentation."
        ) from None
    train = _read(_names(given.get("dataset")), known, path, file, fates)
    held = (
        _read(_names(given.get("eval_dataset")), known, path, file, fates)
        if given.get("eval_dataset")
        else None
    )
    how, files = train
    data: dict[str, Any] = {**how}
    fates["dataset"] = f"data.data: {', '.join(files)}"
    if held is not None:
        if held[0] != how:
            raise UserError(
                f"{file}: eval_dataset: is of another form than dataset; bring both into one form."
            )
        data |= {"train": files, "test": held[1]}
        fates["eval_dataset"] = "data.data.test"
    else:
        data |= {"path": files}
        fates["eval_dataset"] = "none given: parts are drawn 80/10/10, by group"
    if "val_size" in given:
        share = float(given["val_size"])
        if held is not None:
            data["stop"] = share if share < 1 else "auto"
            fates["val_size"] = (
                "data.data.stop: what early stopping looks at"
                if share < 1
                else "data.data.stop: auto"
            )
        else:
            fates["val_size"] = (
                "a tenth is drawn for early stopping, another for the report: set data.data.shares"
            )
    if "max_samples" in given:
        data["limit"] = given["max_samples"]
        fates["max_samples"] = "data.data.limit: training records; the other parts stay whole"
    return data


def _names(value: object) -> list[str]:
    names = value if isinstance(value, list) else str(value or "").split(",")
    return [str(name).strip() for name in names if str(name).strip()]


ALPACA = ("prompt", "query", "response", "system", "history")
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def _read(
    names: list[str],
    known: Mapping[str, Mapping[str, Any]],
    path: Path,
    file: Path,
    fates: dict[str, str],
) -> tuple[dict[str, Any], list[str]]:
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
            made["columns"] = {
                key: columns.pop(key) for key in ("messages", "system") if key in columns
            }
            made["tags"] = {new: tags.pop(old) for old, new in TAGS.items() if old in tags}
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


def written(recipe: Recipe) -> str:
    """The recipe as a file."""
    return "# Imported from a LLaMA-Factory configuration.\n" + recipe.yaml()
