"""ChatGLM2 and ChatGLM3 checkpoints, whose own code no longer runs, as transformers' native
``Glm``: other names, the same numbers.

Weights come out as they go in, shard by shard; query, key and value are parts of one matrix there.
The tokenizer is a sentencepiece model that becomes a fast tokenizer and is compared with it before
anything is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.errors import UserError
from residency.core.files import whole_folder, write_json, write_text

Rope = Literal["base", "positions"]

LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.(.+)")
NAMES = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "transformer.output_layer.weight": "lm_head.weight",
}
IN_LAYER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
    "self_attention.dense.weight": "self_attn.o_proj.weight",
    "mlp.dense_h_to_4h.weight": "mlp.gate_up_proj.weight",
    "mlp.dense_4h_to_h.weight": "mlp.down_proj.weight",
}
FIXED = {
    "rmsnorm": True,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "multi_query_attention": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
}
"""What the published checkpoints have in common, and what ``Glm`` can compute."""
SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")
"""Tokens behind the vocabulary, in their order; the last two are called sop and eop there, which
are parts of words."""
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
"""Those that ChatGLM3 adds."""
PROBES = (
    "患者，男，65岁，反复咳嗽3天。",
    "The patient takes metformin 500 mg twice daily.",
    "Bệnh nhân ho khan 2 ngày, không sốt.",
    "第一行\n第二行\t制表",
    "体温38.5℃ 😀",
)

TEMPLATE_2 = (
    "[gMASK]<sop>{% set turn = namespace(number=0) %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{% set turn.number = turn.number + 1 %}"
    "{{ ('\\n\\n' if turn.number > 1 else '') + '[Round ' + turn.number | string + ']\\n\\n问：' + "
    "message['content'] + '\\n\\n答：' }}"
    "{% else %}{{ message['content'] + '</s>' }}{% endif %}{% endfor %}"
)
TEMPLATE_3 = (
    "[gMASK]<sop>{% for message in messages %}{{ '<|' + message['role'] + '|>\\n ' + "
    "message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n ' }}{% endif %}"
)


def convert(
    source: Path, target: Path, allow_pickle: bool = False, rope: Rope | None = None
) -> Path:
    """Write a ChatGLM2 or ChatGLM3 checkpoint as ``Glm`` into a new folder, whole or not at all.

    Raises ``UserError`` for ChatGLM-6B, for another architecture, for pickled weights that are not
    allowed, and where the tokenizer cannot be converted exactly.
    """
    given = _config(source)
    config = configuration(given, rope)
    shards = _shards(source, allow_pickle)
    if target.exists():
        raise UserError(f"{target}: is there already; name a new folder.")
    with whole_folder(target) as partial:
        _tokenizer(source, partial, config)
        write_json(partial / "config.json", config)
        _weights(shards, partial, config)
    return target


def _config(source: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode((source / "config.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        raise UserError(
            f"{source}: holds no config.json that can be read; give the folder of a ChatGLM "
            "checkpoint."
        ) from None


def configuration(given: dict[str, Any], rope: Rope | None = None) -> dict[str, Any]:
    """The configuration of ``Glm`` for one of ChatGLM2 or ChatGLM3.

    Raises ``UserError`` for what ``Glm`` does not compute.
    """
    if "position_encoding_2d" in given or "inner_hidden_size" in given:
        raise UserError(
            "this is ChatGLM-6B (the first one), whose architecture transformers does not have; "
            "use ChatGLM2-6B or ChatGLM3-6B, which have the same size."
        )
    if given.get("model_type") != "chatglm" or "kv_channels" not in given:
        raise UserError(
            "config.json describes no ChatGLM2 or ChatGLM3 model; other models need no import: "
            "name their folder as base."
        )
    for name, value in FIXED.items():
        if given.get(name, value) != value:
            raise UserError(
                f"config.json: {name} is {given[name]}, which no published ChatGLM2 or ChatGLM3 "
                "has; it cannot be converted."
            )
    return {
        "architectures": ["GlmForCausalLM"],
        "model_type": "glm",
        "vocab_size": given["padded_vocab_size"],
        "hidden_size": given["hidden_size"],
        "intermediate_size": given["ffn_hidden_size"],
        "num_hidden_layers": given["num_layers"],
        "num_attention_heads": given["num_attention_heads"],
        "num_key_value_heads": given["multi_query_group_num"],
        "head_dim": given["kv_channels"],
        "hidden_act": "silu",
        "attention_bias": True,
        "attention_dropout": given.get("attention_dropout", 0.0),
        "max_position_embeddings": given["seq_length"],
        "rms_norm_eps": given["layernorm_epsilon"],
        "tie_word_embeddings": False,
        "rope_parameters": _rope(float(given.get("rope_ratio", 1)), rope),
        "dtype": given.get("torch_dtype", "float16"),
    }


def _rope(ratio: float, rope: Rope | None) -> dict[str, Any]:
    """How positions turn queries and keys: half of each head, in pairs."""
    half = {"partial_rotary_factor": 0.5}
    if ratio == 1:
        return {"rope_type": "default", "rope_theta": 10000.0, **half}
    if rope is None:
        raise UserError(
            f"config.json: rope_ratio is {ratio:g}, which the long versions use in two ways; say "
            "--rope base (ChatGLM3: the base of the "
            "angles is multiplied) or --rope positions (ChatGLM2: positions are divided)."
        )
    if rope == "base":
        return {"rope_type": "default", "rope_theta": 10000.0 * ratio, **half}
    return {"rope_type": "linear", "factor": ratio, "rope_theta": 10000.0, **half}


def _shards(source: Path, allow_pickle: bool) -> list[Path]:
    """The files that hold the weights."""
    safe, pickled = sorted(source.glob("*.safetensors")), sorted(source.glob("pytorch_model*.bin"))
    if safe:
        return safe
    if not pickled:
        raise UserError(
            f"{source}: holds no weights (*.safetensors or pytorch_model*.bin); copy the model "
            "again."
        )
    if not allow_pickle:
        raise UserError(
            f"{source}: its weights are pickled (*.bin), which can run code when they are opened; "
            "say --allow-pickle if you trust their source."
        )
    return pickled


def _weights(shards: list[Path], target: Path, config: dict[str, Any]) -> None:
    """Write the tensors of each shard under their new names, one shard in memory at a time."""
    import safetensors.torch

    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, start=1):
        pairs = (rename(old, found, config) for old, found in _read(shard))
        tensors = {name: tensor for each in pairs for name, tensor in each}
        file = "model.safetensors"
        if len(shards) > 1:
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors.torch.save_file(tensors, target / file, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    wanted = expected(config)
    if missing := wanted - weight_map.keys():
        raise UserError(
            f"the checkpoint is not whole: {len(missing)} tensors are missing, such as "
            f"{min(missing)}; copy the model again."
        )
    if len(shards) > 1:
        write_json(
            target / "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": weight_map},
        )


def _read(shard: Path) -> Iterator[tuple[str, Any]]:
    import safetensors
    import torch

    if shard.suffix == ".safetensors":
        with safetensors.safe_open(shard, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                yield name, file.get_tensor(name)
        return
    try:
        found = torch.load(shard, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # pickle raises many kinds; each means the same
        raise UserError(f"{shard}: cannot be read as weights; copy the model again.") from None
    yield from found.items()


def rename(name: str, tensor: Any, config: dict[str, Any]) -> list[tuple[str, Any]]:
    """A tensor under its name in ``Glm``; query, key and value apart.

    Raises ``UserError`` for a tensor that a base does not have.
    """
    if name.endswith("rotary_pos_emb.inv_freq"):
        return []  # computed from the configuration
    if name in NAMES:
        return [(NAMES[name], tensor.contiguous())]
    found = LAYER.fullmatch(name)
    if found and found[2] in IN_LAYER:
        return [(f"model.layers.{found[1]}.{IN_LAYER[found[2]]}", tensor.contiguous())]
    if found and found[2] in (
        "self_attention.query_key_value.weight",
        "self_attention.query_key_value.bias",
    ):
        size, groups = config["head_dim"], config["num_key_value_heads"]
        sizes = [config["num_attention_heads"] * size, groups * size, groups * size]
        if tensor.shape[0] != sum(sizes):
            raise UserError(
                f"{name}: has {tensor.shape[0]} rows instead of {sum(sizes)}; config.json is of "
                "another model."
            )
        part = name.rsplit(".", 1)[-1]
        return [
            (f"model.layers.{found[1]}.self_attn.{which}_proj.{part}", piece.clone())
            for which, piece in zip("qkv", tensor.split(sizes), strict=True)
        ]
    if "prefix_encoder" in name:
        raise UserError(
            "the checkpoint holds a P-Tuning prefix of its own; import the base that it was "
            "trained on."
        )
    raise UserError(
        f"{name[:80]!r}: no tensor of ChatGLM2 or ChatGLM3 has this name; it cannot be converted."
    )


def expected(config: dict[str, Any]) -> set[str]:
    """Names of all tensors of a model."""
    own = (f"self_attn.{which}_proj.{kind}" for which in "qkv" for kind in ("weight", "bias"))
    parts, numbers = [*IN_LAYER.values(), *own], range(config["num_hidden_layers"])
    layers = {f"model.layers.{number}.{part}" for number in numbers for part in parts}
    return layers | set(NAMES.values())


def _tokenizer(source: Path, target: Path, config: dict[str, Any]) -> None:
    """The fast tokenizer with its template, the ids of the ends, and a check against the
    sentencepiece model."""
    path = source / "tokenizer.model"
    try:
        import sentencepiece
    except ImportError:
        raise UserError(
            'sentencepiece is not installed; pip install "residency[chatglm]" installs it.'
        ) from None
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError):
        raise UserError(
            f"{path}: is no sentencepiece model; ChatGLM2 and ChatGLM3 have one, GLM-4 has native "
            "repositories (glm-4-9b-chat-hf)."
        ) from None
    third = is_third(source)
    tokenizer = fast(path, (*SPECIAL, *(ROLES if third else ())))
    for text in PROBES:
        if tokenizer.encode(text, add_special_tokens=False) != model.encode(text):
            raise UserError(
                f"{path}: cannot be turned into a fast tokenizer that gives the same tokens; it is "
                "of another kind."
            )
    if len(tokenizer) > config["vocab_size"]:
        raise UserError(
            f"{path}: has {len(tokenizer)} tokens, the model {config['vocab_size']}; they are not "
            "of one model."
        )
    tokenizer.chat_template = TEMPLATE_3 if third else TEMPLATE_2
    tokenizer.save_pretrained(target)
    ends = ["</s>", *(["<|user|>", "<|observation|>"] if third else [])]
    ids = [int(tokenizer.convert_tokens_to_ids(token)) for token in ends]
    config |= {
        "eos_token_id": ids,
        "bos_token_id": model.bos_id(),
        "pad_token_id": tokenizer.pad_token_id,
    }
    write_text(
        target / "generation_config.json",
        msgspec.json.encode({"eos_token_id": ids, "pad_token_id": tokenizer.pad_token_id}).decode(),
    )


def is_third(source: Path) -> bool:
    """Whether a checkpoint is of ChatGLM3: its tokenizer knows roles."""
    names = ("tokenizer_config.json", "tokenization_chatglm.py", "special_tokens_map.json")
    files = (source / name for name in names)
    texts = (file.read_text("utf-8", errors="replace") for file in files if file.is_file())
    return any("<|user|>" in text for text in texts)


def fast(path: Path, special: tuple[str, ...]) -> Any:
    """A sentencepiece model as a fast tokenizer, with tokens behind its vocabulary that text is
    never read as.

    Raises ``UserError`` where its kind is neither BPE nor unigram.
    """
    import tokenizers
    import transformers
    from sentencepiece import sentencepiece_model_pb2 as formats
    from tokenizers import decoders, normalizers, processors

    proto = formats.ModelProto()
    proto.ParseFromString(path.read_bytes())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    kind, bytes_too = proto.trainer_spec.model_type, proto.trainer_spec.byte_fallback
    unknown = pieces[proto.trainer_spec.unk_id][0]
    if kind == 2:
        vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
        model: Any = tokenizers.models.BPE(
            vocabulary, merges(pieces), unk_token=unknown, fuse_unk=True, byte_fallback=bytes_too
        )
    elif kind == 1:
        model = tokenizers.models.Unigram(pieces, proto.trainer_spec.unk_id, bytes_too)
    else:
        raise UserError(f"{path}: is neither BPE nor unigram; it is not of ChatGLM2 or ChatGLM3.")
    backend = tokenizers.Tokenizer(model)
    spec = proto.normalizer_spec
    steps: list[Any] = (
        [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    )
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    steps += [normalizers.Prepend("▁")] if spec.add_dummy_prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    lead = [decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *lead]
    )
    controls = [piece.piece for piece in proto.pieces if piece.type == 3]
    backend.add_special_tokens([unknown, *controls, *special])
    begin = [(name, backend.token_to_id(name)) for name in ("[gMASK]", "<sop>")]
    backend.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A",
        pair="[gMASK] <sop> $A $B </s>",
        special_tokens=[*begin, ("</s>", backend.token_to_id("</s>"))],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=unknown,
        bos_token="<s>",
        eos_token="</s>",
        pad_token=unknown,
        padding_side="left",
    )


def merges(pieces: list[tuple[str, float]]) -> list[tuple[str, str]]:
    """The merges of a sentencepiece BPE model, which only keeps what they led to: pairs of pieces
    that make a piece, the best piece first."""
    ranks = {piece: number for number, (piece, _) in enumerate(pieces)}
    found: list[tuple[float, int, int, str, str]] = []
    for piece, score in pieces:
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in ranks and right in ranks:
                found.append((-score, ranks[left], ranks[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]
