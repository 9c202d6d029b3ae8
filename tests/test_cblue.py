"""``residency cblue``: a submission and its scores, from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

GOLD = {
    "input": "搜索：胃痛怎么治",
    "type": "KUAKE-QIC",
    "answer_choices": ["治疗方案", "病因分析"],
    "sample_id": "1",
    "target": "治疗方案",
}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    from residency.cli import main

    monkeypatch.setattr(sys, "argv", ["residency", "cblue", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_answers_become_a_submission_that_is_scored_in_both_modes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = lines(tmp_path / "dev.json", [GOLD, GOLD | {"sample_id": "2", "target": "病因分析"}])
    answers = lines(
        tmp_path / "answers.jsonl",
        [{"id": "1", "answer": "治疗方案"}, {"id": "2", "answer": "不知道"}],
    )
    out = tmp_path / "submission.json"
    code, said, _ = call(capsys, monkeypatch, "submit", gold, answers, "--output", out)
    assert (code, said.split()[0]) == (0, "2")
    code, said, _ = call(capsys, monkeypatch, "score", gold, out)
    # labels of either side: 治疗方案 1, 病因分析 0, 不知道 0
    assert code == 0 and "KUAKE-QIC" in said and "0.3333" in said and "Macro-F1" in said
    assert "1 of 18 tasks; an overall score is over all of them." in said
    code, said, _ = call(capsys, monkeypatch, "score", gold, out, "--mode", "safe")
    assert code == 0 and "0.5000" in said


def test_faults_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = lines(tmp_path / "dev.json", [GOLD])
    code, _, err = call(capsys, monkeypatch, "score", gold, gold, "--mode", "offical")
    assert code == 1 and "did you mean official?" in err
    code, _, err = call(
        capsys,
        monkeypatch,
        "score",
        gold,
        lines(tmp_path / "other.json", [GOLD | {"sample_id": "9"}]),
    )
    assert code == 1 and len(err.strip().splitlines()) == 1 and "have no prediction" in err
    code, _, err = call(capsys, monkeypatch, "score", tmp_path / "absent.json", gold)
    assert code == 1 and len(err.strip().splitlines()) == 1
