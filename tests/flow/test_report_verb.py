"""The report of a run once more: in another language, and with the notes for those who may read
them."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from conftest import CLI, SECRET
from residency.evals.words import words_of

pytestmark = pytest.mark.training


def test_a_report_is_written_again_in_another_language_and_the_run_stays_as_it_is(
    finished: tuple[Path, Path], cli: CLI
) -> None:
    _, run = finished
    before = (run / "report.html").read_bytes()
    assert b'<html lang="vi">' in before, "the notes are Vietnamese"
    path = Path(cli("report", run, "--lang", "zh").stdout.split()[-1])
    page = path.read_text("utf-8")
    assert path == run / "report-zh/report.html" and '<html lang="zh">' in page
    assert words_of("zh")("What was asked") in page and SECRET not in page
    assert (run / "report.html").read_bytes() == before
    refused = cli("report", run, "--lang", "xx", check=1)
    assert "language: 'xx' is not known; allowed: en, vi, zh" in " ".join(refused.stderr.split())
    assert not (run / "report-xx").exists()


def test_notes_are_shown_in_a_marked_folder_alone(finished: tuple[Path, Path], cli: CLI) -> None:
    project, run = finished
    hidden = (run / "report.html").read_text("utf-8")
    assert "<mark class=" not in hidden and "--show" in hidden
    folder = Path(cli("report", run, "--show").stdout.split()[-1]).parent
    assert folder == run / "report-with-notes"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"
    notice = (folder / "NOTICE.txt").read_text("utf-8")
    assert "profile: pseudonymised" in notice and "đã thay tên giả" in notice and "假名化" in notice
    shown = (folder / "report.html").read_text("utf-8")
    texts = [json.loads(line)["text"] for line in (project / "data/notes.jsonl").open("rb")]
    marked = re.findall(r'<mark class="(?:gold|said|gold said)">([^<]+)</mark>', shown)
    quoted = [one for one in marked if any(one in text for text in texts)]
    assert len(quoted) > 3, "what is marked stands in a note"
    assert (run / "report.html").read_text("utf-8") == hidden
    assert notice.split("\n\n")[1].split(",")[0] in shown


def test_changed_data_is_not_shown_as_if_it_had_been_measured(
    finished: tuple[Path, Path], cli: CLI
) -> None:
    project, run = finished
    file = project / "data/notes.jsonl"
    before = file.read_bytes()
    try:
        rows = [json.loads(line) for line in before.splitlines()]
        changed = [json.dumps({**row, "text": row["text"] + " x"}) for row in rows]
        file.write_text("\n".join(changed) + "\n", "utf-8")
        refused = " ".join(cli("report", run, "--show", check=1).stderr.split())
        assert "has changed since this run" in refused
    finally:
        file.write_bytes(before)
