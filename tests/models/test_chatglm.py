"""ChatGLM2 and ChatGLM3 checkpoints become Glm: checked against the published architecture, written
out here in plain torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from residency.core.errors import UserError
from residency.models.base import BaseModelSettings, load_tokenizer, resolve
from residency.models.chatglm import configuration, convert

pytestmark = pytest.mark.training

pytest.importorskip("sentencepiece", reason="the extra chatglm is not installed")

CONFIG: dict[str, Any] = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "padded_vocab_size": 384,
    "hidden_size": 48,
    "ffn_hidden_size": 40,
    "num_layers": 2,
    "num_attention_heads": 4,
    "multi_query_group_num": 2,
    "kv_channels": 16,
    "seq_length": 128,
    "layernorm_epsilon": 1e-5,
    "rmsnorm": True,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "multi_query_attention": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "torch_dtype": "float32",
}
TEXT = (
    "患者男性，咳嗽、发热三天，诊断为肺炎。",
    "予以阿莫西林治疗，体温38.5℃，无过敏史。",
    "The patient was admitted with pneumonia and takes metformin 500 mg twice daily.",
    "Bệnh nhân ho khan và sốt, đau bụng vùng thượng vị.",
)


def weights(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under the names of a ChatGLM2 checkpoint."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    hidden, inner, size = config["hidden_size"], config["ffn_hidden_size"], config["kv_channels"]
    heads, groups, vocabulary = (
        config["num_attention_heads"],
        config["multi_query_group_num"],
        config["padded_vocab_size"],
    )
    made = {
        "transformer.embedding.word_embeddings.weight": draw(vocabulary, hidden),
        "transformer.rotary_pos_emb.inv_freq": draw(size // 4),
        "transformer.encoder.final_layernorm.weight": 1 + draw(hidden),
        "transformer.output_layer.weight": draw(vocabulary, hidden),
    }
    for number in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{number}."
        made |= {
            at + "input_layernorm.weight": 1 + draw(hidden),
            at + "self_attention.query_key_value.weight": draw((heads + 2 * groups) * size, hidden),
            at + "self_attention.query_key_value.bias": draw((heads + 2 * groups) * size),
            at + "self_attention.dense.weight": draw(hidden, heads * size),
            at + "post_attention_layernorm.weight": 1 + draw(hidden),
            at + "mlp.dense_h_to_4h.weight": draw(2 * inner, hidden),
            at + "mlp.dense_4h_to_h.weight": draw(hidden, inner),
        }
    return made


def published(
    w: dict[str, torch.Tensor],
    config: dict[str, Any],
    ids: list[int],
    base: float = 1e4,
    slow: float = 1.0,
) -> torch.Tensor:
    """Logits [tokens, vocabulary] by the published architecture, one token's attention at a time."""
    size, heads, groups = (
        config["kv_channels"],
        config["num_attention_heads"],
        config["multi_query_group_num"],
    )

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + config["layernorm_epsilon"]) * weight

    def turned(x: torch.Tensor, position: int) -> torch.Tensor:
        """The first half of a head in pairs (0, 1), (2, 3), ..., each by its own angle; the second
        half stays."""
        out = x.clone()
        rotary = size // 2
        for pair in range(rotary // 2):
            angle = position / slow / base ** (2 * pair / rotary)
            a, b = x[..., 2 * pair], x[..., 2 * pair + 1]
            out[..., 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
            out[..., 2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
        return out

    x = w["transformer.embedding.word_embeddings.weight"][ids]
    for number in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{number}."
        mixed = (
            norm(x, w[at + "input_layernorm.weight"])
            @ w[at + "self_attention.query_key_value.weight"].T
        )
        mixed = mixed + w[at + "self_attention.query_key_value.bias"]
        q = mixed[:, : heads * size].view(-1, heads, size)
        k = mixed[:, heads * size : (heads + groups) * size].view(-1, groups, size)
        v = mixed[:, (heads + groups) * size :].view(-1, groups, size)
        q = torch.stack([turned(q[p], p) for p in range(len(ids))])
        k = torch.stack([turned(k[p], p) for p in range(len(ids))])
        rows = []
        for p in range(len(ids)):
            seen = []
            for head in range(heads):
                group = head // (heads // groups)
                chances = torch.softmax(k[: p + 1, group] @ q[p, head] / math.sqrt(size), dim=0)
                seen.append(chances @ v[: p + 1, group])
            rows.append(torch.cat(seen))
        x = x + torch.stack(rows) @ w[at + "self_attention.dense.weight"].T
        wide = (
            norm(x, w[at + "post_attention_layernorm.weight"])
            @ w[at + "mlp.dense_h_to_4h.weight"].T
        )
        gate, up = wide[:, : config["ffn_hidden_size"]], wide[:, config["ffn_hidden_size"] :]
        x = x + (gate * torch.sigmoid(gate) * up) @ w[at + "mlp.dense_4h_to_h.weight"].T
    return (
        norm(x, w["transformer.encoder.final_layernorm.weight"])
        @ w["transformer.output_layer.weight"].T
    )


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sentencepiece model of ChatGLM's kind: BPE with bytes for what it does not know."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("pieces")
    (folder / "text.txt").write_text("\n".join(TEXT * 3), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=345,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.99,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


def checkpoint(
    folder: Path,
    pieces: Path,
    third: bool = False,
    shards: int = 2,
    pickled: bool = False,
    **config: Any,
) -> dict[str, Any]:
    folder.mkdir(parents=True)
    given = CONFIG | config
    (folder / "config.json").write_text(json.dumps(given), "utf-8")
    (folder / "tokenizer.model").write_bytes(pieces.read_bytes())
    roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"] if third else []
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"additional_special_tokens": roles}), "utf-8"
    )
    tensors = list(weights(given).items())
    for number in range(shards):
        part = dict(tensors[number::shards])
        name = f"{'pytorch_model' if pickled else 'model'}-{number + 1:05}-of-{shards:05}"
        if pickled:
            torch.save(part, folder / f"{name}.bin")
        else:
            safetensors.torch.save_file(part, folder / f"{name}.safetensors")
    return given


def logits(folder: Path, ids: list[int]) -> torch.Tensor:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(model).__name__ == "GlmForCausalLM"
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return found


IDS = [5, 120, 33, 33, 250, 7, 301, 64, 9]


@pytest.mark.parametrize("third", [False, True], ids=["ChatGLM2", "ChatGLM3"])
def test_logits_are_those_of_the_published_architecture(
    third: bool, pieces: Path, tmp_path: Path
) -> None:
    given = checkpoint(tmp_path / "old", pieces, third)
    folder = convert(tmp_path / "old", tmp_path / "new")
    torch.testing.assert_close(
        logits(folder, IDS), published(weights(given), given, IDS), atol=1e-5, rtol=1e-5
    )
    assert not list(tmp_path.glob("*.partial"))
    assert (folder / "model.safetensors.index.json").is_file()


@pytest.mark.parametrize(("rope", "more"), [("base", {"base": 5e5}), ("positions", {"slow": 50.0})])
def test_the_long_versions_turn_by_their_ratio(
    rope: Any, more: dict[str, float], pieces: Path, tmp_path: Path
) -> None:
    given = checkpoint(tmp_path / "old", pieces, rope_ratio=50)
    with pytest.raises(UserError, match="--rope base"):
        convert(tmp_path / "old", tmp_path / "new")
    folder = convert(tmp_path / "old", tmp_path / "new", rope=rope)
    torch.testing.assert_close(
        logits(folder, IDS), published(weights(given), given, IDS, **more), atol=1e-5, rtol=1e-5
    )


def test_tokens_are_those_of_the_sentencepiece_model(pieces: Path, tmp_path: Path) -> None:
    import sentencepiece

    checkpoint(tmp_path / "old", pieces)
    tokenizer = load_tokenizer(convert(tmp_path / "old", tmp_path / "new"))
    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    for text in (*TEXT, "sophisticated sop [MASK", "咳嗽  两次", "é😀"):
        assert tokenizer.encode(text, add_special_tokens=False) == model.encode(text)
    count = model.get_piece_size()
    assert tokenizer.encode("", add_special_tokens=True) == [count + 1, count + 3], (
        "[gMASK] and sop begin a text"
    )
    words = TEXT[0]
    assert tokenizer.decode(tokenizer.encode(words, add_special_tokens=False)) == model.decode(
        model.encode(words)
    )


def test_the_template_of_chatglm2_is_that_of_its_rounds(pieces: Path, tmp_path: Path) -> None:
    checkpoint(tmp_path / "old", pieces)
    tokenizer = load_tokenizer(convert(tmp_path / "old", tmp_path / "new"))
    turns = [
        {"role": "user", "content": "咳嗽？"},
        {"role": "assistant", "content": "休息。"},
        {"role": "user", "content": "多久？"},
    ]
    first = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert first == "[gMASK]<sop>[Round 1]\n\n问：咳嗽？\n\n答："
    whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert whole == first + "休息。</s>\n\n[Round 2]\n\n问：多久？\n\n答："


def test_a_prompt_of_chatglm3_has_the_tokens_of_its_parts(pieces: Path, tmp_path: Path) -> None:
    """Its own code encodes the line of the role and the content apart, each with the mark of a
    beginning."""
    import sentencepiece

    checkpoint(tmp_path / "old", pieces, third=True)
    tokenizer = load_tokenizer(convert(tmp_path / "old", tmp_path / "new"))
    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "咳嗽三天"}], tokenize=False, add_generation_prompt=True
    )
    count = model.get_piece_size()
    user, assistant = count + 6, count + 7
    found = tokenizer.encode(text, add_special_tokens=False)
    start = [
        count + 1,
        count + 3,
        user,
        *model.encode("\n"),
        *model.encode("咳嗽三天"),
        assistant,
        *model.encode("\n"),
    ]
    assert found[: len(start)] == start


def test_a_converted_model_learns_and_answers(pieces: Path, tmp_path: Path) -> None:
    """As a base of a recipe: end of an answer, prompt and window are found."""
    from residency.models import artefact
    from residency.models.generation import TokenLimits

    checkpoint(tmp_path / "old", pieces)
    base = resolve(BaseModelSettings(id=str(convert(tmp_path / "old", tmp_path / "new"))))
    assert base.architecture == "causal" and base.window == 128
    chat = artefact.chat(base, TokenLimits())
    assert chat.tokenizer.decode(chat.answer_ids("")) == "</s>"


def test_pickled_weights_need_a_word(pieces: Path, tmp_path: Path) -> None:
    given = checkpoint(tmp_path / "old", pieces, pickled=True)
    with pytest.raises(UserError, match="--allow-pickle"):
        convert(tmp_path / "old", tmp_path / "new")
    folder = convert(tmp_path / "old", tmp_path / "new", allow_pickle=True)
    torch.testing.assert_close(
        logits(folder, IDS), published(weights(given), given, IDS), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"position_encoding_2d": True}, "use ChatGLM2-6B or ChatGLM3-6B"),
        ({"model_type": "llama"}, "no ChatGLM2 or ChatGLM3 model"),
        ({"rmsnorm": False}, "rmsnorm is False"),
    ],
)
def test_what_glm_does_not_compute_is_refused_in_a_sentence(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        configuration(CONFIG | change)


def test_a_checkpoint_that_is_not_whole_leaves_nothing_behind(pieces: Path, tmp_path: Path) -> None:
    checkpoint(tmp_path / "old", pieces)
    next(iter(sorted((tmp_path / "old").glob("*.safetensors")))).unlink()
    with pytest.raises(UserError, match="not whole"):
        convert(tmp_path / "old", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
