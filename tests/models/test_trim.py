"""A base that is cut down keeps its first layers, and of its pieces those that texts need, each with
its own row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from residency.core.errors import UserError
from residency.models.trim import WORDS, trim

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁gan", "▁ganar", "肝硬", "肝", "硬", "ж", "a"]


def base(folder: Path, kind: str = "bert") -> Path:
    safetensors = pytest.importorskip("safetensors.numpy")
    folder.mkdir()
    config = {"model_type": kind, "num_hidden_layers": 3, "vocab_size": len(PIECES)}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    ends = {
        name: {"id": name, "ids": [row], "tokens": [name]}
        for row, name in ((0, "<s>"), (2, "</s>"))
    }
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": row, "content": PIECES[row], "single_word": False, "lstrip": False}
            | {"rstrip": False, "normalized": False, "special": True}
            for row in range(4)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": ends,
        },
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[piece, -float(row)] for row, piece in enumerate(PIECES)],
            "byte_fallback": False,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    rows = np.arange(len(PIECES), dtype=np.float32)[:, None].repeat(2, 1)
    layers = {
        f"encoder.layer.{n}.output.dense.weight": np.full((1,), n, np.float32) for n in range(3)
    }
    safetensors.save_file({WORDS: rows, **layers}, folder / "model.safetensors")
    return folder


def test_each_kept_piece_has_its_own_row_and_upper_layers_are_gone(tmp_path: Path) -> None:
    import safetensors.numpy
    from tokenizers import Tokenizer

    made = trim(base(tmp_path / "whole"), tmp_path / "small", ["gan 肝硬"], layers=2, most=9)
    tensors = safetensors.numpy.load_file(made / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    rows = {piece: tensors[WORDS][row][0] for piece, row in tokenizer.get_vocab().items()}
    assert all(PIECES[int(number)] == piece for piece, number in rows.items())
    assert {"▁gan", "肝", "硬", "a"} <= set(rows) and not {"ж", "肝硬"} & set(rows)
    assert {name for name in tensors if name != WORDS} == {
        f"encoder.layer.{n}.output.dense.weight" for n in range(2)
    }
    assert tokenizer.encode("gan 肝硬").tokens[-3:] == ["肝", "硬", "</s>"]


def test_a_base_of_another_shape_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only a base like e5-small"):
        trim(base(tmp_path / "whole", "roberta"), tmp_path / "small", [], layers=1, most=9)
