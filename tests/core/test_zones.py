"""Identified text has one kind of place: closed to others, marked, apart from runs and version
control."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from residency.core.errors import GateRefused, UserError
from residency.core.files import write_json
from residency.core.zones import MARKER, assert_outside, in_zone, open_zone


def test_a_new_zone_is_its_owners_alone_and_marked(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        zone = open_zone(tmp_path / "a" / "identified")
    finally:
        os.umask(before)
    assert stat.S_IMODE(zone.root.stat().st_mode) == 0o700
    assert (zone.root / MARKER).is_file()


def test_a_zone_is_opened_again_with_what_it_holds(tmp_path: Path) -> None:
    zone = open_zone(tmp_path / "identified")
    (zone.root / "notes.enc").write_bytes(b"x")
    assert open_zone(tmp_path / "identified") == zone


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o701, 0o770, 0o777])
def test_a_folder_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "identified"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(GateRefused, match="chmod 700"):
        open_zone(folder)
    assert list(folder.iterdir()) == []


def test_a_zone_that_was_opened_to_others_later_is_refused(tmp_path: Path) -> None:
    zone = open_zone(tmp_path / "identified")
    zone.root.chmod(0o755)
    with pytest.raises(GateRefused, match="chmod 700"):
        open_zone(zone.root)


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(GateRefused, match="another user"):
        open_zone(tmp_path / "identified")


@pytest.mark.parametrize("place", ["runs/identified", "runs/vi-ner-1/identified", "Runs", "runs"])
def test_a_folder_in_runs_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(GateRefused, match="runs folder"):
        open_zone(tmp_path / place)
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "identified").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GateRefused, match="symbolic link"):
        open_zone(tmp_path / "identified")


def test_a_link_on_the_way_does_not_hide_a_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "safe").symlink_to(tmp_path / "runs")
    with pytest.raises(GateRefused, match="runs folder"):
        open_zone(tmp_path / "safe" / "identified")


def test_a_git_checkout_is_refused_unless_it_ignores_the_folder(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(GateRefused, match="could be committed"):
        open_zone(tmp_path / "private" / "identified")
    assert not (tmp_path / "private").exists()
    (tmp_path / ".gitignore").write_text("private/\n")
    assert open_zone(tmp_path / "private" / "identified").root.is_dir()


def test_a_folder_that_holds_other_things_does_not_become_a_zone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "thesis.txt").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        open_zone(home)


def test_a_file_is_not_a_zone(tmp_path: Path) -> None:
    (tmp_path / "identified").write_text("")
    with pytest.raises(UserError, match="is not a folder"):
        open_zone(tmp_path / "identified")


def test_a_zone_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    zone = open_zone(tmp_path / "identified")
    write_json(zone.root / MARKER, {"schema": 99})
    with pytest.raises(UserError, match="newer version"):
        open_zone(zone.root)


def test_in_zone_follows_links_and_needs_no_file(tmp_path: Path) -> None:
    zone = open_zone(tmp_path / "identified")
    (tmp_path / "link").symlink_to(zone.root)
    assert in_zone(zone.root)
    assert in_zone(zone.root / "not" / "yet")
    assert in_zone(tmp_path / "link" / "x")
    assert not in_zone(tmp_path)
    assert not in_zone(tmp_path / "identified-not")


def test_a_run_lies_neither_in_a_zone_nor_around_one(tmp_path: Path) -> None:
    zone = open_zone(tmp_path / "data" / "identified")
    assert_outside(tmp_path / "runs" / "vi-ner-1")
    with pytest.raises(GateRefused, match="lies in an identified zone"):
        assert_outside(zone.root / "runs" / "vi-ner-1")
    with pytest.raises(GateRefused, match="holds the identified zone"):
        assert_outside(tmp_path / "data")
