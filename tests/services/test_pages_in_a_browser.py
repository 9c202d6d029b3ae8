"""Chromium goes the road of ``residency ui``: from a labelled file to the report of a run, in three
languages, on a phone's width, without a script; axe finds nothing serious."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from residency.synth.clinical_notes import records

LANGUAGES = ("vi", "zh", "en")
LONG = 600
"""Seconds that guard against a hang, and measure nothing."""
TEXT = "👩‍⚕️ BN ho khan, sốt cao.\n\nTiền sử: <b>tăng huyết áp</b> & đái tháo đường; 患者咳嗽三天。"


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled file of one's own: invented notes with their entities."""
    rows = [
        {
            "id": note.id,
            "patient": f"P{number // 2}",
            "text": note.text,
            "entities": [{"start": s.start, "end": s.end, "label": s.label} for s in note.spans],
        }
        for number, note in enumerate(islice(records("vi", 60, 3), 60))
    ]
    path = tmp_path_factory.mktemp("notes") / "notes.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of its pages."""
    folder = tmp_path_factory.mktemp("projects")
    command = [sys.executable, "-m", "residency", "ui", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            yield folder, served.stdout.readline().strip()
        finally:
            served.terminate()


class Reader:
    """A page of Chromium that is opened at the printed address, and whose complaints are kept."""

    def __init__(self, chromium: Any, address: str, **context: Any) -> None:
        self.context = chromium.new_context(viewport={"width": 1100, "height": 900}, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(LONG * 1000)
        self.complaints: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.base = address.partition("/?")[0]
        self.page.goto(address)

    def shown(self, name: str) -> None:
        """Keep a picture, where pictures are asked for."""
        if folder := os.environ.get("RESIDENCY_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_from_a_labelled_file_to_the_report_of_a_run_in_at_most_six_clicks(
    chromium: Any, pages: tuple[Path, str], notes: Path
) -> None:
    folder, address = pages
    reader = Reader(chromium, address, locale="vi-VN")
    page = reader.page
    reader.shown("vi-first")
    clicks = 1
    page.set_input_files("#files", str(notes))
    clicks += 1
    page.locator("main button").first.click()
    page.locator("#found").wait_for()
    reader.shown("vi-found")
    clicks += 1
    page.locator("form[action$='/make'] button").click()
    page.locator("form[action$='/start'] button").wait_for()
    reader.shown("vi-project")
    make_small(folder / "notes/recipe.yaml")
    clicks += 1
    page.locator("form[action$='/start'] button").click()
    assert clicks <= 6
    page.locator("#work").wait_for()
    page.locator("#work progress").wait_for()
    reader.shown("vi-under-way")
    page.locator("a[href$='/report']").wait_for()
    reader.shown("vi-done")
    assert page.locator("#work svg").count() == 1, "the losses are drawn"
    page.locator("a[href$='/report']").click()
    assert page.locator("h1").inner_text()
    assert page.locator("html").get_attribute("lang") == "vi"
    assert reader.complaints == []
    reader.context.close()


def make_small(recipe: Path) -> None:
    """The recipe as it was written, for a run of seconds."""
    value = yaml.safe_load(recipe.read_text("utf-8"))
    value["base"] = "bundled:tiny-encoder"
    value["data"]["notes"]["limit"] = 30
    value["stages"] = [{"method": "auto", "epochs": 2, "lexical": "off", "batch": 4}]
    value["evaluate"] = {"bootstrap": 20, "baselines": ["base"]}
    recipe.write_text(yaml.safe_dump(value, allow_unicode=True), "utf-8")


def a_run(folder: Path) -> str:
    found = [path.parent.name for path in folder.glob("notes/runs/*/report.html")]
    if not found:
        pytest.fail("the run of the test before is not there")
    return f"/projects/notes/runs/{found[0]}"


def test_spans_are_drawn_at_their_code_points(chromium: Any, pages: tuple[Path, str]) -> None:
    folder, address = pages
    reader = Reader(chromium, address)
    page = reader.page
    page.goto(f"{reader.base}{a_run(folder)}/try")
    page.fill("#text", TEXT)
    page.locator("main button").click()
    page.locator("#answer").wait_for()
    assert page.locator(".tried").evaluate("(one) => one.textContent") == TEXT
    assert page.locator("#text").input_value() == TEXT
    for one in page.locator(".tried mark").all():
        start, end = (int(one.get_attribute(f"data-{key}")) for key in ("start", "end"))
        assert one.evaluate("(mark) => mark.textContent") == TEXT[start:end]
    reader.shown("en-try")
    assert reader.complaints == []
    reader.context.close()


UNFIT = """() => {
  const found = [];
  const view = document.querySelector("meta[name=viewport]")?.content ?? "";
  if (!/width=device-width/.test(view) || /user-scalable=no|maximum-scale/.test(view)) found.push(view);
  for (const one of document.querySelectorAll("a, button, input:not([type=hidden]), select, summary, textarea")) {
    const { width, height } = one.getBoundingClientRect();
    if (one.checkVisibility() && !one.closest(".skip") && (width < 24 || height < 24)) found.push(one.outerHTML);
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const holder = texts.currentNode.parentElement;
    if (texts.currentNode.data.trim() && parseFloat(getComputedStyle(holder).fontSize) < 12) found.push(holder.outerHTML);
  }
  return found;
}"""
"""What Lighthouse asks of a page on a phone, and axe does not: a viewport that may be enlarged, what is
tapped 24 pixels high and wide, no text below 12 pixels."""


def test_a_doctor_asks_and_judges_and_the_browser_keeps_nothing(
    chromium: Any, pages: tuple[Path, str]
) -> None:
    folder, address = pages
    reader = Reader(chromium, address, locale="vi-VN")
    page = reader.page
    page.goto(f"{reader.base}{a_run(folder)}/doctor")
    page.fill("#text", TEXT)
    page.locator("main button").click()
    page.locator("#answer").wait_for()
    reader.shown("vi-doctor")
    assert page.locator("#text").input_value() == TEXT
    page.locator("input[value=harmful]").check()
    page.fill("#comment", "đái tháo đường")
    page.locator("form[action$='/feedback'] button").click()
    page.locator("[role=status].said").wait_for()
    assert page.locator("#text").input_value() == ""
    kept = "[localStorage.length, sessionStorage.length, (await caches.keys()).length]"
    assert page.evaluate(f"async () => {kept}") == [0, 0, 0]
    assert {one["name"].split("-")[0] for one in reader.context.cookies()} == {"residency"}
    [line] = (folder / "notes/feedback.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["verdict"] == "harmful"
    assert "ho khan" not in line
    page.goto(f"{reader.base}/projects/notes/queues")
    page.locator("main li a").click()
    page.locator("[data-keys]").wait_for()
    reader.shown("vi-queue")
    page.keyboard.press("r")
    page.locator("form[action$='/undo']").wait_for()
    page.locator("form[action$='/undo'] button").click()
    page.locator("[data-keys]").wait_for()
    lines = (folder / "notes/decisions.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(one)["decision"] for one in lines] == ["reject", "undo"]
    assert reader.complaints == []
    reader.context.close()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_page_is_wider_than_a_phone_and_axe_finds_nothing_serious(
    chromium: Any, pages: tuple[Path, str], lang: str
) -> None:
    folder, address = pages
    axe = os.environ.get("RESIDENCY_TEST_AXE", "")  # axe.min.js of npm's axe-core
    source = Path(axe).read_text("utf-8") if axe else ""
    reader = Reader(chromium, address)
    page = reader.page
    page.set_viewport_size({"width": 360, "height": 740})
    run = a_run(folder)
    below = ("", "/plan", "/queues")
    paths = ["/", *(f"/projects/notes{one}" for one in below), run, f"{run}/try", f"{run}/doctor"]
    for path in (*paths, "/nothing"):
        page.goto(f"{reader.base}{path}?lang={lang}")
        assert page.locator("html").get_attribute("lang") == lang
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, path
        assert page.evaluate(UNFIT) == [], path
        reader.shown(f"{lang}-360{path.replace(run, '/run').replace('/', '-')}")
        if source:
            page.evaluate(source)
            found = page.evaluate("axe.run()")["violations"]
            grave = [
                (one["id"], [node["html"][:120] for node in one["nodes"]])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert grave == [], path
    reader.context.close()


def test_everything_is_there_without_a_script(chromium: Any, pages: tuple[Path, str]) -> None:
    folder, address = pages
    reader = Reader(chromium, address, java_script_enabled=False)
    page = reader.page
    page.goto(f"{reader.base}{a_run(folder)}/try")
    page.fill("#text", "BN ho khan.")
    page.locator("main button").click()
    page.locator("#answer").wait_for()
    reader.context.close()


def test_the_keyboard_alone_reaches_every_control(chromium: Any, pages: tuple[Path, str]) -> None:
    _, address = pages
    reader = Reader(chromium, address)
    page = reader.page
    wanted = page.locator("a:visible, button:visible, input:not([type=hidden]):visible").count()
    seen = set()
    for _ in range(wanted + 2):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
    assert len({one for one in seen if not one.startswith("<body")}) >= wanted
    reader.context.close()


def test_the_first_page_is_quick(chromium: Any, pages: tuple[Path, str]) -> None:
    """In processor time of the server's answers a busy machine shows nothing: the best of ten."""
    _, address = pages
    reader = Reader(chromium, address)
    took = []
    for _ in range(10):
        began = time.monotonic()
        assert reader.context.request.get(f"{reader.base}/").ok
        took.append(time.monotonic() - began)
    assert min(took) < 0.1
    reader.context.close()
