"""The filter on real pairs: Chinese answers of Huatuo, English abstracts of PubMedQA.

The text is the pair's own, an answer is one or two of its sentences in other clothes (width, case,
contractions, thousands, connectives); a corruption changes one drug, negation, dose, direction or
disease, half of the names and numbers to ones that the same text holds elsewhere.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from residency.knowledge.grounding import text_faults

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("RESIDENCY_SHARED_DATA", ROOT.parent / "shared" / "data"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the real corpora are not here"),
]
DRUGS = {
    "en": [
        "aspirin",
        "heparin",
        "warfarin",
        "insulin",
        "metformin",
        "tamoxifen",
        "statin",
        "statins",
        "morphine",
        "lidocaine",
        "cisplatin",
        "methotrexate",
        "prednisolone",
        "dexamethasone",
        "cyclosporine",
        "tacrolimus",
        "omeprazole",
        "ibuprofen",
        "paracetamol",
        "misoprostol",
        "oxytocin",
        "propofol",
        "ketamine",
        "fentanyl",
        "rituximab",
        "infliximab",
        "bevacizumab",
        "gemcitabine",
        "docetaxel",
        "paclitaxel",
        "amoxicillin",
        "vancomycin",
        "clopidogrel",
        "digoxin",
        "furosemide",
        "levothyroxine",
        "estrogen",
        "testosterone",
        "progesterone",
        "melatonin",
    ],
    "zh": [
        "阿司匹林",
        "布洛芬",
        "青霉素",
        "头孢",
        "阿莫西林",
        "红霉素",
        "甲硝唑",
        "地塞米松",
        "泼尼松",
        "氢化可的松",
        "糖皮质激素",
        "胰岛素",
        "二甲双胍",
        "肝素",
        "华法林",
        "地西泮",
        "吗啡",
        "利多卡因",
        "环磷酰胺",
        "甲氨蝶呤",
        "顺铂",
        "多西他赛",
        "维生素",
        "干扰素",
        "利福平",
        "异烟肼",
        "阿昔洛韦",
        "奥美拉唑",
        "呋塞米",
        "硝酸甘油",
        "卡马西平",
        "苯妥英钠",
        "钙剂",
        "抗生素",
        "激素",
        "阿奇霉素",
        "环孢素",
        "肾上腺素",
        "多巴胺",
        "左旋多巴",
    ],
}
DISEASES = {
    "en": [
        "cancer",
        "diabetes",
        "asthma",
        "stroke",
        "hypertension",
        "obesity",
        "depression",
        "epilepsy",
        "pneumonia",
        "sepsis",
        "appendicitis",
        "osteoporosis",
        "arthritis",
        "schizophrenia",
        "dementia",
        "tuberculosis",
        "endometriosis",
        "cirrhosis",
        "hepatitis",
        "psoriasis",
        "migraine",
        "glaucoma",
        "cataract",
        "leukemia",
        "lymphoma",
        "melanoma",
        "carcinoma",
        "adenocarcinoma",
        "atherosclerosis",
        "fracture",
        "infection",
        "anemia",
        "preeclampsia",
        "gastritis",
        "pancreatitis",
        "colitis",
        "scoliosis",
    ],
    "zh": [
        "肝炎",
        "肺炎",
        "胃炎",
        "肾炎",
        "高血压",
        "糖尿病",
        "冠心病",
        "贫血",
        "白血病",
        "淋巴瘤",
        "肺癌",
        "肝癌",
        "胃癌",
        "乳腺癌",
        "哮喘",
        "癫痫",
        "脑梗死",
        "脑出血",
        "骨折",
        "关节炎",
        "结核",
        "肿瘤",
        "骨髓炎",
        "胰腺炎",
        "阑尾炎",
        "肠梗阻",
        "心肌炎",
        "心力衰竭",
        "肾衰竭",
        "甲亢",
        "痛风",
        "抑郁症",
        "湿疹",
        "荨麻疹",
        "疱疹",
        "梅毒",
        "脑膜炎",
        "败血症",
        "黄疸",
        "结石",
    ],
}
TURNS = {
    "en": [("increased", "decreased"), ("higher", "lower"), ("increase", "decrease"), ("more", "less"), ("improved", "worsened"),
           ("greater", "smaller"), ("increases", "decreases"), ("longer", "shorter"), ("positive", "negative"), ("reduced", "increased"),
           ("reduction", "increase"), ("above", "below"), ("better", "worse")],
    "zh": [("升高", "降低"), ("增加", "减少"), ("增高", "减低"), ("促进", "抑制"), ("高于", "低于"), ("上升", "下降"), ("提高", "降低"),
           ("增强", "减弱"), ("加重", "减轻"), ("大于", "小于"), ("阳性", "阴性"), ("扩张", "收缩"), ("增多", "减少")],
}  # fmt: skip
KINDS = ("drug", "negation", "dose", "direction", "disease")


def pairs(lang: str) -> list[tuple[str, str]]:
    """(question, text)"""
    if lang == "zh":
        lines = (SHARED / "zh/huatuo/general_qa.jsonl").read_text("utf-8").splitlines()
        return [(row["instruction"], row["output"]) for row in map(json.loads, lines)]
    rows = json.loads((SHARED / "en/pubmedqa/ori_pqal_train500.json").read_text("utf-8"))
    return [(r["QUESTION"], " ".join([*r["CONTEXTS"], r["LONG_ANSWER"]])) for r in rows.values()]


def split(text: str) -> list[str]:
    found = re.split(r"(?<=[.!?])\s+(?=[A-Z])|(?<=[。！？])", text)
    return [one.strip() for one in found if len(one.strip()) > 12]


def dressed(rng: random.Random, lang: str, some: list[str]) -> str:
    """One or two sentences of a text in other clothes, with the same meaning."""
    if lang == "zh":
        wide = str.maketrans("0123456789%", "０１２３４５６７８９％")
        head = rng.choice(["", "因此，", "此外，", "一般"])
        text = head + re.sub("^(此外|因此|同时|另外)，", "", "".join(some))
        return text.translate(wide) if rng.random() < 0.3 else text
    text = rng.choice(["", "However, ", "Thus, ", "The results suggest that "]) + " ".join(some)
    for old, new in (
        ("did not", "didn't"),
        ("was not", "wasn't"),
        ("were not", "weren't"),
        (" %", "%"),
        ("significantly", "markedly"),
    ):
        text = text.replace(old, new)
    return text.upper() if rng.random() < 0.1 else text


def swap(rng: random.Random, text: str, source: str, names: list[str], lang: str) -> str | None:
    edge = r"\b" if lang == "en" else ""
    there = [one for one in names if re.search(edge + one + edge, text, re.I)]
    if not there:
        return None
    old = rng.choice(there)
    near = [one for one in names if re.search(edge + one + edge, source, re.I)]
    near = [one for one in near if one not in text.lower() and old[:5] != one[:5]]
    far = [one for one in names if one[:5] != old[:5] and one not in text.lower()]
    new = rng.choice(near if near and rng.random() < 0.5 else far)
    return re.sub(edge + old + edge, new, text, flags=re.I)


def corrupted(rng: random.Random, kind: str, text: str, source: str, lang: str) -> str | None:
    """A text with one corruption; nothing where it has no place for it."""
    if kind in ("drug", "disease"):
        return swap(rng, text, source, (DRUGS if kind == "drug" else DISEASES)[lang], lang)
    if kind == "direction":
        places = [
            pair
            for pair in TURNS[lang]
            for pair in (pair, pair[::-1])
            if re.search(rf"\b{pair[0]}\b" if lang == "en" else pair[0], text)
        ]
        if not places:
            return None
        old, new = rng.choice(places)
        return re.sub(rf"\b{old}\b" if lang == "en" else old, new, text, count=1)
    if kind == "dose":
        numbers = list(re.finditer(r"(?<![\d.,A-Za-z-])\d+(?:\.\d+)?(?![\d.,]*\d)", text))
        if not numbers:
            return None
        at = rng.choice(numbers)
        others = [one for one in re.findall(r"\d+(?:\.\d+)?", source) if one not in text]
        new = (
            rng.choice(others)
            if others and rng.random() < 0.5
            else str(round(float(at[0]) * 10 + 7))
        )
        return text[: at.start()] + new + text[at.end() :]
    if lang == "zh":
        if found := list(re.finditer("不(?=[^同仅断良])|没有|未(?=[^来])", text)):
            at = rng.choice(found)
            return text[: at.start()] + text[at.end() :]
        found = list(re.finditer("(?=可以|需要|能够|应|会|是|有(?!关|效|机|时))", text))
        if not found:
            return None
        at = rng.choice(found)
        return text[: at.start()] + "不" + text[at.start() :]
    if found := list(re.finditer(r"\b(?:not|no) ", text)):
        at = rng.choice(found)
        return text[: at.start()] + text[at.end() :]
    found = list(re.finditer(r"\b(?:is|are|was|were|can|may|should|did|has|have) ", text))
    if not found:
        return None
    at = rng.choice(found)
    return text[: at.end()] + "not " + text[at.end() :]


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_planted_corruptions_are_caught_and_good_answers_pass(lang: str) -> None:
    rng, every = random.Random(11), pairs(lang)
    false, good = Counter[str](), 0
    missed, planted = Counter[str](), Counter[str]()
    while good < 2000:
        question, text = rng.choice(every)
        parts = split(text)
        if not parts:
            continue
        at = rng.randrange(len(parts))
        answer = dressed(rng, lang, parts[at : at + rng.choice((1, 1, 2))])
        good += 1
        if found := text_faults(answer, text, question):
            false[found[0].kind] += 1
    tries = 0
    while planted.total() < 500 and tries < 200_000:
        tries += 1
        question, text = rng.choice(every)
        parts, kind = split(text), KINDS[planted.total() % 5]
        if not parts:
            continue
        at = rng.randrange(len(parts))
        bad = corrupted(rng, kind, parts[at], text, lang)
        if bad is None or bad == parts[at]:
            continue
        planted[kind] += 1
        if not text_faults(dressed(rng, lang, [bad]), text, question):
            missed[kind] += 1
    print(lang, "false", false, "of", good, "missed", missed, "of", planted)
    assert false.total() < 0.02 * good, false
    assert missed.total() <= 0.05 * 500 and planted.total() == 500, missed
