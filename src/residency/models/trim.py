"""A small model cut out of a larger one: its first layers, and of its vocabulary what texts of a
field need.

The upper layers of an encoder serve what it was trained to say last, and tagging loses little
without them (Sajjad et al. 2023, "On the effect of dropping layers of pre-trained transformer
models"). Most rows of a multilingual vocabulary are of languages that are never met.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from residency.core.errors import UserError
from residency.core.files import whole_folder, write_json
from residency.core.units import CJK

WORDS = "embeddings.word_embeddings.weight"
LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
SIGNS = rf"[\x21-\x7e\u00a0-\u024f\u1ea0-\u1ef9\u2010-\u2026\u3000-\u303f\uff01-\uff5e{CJK}]"
HAN = 6000
"""Chinese characters that are kept, the likeliest first."""


def trim(source: Path, target: Path, texts: Iterable[str], layers: int, most: int) -> Path:
    """Write the first ``layers`` layers of a BERT-shaped base, with at most ``most`` pieces, into a
    new folder.

    Kept are special pieces, single characters, the pieces that ``texts`` use most, and the
    likeliest of Latin letters. Each Chinese character is a token then, so that a span can end
    behind any. Raises ``UserError`` for a base of another shape.
    """
    import safetensors.numpy

    config = json.loads((source / "config.json").read_text("utf-8"))
    written = json.loads((source / "tokenizer.json").read_text("utf-8"))
    if config.get("model_type") != "bert" or written["model"]["type"] != "Unigram":
        raise UserError(f"{source}: only a base like e5-small can be trimmed (BERT, Unigram).")
    written["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": f"[{CJK}]"},
                "behavior": "Isolated",
                "invert": False,
            },
            written["pre_tokenizer"] | {"prepend_scheme": "first"},
        ],
    }
    rows = kept_rows(written, texts, most)
    tensors = {
        name: tensor[rows] if name == WORDS else tensor
        for name, tensor in safetensors.numpy.load_file(source / "model.safetensors").items()
        if not (match := LAYER.match(name)) or int(match[1]) < layers
    }
    config |= {"num_hidden_layers": layers, "vocab_size": len(rows)}
    place = {row: number for number, row in enumerate(rows)}
    written["model"]["vocab"] = [written["model"]["vocab"][row] for row in rows]
    written["model"]["unk_id"] = place[written["model"]["unk_id"]]
    for one in written["added_tokens"]:
        one["id"] = place[one["id"]]
    for one in written["post_processor"]["special_tokens"].values():
        one["ids"] = [place[row] for row in one["ids"]]
    with whole_folder(target) as partial:
        write_json(partial / "config.json", config)
        (partial / "tokenizer.json").write_text(json.dumps(written, ensure_ascii=False), "utf-8")
        for name in ("tokenizer_config.json", "LICENSE"):
            if (source / name).is_file():
                (partial / name).write_bytes((source / name).read_bytes())
        safetensors.numpy.save_file(tensors, partial / "model.safetensors", {"format": "pt"})
    return target


def kept_rows(written: dict[str, Any], texts: Iterable[str], most: int) -> list[int]:
    """Rows of the vocabulary that stay, in their order."""
    from tokenizers import Tokenizer

    vocabulary = written["model"]["vocab"]
    special = {one["id"] for one in written["added_tokens"]} | {written["model"]["unk_id"]}
    single = [row for row, (piece, _) in enumerate(vocabulary) if re.fullmatch(f"▁?{SIGNS}", piece)]
    han = {row for row in single if re.fullmatch(f"▁?[{CJK}]", vocabulary[row][0])}
    likeliest = sorted(han, key=lambda row: -vocabulary[row][1])[:HAN]
    kept = special | (set(single) - han) | set(likeliest)
    kept |= {row for row, (piece, _) in enumerate(vocabulary) if piece == "▁"}
    used: Counter[int] = Counter()
    tokenizer = Tokenizer.from_str(json.dumps(written))
    for found in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        used.update(found.ids)
    latin = re.compile(r"▁?[A-Za-zÀ-ɏẠ-ỹ]{2,}")
    likely = [row for row, (piece, _) in enumerate(vocabulary) if latin.fullmatch(piece)]
    for row in (*(row for row, _ in used.most_common()), *likely):  # the likeliest stand first
        if len(kept) >= most:
            break
        kept.add(row)
    return sorted(kept)
