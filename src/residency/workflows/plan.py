"""What a recipe's stages will take before anything runs, what to change where it does not fit, and
what would fit at all."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from residency.core.errors import UserError
from residency.core.files import digest, file_digest, read_json, write_json
from residency.core.progress import Silent, Tracker, duration
from residency.core.run_folder import hardware, now, packages
from residency.core.types import Example, MaskProof, Value
from residency.models.base import NO_BASE, Base, imported
from residency.models.predictors import output_of
from residency.recipe import Recipe
from residency.tasks.card import Card
from residency.tasks.examples import examples, fixed
from residency.tasks.families import head_of
from residency.tasks.heads import TOKENS, WORDS, Head
from residency.train import estimate as plans
from residency.train import processes
from residency.train.defaults import StagePlan
from residency.train.device import Device, device_here, device_named, free_memory, held
from residency.train.estimate import MemoryEstimate
from residency.train.stage import Stage
from residency.workflows.steps import Inputs, base_of, hash_files, stage_steps

if TYPE_CHECKING:
    from residency.train.estimate import Subject

LARGE_WINDOW = 1024
"""Tokens of the rows that a suggestion reckons with."""


class Forecast(Value, frozen=True):
    """A stage on a device: what it takes and whether that is there."""

    stage: str
    device: str
    fits: bool
    verdict: str
    facts: tuple[tuple[str, str], ...]
    advice: str = ""
    """What to change where it does not fit."""


class Suggestion(Value, frozen=True):
    """A kind of base with a method, for a card and a task."""

    base: str
    method: str
    peak: float
    """Bytes."""
    fits: bool


class Measured(Value, frozen=True):
    """What was measured of a stage that fits, and what is said of its rows."""

    stage: str
    device: Device
    estimate: MemoryEstimate
    facts: tuple[tuple[str, str], ...]


class Remembered(Value, frozen=True):
    """The stages of a recipe as they were measured once."""

    created: str
    stages: tuple[Measured, ...]


class Setting(Value, frozen=True):
    """A stage on a device, with what its estimate depends on."""

    recipe: Recipe
    stage: Stage
    base: Base
    subject: Subject
    device: Device
    program: int | None
    """Bytes that the program itself holds, on a processor; ``None`` before that was measured."""


def remembered_in() -> Path:
    """Where plans are remembered: beside the imported bases."""
    return imported().parent / "plans"


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Look for garbage seldom: what a short command imports stays, and looking through it again and
    again took about 8 % of its processor time."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@rarely_collected()
def forecasts(
    recipe: Recipe,
    gpu: str | None = None,
    tracker: Tracker | None = None,
    memory: Path | None = None,
) -> list[Forecast]:
    """What each stage takes on the device at hand, or on a card by name or memory.

    Reads the data and the base's configuration and tokenizer, no weights. ``memory``: a folder that
    keeps what was measured for the next time; it holds counts, and no text of a row. Raises
    ``UserError`` where data or base is missing.
    """
    processes.check(recipe.launch)
    based = any(stage.needs_base for stage in recipe.stages)
    base = base_of(recipe, weights=False) if based else NO_BASE
    recipe = recipe.settled(base)
    file = _file(memory, recipe, base, gpu) if memory and based else None
    if file is not None and (known := _remembered(file, gpu)) is not None:
        return known
    tracker = tracker or Silent()
    tracker.start("reading the rows")
    from residency.train.items import limits

    device = device_named(gpu) if gpu else device_here()
    subject, proof = subject_of_recipe(recipe, base) if based else (None, None)
    tracker.end()
    found, measured = [], []
    tracker.start("measuring a step of each stage", len(recipe.stages))
    for number, stage in enumerate(recipe.stages, start=1):
        tracker.update(number - 1)
        if subject is None or proof is None or not stage.needs_base:
            found.append(_lexical(recipe, stage, number))
            continue
        setting = Setting(recipe, stage, base, subject, device, None if device.kind == "cpu" else 0)
        estimate = _estimate(setting)
        setting = replace(setting, program=estimate.program)
        facts = (*_facts(estimate, subject), *(("tokenizer", said) for said in limits(proof)))
        one = Measured(stage.title(number), device, estimate, facts)
        found.append(_forecast(one, "" if plans.fits(estimate, device) else _advice(setting)))
        measured += [one] if found[-1].fits and _as_wished(stage, estimate.plan) else []
    tracker.end()
    if file is not None and len(measured) == len(recipe.stages) and (gpu or device.kind == "cpu"):
        here = [replace(one, device=replace(one.device, usable=0.0)) for one in measured]
        with suppress(UserError):  # only a help for next time
            write_json(file, Remembered(created=now(), stages=tuple(here)))
    return found


def _forecast(one: Measured, advice: str = "") -> Forecast:
    return Forecast(
        stage=one.stage,
        device=one.device.name,
        fits=plans.fits(one.estimate, one.device),
        verdict=plans.verdict(one.estimate, one.device),
        facts=one.facts,
        advice=advice,
    )


def _as_wished(stage: Stage, plan: StagePlan) -> bool:
    """Whether the micro-batch is what it would be with any amount of memory."""
    rows = plan.micro_batch * plan.accumulation
    most = plans.micro_batches(rows, plans.MOST_ROWS)[0]
    return stage.micro_batch != "auto" or plan.micro_batch == most


def _file(memory: Path, recipe: Recipe, base: Base, gpu: str | None) -> Path | None:
    """Where the figures of a recipe are remembered, by all that they depend on; ``None`` where a
    file is missing, which the plan itself says."""
    folder = Path(base.path)
    try:
        inputs = Inputs(recipe=recipe, folder=Path(), base=base, files=hash_files(recipe))
        steps = [step.key for step in stage_steps(inputs)]
    except UserError:
        return None
    about = {
        "steps": steps,
        "launch": recipe.launch.model_dump(mode="json"),
        "base": {
            path.name: path.stat().st_size if path.suffix in WEIGHTS else file_digest(path)
            for path in sorted(folder.iterdir())
            if path.is_file()
        },
        "gpu": gpu or "",
        "machine": [hardware(), *(os.environ.get(name, "") for name in OF_MACHINE)],
        "packages": packages(),
    }
    return memory / f"{digest(about)[:32]}.json"


WEIGHTS = (".safetensors", ".bin")
"""Endings of files of which the size alone matters."""
OF_MACHINE = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Variables of the environment that change what the machine is."""


def _remembered(file: Path, gpu: str | None) -> list[Forecast] | None:
    """What was measured before, held against the memory that is free now; ``None`` where nothing
    was, or where it does not fit now."""
    with suppress(UserError):  # a damaged file is written anew
        kept = read_json(file, Remembered) if file.is_file() else Remembered("", ())
        usable = device_named(gpu).usable if gpu else free_memory()
        when = (("measured", f"{kept.created}, with the same rows, settings and versions"),)
        found = [
            _forecast(
                replace(one, device=replace(one.device, usable=usable), facts=(*one.facts, *when))
            )
            for one in kept.stages
        ]
        return found if found and all(one.fits for one in found) else None
    return None


def _lexical(recipe: Recipe, stage: Stage, number: int) -> Forecast:
    """What a stage without a base takes; the processor does it, whatever else is there."""
    from residency.train import lexical
    from residency.train.device import free_memory
    from residency.train.estimate import human_size as shown

    card, train, _ = rows_of_recipe(recipe)
    found = lexical.estimate(train, card, stage.tuning)
    fits = found.memory <= free_memory()
    return Forecast(
        stage=stage.title(number),
        device="processor",
        fits=fits,
        verdict=f"{shown(found.memory)} at most, {'which fits' if fits else 'more than is free'}",
        facts=(
            ("rows", f"{len(train):,}, {found.slots:,} words and characters in all"),
            ("features", f"about {found.features:,} in them"),
            ("peak memory", shown(found.memory)),
            ("time", f"about {duration(found.seconds)}, right within a factor of two"),
        ),
        advice="" if fits else f"learn from fewer records: data.{recipe.tasks[0].data}.limit=1000",
    )


def rows_of_recipe(recipe: Recipe) -> tuple[Card, list[Example], int]:
    """The card of a recipe's first task with its labels, the rows that it learns from, and how many
    stand in the stop part."""
    from residency.corpus import load

    task = recipe.tasks[0]
    corpus = load.load(recipe.data[task.data], task.data, recipe.root, recipe.seed)
    card = fixed(recipe.card(task), corpus.part("train"), f"data.{task.data}")
    return card, examples(corpus.part("train"), card), len(corpus.part("dev"))


def subject_of_recipe(recipe: Recipe, base: Base) -> tuple[Subject, MaskProof]:
    """What a recipe trains: the base and the rows of its first task, as the model reads them; and
    what of these is trained."""
    from residency.train.kinds import Reading, training_of

    task = recipe.tasks[0]
    data, where = recipe.data[task.data], f"data.{task.data}"
    card, train, stop = rows_of_recipe(recipe)
    head = head_of(card, output_of(task.output, base, card))
    how = Reading(base, card, task.limits, recipe.stages[0].loss_on, data.max_rejected)
    _, made = training_of(head).read(train, how)
    if not made.items:
        raise UserError(f"{where}: the training part is empty; there is nothing to plan for.")
    subject = plans.subject_of_job(base, card, head, made.items, stop)
    return subject, made.proof


def _estimate(setting: Setting) -> MemoryEstimate:
    from residency.train.defaults import resolve as decided
    from residency.train.kinds import training_of

    recipe, stage, base = setting.recipe, setting.stage, setting.base
    subject, device = setting.subject, setting.device
    training = training_of(subject.head)
    packed = training.packing(stage) != "off"
    plan = decided(
        stage,
        plans.parameters_of(subject),
        len(subject.rows.lengths),
        device.kind,
        device.bf16,
        kind=training.rates,
        quantised=base.quantise != "none",
        processes=recipe.launch.processes,
        sharded=recipe.launch.shard,
    )
    if stage.micro_batch == "auto":
        return plans.fitted(subject, stage, base, plan, packed, setting.program, device)
    return plans.of_plan(subject, stage, base, plan, device, packed, setting.program)


def _facts(found: MemoryEstimate, subject: Subject) -> tuple[tuple[str, str], ...]:
    from residency.train.estimate import human_size as shown

    rows, plan = subject.rows, found.plan
    facts = [
        ("parameters", f"{found.parameters:,}, of which {found.trainable:,} are trained"),
        (
            "rows",
            f"{len(rows.lengths):,}, at most {max(rows.lengths):,} tokens, {sum(rows.lengths):,} "
            "in all",
        ),
        (
            "steps",
            f"{plan.steps:,} of {plan.micro_batch} x {plan.accumulation} rows, {plan.precision}",
        ),
        ("checkpointing", "on" if plan.checkpointing else "off"),
        *(
            [("sharded", f"among {plan.shares} processes; memory is that of each")]
            if plan.shares > 1
            else []
        ),
        ("weights", shown(found.weights)),
        ("gradients and optimiser", shown(found.gradients + found.optimiser)),
        ("within a step", shown(found.activations)),
    ]
    if plan.shares > 1:
        facts.append(("put together from all parts", shown(found.borrowed)))
    if found.copies:
        facts.append(("best weights so far", shown(found.copies)))
    if found.program:
        facts.append(("the program itself", shown(found.program)))
    facts.append(("peak memory", shown(found.peak)))
    facts.append(
        (
            "disk",
            f"{shown(found.disk)} (artefact {shown(found.artefact)}, the rest while it trains)",
        )
    )
    if found.seconds:
        facts.append(("time", f"about {duration(found.seconds)}, right within a factor of two"))
    return tuple(facts)


def _advice(setting: Setting) -> str:
    """The fewest changes, of those that change results least, with which it fits."""
    made: list[str] = []
    for words, changed in _changes(setting):
        made.append(words)
        found = _estimate(changed)
        if plans.fits(found, changed.device):
            peak = plans.human_size(found.peak)
            return f"set {', '.join(made)}: then at most {peak} are held at once."
    return (
        f"not even with {', '.join(made)}; choose a smaller base, a lower base.window, or a larger "
        "device."
    )


def _changes(setting: Setting) -> Iterator[tuple[str, Setting]]:
    """Changes one after the other, each with those before."""
    from residency.models.adapters import Lora

    def of_stage(**changes: object) -> Setting:
        return replace(setting, stage=setting.stage.model_copy(update=changes))

    recipe, stage, base = setting.recipe, setting.stage, setting.base
    whole = getattr(stage.method, "projection", None) is None and stage.optimiser == "adamw"
    sharded = recipe.launch.shard
    if recipe.launch.processes > 1 and not sharded and base.quantise == "none" and whole:
        launch, sharded = recipe.launch.model_copy(update={"shard": True}), True
        setting = replace(setting, recipe=recipe.model_copy(update={"launch": launch}))
        yield "launch.shard=true", setting
    if stage.checkpointing is not True:
        setting = of_stage(checkpointing=True)
        yield "stages[0].checkpointing=true", setting
    if stage.micro_batch != 1:
        setting = of_stage(micro_batch=1, accumulation=None)
        yield "stages[0].micro_batch=1", setting
    if stage.tuning.in_place:
        setting = of_stage(method=Lora())
        yield "stages[0].method={kind: lora}", setting
    if base.quantise == "none" and setting.device.kind == "cuda" and not sharded:
        yield "base.quantise=nf4", replace(setting, base=replace(base, quantise="nf4"))


# Without a base

Kind = Literal["ner", "qa"]
LLAMA = {"vocab_size": 128256, "head_dim": 128}
SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
CAUSAL = {
    "a causal model of 0.5B": (896, 4864, 24, 14, 2),
    "a causal model of 1.5B": (1536, 8960, 28, 12, 2),
    "a causal model of 3B": (2048, 11008, 36, 16, 2),
    "a causal model of 7 to 8B": (4096, 14336, 32, 32, 8),
    "a causal model of 14B": (5120, 13824, 48, 40, 8),
    "a causal model of 32B": (5120, 27648, 64, 40, 8),
}
"""Kinds of bases: the sizes of ``SHAPE``, and of causal models the heads of keys and values."""
ENCODERS = {
    "an encoder of 110M": (768, 3072, 12, 12),
    "an encoder of 340M": (1024, 4096, 24, 16),
}


def suggestions(task: Kind, gpu: str | None = None) -> list[Suggestion]:
    """Kinds of bases with the methods that suit them, smallest first; the last that fits is the one
    to try.

    Marking entities (``ner``): encoders tuned whole, rows of 512 tokens. Answering (``qa``): causal
    models with LoRA, on 4-bit weights and not, rows of 1,024 tokens; 16 bits, micro-batch 1 and
    checkpointing on a GPU.
    """

    device = device_named(gpu) if gpu else device_here()
    return [
        Suggestion(base=base, method=method, peak=peak, fits=peak <= device.usable)
        for base, method, peak in (_encoders(device) if task == "ner" else _writers(device))
    ]


def _encoders(device: Device) -> Iterator[tuple[str, str, float]]:
    import transformers

    from residency.models.adapters import Full
    from residency.train.estimate import RowLengths

    rows = RowLengths(lengths=(512,) * 8, trained=(512,) * 8)
    for name, sizes in ENCODERS.items():
        config = transformers.BertConfig(vocab_size=64000, **dict(zip(SHAPE, sizes, strict=True)))
        yield name, "full", _peak(config, TOKENS, rows, Full(), device, "none", 8)


def _writers(device: Device) -> Iterator[tuple[str, str, float]]:
    import transformers

    from residency.models.adapters import Lora
    from residency.train.estimate import RowLengths

    rows = RowLengths(lengths=(LARGE_WINDOW,), trained=(LARGE_WINDOW // 2,))
    for name, sizes in CAUSAL.items():
        shape = dict(zip((*SHAPE, "num_key_value_heads"), sizes, strict=True))
        config = transformers.LlamaConfig(**LLAMA, **shape)
        for method, quantise in (("lora", "none"), ("lora on base.quantise: nf4", "nf4")):
            if quantise == "none" or device.kind == "cuda":
                yield (
                    name,
                    method,
                    _peak(config, WORDS, rows, Lora(targets="linear"), device, quantise, 1, True),
                )


def _peak(
    config: Any,
    head: Head,
    rows: Any,
    method: Any,
    device: Any,
    quantise: Any,
    micro_batch: int,
    checkpointing: bool = False,
) -> float:
    subject = plans.subject_of(config, head, ("O", "B", "I"), rows)
    plan = StagePlan(
        epochs=1,
        steps=1,
        micro_batch=micro_batch,
        accumulation=1,
        learning_rate=0,
        head_learning_rate=0,
        precision="fp32" if device.kind == "cpu" else "bf16" if device.bf16 else "fp16",
        checkpointing=checkpointing,
    )
    found = plans.estimate(
        subject,
        method,
        device,
        plan,
        half=device.kind == "cuda" and not method.in_place,
        quantise=quantise,
        packed=False,
        copies=False,
        program=held() if device.kind == "cpu" else 0,
    )
    return float(found.peak)


def advice(found: Sequence[Suggestion], device: str) -> str:
    """The suggestion in a sentence."""
    good = [one for one in found if one.fits]
    if not good:
        return (
            f"nothing here fits on {device}; give a card with more memory, or take a bundled base."
        )
    best = good[-1]
    return f"on {device}: up to {best.base}, tuned with {best.method}."
