"""Rows end to end against padded ones: tokens a second, and the same loss for every example.

Questions and answers of the Huatuo general file (training part), the bundled causal model, LoRA,
the same batch of rows.

  plain         a Trainer script that pads random batches (benchmarks/_plain_sft.py)
  random        ours, padded, random batches: what packing alone is measured against
  padded        ours, padded, batches of similar length (packing: off)
  packed        ours, rows end to end (packing: on)
  trl           TRL's SFTTrainer with its packing (bfd), where TRL is installed

The ratio that counts: packed / random, against the padding ratio of the random batches (all tokens
/ real tokens); and packed / plain, against that of the plain script's batches. Ours, padded,
already leaves padding out of the output layer, the largest matrix of a small model, so packing has
less to win over it than over the plain script.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from _common import child, parser, report, rotated, run, say, shared_data
from residency.core.part import parse
from residency.core.types import Example, Text, Turn
from residency.models.base import BaseModelSettings, resolve
from residency.tasks.card import load_card

BATCH = 16
"""What a recipe's ``batch: auto`` takes for a model of this size."""
SYSTEMS = ("plain", "random", "padded", "packed", "trl")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--base", default="bundled:tiny-lm")
    options.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    options.add_argument("--rows", type=int, default=1600)
    options.add_argument("--batch", type=int, default=BATCH)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--fp32", action="store_true", help="no bf16")
    options.add_argument(
        "--child", nargs=4, metavar=("SYSTEM", "DATA", "BASE", "SETTINGS"), help=argparse.SUPPRESS
    )
    given = options.parse_args()
    if given.child:
        print(json.dumps(measured(*given.child)))
        return
    if given.quick:
        given.rows, given.steps, given.rounds = 64, 4, 1
    if find_spec("trl") is None:
        given.systems = [name for name in given.systems if name != "trl"]
    with tempfile.TemporaryDirectory() as work:
        compare(given, Path(work))


def compare(given: argparse.Namespace, work: Path) -> None:
    """Every system in turn, in rounds."""
    base = resolve(BaseModelSettings(id=given.base), Path.cwd())
    data = work / "conversations.jsonl"
    write(data, given.rows)
    bf16 = not given.fp32 and has_bf16()
    settings = json.dumps({"steps": given.steps, "batch": given.batch, "bf16": bf16})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in given.systems}
    for turn in range(given.rounds):
        for name in rotated(given.systems, turn):
            if name == "plain":
                more = ["--bf16"] if bf16 else []
                script = Path(__file__).with_name("_plain_sft.py")
                command = [
                    script,
                    data,
                    "--base",
                    base.path,
                    "--steps",
                    str(given.steps),
                    "--batch",
                    str(given.batch),
                ]
                result, _ = child([*command, *more], given.threads)
            else:
                result, _ = child(
                    [__file__, "--child", name, data, base.path, settings], given.threads
                )
            found[name].append(result)
            say(
                f"round {turn + 1} {name}: {result['tokens_per_second']:,.0f} tokens/s, padding "
                f"{result['padding']:.1%}"
            )
    rows = []
    for name, runs in found.items():
        each = [one["tokens_per_second"] for one in runs]
        rows.append(
            [
                name,
                f"{median(each):,.0f} ({min(each):,.0f} to {max(each):,.0f})",
                f"{runs[0]['padding']:.1%}",
                f"{ratio_to(found, 'random', runs):.2f}",
                f"{ratio_to(found, 'plain', runs):.2f}" if "plain" in found else "-",
                difference(found, name),
            ]
        )
    shares: dict[str, dict[str, float]] = {}
    for other in (name for name in ("random", "plain") if name in found and "packed" in found):
        padding = 1 / (1 - found[other][0]["padding"])
        faster = ratio_to(found, other, found["packed"])
        shares[other] = {"padding_ratio": padding, "faster": faster, "reached": faster / padding}
        say(
            f"\nagainst {other}: padding ratio {padding:.3f}, packed {faster:.2f} times as fast: "
            f"{faster / padding:.0%} of it"
        )
    columns = (
        "system",
        "real tokens/s, median (range)",
        "padding",
        "to random",
        "to plain",
        "largest difference of an example's loss",
    )
    name = (
        "packing"
        + ("" if bf16 else "-fp32")
        + (f"-batch{given.batch}" if given.batch != BATCH else "")
    )
    report(name, given, columns, rows, shares=shares, bf16=bf16, measurements=found)


def ratio_to(
    found: dict[str, list[dict[str, Any]]], other: str, runs: list[dict[str, Any]]
) -> float:
    """Median over the rounds of how many times as fast one is as another in the same round."""
    pairs = zip(found[other], runs, strict=True)
    return median(one["tokens_per_second"] / theirs["tokens_per_second"] for theirs, one in pairs)


def difference(found: dict[str, list[dict[str, Any]]], name: str) -> str:
    """Largest difference of an example's mean loss to that of the plain script, one at a time, in
    fp32."""
    theirs, ours = found.get("plain", [{}])[0].get("losses"), found[name][0].get("losses")
    if not theirs or not ours or name == "plain":
        return "-"
    return f"{max(abs(a - b) for a, b in zip(theirs, ours, strict=True)):.1e}"


def has_bf16() -> bool:
    """Whether this machine multiplies bf16."""
    from residency.train import device

    return device.has_bf16()


def write(path: Path, count: int) -> None:
    """Training conversations of the general file as OpenAI messages, one a line."""
    import hashlib

    made = []
    for line in (shared_data() / "zh/huatuo/general_qa.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if int(hashlib.sha256(row["instruction"].encode()).hexdigest(), 16) % 10 < 8:
            turns = [("user", row["instruction"].strip()), ("assistant", row["output"].strip())]
            made.append(
                json.dumps(
                    {"messages": [{"role": r, "content": c} for r, c in turns]}, ensure_ascii=False
                )
            )
    path.write_text("\n".join(made[:count]) + "\n", "utf-8")


def examples(path: str) -> list[Example]:
    """The same as examples of the packaged card."""
    made = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines()):
        question, answer = (message["content"] for message in json.loads(line)["messages"])
        turns = (Turn(role="user", text=question),)
        made.append(
            Example(
                id=str(number),
                task="qa",
                input=question,
                gold=Text(text=answer),
                turns=turns,
                profile="public",
            )
        )
    return made


def measured(name: str, data: str, base_path: str, given: str) -> dict[str, Any]:
    """One system in this process."""
    settings = json.loads(given)
    return (
        trl(data, base_path, settings) if name == "trl" else ours(name, data, base_path, settings)
    )


def ours(name: str, data: str, base_path: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Residency's own stage."""
    from residency.train import batches
    from residency.train.job import TrainingJob
    from residency.train.stage import Stage
    from residency.train.trainer import train

    if name == "random":
        batches.POOL = 1
    base = resolve(BaseModelSettings(id=base_path), Path.cwd())
    stage = parse(
        Stage,
        {
            "method": {"kind": "lora"},
            "steps": settings["steps"],
            "micro_batch": settings["batch"],
            "accumulation": 1,
            "learning_rate": 1e-3,
            "precision": "bf16" if settings["bf16"] else "fp32",
            "packing": "on" if name == "packed" else "off",
            "stop": None,
        },
        "stage",
    )
    rows = examples(data)
    losses = example_losses(base_path, rows[:32], settings["batch"], packed=name == "packed")
    with tempfile.TemporaryDirectory() as work:
        job = TrainingJob(
            stage=stage,
            name="1",
            base=base,
            card=load_card("qa"),
            train=rows,
            dev=[],
            seed=0,
            profile="public",
            work=Path(work) / "work",
            out=Path(work),
            output="text",
        )
        result, _ = train(job)
    return {
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "padding": result.padding_share,
        "losses": losses,
    }


def example_losses(base_path: str, rows: list[Example], batch: int, packed: bool) -> list[float]:
    """Mean loss of each example in batches as training makes them, fp32."""
    import torch

    from residency.models import artefact, attention
    from residency.models.causal import token_losses
    from residency.models.generation import TokenLimits
    from residency.train import conversation_items
    from residency.train.batches import collate

    base = resolve(BaseModelSettings(id=base_path), Path.cwd())
    card = load_card("qa")
    chat = artefact.chat(base, TokenLimits())
    model = artefact.fresh(base, card, "text").eval()
    if packed:
        attention.use(model)
    items = conversation_items.build(rows, chat, card).items
    found: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(items), batch):
            chosen = items[start : start + batch]
            given = (
                attention.lay_end_to_end(
                    [one.ids for one in chosen], [one.targets for one in chosen]
                )
                if packed
                else collate(chosen, chat.pad_id, "answers", False)
            )
            losses, _ = token_losses(model, given)
            counts = [sum(target != -100 for target in item.targets) for item in chosen]
            found += [float(part.mean()) for part in torch.split(losses, counts)]
    return found


def trl(data: str, base_path: str, settings: dict[str, Any]) -> dict[str, Any]:
    """TRL's trainer with packing: rows of 1,024 tokens, as many as hold about one of our batches."""
    import time

    import torch
    import transformers
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float32)
    names = [
        n
        for n, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and n != "lm_head"
    ]
    rows = [json.loads(line)["messages"] for line in Path(data).read_text("utf-8").splitlines()]
    pairs = [{"prompt": row[:-1], "completion": row[-1:]} for row in rows]
    with tempfile.TemporaryDirectory() as work:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=work,
                max_steps=settings["steps"],
                per_device_train_batch_size=1,
                packing=True,
                packing_strategy="bfd",
                max_length=1024,
                learning_rate=1e-3,
                bf16=settings["bf16"],
                use_cpu=not torch.cuda.is_available(),
                gradient_checkpointing=False,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(pairs),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules=names, task_type="CAUSAL_LM"
            ),
        )
        real = sum(map(len, trainer.train_dataset["input_ids"]))
        share = real / (len(trainer.train_dataset) * 1024)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    tokens = settings["steps"] * real / len(trainer.train_dataset)
    return {"seconds": seconds, "tokens_per_second": tokens / seconds, "padding": 1 - share}


if __name__ == "__main__":
    run(main)
