"""How fast, how large and how alike training is: methods beside plain scripts, packing, memory as
planned, a model shared out, QLoRA on a GPU."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml

import _common as common
import _plain
from _common import TINY, TINY_LM, Subject, Table, say
from residency.core.part import parse
from residency.core.types import Example, StageResult, Text, Turn
from residency.tasks.card import Card, load_card

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure


def general(*tenths: int) -> list[Example]:
    """Questions and answers of Huatuo's general file, of the parts with these numbers."""
    found = []
    for number, row in enumerate(common.huatuo("general")):
        if common.tenth(row["instruction"]) in tenths:
            question, gold = row["instruction"].strip(), Text(text=row["output"].strip())
            more = {"turns": (Turn(role="user", text=question),), "gold": gold, "profile": "public"}
            found.append(Example(id=str(number), task="qa", input=question, **more))
    return found


KINDS = yaml.safe_load("""
lora: {kind: lora, r: 16, alpha: 32, targets: linear}
full: {kind: full}
freeze: {kind: freeze, last: 2}
prefix: {kind: prefix, length: 32}
""")
RATES = yaml.safe_load("""
entities: {lora: 2.0e-3, full: 3.0e-4, freeze: 3.0e-4}
instructions: {lora: 1.5e-3, full: 3.0e-4, freeze: 3.0e-4, prefix: 2.0e-1}
""")
"""The defaults for models of this size, given to every system."""
GOAL = {"entities": 1.5, "instructions": 0.85}
"""Entities: times as fast as the plain script. Instructions: of its padding ratio (all tokens /
real tokens)."""


@measure(
    "--tasks entities instructions --methods lora full freeze prefix --systems plain ours "
    "--rows 320 --held 100 --batch 16 --passes 0 --rounds 3 --fp32",
    quick="--rows 32 --held 8 --passes 1 --rounds 1",
    tasks=RATES,
    methods=KINDS,
    systems=("plain", "window", "random", "padded", "ours", "trl"),
)
def speed(given: Namespace) -> None:
    """Each method beside a plain peft and Trainer script: the same rows, tokens, steps, rates.

    Entities: NCBI disease, the bundled encoder (2 passes). Instructions: Huatuo's general file, the
    bundled causal model (1 pass). Each method is a process of its own, its systems in turn.

      plain, window    _plain.method: random batches padded to their longest row; to the base's window
      ours             a stage with the same numbers; instructions: rows end to end (packing: on)
      random, padded   instructions: ours without packing, random batches; of similar length
      trl              instructions, LoRA: TRL's SFTTrainer with its packing, where TRL is installed

    Loss per label on rows that nobody learned from, and (instructions) the largest difference of
    one example's loss in our batches to its loss alone, fp32.
    """
    from residency.train import device

    bf16 = not given.fp32 and device.has_bf16()
    for task in given.tasks:
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        shares: dict[str, dict[str, Any]] = {}
        columns = "padding | to plain | of the padding ratio | held-out loss | difference, by round"
        table = Table(
            "method | system | real tokens a processor second, median (range) | "
            f"{columns} | an example's loss differs by"
        )
        passes = given.passes or {"entities": 2, "instructions": 1}[task]
        settings = {key: vars(given)[key] for key in ("rows", "held", "batch", "rounds")}
        settings |= {"steps": passes * -(-given.rows // given.batch), "bf16": bf16}
        systems = [name for name in given.systems if name != "trl" or find_spec("trl")]
        for method in filter(RATES[task].__contains__, given.methods):
            settings |= {"method": method, "rate": RATES[task][method]}
            each = common.apart(alternating, task, settings, systems, threads=given.threads)
            found[method], shares[method] = each, compared(task, each)
            for name, runs in each.items():
                faster = median(common.ratios(runs, each["plain"], "tokens_per_cpu_second"))
                pairs = zip(runs, each["plain"], strict=True)
                gaps = [f"{a['loss'] - b['loss']:+.4f}" for a, b in pairs if "loss" in a]
                table.add(
                    f"{method} | {name} | "
                    f"{common.spread([one['tokens_per_cpu_second'] for one in runs])} | "
                    f"{mean(one['padding'] for one in runs):.1%} | {faster:.2f} | "
                    f"{faster / shares[method]['padding_ratio']:.0%} | "
                    f"{mean(one.get('loss', 0) for one in runs):.4f} | {' '.join(gaps) or '-'} | "
                    f"{runs[0].get('differs', 0):.1e}"
                )
        suffix = f"-{task}" + ("" if bf16 else "-fp32")
        common.report(given, table, suffix, bf16=bf16, shares=shares, measurements=found)


def compared(task: str, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the goals are about."""
    plain, own = found["plain"], found.get("ours", found["plain"])
    faster = median(common.ratios(own, plain, "tokens_per_cpu_second"))
    padding = median(1 / (1 - one["padding"]) for one in plain)
    reached = faster if task == "entities" else faster / padding
    same = len({one["trainable"] for one in [*plain, *own]}) == 1
    goal = {"reached": reached, "goal": GOAL[task], "met": reached >= GOAL[task]}
    return {"faster": faster, "padding_ratio": padding, **goal, "same_number_trained": same}


def alternating(task: str, settings: Any, systems: list[str]) -> dict[str, list[dict[str, Any]]]:
    """A method with every system in this process, in turn; before that a few steps of each, which
    are not counted."""
    from residency.tasks.heads import TOKENS

    base = common.base_of(TINY if task == "entities" else TINY_LM)
    card, rows, held = subject(task, settings["rows"], settings["held"])
    both = {"rows": rows, "held": held}
    tokens = {name: common.items(base, card, part).items for name, part in both.items()}
    data = {name: [common.as_tokens(one) for one in found] for name, found in tokens.items()}
    data["labels"] = len(TOKENS.outputs(card)) if task == "entities" else 0
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
    for turn, name in common.in_turn(systems, settings["rounds"], warm=1):
        few = {"steps": 2} if turn < 0 else {}
        given = {**settings, **few, "seed": max(turn, 0), "system": name}
        given["longest"] = base.window if name == "window" else None
        arguments = {key: given[key] for key in ("bf16", "seed")} | {"learning_rate": given["rate"]}
        arguments |= {"max_steps": given["steps"], "warmup_steps": given["steps"] // 10}
        given["arguments"] = arguments | {"per_device_train_batch_size": given["batch"]}
        if name in ("plain", "window"):
            result = _plain.method(data, base.path, given)
        elif name == "trl":
            pairs = [(one.input, one.gold.text) for one in rows]
            result = _plain.trl(pairs, base.path, given)
        else:
            result = ours(base, card, rows, data["held"], given)
            if turn == 0 and task == "instructions":
                result["differs"] = differs(base, card, tokens["held"], settings["batch"], name)
        found[name] += [result] if turn >= 0 else []
    return found


def subject(task: str, rows: int, held: int) -> tuple[Card, list[Example], list[Example]]:
    """Card, the rows that are learned from, and those that are not."""
    if task == "instructions":
        return load_card("qa"), general(*range(8))[:rows], general(8)[:held]
    from residency.tasks.examples import examples, fixed

    train, test = common.corpus("ncbi")
    card = fixed(load_card("ner"), train, "data.ncbi")
    return card, common.shuffled(examples(train, card))[:rows], examples(test, card)[:held]


def ours(
    base: Any, card: Card, rows: list[Example], held: Any, given: dict[str, Any]
) -> dict[str, Any]:
    """A stage with the numbers of the plain script."""
    from residency.models import artefact
    from residency.train import batches
    from residency.train.job import TrainingJob
    from residency.train.stage import Stage
    from residency.train.trainer import train

    writes = base.architecture == "causal"
    precision, packed = "bf16" if given["bf16"] else "fp32", given["system"] == "ours" and writes
    settings = {"method": KINDS[given["method"]], "steps": given["steps"], "weight_decay": 0}
    settings |= {"stop": None, "accumulation": 1, "micro_batch": given["batch"]}
    settings |= {"precision": precision, "packing": "on" if packed else "off"}
    settings |= dict.fromkeys(("learning_rate", "head_learning_rate"), given["rate"])
    pool, batches.POOL = batches.POOL, 1 if given["system"] == "random" else batches.POOL
    with common.folder() as work, processor_seconds() as times:
        chosen = {"stage": parse(Stage, settings, "stage"), "name": "1", "seed": given["seed"]}
        chosen |= {"base": base, "card": card, "train": rows, "dev": [], "profile": "public"}
        chosen |= {"output": "text" if writes else "head", "work": work / "work"}
        result, _ = train(TrainingJob(**chosen, out=work / "out"))
        model = (artefact.load_chat if writes else artefact.load)(work / "out")[1]
    batches.POOL = pool
    tokens = result.tokens_per_second * result.seconds
    seconds = {"seconds": result.seconds, "cpu_seconds": times[0], "padding": result.padding_share}
    learned = {"trainable": result.trainable, "loss": _plain.held_out(model, held, writes)[0]}
    return {**seconds, "tokens_per_cpu_second": tokens / times[0], **learned}


@contextmanager
def processor_seconds() -> Iterator[list[float]]:
    """Processor seconds of each training loop that is run inside."""
    from transformers import Trainer

    found: list[float] = []
    real = Trainer.train

    def train(self: Any, *args: Any, **more: Any) -> Any:
        started = time.process_time()
        result = real(self, *args, **more)
        found.append(time.process_time() - started)
        return result

    Trainer.train = train
    try:
        yield found
    finally:
        Trainer.train = real


def differs(base: Any, card: Card, rows: Any, batch: int, system: str) -> float:
    """Largest difference of an example's mean loss in a batch as training makes it to its loss
    alone, fp32."""
    import torch

    from residency.models import artefact, attention
    from residency.models.causal import token_losses
    from residency.tasks import heads
    from residency.train.batches import collate

    model = artefact.fresh(base, card, "text").eval()
    if system == "ours":
        attention.use(model)
    worst = 0.0
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        given = collate(chosen, 0, heads.WORDS, False)
        if system == "ours":
            rows_of = [one.ids for one in chosen], [one.targets for one in chosen]
            given = attention.lay_end_to_end(*rows_of)
        with torch.inference_mode():
            losses, _ = token_losses(model, given)
        counts = [sum(target != -100 for target in item.targets) for item in chosen]
        for item, part in zip(chosen, torch.split(losses, counts), strict=True):
            alone, _ = _plain.held_out(model, [common.as_tokens(item)], shifted=True)
            worst = max(worst, abs(float(part.mean()) - alone))
    return worst


SHAPES = yaml.safe_load("""
llama: {hidden_size: 768, intermediate_size: 2048, num_hidden_layers: 8, num_attention_heads: 12}
bert: {hidden_size: 512, intermediate_size: 2048, num_hidden_layers: 8, num_attention_heads: 8}
""")
PLANNED = yaml.safe_load("""
tiny encoder, full, 32 x 240: {base: 'bundled:tiny-encoder', method: {kind: full}, rows: [32, 240]}
tiny encoder, LoRA, 32 x 240, bf16:
  {base: 'bundled:tiny-encoder', method: {kind: lora}, rows: [32, 240], precision: bf16}
tiny lm, LoRA, 16 x 500: {base: 'bundled:tiny-lm', method: {kind: lora}, rows: [16, 500]}
tiny lm, full, 8 x 900: {base: 'bundled:tiny-lm', method: {kind: full}, rows: [8, 900]}
Llama 69M, LoRA, 8 x 256: {shape: llama, method: {kind: lora}, rows: [8, 256]}
Llama 69M, full, 4 x 256: {shape: llama, method: {kind: full}, rows: [4, 256]}
Llama 69M, LoRA, 8 x 512, checkpointing:
  {shape: llama, method: {kind: lora}, rows: [8, 512], checkpointing: true}
Llama 69M, prefix of 64, 4 x 256, bf16:
  {shape: llama, method: {kind: prefix, length: 64}, rows: [4, 256], precision: bf16}
Llama 113M, last 2 layers, 8 x 256:
  shape: llama
  more: {num_hidden_layers: 16, num_key_value_heads: 4}
  method: {kind: freeze, last: 2}
  rows: [8, 256]
BERT 30M, full, 16 x 250: {shape: bert, method: {kind: full}, rows: [16, 250]}
""")
WITHIN = 0.15


def finished(
    name: str,
    base: Any,
    rows: list[int],
    threads: int,
    work: Path,
    stage: dict[str, Any],
    **more: Any,
) -> StageResult:
    """A stage on so many rows of so many tokens, half question and half answer or with a drug in
    the middle, by a recipe in a process of its own."""
    found = common.base_of(base["id"] if isinstance(base, dict) else base)
    length, causal = rows[1], found.architecture == "causal"
    if causal:
        half = text_of(length // 2 - 12, found.path)
        row: dict[str, Any] = {"instruction": half, "output": half}
    else:
        row = {"text": text_of(length - 2, found.path)}
        start = row["text"].index("metformin")
        row["entities"] = [{"start": start, "end": start + 9, "label": "drug"}]
    for part in ("train", "test"):
        lines = [json.dumps({"id": f"{part}{n}", **row}) + "\n" for n in range(rows[0] * 3)]
        (work / f"{part}.jsonl").write_text("".join(lines), "utf-8")
    data = {"format": "alpaca" if causal else "jsonl", "profile": "synthetic", "near": "off"}
    data |= {part: str(work / f"{part}.jsonl") for part in ("train", "test")} | {"stop": 0}
    stage = {"stop": None, "steps": 3, "batch": rows[0], "micro_batch": rows[0], **stage}
    stage.setdefault("precision", "fp32")
    card = "qa" if causal else "ner"
    value = common.recipe(name, found.path, data, card, stage, limit=1, bootstrap=0) | more
    value |= {"base": base} if isinstance(base, dict) else {}
    return common.finish(value, work, threads)[1].stages[0]


def text_of(tokens: int, base: str) -> str:
    """Words that make about so many tokens."""
    from residency.models.base import load_tokenizer

    tokenizer = load_tokenizer(Path(base))

    def length(words: list[str]) -> int:
        return len(tokenizer(" ".join(words), add_special_tokens=False)["input_ids"])

    words = WORDS.split() * (tokens // length(WORDS.split()) + 1)
    while length(words) > tokens:
        words.pop()
    return " ".join(words)


WORDS = "the patient was admitted with pneumonia and takes metformin 500 mg twice daily no fever"


@measure("--settings []", quick="--settings 2 3")
def memory(given: Namespace) -> None:
    """Peak memory of a training stage as estimated from the configuration, against what it held.

    The bundled models and random shapes of 30 to 113 million parameters, each trained for a few
    steps in a process of its own. Estimated and measured is the peak of the whole process
    (interpreter, libraries, weights, training), in MB. --settings: some of the ten, by number.
    """
    found: dict[str, float] = {}
    table = Table("setting | parameters | planned MB | measured MB | difference")
    for name in [[*PLANNED][int(number)] for number in given.settings] or PLANNED:
        one = PLANNED[name]
        stage = {key: one[key] for key in ("method", "precision", "checkpointing") if key in one}
        with common.folder() as work:
            base = one.get("base") or made(work / "base", one["shape"], **one.get("more", {}))
            result = finished("memory", base, one["rows"], given.threads, work, stage)
        planned, measured = result.planned_memory_mb, result.peak_memory_mb
        found[name] = planned / measured - 1
        table.add(
            f"{name} | {result.parameters / 1e6:.0f}M | {planned:.0f} | {measured:.0f} | "
            f"{found[name]:+.1%}"
        )
    worst = max(map(abs, found.values()))
    common.report(given, table, worst=worst, within=WITHIN, each=found)
    if worst > WITHIN:
        sys.exit(f"an estimate is off by {worst:.0%}, more than {WITHIN:.0%}")


def made(folder: Path, kind: str, gpu: bool = False, **more: int) -> str:
    """A base of random weights with the bundled tokenizer."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    path = common.base_of(TINY_LM if kind == "llama" else TINY).path
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    shape = {"vocab_size": len(tokenizer), "max_position_embeddings": 512, **SHAPES[kind], **more}
    config = transformers.AutoConfig.for_model(kind, **shape)
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    masked, causal = transformers.AutoModelForMaskedLM, transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device("cuda" if gpu else "cpu"):
        dtype = torch.bfloat16 if gpu else torch.float32
        model = (causal if kind == "llama" else masked).from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


WAYS = {"one process": {}, "two, each with all of it": {"processes": 2}}
WAYS |= {"two that share it out": {"processes": 2, "shard": True}}


@measure("--layers 8", quick="--layers 2")
def sharding(given: Namespace) -> None:
    """A model that two processes share out (launch.shard) beside one and two that each hold it all.

    A Llama of 69 million random weights, full tuning and LoRA, fp32, six steps of the same eight
    rows; every process has one thread. Memory is the peak of a process in MB, beside what was
    estimated before.
    """
    found: dict[str, Any] = {}
    columns = "planned MB | peak MB of a process | seconds of training"
    table = Table(
        f"method | processes | {columns} | largest difference of a loss from one process's"
    )
    with common.folder() as work:
        base = made(work / "base", "llama", num_hidden_layers=given.layers)
        for method in ("full", "lora"):
            alone: list[float] = []
            for way, launch in WAYS.items():
                stage = {"method": {"kind": method}, "steps": 6, "batch": 8, "checkpointing": False}
                stage["micro_batch"] = 8 // launch.get("processes", 1)
                name = f"{method}-{len(found)}"
                one = finished(name, base, [16, 128], 1, work, stage, launch=launch)
                losses = [step["loss"] for step in one.history if "loss" in step]
                alone = alone or losses
                apart = max(abs(a - b) for a, b in zip(losses, alone, strict=True))
                found[f"{method}, {way}"] = {"losses": losses, "peak": one.peak_memory_mb}
                table.add(
                    f"{method} | {way} | {one.planned_memory_mb:.0f} | {one.peak_memory_mb:.0f} | "
                    f"{one.seconds:.0f} | {f'{apart:.1e}' if apart else '0'}"
                )
    common.report(given, table, each=found)


SEVEN = yaml.safe_load("""
{hidden_size: 4096, intermediate_size: 11008, num_attention_heads: 32, num_key_value_heads: 32,
 max_position_embeddings: 2048, vocab_size: 32000}
""")
TOKENS, BATCH, RANK = 512, 64, 8
GOAL_GB, GOAL_RATIO = 14.0, 1.5


@measure("--steps 4 --micro-batch 4 --layers 32 --rounds 3", quick="--layers 2 --rounds 1")
def qlora(given: Namespace) -> None:
    """QLoRA on a model of 7 billion parameters, on one GPU, beside plain peft and the Trainer.

    Random weights in the shape of Llama-2-7B, rank 8 on all linear layers, rows of 512 tokens,
    effective batch 64, a few optimiser steps, each system in a process of its own, in turn. Needs a
    GPU, bitsandbytes and about 14 GB of disk; says so and measures nothing where there is no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        say("there is no GPU here; nothing was measured. residency plan says what it would take.")
        return
    found: dict[str, list[dict[str, float]]] = {"residency": [], "plain": []}
    lora = {"kind": "lora", "r": RANK, "targets": "linear"}
    stage = {"method": lora, "steps": given.steps, "micro_batch": given.micro_batch}
    stage |= {"learning_rate": 1e-4, "checkpointing": True, "precision": "auto"}
    with common.folder() as work:
        base = made(work / "base", "llama", gpu=True, num_hidden_layers=given.layers, **SEVEN)
        for turn, name in common.in_turn([*found], given.rounds):
            if name == "plain":
                call = (base, given.steps, given.micro_batch, BATCH, TOKENS, RANK)
                one = common.apart(_plain.four_bits, *call, threads=given.threads)
            else:
                settings = {"id": base, "quantise": "nf4"}
                result = finished(f"q{turn}", settings, [BATCH, TOKENS], given.threads, work, stage)
                speed = given.steps * BATCH * TOKENS / result.seconds
                one = {"peak_gb": result.peak_memory_mb / 1e3, "tokens_per_second": speed}
            found[name].append(one)
    table = Table("system | peak GB | tokens/s")
    for name, runs in found.items():
        tokens = median(one["tokens_per_second"] for one in runs)
        table.add(f"{name} | {max(one['peak_gb'] for one in runs):.1f} | {tokens:.0f}")
    ratio = median(common.ratios(found["residency"], found["plain"], "tokens_per_second"))
    say(f"speed to plain: {ratio:.2f} (goal {GOAL_RATIO}); goal of the peak {GOAL_GB:.0f} GB")
    common.report(given, table, gpu=torch.cuda.get_device_name(), ratio=ratio, each=found)


if __name__ == "__main__":
    SUBJECT.main()
