"""Chat templates of several kinds on models of several architectures: what is trained, where an
answer ends, alone as in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from residency.core.errors import UserError
from residency.core.types import Example, Text, Turn
from residency.models import artefact, attention
from residency.models.base import Base, BaseModelSettings, resolve
from residency.models.causal import CausalPredictor, token_losses
from residency.models.chat_template import ChatTokeniser, TokenRow
from residency.models.generation import Generation, TokenLimits
from residency.tasks import heads
from residency.tasks.card import load_card
from residency.tasks.heads import IGNORED
from residency.train.batches import collate
from residency.train.items import TrainingItem

pytestmark = pytest.mark.training

CARD = load_card("qa")
SPECIAL = [
    "<pad>",
    "<bos>",
    "<eos>",
    "<|im_start|>",
    "<|im_end|>",
    "<start_of_turn>",
    "<end_of_turn>",
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no "
    "system') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim "
    "}}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
REASONING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}{{ m['content'] "
    "}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think></think>{% endif %}"
)
WORDS = (
    "{% for m in messages %}{{ '### Question: ' if m['role'] == 'user' else '### Answer: ' }}{{ "
    "m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}### Answer: {% endif %}"
)
DATED = (
    "{{ bos_token }}Today is {{ date_string if date_string is defined else strftime_now('%d %B "
    "%Y') }}.\n"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ '[Q] ' if m['role'] == 'user' else '[A] ' }}{{ m['content'] "
    "}}{% endfor %}{% if add_generation_prompt %}[A] {% endif %}"
)
TEMPLATES = {
    "chatml": (CHATML, "<|im_end|>"),
    "no-system": (NO_SYSTEM, "<end_of_turn>"),
    "reasoning": (REASONING, "<|im_end|>"),
    "words": (WORDS, "<eos>"),  # a line break alone ends nothing: answers hold line breaks
    "spoken-end": (WORDS.replace("\n{% endfor", " ###\n{% endfor"), " ###\n"),
    "dated": (DATED, "<|im_end|>"),
    "no-end": (NO_END, "<eos>"),
}
"""Name -> template, and what ends an answer in it."""
ARCHITECTURES = ("Llama", "Qwen2", "Qwen3", "Gemma", "Mistral", "GPT2")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Bytes as tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={sign: i for i, sign in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=SPECIAL[3:],
    )


def config(name: str, size: int) -> Any:
    import transformers

    if name == "GPT2":
        return transformers.GPT2Config(
            vocab_size=size,
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=256,
            bos_token_id=257,
            eos_token_id=258,
        )
    kind = getattr(transformers, f"{name}Config")
    return kind(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        pad_token_id=256,
        bos_token_id=257,
        eos_token_id=258,
    )


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Base]:
    """A fresh model of each architecture, with the template named by it."""
    from transformers import AutoModelForCausalLM

    found = {}
    for name in ARCHITECTURES:
        folder = tmp_path_factory.mktemp("bases") / name
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config(name, len(tokenizer))).save_pretrained(folder)
        tokenizer.chat_template = CHATML
        tokenizer.save_pretrained(folder)
        found[name] = resolve(BaseModelSettings(id=str(folder)), Path.cwd())
    return found


def chat_of(tokenizer: Any, name: str, limits: TokenLimits = TokenLimits()) -> ChatTokeniser:
    tokenizer.chat_template = TEMPLATES[name][0]
    return ChatTokeniser(tokenizer, 256, limits)


def user(text: str) -> Turn:
    return Turn(role="user", text=text)


def said(text: str) -> Turn:
    return Turn(role="assistant", text=text)


TALK = (user("hỏi một"), said("đáp một"), user("问二"))


def learned(chat: ChatTokeniser, row: TokenRow) -> str:
    return str(chat.tokenizer.decode([target for target in row.targets if target != IGNORED]))


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_trained_is_every_answer_with_its_end_and_the_last_follows_what_will_be_asked(
    tokenizer: Any, name: str
) -> None:
    chat, end = chat_of(tokenizer, name), TEMPLATES[name][1]
    rows = chat.encode(TALK, "答二", "all").rows
    assert "".join(learned(chat, row) for row in rows) == f"đáp một{end}答二{end}"
    prompt, _ = chat.prompt(TALK, 256)
    assert prompt is not None and rows[-1].ids == [*prompt, *chat.answer_ids("答二")]
    assert len(rows) == (2 if name in ("reasoning", "no-end", "words") else 1)
    (last,) = chat.encode(TALK, "答二", "last").rows
    assert learned(chat, last) == f"答二{end}"
    assert last.ids == rows[-1].ids


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_asked_is_what_the_template_itself_writes(tokenizer: Any, name: str) -> None:
    chat = chat_of(tokenizer, name)
    prompt, _ = chat.prompt(TALK, 256)
    messages = [{"role": turn.role, "content": turn.text} for turn in TALK]
    wanted = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, date_string="1 January 2025"
    )
    assert tokenizer.decode(prompt) == wanted


def test_a_system_turn_goes_before_the_first_question_where_the_template_has_no_place_for_it(
    tokenizer: Any,
) -> None:
    prompt, _ = chat_of(tokenizer, "no-system").prompt(
        (Turn(role="system", text="be brief"), user("why?")), 256
    )
    assert (
        tokenizer.decode(prompt)
        == "<bos><start_of_turn>user\nbe brief\n\nwhy?<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_of_a_turn_ends_the_writing(tokenizer: Any, name: str) -> None:
    chat, end = chat_of(tokenizer, name), TEMPLATES[name][1]
    if name == "spoken-end":
        assert chat.stop == ("###",)
    else:
        assert tokenizer.convert_tokens_to_ids(end) in chat.ends
    assert tokenizer.eos_token_id in chat.ends


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_cut_answer_teaches_no_end(tokenizer: Any, name: str) -> None:
    chat = chat_of(tokenizer, name, TokenLimits(source=128, target=6, over="cut"))
    (row,) = chat.encode((user("x"),), "abcdefghij").rows
    assert learned(chat, row) == "abcdef"


def test_templates_that_write_differently_have_different_hashes(tokenizer: Any) -> None:
    digests = [chat_of(tokenizer, name).digest for name in TEMPLATES]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("broken", ["{{ nonsense", "{{ raise_exception('never') }}", "constant"])
def test_a_template_that_cannot_be_used_is_one_sentence(tokenizer: Any, broken: str) -> None:
    tokenizer.chat_template = broken
    with pytest.raises(UserError) as refused:
        ChatTokeniser(tokenizer, 256)
    assert len(str(refused.value).splitlines()) == 1


def examples() -> list[Example]:
    questions = (
        "why?",
        "ai là bác sĩ trực đêm nay?",
        "为什么？",
        "a much longer question about nothing in particular",
    )
    return [
        Example(
            id=q,
            task="qa",
            input=q,
            turns=(user(q),),
            gold=Text(text=f"because {len(q)}"),
            profile="synthetic",
        )
        for q in questions
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_alone_is_as_in_a_batch_and_as_streamed(
    bases: dict[str, Base], name: str, temperature: float
) -> None:
    settings = Generation(
        max_tokens=12, temperature=temperature, top_k=40 if temperature else 0, seed=3
    )
    predictor = CausalPredictor.untuned(bases[name], CARD, TokenLimits(), settings)
    together = [one.text for one in predictor.predict(examples())]
    alone = [next(iter(predictor.predict([example]))).text for example in examples()]
    assert together == alone
    assert together == ["".join(predictor.stream(example.turns)).strip() for example in examples()]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_writing_is_a_plain_loop_over_the_likeliest_token(
    bases: dict[str, Base], name: str
) -> None:
    predictor = CausalPredictor.untuned(bases[name], CARD, TokenLimits(), Generation(max_tokens=8))
    example = examples()[1]
    ids, _ = predictor.chat.prompt(example.turns, 200)
    assert ids is not None
    start = len(ids)
    for _ in range(8):
        with torch.inference_mode():
            token = int(predictor.model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in predictor.ends:
            break
        ids = [*ids, token]
    words = predictor.chat.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()
    assert next(iter(predictor.predict([example]))).text == words


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gold_losses_and_choices_are_those_of_a_plain_forward(
    bases: dict[str, Base], name: str
) -> None:
    predictor = CausalPredictor.untuned(bases[name], CARD, TokenLimits(), Generation(max_tokens=8))
    found = list(predictor.gold_losses(examples()))
    for example, (loss, count) in zip(examples(), found, strict=True):
        assert isinstance(example.gold, Text)
        prompt, _ = predictor.chat.prompt(example.turns, 200)
        answer = predictor.chat.answer_ids(example.gold.text)
        assert prompt is not None
        with torch.inference_mode():
            logits = (
                predictor.model(torch.tensor([[*prompt, *answer]]))
                .logits[0]
                .double()
                .log_softmax(-1)
            )
        wanted = -sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
        assert (loss, count) == (pytest.approx(wanted, rel=1e-4), len(answer))
        assert predictor.choices(example.turns, [example.gold.text])[0] == pytest.approx(
            -wanted, rel=1e-4
        )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_end_to_end_give_the_losses_and_gradients_of_padded_ones_or_are_refused(
    bases: dict[str, Base], name: str
) -> None:
    chat = artefact.chat(bases[name], TokenLimits())
    rows = [chat.encode(example.turns, example.gold.text).rows[0] for example in examples()]  # type: ignore[union-attr]
    models = [artefact.fresh(bases[name], CARD, "text").eval() for _ in range(2)]
    if not (attention.use(models[1]) and attention.keeps_apart(models[1])):
        attention.leave(models[1])
        assert name == "GPT2"  # its positions cannot be told to begin anew
        return
    items = [
        TrainingItem(example=str(i), ids=row.ids, targets=row.targets) for i, row in enumerate(rows)
    ]
    first, _ = token_losses(models[0], collate(items, chat.pad_id, heads.WORDS, False))
    second, _ = token_losses(
        models[1],
        attention.lay_end_to_end([row.ids for row in rows], [row.targets for row in rows]),
    )
    assert torch.allclose(first, second, atol=1e-5)
    first.mean().backward()
    second.mean().backward()
    for (where, a), (_, b) in zip(
        models[0].named_parameters(), models[1].named_parameters(), strict=True
    ):
        if a.grad is not None:
            assert torch.allclose(a.grad, b.grad, atol=1e-5), where
