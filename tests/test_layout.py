import os
import stat
from pathlib import Path

import pytest

from escala.errors import StartError
from escala.layout import Layout, require_short, write_atomically


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_are_private(tmp_path: Path) -> None:
    layout = Layout(tmp_path / ".escala")
    layout.create()
    assert mode(layout.state) == (0o711 if os.geteuid() == 0 else 0o700)
    assert {mode(folder) for folder in (layout.run, layout.log, layout.keys, layout.gateway, layout.data)} == {0o700}


def test_where_the_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Layout.of(".escala", "shop", tmp_path).state == tmp_path / ".escala"
    assert Layout.of("/var/x", "shop", tmp_path).state == Path("/var/x")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Layout.of("user", "shop", tmp_path).state == Path("/var/lib/escala/shop")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert Layout.of("user", "shop", tmp_path).state == tmp_path / "escala" / "shop"


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"choose a shorter folder with project\.state"):
        Layout(tmp_path / ("x" * 100)).create()


def test_a_name_too_long_for_a_replicas_socket() -> None:
    layout = Layout(Path("/srv") / ("x" * 60))
    require_short(layout.replica_socket("web", 12))
    with pytest.raises(StartError, match=r"choose a shorter folder with project\.state"):
        require_short(layout.replica_socket("x" * 40, 1))


@pytest.mark.parametrize("name", ["a,b", 'a"b', "it's", "a\\b", "$HOME", "a\nb"])
def test_a_path_that_an_engine_would_misread(tmp_path: Path, name: str) -> None:
    with pytest.raises(StartError, match="which the engines do not take in a path"):
        Layout(tmp_path / name).create()
    assert not (tmp_path / name).exists()


def test_a_state_folder_that_cannot_be(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(StartError, match="cannot make the state folder"):
        Layout(folder / "file" / "state").create()


def test_atomic_writes_leave_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    write_atomically(target, "new")
    assert target.read_text() == "new"
    assert mode(target) == 0o600
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "\ud800")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_with_other_things_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "somebody's").touch()
    with pytest.raises(StartError, match="holds other things"):
        Layout(tmp_path).create()
    assert mode(tmp_path) == 0o1777
    assert [path.name for path in tmp_path.iterdir()] == ["somebody's"]


def test_the_mode_of_an_existing_folder_is_its_owners(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o755)
    for _ in range(2):
        Layout(tmp_path / "s").create()
    assert mode(tmp_path / "s") == 0o755
