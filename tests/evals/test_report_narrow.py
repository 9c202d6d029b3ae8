"""The page on a telephone: with every verdict, in three languages, nothing is wider than 360 px."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_cases import VERDICTS, facts

from residency.evals.report import render

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --allow-file-access-from-files "
    "--virtual-time-budget=20000 --dump-dom"
)
NO_BASE = ("crf", "dictionary")
FRAMES = """<pre id=o></pre><script>
for (const name of NAMES) {
  const frame = document.createElement('iframe')
  frame.src = name + '/report.html'
  frame.width = 360
  frame.height = 2000
  frame.onload = () => {
    const root = frame.contentDocument.documentElement
    o.textContent += name + ' ' + root.scrollWidth + '/' + root.clientWidth + ';'
  }
  document.body.append(frame)
}</script>"""


@pytest.mark.services
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_nothing_scrolls_sideways_at_360_px(tmp_path: Path) -> None:
    names = []
    pages = [
        *zip(["vi", "zh", "en"] * 2, [*VERDICTS, "worse"], ["base"] * 6, strict=True),
        *((lang, "not better", beside) for lang in ("vi", "zh", "en") for beside in NO_BASE),
    ]
    for lang, kind, beside in pages:
        names.append(f"{lang}-{beside}-{kind.replace(' ', '-')}")
        (tmp_path / names[-1]).mkdir()
        render(facts(lang, kind, beside=beside), tmp_path / names[-1])
    (tmp_path / "all.html").write_text(FRAMES.replace("NAMES", repr(names)), "utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    shown = subprocess.run(
        [str(CHROMIUM), *FLAGS.split(), profile, (tmp_path / "all.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout
    found = re.findall(r"([a-z-]+) (\d+)/(\d+);", shown)
    assert sorted(name for name, _, _ in found) == sorted(names)
    assert [name for name, wide, room in found if int(wide) > int(room)] == []
