"""A file in GGUF of a model's shape, random weights in blocks of 4 bits, as the export writes them.

    python tests/services_all/random_gguf.py SHAPE.json MODEL.gguf

Run by an interpreter that has the package gguf; SHAPE.json holds the architecture's name at llama.cpp,
what its header says, its words' number, and the shape of every tensor by its name at transformers.
One tensor at a time is in memory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

BLOCK, BYTES = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q4_0]
SCALE = 0.0043
"""Of a block: weights of some 0.02, as of models that have learned nothing yet."""


def matrix(shape: list[int], chance: np.random.Generator) -> Any:
    """Rows of blocks: a scale in 16 bits and 32 weights of 4."""
    rows, blocks = shape[0], shape[1] // BLOCK
    found = chance.integers(0, 256, (rows, blocks, BYTES), dtype=np.uint8)
    found[:, :, :2] = np.frombuffer(np.float16(SCALE).tobytes(), np.uint8)
    return found.reshape(rows, blocks * BYTES)


def main(shape: Path, out: Path) -> None:
    """Write it."""
    said, chance = json.loads(shape.read_text()), np.random.default_rng(0)
    arch, words = said["arch"], said["words"]
    writer = gguf.GGUFWriter(out, arch)
    for key, value in said["header"].items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{arch}.{key}", value)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * (words - 259)
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(
        ["<unk>", "<s>", "</s>", *bytes_, *(f"▁w{n}" for n in range(words - 259))]
    )
    writer.add_token_scores([0.0] * words)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[arch]
    names = gguf.get_tensor_name_map(number, said["header"]["block_count"])
    tensors = [
        (names.get_name(name, (".weight", ".bias")), one) for name, one in said["tensors"].items()
    ]
    for name, one in tensors:
        two = len(one) == 2
        size = one[0] * one[1] // BLOCK * BYTES if two else 4 * one[0]
        kept = [one[0], one[1] // BLOCK * BYTES] if two else one
        kind = gguf.GGMLQuantizationType.Q4_0 if two else None
        dtype = np.dtype(np.uint8 if two else np.float32)
        writer.add_tensor_info(name, kept, dtype, size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, one in tensors:
        ones = np.full(one, float("norm" in name), np.float32) if len(one) == 1 else None
        writer.write_tensor_data(matrix(one, chance) if ones is None else ones)
    writer.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
