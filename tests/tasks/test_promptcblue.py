"""PromptCBLUE: 18 tasks that go into words and back, official scores by hand (a second
implementation of them is in test_promptcblue_blind.py), safe ones that nothing breaks."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from promptcblue_cases import answer, cases, spoiled

from residency.core.errors import DataError
from residency.core.types import Example, Facts, Labels, Prediction, Tree
from residency.corpus.promptcblue_rows import cards
from residency.tasks import promptcblue_scores, scoring
from residency.tasks.codec import read
from residency.tasks.families import of
from residency.tasks.promptcblue_scores import TASKS, Item, official
from residency.tasks.prompts import Parsed

NAMES = tuple(TASKS)


def items(words: list[str], choices: list[list[str] | None]) -> list[Item]:
    return [
        Item(str(at), one, None if c is None else tuple(c))
        for at, (one, c) in enumerate(zip(words, choices, strict=True))
    ]


def test_the_cards_are_the_eighteen_tasks_with_the_metric_of_each() -> None:
    assert len(NAMES) == 18 and tuple(cards()) == NAMES
    macro = {name for name, task in TASKS.items() if task.metric == "Macro-F1"}
    assert macro == {"CHIP-CTC", "KUAKE-QIC", "IMCS-V2-DAC"}
    assert {name for name, card in cards().items() if card.main_metric == "macro_f1"} == macro
    assert all(card.most_trained == 0.01 for card in cards().values())


@pytest.mark.parametrize("task", NAMES)
def test_parse_is_the_inverse_of_render(task: str) -> None:
    rng, card = random.Random(task), cards()[task]
    for _ in range(200):
        gold, choices = answer(task, rng)
        asked = card.for_example(Example(id="1", task=task, input="", choices=tuple(choices or ())))
        words = of(card).render(gold, "")
        assert of(card).parse(words, "", asked) == Parsed(answer=gold), words


@pytest.mark.parametrize("task", NAMES)
def test_a_right_answer_scores_one_in_both_modes(task: str) -> None:
    rng, card = random.Random(task), cards()[task]
    rows = cases(task, rng, 30, damaged=False)
    gold, _, choices = map(list, zip(*rows, strict=True))
    assert official(task, items(gold, choices), items(gold, choices)) == pytest.approx(1, abs=1e-6)
    examples, predictions = pairs(task, gold, gold, choices)
    assert scoring.main_metric(examples, predictions, card) == pytest.approx(1)


def pairs(
    task: str, gold: list[str], said: list[str], choices: list[list[str] | None]
) -> tuple[list[Example], list[Prediction]]:
    card = cards()[task]
    examples, predictions = [], []
    for at, (right, words, given) in enumerate(zip(gold, said, choices, strict=True)):
        example = Example(id=str(at), task=task, input="", choices=tuple(given or ()), lang="zh")
        answered, failure = read(words, example, card)
        examples.append(
            Example(id=str(at), task=task, input="", gold=read(right, example, card)[0], lang="zh")
        )
        predictions.append(Prediction(id=str(at), answer=answered, text=words, failure=failure))
    return examples, predictions


@pytest.mark.parametrize("task", NAMES)
def test_nothing_that_is_written_breaks_the_safe_scores(task: str) -> None:
    rng, codec = random.Random(f"fuzz/{task}"), of(cards()[task])
    gold, said, choices = [], [], []
    for _ in range(300):
        right, given = answer(task, rng)
        gold.append(codec.render(right, ""))
        said.append(spoiled(gold[-1], rng))
        choices.append(given)
    examples, predictions = pairs(task, gold, said, choices)
    assert 0 <= scoring.main_metric(examples, predictions, cards()[task]) <= 1


@pytest.mark.parametrize("task", ["CMeEE-V2", "CHIP-STS", "KUAKE-QTR", "MedDG", "CHIP-MDCFNPC"])
def test_both_modes_agree_on_valid_submissions_without_invented_labels(task: str) -> None:
    rng = random.Random(task)
    gold, said, choices = map(list, zip(*cases(task, rng, 60, damaged=False), strict=True))
    examples, predictions = pairs(task, gold, said, choices)
    safe = scoring.main_metric(examples, predictions, cards()[task])
    both = official(task, items(gold, choices), items(said, choices))
    # ROUGE-L of written answers is over words without punctuation, the official one over all tokens
    assert safe == pytest.approx(both, abs=0.1 if task == "MedDG" else 1e-9)


# Oddities, by hand


def score(task: str, gold: list[str], said: list[str], *choices: list[str]) -> float:
    given = list(choices) * len(gold) if choices else [None] * len(gold)
    return official(task, items(gold, given), items(said, given))


def test_what_is_called_micro_is_weighted_by_support() -> None:
    # 相关: tp 1, fp 0, fn 1 -> 2/3, support 2; 不相关: tp 1, fp 1, fn 0 -> 2/3, support 1
    assert score(
        "KUAKE-IR", ["相关", "相关", "不相关"], ["相关", "不相关", "不相关"]
    ) == pytest.approx(2 / 3)
    # one right of two with one label never predicted: (1 * 2/3 + 1 * 0) / 2 and not the accuracy of
    # 1/2
    assert score("KUAKE-IR", ["相关", "不相关"], ["相关", "相关"]) == pytest.approx(1 / 3)


def test_an_empty_class_is_the_first_label_and_an_invented_one_joins_the_mean() -> None:
    assert score("CHIP-STS", ["是的"], ["  "]) == 1
    assert score("CHIP-STS", ["是的"], ["相同"]) == 1
    assert score("KUAKE-QIC", ["治疗方案", "病因分析"], ["治疗方案", "别的"]) == pytest.approx(
        1 / 3
    )


def test_the_first_line_is_skipped_whatever_it_says() -> None:
    assert score("CHIP-CDEE", ["x\n主体词：痛"], ["主体词：痛"]) == 0
    assert score("IMCS-V2-SR", ["x\n咳：是"], ["咳：是\n咳：是"], ["是", "否"]) == 1


def test_an_unknown_attribute_is_the_default_one() -> None:
    gold = "x\n咳：无法根据上下文确定病人是否患有该症状"
    assert (
        score(
            "IMCS-V2-SR",
            [gold],
            ["x\n咳：也许"],
            ["患有该症状", "无法根据上下文确定病人是否患有该症状"],
        )
        == 1
    )


def test_one_line_that_cannot_be_read_fails_the_whole_submission_in_one_sentence() -> None:
    with pytest.raises(
        DataError, match=r"^CMedCausal: row 0: the official scorer cannot read"
    ) as refused:
        score(
            "CMedCausal",
            ["因果关系三元组如下：\n头实体：a；尾实体：b"],
            ["因果关系三元组如下：\n胡说"],
        )
    assert len(str(refused.value).splitlines()) == 1 and "胡说" not in str(refused.value)


def test_a_tree_is_charged_for_what_differs_at_its_place_and_for_branches_that_are_missing() -> (
    None
):
    gold = '：role=C；logical_rel=null；triples=[["a","b","c"]]\n：role=D；logical_rel=null；triples=[["d","e","f"]]\n：role=D；logical_rel=null；triples=[]'
    said = '：role=C；logical_rel=null；triples=[["A","b","c"]]'
    # distance: the root is equal, below it role and triple of the left and role of the right: 2 +
    # 1; most: (1 + 2) + (2 + 4)
    assert score("Text2DT", [gold], [said]) == pytest.approx(1 - 3 / 9)


def test_what_a_model_writes_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    words = f"：role=C；logical_rel=null；triples=[open({str(mark)!r}, 'w')]"
    gold = '：role=C；logical_rel=null；triples=[["a","b","c"]]'
    assert score("Text2DT", [gold], [words]) == pytest.approx(1 - 1 / 3)
    read(words, Example(id="1", task="Text2DT", input=""), cards()["Text2DT"])
    assert not mark.exists()


# The forgiving reader


def safely(task: str, words: str, *choices: str) -> tuple[object, str | None]:
    return read(words, Example(id="1", task=task, input="", choices=choices), cards()[task])


def test_a_malformed_line_costs_that_line_only() -> None:
    words = "因果关系三元组如下：\n头实体：a；尾实体：b\n胡说八道\n头实体：c；尾实体：d"
    found, failure = safely("CMedCausal", words)
    assert found == Facts(facts=(("因果关系", "a", "b"), ("因果关系", "c", "d")))
    assert failure == "repaired: line that cannot be read, left out"


def test_a_missing_first_line_costs_nothing() -> None:
    assert safely("CHIP-CDEE", "主体词：痛；发生状态：；描述词：；解剖部位：腹") == (
        Facts(facts=(("痛", "", "", "腹"),)),
        None,
    )


def test_an_empty_answer_is_no_answer_and_no_facts_are_said_in_words() -> None:
    assert safely("CHIP-STS", " ") == (None, "the answer is empty")
    assert safely("CHIP-CDN", "没有对应的标准化实体", "咳嗽", "发热") == (Facts(), None)
    assert safely("CMeEE-V2", "上述句子没有指定类型实体", "疾病") == (Facts(), None)
    assert safely("Text2DT", "not a tree")[0] is None


def test_what_is_not_among_the_choices_is_left_out_and_named() -> None:
    assert safely("CHIP-CDN", "咳嗽，头痛", "咳嗽", "发热") == (
        Facts(facts=(("咳嗽",),)),
        "repaired: unknown label, left out",
    )
    assert safely("CHIP-CTC", "非上述类型", "疾病", "年龄") == (
        Labels(labels=("非上述类型",)),
        None,
    )


def test_other_names_of_a_label_count_as_the_label() -> None:
    card = cards()["CHIP-STS"]
    examples = [
        Example(id="1", task="x", input="", gold=Labels(labels=("不同",)), choices=("相同", "不同"))
    ]
    assert (
        scoring.main_metric(examples, [Prediction(id="1", answer=Labels(labels=("不是",)))], card)
        == 1
    )


def test_triples_of_a_node_that_are_not_three_texts_are_left_out() -> None:
    words = (
        "节点1：role=C；logical_rel=and；triples=[['a', 'b', 'c'], ['a', 'b'], 5, ['a', 'b', 3]]"
    )
    found, failure = safely("Text2DT", words)
    assert isinstance(found, Tree) and found.nodes[0].triples == (("a", "b", "c"),)
    assert failure == "repaired: item without label and quote, left out"


def test_the_overall_score_is_the_plain_mean_of_all_eighteen() -> None:
    scores = dict.fromkeys(NAMES, 0.5) | {"MedDG": 0.05}
    assert promptcblue_scores.overall(scores) == pytest.approx((17 * 0.5 + 0.05) / 18)
    with pytest.raises(DataError, match="MedDG missing"):
        promptcblue_scores.overall({name: 1.0 for name in NAMES if name != "MedDG"})
