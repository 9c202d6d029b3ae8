"""Chromium opens the report of a run: on a screen of 360 px nothing is wider than the screen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from real_servers import needed

sys.path.insert(0, str(Path(__file__).parents[1] / "evals"))
from report_cases import facts, labels_facts

from residency.core.types import RunFacts
from residency.evals.report import render

WIDE = "a_label_without_any_blank_in_it_that_is_longer_than_a_phone_is_wide_" * 2
PROBE = """<iframe src="{page}" style="width:{width}px;height:900px;border:0"></iframe>
<script>
document.querySelector("iframe").onload = (event) => {{
  const page = event.target.contentDocument.documentElement;
  document.body.dataset.widths = page.scrollWidth + " " + page.clientWidth;
}};
</script>"""


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("lang", ["vi", "zh", "en"])
@pytest.mark.parametrize("made", [facts, labels_facts])
def test_no_part_of_the_page_is_wider_than_the_screen(
    made: object, lang: str, width: int, tmp_path: Path
) -> None:
    found: RunFacts = made(lang)  # type: ignore[operator]
    render(msgspec.structs.replace(found, name=WIDE[:60]), tmp_path)
    assert widths(tmp_path, width) == (width, width)


def test_a_page_that_is_too_wide_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text('<p style="width:400px">x</p>', "utf-8")
    assert widths(tmp_path, 360)[0] > 360


def widths(folder: Path, width: int) -> tuple[int, int]:
    """The width that a page needs, and the one that it has, in a frame of so many pixels: windows of
    Chromium are never narrower than 500."""
    (folder / "probe.html").write_text(PROBE.format(page="report.html", width=width), "utf-8")
    options = [
        "--headless",
        "--hide-scrollbars",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=5000",
        f"--window-size={width + 100},1000",
        *(["--no-sandbox"] if os.getuid() == 0 else []),
    ]
    shown = subprocess.run(
        [
            needed("RESIDENCY_TEST_CHROMIUM"),
            *options,
            "--dump-dom",
            (folder / "probe.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    measured = re.search(r'data-widths="(\d+) (\d+)"', shown.stdout)
    assert measured is not None, "the frame was loaded"
    return int(measured[1]), int(measured[2])
