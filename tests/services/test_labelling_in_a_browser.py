"""Chromium labels: three annotators and an adjudicator over hostile texts to gold, spans exact to the
code point; the server killed between two steps; clicks counted; three languages, a phone's width, axe."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

LONG = 600
"""Seconds that guard against a hang, and measure nothing."""
LABELS = ("diagnosis", "symptom", "history", "allergy", "drug", "dose", "test", "result")
"""Of the card, in the order of its digits from 1."""
Marked = tuple[str, int, int, str]
"""(quote, start, end, label)"""
FILLER = "Khám tim phổi bình thường, bụng mềm. "
NOTES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("👩‍⚕️ BN ho khan 🤒, sốt cao 👨‍👩‍👧‍👦.", (("ho khan", "symptom"), ("sốt cao", "symptom"))),
    ("e\u0302\u0301 Vie\u0302m pho\u0302\u0309i, ho\u0323ng đo\u0309", (("Vie\u0302m pho\u0302\u0309i", "diagnosis"), ("ho\u0323ng đo\u0309", "symptom"))),
    ("Sốt ba ngày.\r\nĐau ngực.\r\n\r\nCho amoxicillin.", (("Đau ngực", "symptom"), ("amoxicillin", "drug"))),
    ("\tMạch:\t90\tHA:\t120/80\n\tCRP\t86 mg/L", (("CRP", "test"), ("86 mg/L", "result"))),
    ("المريض يعاني من حمى وسعال منذ يومين", (("حمى", "symptom"), ("وسعال", "symptom"))),
    ("𠮷野 nói: 𝒉𝒐 và 𝟑𝟖 độ; uống 💊 aspirin.", (("𝒉𝒐", "symptom"), ("aspirin", "drug"))),
    ("患者咳嗽三天，诊断为肺炎，予阿莫西林。", (("咳嗽", "symptom"), ("肺炎", "diagnosis"), ("阿莫西林", "drug"))),
    ("Zal\u0334\u0317\u0353go: s\u0335\u0340ot\u0334\u0301 cao; d\u0323\u0307au", (("s\u0335\u0340ot\u0334\u0301 cao", "symptom"), ("d\u0323\u0307au", "symptom"))),
    ("<b>Ho</b> &amp; <script>alert(1)</script> \"sốt\" 'x'", (("Ho", "symptom"), ("<script>", "test"))),
    (FILLER * 270 + "Cuối cùng có ho ra máu 🩸 nhẹ.", (("ho ra máu", "symptom"),)),
    ("Fever, fever and fever again.", (("Fever", "symptom"), ("again", "history"))),
    ("  mở đầu bằng khoảng trắng, buồn nôn  ", (("buồn nôn", "symptom"),)),
    ("Dị ứng penicillin\u00a0G.\u3000Không sốt.", (("penicillin\u00a0G", "allergy"), ("sốt", "symptom"))),
    ("กินยาพาราเซตามอลแล้วไข้ลด", (("พาราเซตามอล", "drug"), ("ไข้", "symptom"))),
    ("🇻🇳🇨🇳 ho 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f sốt 👍🏽 mệt", (("ho", "symptom"), ("mệt", "symptom"))),
    ("عام: ho và السعال lẫn lộn", (("ho", "symptom"), ("السعال", "symptom"))),
    ("x\n\n\n\ny đau bụng\u2028z chóng mặt", (("đau bụng", "symptom"), ("chóng mặt", "symptom"))),
    ("Metformin 500 mg x2; insulin 10 UI.", (("Metformin", "drug"), ("500 mg x2", "dose"), ("insulin", "drug"))),
    ("fi ﬁ ﬂ: sốt ﬀ; İstanbul ho", (("sốt", "symptom"), ("ho", "symptom"))),
    ("한국어 기침과 발열", (("기침", "symptom"), ("발열", "symptom"))),
)  # fmt: skip


def truth(number: int) -> list[Marked]:
    """What stands in a note, counted by Python."""
    text, said = NOTES[number]
    return [(q, text.index(q), text.index(q) + len(q), label) for q, label in said]


def said_by(name: str, number: int) -> list[Marked]:
    """What an annotator marks: the truth; a2 overlooks the last of every fifth note, and in every
    seventh note all three say another thing of the first."""
    marks = truth(number)
    if name == "a2" and number % 5 == 0:
        return marks[:-1]
    if number % 7 == 1 and name != "a1":
        quote, start, end, _ = marks[0]
        other = [(quote, start, end, "history")] if name == "a2" else []
        return [*other, *marks[1:]]
    return marks


def project(folder: Path, notes: list[dict[str, Any]], **label: Any) -> Path:
    """A recipe that labels notes in the browser."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(json.dumps({"entities": [], **row}, ensure_ascii=False) + "\n" for row in notes)
    (folder / "notes.jsonl").write_bytes(rows.encode())
    (folder / "icd.csv").write_bytes(
        "code,name\nJ18.9,Viêm phổi không đặc hiệu\nI10,Tăng huyết áp\n".encode()
    )
    section = {"data": "notes", "via": "browser", "bootstrap": 20, "codes": "icd.csv", **label}
    data = {"format": "jsonl", "path": "notes.jsonl", "profile": "synthetic", "lang": "vi"}
    value = {
        "schema": 1,
        "name": "ward",
        "seed": 3,
        "base": "bundled:tiny-encoder",
        "data": {"notes": data},
        "tasks": [{"card": "clinical", "data": "notes"}],
        "label": section,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(value, allow_unicode=True), "utf-8")
    return folder / "recipe.yaml"


class Server:
    """``residency label open`` as a process, with the addresses that it has printed."""

    def __init__(self, recipe: Path, port: str = "0") -> None:
        command = [sys.executable, "-m", "residency", "label", "open", str(recipe), "--port", port]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addresses: dict[str, str] = {}
        assert self.process.stdout is not None
        while "you" not in self.addresses:
            line = self.process.stdout.readline()
            assert line, "residency label open has ended"
            name, address = line.split()
            self.addresses[name] = address

    @property
    def port(self) -> str:
        return self.addresses["you"].split(":")[2].partition("/")[0]

    def kill(self, how: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(how)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def opened(recipe: Path, port: str = "0") -> Iterator[Server]:
    found = Server(recipe, port)
    try:
        yield found
    finally:
        found.kill()


PLACE = """([start, end]) => {
  const text = document.getElementById("text");
  const letters = Array.from(text.textContent);
  const unit = (point) => letters.slice(0, point).join("").length;
  const at = (wanted) => {
    const walker = document.createTreeWalker(text, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      if (wanted < node.length) return [node, wanted];
      wanted -= node.length;
    }
  };
  const box = (from, to) => {
    const range = document.createRange();
    range.setStart(...at(unit(from)));
    const [node, offset] = at(unit(to) - 1);
    range.setEnd(node, offset + 1);
    return [...range.getClientRects()].filter((one) => one.width > 0);
  };
  const first = box(start, end)[0];
  window.scrollBy({ top: first.top - 400, behavior: "instant" });
  const boxes = box(start, end), head = boxes[0], tail = boxes[boxes.length - 1];
  const rtl = /[\\u0590-\\u08ff]/.test(letters[start]);
  const y = (one) => one.top + one.height / 2;
  return rtl ? [head.right - 0.5, y(head), tail.left + 0.5, y(tail)] : [head.left + 0.5, y(head), tail.right - 0.5, y(tail)];
}"""


class Labeller:
    """Somebody at their own address. Counts keys and clicks; a drag is one."""

    def __init__(self, chromium: Any, address: str, **context: Any) -> None:
        size = {"width": 1200, "height": 900}
        self.context = chromium.new_context(**{"viewport": size, "locale": "vi-VN", **context})
        self.context.set_default_timeout(LONG * 1000)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.base = address.partition("/?")[0]
        self.acts = 0
        self.page.goto(address)

    def open(self, note: str, round: str = "label") -> None:
        key = sha256(note.encode()).hexdigest()[:20]
        self.page.goto(f"{self.base}/label/{round}/{key}")
        self.ready()

    def ready(self) -> None:
        self.page.locator("#text[data-ready]").wait_for()

    def press(self, key: str) -> None:
        self.acts += 1
        self.page.keyboard.press(key)

    def click(self, what: str) -> None:
        self.acts += 1
        self.page.locator(what).first.click()

    def drag(self, start: int, end: int) -> None:
        self.acts += 1
        x, y, to_x, to_y = self.page.evaluate(PLACE, [start, end])
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move((x + to_x) / 2, (y + to_y) / 2)
        self.page.mouse.move(to_x, to_y)
        self.page.mouse.up()

    def by_keys(self, start: int, end: int) -> None:
        """Select with the arrows alone."""
        focus = (
            "() => { const r = document.createRange(); r.selectNodeContents(text);"
            "r.setEnd(getSelection().focusNode, getSelection().focusOffset);"
            "return Array.from(r.toString()).length; }"
        )
        self.page.locator("#text").focus()
        self.press("Escape")
        self.press("Control+Home")
        for wanted, key in ((start, "ArrowRight"), (end, "Shift+ArrowRight")):
            for _ in range(200):
                if self.page.evaluate(focus) >= wanted:
                    break
                self.press(key)

    def mark(self, mark: Marked, by: Callable[[int, int], None] | None = None) -> None:
        _, start, end, label = mark
        (by or self.drag)(start, end)
        self.press(str(LABELS.index(label) + 1))

    def saved(self) -> None:
        """Until all steps are at the server."""
        self.page.wait_for_function(
            "(prefix) => !Object.keys(localStorage).some((key) => key.startsWith(prefix))",
            arg="residency ",
        )

    def done(self) -> None:
        before = self.page.url
        self.click("#done")
        self.page.wait_for_function("(before) => location.href !== before", arg=before)
        self.page.wait_for_load_state()

    def shown(self, name: str) -> None:
        if folder := os.environ.get("RESIDENCY_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"labelling-{name}.png"), full_page=True)

    def close(self) -> None:
        assert self.complaints == []
        self.context.close()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def work(folder: Path, name: str, note: str, round: str = "label") -> dict[str, Any]:
    key = sha256(note.encode()).hexdigest()[:20]
    path = folder / "labelling" / round / "work" / name / f"{key}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def marks_of(found: list[dict[str, Any]]) -> list[Marked]:
    return sorted((one["quote"], one["start"], one["end"], one["label"]) for one in found)


@pytest.fixture(scope="module")
def labelled(
    chromium: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Server]]:
    """Three annotators have marked all notes."""
    folder = tmp_path_factory.mktemp("ward")
    notes = [{"id": f"n{number}", "text": text} for number, (text, _) in enumerate(NOTES)]
    numbers = {
        sha256(f"n{number}".encode()).hexdigest()[:20]: number for number in range(len(NOTES))
    }
    with opened(project(folder, notes, annotators=3)) as server:
        for name in ("a1", "a2", "a3"):
            person = Labeller(chromium, server.addresses[name])
            person.click("a.go")
            for _ in NOTES:
                person.ready()
                number = numbers[person.page.url.rsplit("/", 1)[1]]
                for mark in said_by(name, number):
                    keys = len(NOTES[number][0]) < 60 and number % 4 == 2
                    person.mark(mark, person.by_keys if keys else None)
                if number == 2:
                    person.shown(f"{name}-crlf")
                person.done()
            person.shown(f"{name}-home")
            person.close()
        yield folder, server


def test_spans_of_three_annotators_are_exact_to_the_code_point(
    labelled: tuple[Path, Server],
) -> None:
    folder, _ = labelled
    assert max(len(text) for text, _ in NOTES) >= 10_000
    for name in ("a1", "a2", "a3"):
        for number, (text, _) in enumerate(NOTES):
            found = work(folder, name, f"n{number}")
            assert marks_of(found["spans"]) == sorted(said_by(name, number)), (name, number)
            assert found["state"] == "done" and found["seconds"] > 0
            assert all(text[one["start"] : one["end"]] == one["quote"] for one in found["spans"])


def test_an_adjudicator_decides_without_names_and_gold_is_the_truth(
    chromium: Any, labelled: tuple[Path, Server]
) -> None:
    folder, server = labelled
    person = Labeller(chromium, server.addresses["adjudicator"])
    page = person.page
    page.locator("form[action='/label/settle'] button").click()
    page.locator("a.go").wait_for()
    person.shown("adjudicator-home")
    places = page.locator(".numbers a").count()
    assert places == len([n for n in range(len(NOTES)) if n % 7 == 1 and n % 5])
    page.locator("a.go").click()
    for number in range(places):
        person.ready()
        seen = page.content()
        assert not re.search(r"\ba[123]\b", re.sub(r"data-\w+=\"[^\"]*\"", "", seen))
        told = page.locator("#choices button").all_inner_texts()
        assert len(told) == 3 and len({*told}) == 3, told
        if number == 0:
            person.shown("adjudicator-place")
        history = page.locator(".label[data-label=history] span").inner_text()
        mine = page.locator("#choices button").filter(has_text=":").filter(has_not_text=history)
        mine.click()
        person.done()
    page.goto(f"{person.base}/label")
    page.locator("form[action='/label/settle'] button").click()
    page.locator("[role=status].plain").wait_for()
    person.shown("adjudicator-settled")
    person.close()
    gold = {row["id"]: row for row in rows(folder / "labelling/gold.jsonl")}
    assert len(gold) == len(NOTES) == 20
    for number, (text, _) in enumerate(NOTES):
        row = gold[f"n{number}"]
        assert row["text"] == text
        found = sorted((e["text"], e["start"], e["end"], e["label"]) for e in row["entities"])
        assert found == sorted(truth(number)), number
    audit = (folder / "labelling/audit.jsonl").read_text("utf-8")
    assert "quote" not in audit.replace('"quote":""', "")


# One note made beforehand

SENTENCES = (
    "Bệnh nhân nam 62 tuổi nhập viện vì [ho khan|symptom] kéo dài và [sốt cao|symptom] về chiều. ",
    "Tiền sử [tăng huyết áp|history] mười năm, [đái tháo đường|history] điều trị đều. ",
    "Đã dùng [metformin|drug] [500 mg x2|dose] và [amlodipin|drug] [5 mg|dose] mỗi sáng. ",
    "Dị ứng [penicillin|allergy]. Khám thấy [ran nổ|symptom] đáy phổi phải, không [phù|symptom]. ",
    "Xét nghiệm [CRP|test] [86 mg/L|result], [procalcitonin|test] [2 ng/mL|result]. ",
)


def preannotated() -> tuple[str, list[Marked], list[Marked]]:
    """A note of 1,500 characters, its 15 entities, and what was marked beforehand: two with another
    label, one with another end, one too many and one missing."""
    text, right = "", list[Marked]()
    for sentence in SENTENCES:
        for piece in re.split(r"(\[[^\]]+\])", sentence):
            quote, _, label = piece.strip("[]").partition("|")
            if label:
                right.append((quote, len(text), len(text) + len(quote), label))
            text += quote
        text += FILLER * 5
    text += FILLER * 40
    text = text[:1500]
    quote, start, *_ = right[5]
    proposed = [*right[:14]]
    proposed[1] = (*right[1][:3], "diagnosis")
    proposed[8] = (*right[8][:3], "drug")
    proposed[5] = (quote[:3], start, start + 3, "dose")
    at = text.index("bụng mềm")
    proposed.append(("bụng mềm", at, at + 8, "symptom"))
    return text, right[:15], proposed


def test_a_preannotated_note_takes_at_most_40_keys_or_clicks(chromium: Any, tmp_path: Path) -> None:
    text, right, proposed = preannotated()
    assert len(text) == 1500 and len(right) == 15 and len(proposed) == 15
    marked = [{"start": s, "end": e, "label": label} for _, s, e, label in proposed]
    notes = [{"id": "long", "text": text, "entities": marked}, {"id": "other", "text": "Ho."}]
    recipe = project(tmp_path, notes, annotators=2, prelabel={"by": "notes"})
    with opened(recipe) as server:
        person = Labeller(chromium, server.addresses["a1"])
        person.open("long")
        person.shown("preannotated")
        person.acts = 0
        for quote, start, end, label in sorted(proposed, key=lambda one: one[1]):
            now = person.page.locator("#quote").inner_text()
            assert quote in now, (quote, now)
            wanted = next((one for one in right if one[1] == start), None)
            if wanted is None:
                person.press("x")
            elif wanted[2] != end:
                person.drag(wanted[1], wanted[2])
                person.press("m")
                person.press("n")
            elif wanted[3] != label:
                person.press(str(LABELS.index(wanted[3]) + 1))
                person.press("n")
            else:
                person.press("Enter")
        person.mark(right[14])
        person.done()
        print(f"acts: {person.acts}")
        assert person.acts <= 40
        assert marks_of(work(tmp_path, "a1", "long")["spans"]) == sorted(right)
        person.close()


def test_the_first_label_is_three_clicks_from_the_printed_address(
    chromium: Any, tmp_path: Path
) -> None:
    recipe = project(tmp_path, [{"id": "n", "text": "Ho khan ba ngày."}], annotators=2)
    with opened(recipe) as server:
        person = Labeller(chromium, server.addresses["a2"])
        person.click("a.go")
        person.ready()
        person.drag(0, 7)
        person.press("2")
        person.saved()
        assert person.acts <= 3
        assert marks_of(work(tmp_path, "a2", "n")["spans"]) == [("Ho khan", 0, 7, "symptom")]
        person.close()


def test_steps_outlive_a_killed_server_once_each_and_without_text_in_the_browser(
    chromium: Any, tmp_path: Path
) -> None:
    text = "👩‍⚕️ Ho khan.\r\nSốt cao, đau ngực."
    recipe = project(tmp_path, [{"id": "n", "text": text}], annotators=2)
    marks = [(q, text.index(q), text.index(q) + len(q), "symptom") for q in ("Ho khan", "Sốt cao", "đau ngực")]  # fmt: skip
    with opened(recipe) as first:
        person = Labeller(chromium, first.addresses["a1"])
        person.open("n")
        person.mark(marks[0])
        person.saved()
        first.kill()
        person.mark(marks[1])
        person.mark(marks[2])
        person.page.wait_for_timeout(500)
        kept = person.page.evaluate("JSON.stringify({...localStorage})")
        assert "symptom" in kept
        assert not re.search("[Ss]ốt|đau|ngực|khan", kept)
        assert len(work(tmp_path, "a1", "n")["spans"]) == 1
        port, address = first.port, first.addresses["a1"]
    with opened(recipe, port) as second:
        assert second.addresses["a1"] == address, "codes are made once"
        person.saved()
        found = work(tmp_path, "a1", "n")
        assert marks_of(found["spans"]) == sorted(marks)
        assert person.page.evaluate("localStorage.length") == 0
        # and where the page itself was closed in between
        second.kill()
        person.mark(("👩‍⚕️", 0, 4, "test"))
        person.page.wait_for_timeout(300)
        person.page.close()
    with opened(recipe, port):
        person.page = person.context.new_page()
        person.page.goto(f"{person.base}/label")
        person.saved()
        assert len(work(tmp_path, "a1", "n")["spans"]) == 4
        person.context.close()


def test_two_windows_lose_nothing_and_nested_marks_are_drawn(chromium: Any, tmp_path: Path) -> None:
    text = "Đau ngực trái dữ dội lan vai."
    recipe = project(tmp_path, [{"id": "n", "text": text}], annotators=2)
    with opened(recipe) as server:
        person = Labeller(chromium, server.addresses["a1"])
        person.open("n")
        late = person.context.new_page()
        late.goto(person.page.url)
        late.locator("#text[data-ready]").wait_for()
        person.mark(("Đau ngực trái", 0, 13, "symptom"))
        person.mark(("ngực", 4, 8, "test"))
        person.mark(("trái dữ dội", 9, 20, "history"))
        person.press("Shift+1")
        person.saved()
        drawn = person.page.locator("#text").evaluate(
            "(text) => [text.textContent, text.querySelectorAll('.m .m').length]"
        )
        assert drawn[0] == text and drawn[1] >= 2
        person.shown("nested")
        late.bring_to_front()
        late.keyboard.press("Shift+Control+ArrowRight")
        late.keyboard.press("3")
        late.locator("#fault:not(:empty)").wait_for()
        assert late.locator("#marks li").count() == 3, "what is there is shown"
        person.page.bring_to_front()
        before = work(tmp_path, "a1", "n")
        assert len(before["spans"]) == 3
        assert before["spans"][-1]["attributes"] == ["negated"]
        person.press("z")
        person.press("z")
        person.saved()
        person.page.wait_for_timeout(200)
        assert len(work(tmp_path, "a1", "n")["spans"]) == 2
        person.context.close()


def test_a_question_is_answered_and_sends_back_who_asked_and_a_code_is_found(
    chromium: Any, tmp_path: Path
) -> None:
    recipe = project(tmp_path, [{"id": "n", "text": "Nghi viêm phổi, ho."}], annotators=2)
    with opened(recipe) as server:
        person = Labeller(chromium, server.addresses["a1"])
        person.open("n")
        person.mark(("viêm phổi", 5, 14, "diagnosis"))
        person.press("c")
        person.page.locator("#codes button").first.wait_for()
        person.press("Enter")
        person.saved()
        assert work(tmp_path, "a1", "n")["spans"][0]["code"] == "J18.9"
        person.press("v")
        person.page.fill("#question", "Nghi có phải là chẩn đoán?")
        person.click("#ask")
        person.page.wait_for_function("() => document.getElementById('question').value === ''")
        person.shown("asked")
        owner = Labeller(chromium, server.addresses["you"])
        assert "viêm phổi" in owner.page.content()
        owner.page.locator("input[name=question]").check()
        owner.page.fill("#answer", "Có: uncertain.")
        owner.shown("lead")
        owner.page.locator("form[action$='/answer'] button").click()
        owner.page.locator("#questions").wait_for()
        person.page.goto(f"{person.base}/label")
        assert "Có: uncertain." in person.page.content()
        person.shown("again")
        other = Labeller(chromium, server.addresses["a2"])
        assert "uncertain." not in other.page.locator("main").inner_text()
        for one in (person, owner, other):
            one.close()


@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
def test_pages_fit_a_phone_and_axe_finds_nothing_serious(
    chromium: Any, labelled: tuple[Path, Server], lang: str
) -> None:
    _, server = labelled
    axe = os.environ.get("RESIDENCY_TEST_AXE", "")  # axe.min.js of npm's axe-core
    source = Path(axe).read_text("utf-8") if axe else ""
    key = sha256(b"n0").hexdigest()[:20]
    for name, path in (
        ("a1", "/label"),
        ("a1", f"/label/label/{key}"),
        ("adjudicator", "/label"),
        ("you", "/labelling/this"),
    ):
        person = Labeller(chromium, server.addresses[name], viewport={"width": 360, "height": 740})
        page = person.page
        page.goto(f"{person.base}{path}?lang={lang}")
        if "/label/label" in path:
            person.ready()
            page.locator("#marks button").first.click()
        assert page.locator("html").get_attribute("lang") == lang
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        person.shown(f"{lang}-360-{name}{'-note' if key in path else ''}")
        if source:
            page.evaluate(source)
            grave = [
                (one["id"], [node["html"][:120] for node in one["nodes"]])
                for one in page.evaluate("axe.run()")["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert grave == [], path
        page.set_viewport_size({"width": 1200, "height": 900})
        person.shown(f"{lang}-{name}{'-note' if key in path else ''}")
        person.close()


def test_two_annotators_and_an_adjudicator_from_bare_notes_to_gold(
    chromium: Any, tmp_path: Path
) -> None:
    """As somebody would who has never seen it: their file, ``init``, ``label open``, the pages. How
    long it takes is printed; a busy machine fails nobody."""
    began = time.monotonic()
    texts = ["BN ho khan ba ngày, sốt cao.", "Đau bụng, buồn nôn.", "Khó thở khi gắng sức."]
    lines = [json.dumps({"note": text, "patient": f"p{n}"}) for n, text in enumerate(texts)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines), "utf-8")
    command = [sys.executable, "-m", "residency", "init", "ward", "--data", "mine.jsonl"]
    answers = ["--answer", "task=none", "--answer", "lang=vi"]
    subprocess.run([*command, *answers], cwd=tmp_path, check=True, capture_output=True)
    with opened(tmp_path / "ward/recipe.yaml") as server:
        for name, label in (("a1", "2"), ("a2", "1")):
            person = Labeller(chromium, server.addresses[name])
            person.click("a.go")
            for _ in texts:
                person.ready()
                person.drag(0, 6)
                person.press(label)
                person.done()
            assert person.acts == 1 + 3 * len(texts)
            person.close()
        judge = Labeller(chromium, server.addresses["adjudicator"])
        judge.click("form[action='/label/settle'] button")
        judge.click("a.go")
        for _ in texts:
            judge.ready()
            judge.click("#choices button")
            judge.done()
        judge.click("form[action='/label/settle'] button")
        judge.page.locator("[role=status].plain").wait_for()
        judge.close()
    print(f"seconds: {time.monotonic() - began:.1f}")
    gold = rows(tmp_path / "ward/labelling/gold.jsonl")
    assert len(gold) == 3 and all(len(row["entities"]) == 1 for row in gold)
