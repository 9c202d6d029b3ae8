"""The report says everything that was measured, shows nothing that it may not, and needs nothing
from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from io import StringIO
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import report_cases
import yaml
from msgspec.structs import replace
from rich.cells import cell_len
from rich.console import Console

from residency.core.types import (
    Comparison,
    ErrorItem,
    MaskProof,
    PartSummary,
    PredictorInfo,
    Report,
    RunFacts,
    Score,
)
from residency.evals.formats import (
    duration,
    interval,
    language_of,
    metric_title,
    number,
    percent,
    probability,
    signed,
)
from residency.evals.measure import window
from residency.evals.plots import score_plot, training_plot
from residency.evals.report import render, summary_table
from residency.evals.report_view import task_views
from residency.evals.verdicts import below_floor, judgements, verdict

SCRIPT = "<script>alert(1)</script>"
LABELS = ("Triệu chứng", "药物", SCRIPT, "a|b $x$ _c_ [here](ftp:x)")
SECRET = "Bệnh nhân Nguyễn 患者 <script>steal()</script> đau đầu"
SECRET_TOKEN = "tokenthatnobodymaysee"
VOID = {"meta", "br", "hr", "img", "link", "input", "col"}


def score(metric: str, value: float, n: int = 50, support: int = 20) -> Score:
    """A score with an interval of 4 points on both sides, of 31 groups."""
    found = report_cases.score(metric, value, support)
    return replace(
        found, low=value - 0.04, high=value + 0.04, n=n, groups=31, procedure="bootstrap"
    )


def system_report(name: str, value: float, **more: object) -> Report:
    labels = (
        score(f"span_f1/{label}", value - 0.011 * i, support=40 - 12 * i)
        for i, label in enumerate(LABELS, start=1)
    )
    report = Report(
        system=PredictorInfo(name=name, base="bundled:tiny-encoder"),
        task="ner",
        part="test",
        data_digest="d1",
        n=50,
        groups=31,
        scores=(score("span_f1", value), score("span_recall", value + 0.017), *labels),
        slices={
            "lang=vi": (score("span_f1", value - 0.1, n=29),),
            "kind=出院记录": (score("span_f1", value - 0.07, n=21),),
        },
    )
    return replace(report, **more)


COMPARISON = Comparison(
    metric="span_f1",
    a="base",
    b="tuned",
    difference=0.612,
    low=0.571,
    high=0.653,
    p=0.0002,
    procedure="paired permutation",
)
ERRORS = (
    ErrorItem(
        example="n1",
        kind="missed",
        gold="药物",
        start=29,
        end=35,
        text=window(SECRET, SECRET.index("đau đầu"), len(SECRET)),
    ),
    ErrorItem(
        example="n2",
        kind="type",
        gold="药物",
        predicted=SCRIPT,
        start=0,
        end=4,
        text=window(SECRET, 0, 4),
    ),
)
STAGE = replace(
    report_cases.STAGE,
    settings={"rank": "8", "learning_rate": "0.001 (auto)"},
    parameters=4000,
    trainable=100,
    stopped="no better for 2 epochs",
    padding_share=0.0312,
    mask=MaskProof(
        rows=7,
        tokens=640,
        trained=512,
        labels={"B-药物": 33},
        sample=((SECRET_TOKEN, "B-药物"), ("x", "")),
    ),
)
CASE = report_cases.facts("en")
DATA = replace(
    CASE.data[0],
    files=("a.txt",),
    format="conll",
    lang="vi",
    split="random by group",
    parts={
        "train": PartSummary(notes=400, groups=240, characters=99, labels={"药物": 77}),
        "test": PartSummary(notes=50),
    },
    ledger={"kept": {"": 450}, "dropped": {"exact duplicate": 13}},
)
FACTS = replace(
    CASE,
    name="vi-ner",
    folder="runs/vi ner",
    hardware="2 cores",
    recipe="name: vi-ner\n# </pre><script>x</script> ``` \n",
    data=(DATA,),
    stages=(STAGE,),
    reports=(
        system_report("base", 0.2),
        system_report(
            "tuned",
            0.812,
            errors=ERRORS,
            comparisons=(COMPARISON,),
            confusion={"药物": {"药物": 8, "-": 2}, "-": {SCRIPT: 1}},
        ),
    ),
    caveats=("Synthetic notes & more.",),
)
BASE_ONLY = RunFacts(
    name="bare",
    folder="",
    created="",
    recipe="",
    base="some/base",
    base_digest="",
    hardware="",
    packages={},
    data=(),
    stages=(),
    reports=(
        Report(
            system=PredictorInfo(name="base", base="some/base"),
            task="classify",
            part="test",
            data_digest="",
            n=3,
            groups=0,
            scores=(
                Score(metric="macro_f1", value=float("nan"), n=3),
                Score(metric="accuracy", value=0.5, low=float("nan"), high=None, n=3),
                Score(metric="macro_f1/x", value=float("nan"), low=None, n=0),
            ),
        ),
    ),
)


class Page(HTMLParser):
    """What a browser would see: open tags in balance, texts, attributes, headings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def said(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def written(facts: RunFacts, folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text("utf-8") for path in render(facts, folder)
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return written(FACTS, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(files: dict[str, str]) -> Page:
    return Page(files["report.html"])


def test_it_writes_the_page_the_summary_the_card_and_the_charts(files: dict[str, str]) -> None:
    assert set(files) == {
        "report.html",
        "report.md",
        "model_card.md",
        "plots/scores-ner.svg",
        "plots/training-1-lora.svg",
    }


def test_the_verdict_names_value_interval_size_baseline_and_test(page: Page) -> None:
    said = (
        "The tuned model reaches strict span F1 0.81 [0.77, 0.85] on 50 held-out notes of 31 "
        "patients; "
        "the untuned base model 0.20 [0.16, 0.24] (difference +0.61 [0.57, 0.65], p < 0.001, "
        "clearly better)."
    )
    assert said in page.said


def test_the_verdict_says_when_there_is_no_clear_difference_or_a_worse_one() -> None:
    unclear = replace(COMPARISON, difference=0.01, low=-0.02, high=0.04, p=0.4)
    worse = replace(COMPARISON, difference=-0.1, low=-0.2, high=-0.05, p=0.004)
    base = system_report("base", 0.8)
    assert "p = 0.400, no clear difference)" in verdict(
        (base, system_report("tuned", 0.81, comparisons=(unclear,)))
    )
    assert "p = 0.004, clearly worse)" in verdict(
        (base, system_report("tuned", 0.7, comparisons=(worse,)))
    )
    among_many = replace(worse, p=0.02, p_corrected=0.12)
    assert "no clear difference)" in verdict(
        (base, system_report("tuned", 0.7, comparisons=(among_many,)))
    )


def test_a_model_that_is_not_better_than_the_crf_is_said_to_be_none() -> None:
    def said(low: float, high: float, corrected: float | None = None) -> list[str]:
        test = replace(
            COMPARISON, a="crf", difference=0.02, low=low, high=high, p=0.01, p_corrected=corrected
        )
        floor, tuned = system_report("crf", 0.8), system_report("tuned", 0.82, comparisons=(test,))
        return below_floor([floor, tuned])

    assert said(0.01, 0.03) == []
    (sentence,) = said(-0.01, 0.05)
    assert sentence.startswith(
        "ner: the tuned model is not better than the CRF on this test part (strict span F1 differs "
        "by +0.02 [−0.01, 0.05])"
    )
    assert said(-0.05, -0.01)
    (among_many,) = said(0.01, 0.03, corrected=0.2)
    assert "whether it is better than the CRF cannot be told with" in among_many
    assert below_floor(FACTS.reports) == []


@pytest.mark.parametrize(
    ("beside", "low", "kind", "said"),
    [
        ("dictionary", 0.1, "clearly better", "better than the dictionary of the training part"),
        ("dictionary", -0.3, "worse", "is worse than the dictionary of the training part"),
        ("majority", -0.2, "not better", "is not better than the commonest labels"),
    ],
)
def test_a_crf_without_a_base_is_judged_beside_what_needs_no_training(
    beside: str, low: float, kind: str, said: str
) -> None:
    found = {"difference": low + 0.1, "low": low, "high": low + 0.2, "p": 0.01, "p_corrected": None}
    test = replace(COMPARISON, a=beside, **found)
    reports = [system_report(beside, 0.5), system_report("tuned", 0.6, comparisons=(test,))]
    (one,) = judgements(reports)
    assert one.kind == kind and said in one.words
    with_base = replace(COMPARISON, a="base", difference=0.3, low=0.2, high=0.4, p=0.01)
    beside_a_base = system_report("tuned", 0.6, comparisons=(test, with_base))
    (other,) = judgements([system_report("base", 0.3), reports[0], beside_a_base])
    assert "than the base" in other.words


@pytest.mark.parametrize(
    ("value", "difference", "low", "high", "p", "kind"),
    [
        (0.0, 0.0, 0.0, 0.0, 1.0, "learned nothing"),
        (0.8, 0.2, 0.1, 0.3, 0.01, "clearly better"),
        (0.8, 0.2, -0.1, 0.5, 0.2, "cannot tell"),
        (0.8, -0.01, -0.1, 0.1, 0.9, "not better"),
        (0.8, -0.2, -0.3, -0.1, 0.01, "worse"),
    ],
)
def test_every_result_has_a_verdict(
    value: float, difference: float, low: float, high: float, p: float, kind: str
) -> None:
    test = replace(
        COMPARISON, a="base", difference=difference, low=low, high=high, p=p, p_corrected=None
    )
    reports = [system_report("base", 0.6), system_report("tuned", value, comparisons=(test,))]
    (one,) = judgements(reports)
    assert one.kind == kind
    assert (below_floor(reports) == []) == (kind == "clearly better")


def test_features_are_shown_with_their_weights_only_where_notes_may_be(tmp_path: Path) -> None:
    heaviest = {"B-药物": ((f"w={SECRET_TOKEN}", 1.234),)}
    facts = replace(
        FACTS,
        base="none",
        stages=(replace(STAGE, method="crf", heaviest=heaviest),),
    )
    for name in ("report.html", "report.md"):
        render(facts, tmp_path / "shown")
        assert SECRET_TOKEN in (tmp_path / "shown" / name).read_text("utf-8")
        hidden = replace(facts, show_text=False)
        # as a run hands them over
        stage = replace(facts.stages[0], heaviest={"B-药物": ()})
        render(replace(hidden, stages=(stage,)), tmp_path / "hidden")
        page = (tmp_path / "hidden" / name).read_text("utf-8")
        assert SECRET_TOKEN not in page and "withheld" in page
    card = (tmp_path / "shown" / "model_card.md").read_text("utf-8")
    assert SECRET_TOKEN not in card and "starts from no base" in card and "## Base" not in card


def test_a_group_for_each_note_is_not_called_a_patient() -> None:
    alone = system_report("base", 0.5, groups=50, part="dev")
    assert verdict((alone,)).endswith("on 50 dev notes (also used to stop training).")


def test_public_notes_are_counted_by_source_document_and_others_by_patient() -> None:
    public = replace(FACTS, data=(replace(DATA, profile="public"),))
    assert "of 31 source documents" in task_views(public)[0].verdict
    assert "of 31 patients;" in task_views(FACTS)[0].verdict


def test_every_score_is_in_the_page_and_in_the_summary_with_interval_and_n(
    files: dict[str, str], page: Page
) -> None:
    for report in FACTS.reports:
        scores = [*report.scores, *(each for group in report.slices.values() for each in group)]
        assert len(scores) == 8
        for each in scores:
            assert each.low is not None and each.high is not None
            bounds = f"[{each.low:.3f}, {each.high:.3f}]"
            assert f"{each.value:.3f} {bounds}" in page.said
            assert f"{each.value:.3f} {bounds}" in files["report.md"]
    assert re.search(
        r"Strict span F1 0\.200 \[0\.160, 0\.240\] 0\.812 \[0\.772, 0\.852\] 50 31 20", page.said
    )
    assert re.search(r"lang=vi 0\.100 \S+ \S+ 0\.712 \S+ \S+ 29 31", page.said)
    assert "Intervals: bootstrap." in page.said and "Intervals: bootstrap." in files["report.md"]


def test_the_page_shows_stage_mask_data_and_ledger(page: Page) -> None:
    for fact in (
        "100 of 4,000 parameters trained (2.5 %)",
        "no better for 2 epochs",
        "1 min 15 s",
        "1,234 tokens/s",
        "3.1 %",
        "812 MB",
        "893 MB (10.0 % too high)",
        "7 rows with 640 tokens, of which 512 (80.0 %) carry a loss",
        "dropped exact duplicate 13",
        "all 463",
        "Synthetic notes & more.",
        SECRET_TOKEN,
    ):
        assert fact in page.said


def test_data_never_becomes_markup(files: dict[str, str], page: Page) -> None:
    assert "script" not in page.tags
    assert "<script" not in files["report.html"]
    assert SCRIPT in page.said and "<script>steal()</script>" in page.said
    outside_of_code = re.sub(r"^(`{3,})yaml\n.*?^\1$", "", files["report.md"], flags=re.M | re.S)
    assert "<script" not in outside_of_code + files["model_card.md"]
    assert r"a\|b \$x\$ \_c\_ [here\](ftp:x)" in files["report.md"]


def test_a_recipe_cannot_close_its_code_block(files: dict[str, str]) -> None:
    assert "\n````yaml\n" in files["report.md"] and files["report.md"].rstrip().endswith("\n````")


def test_the_page_loads_nothing_and_keeps_to_itself(files: dict[str, str], page: Page) -> None:
    links = [
        value
        for _, name, value in page.attributes
        if name in {"src", "href", "xlink:href", "srcset", "action"}
    ]
    assert links and all(link.startswith("#") for link in links)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)
    assert not re.search(r"https?:|@import|url\((?!#)", files["report.html"])


def test_the_page_can_be_read_by_everyone(page: Page) -> None:
    assert ("html", "lang", "en") in page.attributes
    assert ("span", "lang", "zh") in page.attributes and ("span", "lang", "vi") in page.attributes
    assert (
        page.tags.count("svg")
        == 2
        == sum(
            1
            for tag, name, value in page.attributes
            if (tag, name) == ("svg", "aria-label") and value
        )
    )
    assert page.tags.count("table") == page.tags.count("caption")
    assert page.tags.count("th") == sum(
        1 for tag, name, _ in page.attributes if (tag, name) == ("th", "scope")
    )
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_charts_are_xml_with_the_labels_as_text(files: dict[str, str]) -> None:
    texts = {
        name: "".join(ElementTree.fromstring(text.encode()).itertext())
        for name, text in files.items()
        if name.endswith("svg")
    }
    for label in LABELS:
        assert label in texts["plots/scores-ner.svg"]
    assert (
        "training loss" in texts["plots/training-1-lora.svg"]
        and "best 0.700" in texts["plots/training-1-lora.svg"]
    )


def test_equal_facts_give_equal_bytes(files: dict[str, str], tmp_path: Path) -> None:
    assert (
        written(msgspec.json.decode(msgspec.json.encode(FACTS), type=RunFacts), tmp_path) == files
    )


def test_withheld_text_is_in_none_of_the_files(tmp_path: Path) -> None:
    silent = written(replace(FACTS, show_text=False), tmp_path)
    for text in silent.values():
        assert SECRET_TOKEN not in text
        assert not re.search("Nguyễn|患者|steal|đau đầu", text)
    assert "evaluate.show_text=true" in silent["report.html"]
    assert "n1" in Page(silent["report.html"]).said


def test_an_error_is_marked_where_it_is(files: dict[str, str]) -> None:
    assert '&lt;/script&gt; <mark class="gold">đau đầu</mark>' in files["report.html"], "missed"
    assert '<mark class="gold said">Bệnh</mark> nhân' in files["report.html"], "another type"


def test_missing_pieces_leave_no_traces(tmp_path: Path) -> None:
    bare = written(BASE_ONLY, tmp_path)
    said = Page(bare["report.html"]).said
    for text in (said, bare["report.md"], bare["model_card.md"]):
        assert not re.search(r"\b(None|nan|NaN|inf|Undefined)\b", text)
    assert "Training" not in said and "Paired" not in said
    assert "The untuned base model reaches macro F1 – on 3 held-out notes." in said
    nothing = written(replace(BASE_ONLY, reports=()), tmp_path / "nothing")
    assert "Nothing was evaluated in this run." in Page(nothing["report.html"]).said


def test_two_tasks_with_names_that_no_file_can_have_keep_apart(tmp_path: Path) -> None:
    reports = tuple(system_report("base", 0.3, task=task) for task in ("../a", "a", "\x07"))
    names = [
        name for name in written(replace(FACTS, reports=reports), tmp_path) if "scores" in name
    ]
    assert len(set(names)) == 3 and all(
        re.fullmatch(r"plots/scores[\w-]*\.svg", name) for name in names
    )


def test_the_model_card_has_front_matter_and_the_command_to_use_it(files: dict[str, str]) -> None:
    _, front, body = files["model_card.md"].split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["base_model"] == "bundled:tiny-encoder"
    assert matter["language"] == ["vi"] and matter["metrics"] == ["span_f1", "span_recall"]
    assert "residency predict 'runs/vi ner' --input notes.jsonl --output out.jsonl" in body
    assert re.search(r"too rare .*: &lt;script>alert\(1\)&lt;/script> \(4\), a", body)
    for section in (
        "Intended use",
        "Not intended",
        "Base",
        "Data",
        "Training",
        "Results",
        "Limitations",
        "Caveats",
    ):
        assert f"\n## {section}\n" in body


def printed(value: object, width: int = 80) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(value)
    return console.export_text()


def test_the_terminal_table_has_one_row_for_each_system_with_interval_second_metric_n_and_test() -> (
    None
):
    table = summary_table(FACTS)
    text = printed(table)
    assert table.row_count == 2
    assert re.search(
        r"Strict span F1 +Strict +difference *\n *task +system +\[95 % interval\] +span recall +n "
        r"+to base \(p\)",
        text,
    )
    assert re.search(r"ner +base +0\.200 \[0\.160, 0\.240\] +0\.\d{3} +50 *\n", text)
    assert re.search(
        r" +tuned +0\.812 \[0\.772, 0\.852\] +0\.\d{3} +50 +\+0\.612 \(p < 0\.001\) *\n", text
    )


def test_the_terminal_table_fits_80_columns_also_with_chinese_titles() -> None:
    reports = [replace(report, task="肝病住院病历实体识别", n=123456) for report in FACTS.reports]
    text = printed(summary_table(reports))
    rows = text.splitlines()
    assert max(cell_len(line.rstrip()) for line in rows) <= 80
    assert len(re.findall(r"\[\d\.\d{3}, \d\.\d{3}\]", text)) == 2, "an interval is never broken"
    assert text.count("(p < 0.001)") == 1
    assert "肝病" in text


def test_the_terminal_table_shows_the_relaxed_metric_of_spans_and_the_accuracy_of_classes() -> None:
    def report(task: str, *metrics: str) -> Report:
        return replace(
            FACTS.reports[0],
            task=task,
            scores=tuple(score(metric, 0.5) for metric in metrics),
            comparisons=(),
        )

    spans = printed(summary_table([report("ner", "span_f1", "span_precision", "span_f1_relaxed")]))
    assert "Relaxed" in spans and "precision" not in spans and "difference" not in spans
    assert "Accuracy" in printed(
        summary_table([report("classify", "macro_f1", "micro_f1", "accuracy")])
    )
    both = printed(
        summary_table([report("ner", "span_f1"), report("classify", "macro_f1", "accuracy")])
    )
    assert "main metric" in both and "second" in both
    assert summary_table(BASE_ONLY.reports).row_count == 1


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(0.81234), "0.812"),
        (number(-0.5, 2), "−0.50"),
        (number(1234.5), "1,234.5"),
        (number(float("inf")), "–"),
        (signed(0.79, 2), "+0.79"),
        (signed(0.0), "0.000"),
        (interval(0.1, None), ""),
        (probability(0.0), "p < 0.001"),
        (probability(0.0321), "p = 0.032"),
        (percent(0.00042), "0.042 %"),
        (percent(0.0), "0.0 %"),
        (duration(8.04), "8.0 s"),
        (duration(252), "4 min 12 s"),
        (duration(3780), "1 h 03 min"),
        (metric_title("macro_f1"), "Macro F1"),
        (metric_title("span_f1/药物"), "Strict span F1, 药物"),
        (language_of("Cơ quan"), "vi"),
        (language_of("出院"), "zh"),
        (language_of("drug"), ""),
    ],
)
def test_numbers_and_names_are_written_for_people(shown: str, expected: str) -> None:
    assert shown == expected


def test_a_loss_that_is_no_number_is_left_out_of_the_chart() -> None:
    broken = ({"epoch": 1.0, "loss": float("nan")}, {"epoch": 2.0, "loss": float("inf")})
    assert training_plot(replace(STAGE, history=broken)) is None


def test_there_is_no_chart_of_nothing() -> None:
    assert score_plot(["a"], [("base", [None])], "F1") is None
    assert score_plot([], [], "F1") is None
    assert training_plot(replace(STAGE, history=())) is None
