"""The form in Chromium, as a rater fills it in: by keys, in the middle saved and gone on from, on a
telephone, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_study import ITEMS_MADE, made

from residency.evals.study import OpenStudy
from residency.evals.votes import read, standing
from residency.workflows.study import forms, take

pytestmark = pytest.mark.services
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser() -> Any:
    sync = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip("needs /usr/bin/chromium (apt-get install chromium)")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


def opened(browser: Any, path: Path, wide: int = 1200) -> tuple[Any, list[str]]:
    """A page of a form, and what its console says and it asks of a network."""
    page = browser.new_page(viewport={"width": wide, "height": 800})
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda asked: told.append(asked.url) if asked.url != path.as_uri() else None)
    page.goto(path.as_uri())
    return page, told


def saved(page: Any, path: Path) -> Path:
    with page.expect_download() as waiting:
        page.locator("button").click()
    waiting.value.save_as(path)
    return path


def by_name(study: OpenStudy, folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in forms(study.folder, folder)}


def test_a_form_is_filled_in_by_keys_saved_and_gone_on_from(browser: Any, tmp_path: Path) -> None:
    study = made(tmp_path)
    page, told = opened(browser, by_name(study, tmp_path / "forms")["ann"])
    order = [one.item for one in study.study.order["ann"]]
    page.locator("input[type=radio]").first.focus()
    for _ in range(5):  # space chooses the first answer; tab, tab, tab, tab to the next question
        page.keyboard.press("Space")
        while True:
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.type") == "radio":
                break
    assert page.locator("#told").inner_text() == f"5 of {ITEMS_MADE} done"
    taken = take(study.folder, saved(page, tmp_path / "half.json"))
    assert (taken.votes, taken.lacking) == (5, tuple(order[5:]))
    page.close()

    page, told_again = opened(browser, tmp_path / "forms/ann.html")
    page.locator("#earlier").set_input_files(tmp_path / "half.json")
    page.wait_for_function("document.querySelectorAll(':checked').length === 5")
    for item in order[5:]:
        page.locator(f"[name='{item}.choice'][value=neither]").check()
    page.locator(f"[name='{order[6]}.harmful.2']").check()
    assert page.locator("#told").inner_text() == f"{ITEMS_MADE - 1} of {ITEMS_MADE} done"
    page.locator(f"[name='{order[6]}.comment']").fill("Liều gấp đôi 😀")
    assert take(study.folder, saved(page, tmp_path / "whole.json")).lacking == ()
    found = standing(read(study, "ann"))
    assert [found[item].choice for item in order] == [1] * 5 + ["neither"] * 7
    assert (found[order[6]].harmful, found[order[6]].comment) == ((2,), "Liều gấp đôi 😀")
    assert [one for one in told + told_again if not one.startswith("blob:")] == []
    page.close()


def test_another_raters_file_is_not_gone_on_from(browser: Any, tmp_path: Path) -> None:
    study = made(tmp_path)
    paths = by_name(study, tmp_path / "forms")
    page, _ = opened(browser, paths["bob"])
    other = saved(page, tmp_path / "bob.json")
    assert json.loads(other.read_text())["rater"] == "bob"
    page, _ = opened(browser, paths["ann"])
    page.locator("#earlier").set_input_files(other)
    page.get_by_text("This file is not of this form.").wait_for()


@pytest.mark.parametrize("kind", ["compare", "short"])
def test_a_form_fits_a_telephone_and_every_field_has_a_name(
    browser: Any, tmp_path: Path, kind: str
) -> None:
    study = made(tmp_path, 4, kind=kind, raters=["ann", "bob:vi", "chi:zh"], patients=["pat:vi"])
    for name, path in by_name(study, tmp_path / "forms").items():
        page, told = opened(browser, path, 360)
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], name
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input,textarea,select')].filter(e => !e.labels.length).length"
        )
        assert unnamed == 0 and told == []
        page.screenshot(path=tmp_path / f"{kind}-{name}.png")
        page.close()
