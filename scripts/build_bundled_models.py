"""Build the bundled tokenizer and models from text that `pretraining_text.py` names.

    python scripts/build_bundled_models.py               tokenizer, then encoder (under an hour on 2 cores)
    python scripts/build_bundled_models.py --model lm    the causal model, with the encoder's tokenizer
    python scripts/build_bundled_models.py --tokenizer   the tokenizer only
    python scripts/build_bundled_models.py --card        the model card again, from the manifest and the loss log

Deterministic for equal text, seed and number of threads. Interrupted, it starts anew: what it
writes is moved into the package only when it is whole.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

sys.path.insert(0, str(Path(__file__).parent))
import pretraining_causal as causal
from pretraining_text import ROOT, SOURCES, load_heldout, manifest, texts
from residency.synth.clinical_notes import records

BUNDLED = ROOT / "src" / "residency" / "models" / "bundled"
SPECIAL = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<mask>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
]
VOCABULARY = 8192
LENGTH = 256
"""Tokens of a pre-training row; the first SHORT of the steps use rows half as long, which are
cheaper."""
SHORT = 0.8
GENERATED = 1500
"""Invented records per language."""
WEIGHTS = {"vietbioner": 3, "acrdraid": 2, "cmedqaner": 2, "ncbi-disease": 2}
"""How often a small corpus is seen in one pass, so that no language is drowned."""

# One token never crosses the smallest units of locale.text: letters, digits, one Chinese character,
# one other sign.
UNITS = r"\p{Han}| ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]|\s+(?!\S)|\s+"


def corpus() -> tuple[list[str], list[dict[str, object]]]:
    """All texts to train on, in a fixed order, and what the model card says of them."""
    heldout, found, facts = load_heldout(), [], []
    for source in SOURCES:
        kept = texts(source, heldout)
        facts.append(manifest(source, kept))
        found.extend(kept * WEIGHTS.get(source.name, 1))
    for lang in ("vi", "zh", "en"):
        made = [note.text for note in records(lang, GENERATED, seed=0)]
        found.extend(made)
        facts.append(
            {
                "name": f"invented-records-{lang}",
                "file": "residency.synth.clinical_notes",
                "licence": "Apache-2.0",
                "texts": len(made),
                "characters": sum(map(len, made)),
            }
        )
    return found, facts


def build_tokenizer(rows: list[str]) -> Tokenizer:
    """Byte-level BPE over NFC text, whose tokens never cross a unit."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(UNITS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(rows, trainer)
    start, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", start), ("</s>", end)],
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, **more: object) -> None:
    """Save in the form that `AutoTokenizer` loads."""
    from transformers import PreTrainedTokenizerFast

    settings = {"eos_token": "</s>", "model_max_length": 256, **more}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        **settings,
    ).save_pretrained(folder)
    path = folder / "tokenizer.json"  # half the size without its indentation
    path.write_text(
        json.dumps(json.loads(path.read_text("utf-8")), ensure_ascii=False, separators=(",", ":")),
        "utf-8",
    )


def pack(rows: list[str], tokenizer: Tokenizer, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of LENGTH tokens, texts in random order one behind the other; and which tokens begin a
    unit."""
    order = np.random.default_rng(seed).permutation(len(rows))
    first = np.array(["Ġ" in token or "Ċ" in token for token in vocabulary(tokenizer)])
    ids, begins = [], []
    for encoding in tokenizer.encode_batch([rows[i] for i in order]):
        row = np.array(encoding.ids, dtype=np.int64)
        words = np.array([-1 if word is None else word for word in encoding.word_ids])
        ids.append(row)
        begins.append((np.diff(words, prepend=-2) != 0) | first[row])
    flat, starts = np.concatenate(ids), np.concatenate(begins)
    whole = len(flat) // LENGTH * LENGTH
    return flat[:whole].reshape(-1, LENGTH), starts[:whole].reshape(-1, LENGTH)


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Tokens in the order of their ids."""
    return [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]


def mask(
    ids: np.ndarray, begins: np.ndarray, rng: np.random.Generator, share: float, mask_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hide whole units: 80 % masked, 10 % replaced, 10 % kept; the targets are -100 elsewhere."""
    unit = np.cumsum(begins.ravel()).reshape(ids.shape)
    chosen = rng.random(int(unit.max()) + 1)[unit] < share
    chosen &= ids >= len(SPECIAL)
    targets = np.where(chosen, ids, -100)
    dice = rng.random(ids.shape)
    hidden = np.where(chosen & (dice < 0.8), mask_id, ids)
    noise = rng.integers(len(SPECIAL), VOCABULARY, ids.shape)
    return np.where(chosen & (dice >= 0.9), noise, hidden), targets


def encoder_config():
    """4 layers of 256 with embeddings of 128: 3.8 million parameters."""
    from transformers import ElectraConfig

    return ElectraConfig(
        vocab_size=VOCABULARY,
        embedding_size=128,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=768,
        max_position_embeddings=256,
        type_vocab_size=1,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def pretrain(
    ids: np.ndarray, begins: np.ndarray, steps: int, batch: int, peak: float, seed: int, log: Path
):
    """Masked-language modelling; returns the model."""
    from transformers import ElectraForMaskedLM

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = encoder_config()
    model = ElectraForMaskedLM(config)
    for module in (
        model.modules()
    ):  # dropout earns nothing in a few passes over the text; tuning sets it back
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=peak,
        betas=(0.9, 0.98),
        fused=True,
    )
    warmup = max(1, steps // 20)
    shape = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / (steps - warmup))),
    )
    body, head = model.electra, model.generator_predictions
    order, started, lines = np.empty(0, dtype=np.int64), time.monotonic(), []
    model.train()
    for step in range(steps):
        if len(order) < batch:
            order = np.concatenate([order, rng.permutation(len(ids))])
        rows, order = order[:batch], order[batch:]
        shape_now = (-1, LENGTH // 2) if step < SHORT * steps else (-1, LENGTH)
        chosen, starts = ids[rows].reshape(shape_now), begins[rows].reshape(shape_now)
        hidden, targets = mask(chosen, starts, rng, 0.2, SPECIAL.index("<mask>"))
        wanted = torch.from_numpy(targets)
        where = wanted != -100
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = body(input_ids=torch.from_numpy(hidden)).last_hidden_state[
                where
            ]  # only what is scored
            logits = model.generator_lm_head(head(states))
        loss = torch.nn.functional.cross_entropy(logits.float(), wanted[where])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        shape.step()
        if step % 20 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            lines.append(
                {"step": step, "loss": round(loss.item(), 4), "seconds": round(seconds, 1)}
            )
            log.write_text("\n".join(map(json.dumps, lines)) + "\n")
            rate = (step + 1) * batch * LENGTH / seconds
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {rate:,.0f} tokens/s", flush=True)
    return model


HEAD = """---
license: apache-2.0
language: [vi, zh, en]
pipeline_tag: {pipeline}
---

# {name}

{lead}, pre-trained by this project so that everything runs with no network and no GPU: the demo, the tests, a laptop.

**For learning the tool and for tests, never for care.** No claim of quality rests on it; a larger base is one line of a recipe.

"""

ENCODER = """- Shape: ELECTRA-style encoder, 4 layers of 256, embeddings of 128, 4 heads, {parameters:,} parameters in fp16,
  {vocabulary:,} byte-level BPE tokens (a token never crosses a letter run, a digit or a Chinese character), 256 tokens at once.
- Objective: masked-language modelling of whole units, 20 % of them; {steps:,} steps of {batch} x {length} tokens, peak
  rate {rate:g}, seed {seed}, {passes:g} passes over {tokens:,} tokens. Loss {first:.2f} at the first step, {last:.2f} over the
  last tenth (`loss.jsonl`).
"""

CAUSAL = """- Shape: Llama-style decoder, 5 layers of 192, 3 heads, input and output embeddings shared, {parameters:,} parameters in
  fp16, the encoder's tokenizer of {vocabulary:,} byte-level BPE tokens, 1,024 tokens at once.
- Objective: next-token prediction; {steps:,} steps of {batch} x {length} tokens (the first 80 % in rows a quarter as long),
  peak rate {rate:g} (Muon for the matrices of the layers, AdamW for the rest), seed {seed}, {passes:g} passes over {tokens:,} tokens.
  Loss {first:.2f} at the first step, {last:.2f} over the last tenth (`loss.jsonl`).
- Conversations, in the model's own chat template: the sources marked below were (also) seen as turns. The largest question
  corpus (huatuo-general) was seen as running text only.
"""

FOOT = """- Built by `scripts/build_bundled_models.py` in {minutes:.0f} minutes on {cores} (bf16 autocast).
- Held out: the parts that the corpora's authors set aside, elsewhere the records whose key hashes to 8 or 9 modulo 10;
  their hashes were committed before (`benchmarks/heldout/*.sha256`) and none of them was read.
- It has seen text of the project's own generator of invented records: scores on such records say nothing about real notes.

## Text

| source | licence | texts | characters | SHA-256 of the file |
|---|---|---|---|---|
{table}
"""


LEADS = {
    "encoder": "A small bidirectional encoder for Vietnamese, Chinese and English clinical text",
    "lm": "A small causal model for Vietnamese, Chinese and English clinical questions and answers",
}


def write_card(folder: Path, model: str) -> None:
    """The model card, from the manifest and the loss log beside it."""
    facts = json.loads((folder / "sources.json").read_text("utf-8"))
    log = [json.loads(line) for line in (folder / "loss.jsonl").read_text("utf-8").splitlines()]
    tail = [line["loss"] for line in log[-max(1, len(log) // 10) :]]
    spoken = causal.SPOKEN if model == "lm" else ()
    rows = [
        f"| {s['name']}{' (turns)' if s['name'] in spoken else ''} | {s['licence']} | "
        f"{s['texts']:,} | {s['characters']:,} "
        f"| {str(s.get('sha256', 'made here'))[:16]} |"
        for s in facts["sources"]
    ]
    card = (HEAD + (ENCODER if model == "encoder" else CAUSAL) + FOOT).format(
        pipeline="fill-mask" if model == "encoder" else "text-generation",
        name=f"tiny-{model}",
        lead=LEADS[model],
        parameters=facts["parameters"],
        vocabulary=VOCABULARY,
        steps=facts["steps"],
        batch=facts["batch"],
        length=facts.get("length", LENGTH),
        rate=facts["learning_rate"],
        seed=facts["seed"],
        passes=facts["passes"],
        tokens=facts["tokens_per_pass"],
        first=log[0]["loss"],
        last=sum(tail) / len(tail),
        minutes=log[-1]["seconds"] / 60,
        cores=facts.get("cores", "2 cores"),
        table="\n".join(rows),
    )
    (folder / "README.md").write_text(card, "utf-8")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", choices=("encoder", "lm"), default="encoder")
    options.add_argument("--tokenizer", action="store_true")
    options.add_argument("--card", action="store_true")
    options.add_argument("--steps", type=int, default=2200)
    options.add_argument("--batch", type=int, default=32, help="rows of a step (encoder)")
    options.add_argument(
        "--rate", type=float, help="peak rate (1.5e-3 for the encoder, 8e-3 for the causal model)"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=BUNDLED)
    given = options.parse_args()
    given.rate = given.rate or (1.5e-3 if given.model == "encoder" else 8e-3)
    name = f"tiny-{given.model}"
    if given.card:
        write_card(given.out / name, given.model)
        return

    rows, facts = corpus()
    partial = given.out / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if given.model == "lm":
        tokenizer = Tokenizer.from_file(str(BUNDLED / "tiny-encoder" / "tokenizer.json"))
        tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
        more = {
            "eos_token": "<|end|>",
            "model_max_length": causal.LENGTH,
            "chat_template": causal.CHAT_TEMPLATE,
        }
        save_tokenizer(tokenizer, partial, **more)
        ids = causal.pack(rows, causal.conversations(), tokenizer, given.seed)
        batch, length = causal.TOKENS // causal.LENGTH, causal.LENGTH
    else:
        tokenizer = build_tokenizer(rows)
        save_tokenizer(tokenizer, partial)
        if given.tokenizer:
            print(f"{tokenizer.get_vocab_size()} tokens in {partial}")
            return
        ids, begins = pack(rows, tokenizer, given.seed)
        batch, length = given.batch, LENGTH
    print(f"{len(rows):,} texts, {ids.size:,} tokens", flush=True)
    log = partial / "loss.jsonl"
    if given.model == "lm":
        model = causal.pretrain(ids, given.steps, given.rate, given.seed, log)
    else:
        model = pretrain(ids, begins, given.steps, given.batch, given.rate, given.seed, log)
    model.half().save_pretrained(partial)
    facts_file = {
        "script": "scripts/build_bundled_models.py",
        "seed": given.seed,
        "steps": given.steps,
        "batch": batch,
        "length": length,
        "learning_rate": given.rate,
        "tokens_per_pass": int(ids.size),
        "passes": round(given.steps * batch / len(ids), 2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "cores": f"{torch.get_num_threads()} core{'s' if torch.get_num_threads() > 1 else ''}",
        "sources": facts,
        "held_out": "benchmarks/heldout/*.sha256",
    }
    (partial / "sources.json").write_text(
        json.dumps(facts_file, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
    write_card(partial, given.model)
    (partial / "unfinished.pt").unlink(missing_ok=True)
    final = given.out / name
    shutil.rmtree(final, ignore_errors=True)
    for path in partial.iterdir():
        path.chmod(0o644)
    partial.rename(final)
    size = sum(path.stat().st_size for path in final.iterdir())
    last = json.loads((final / "loss.jsonl").read_text().splitlines()[-1])["loss"]
    print(f"{final}: {size / 1e6:.2f} MB, perplexity of the last batch {math.exp(last):.1f}")


if __name__ == "__main__":
    main()
