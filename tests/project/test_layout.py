import contextlib
import os
import stat
from pathlib import Path

import pytest

from escala.engines.haproxy import check, find
from escala.errors import ConfigurationRefused, StartError
from escala.project.atomic_write import write_atomically
from escala.project.layout import Layout

HAPROXY_TAKES = 97
"""Bytes of a Unix socket's path."""


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
    longest = "x" * (HAPROXY_TAKES - len(str(layout.replica_socket("", 256))))
    layout.require_replica_sockets(longest, 256)
    with pytest.raises(StartError, match=r"choose a shorter folder with project\.state"):
        layout.require_replica_sockets(f"{longest}x", 256)


@pytest.mark.parametrize(("length", "taken"), [(HAPROXY_TAKES, True), (HAPROXY_TAKES + 1, False)])
def test_how_long_a_path_haproxy_takes(tmp_path: Path, length: int, taken: bool) -> None:
    file = tmp_path / "haproxy.cfg"
    server = f"unix@/{'x' * (length - 1)}"
    timeouts = "".join(f" timeout {each} 1s\n" for each in ("client", "connect", "server"))
    file.write_text(f"listen b\n bind 127.0.0.1:1\n{timeouts} server 1 {server}\n")
    with contextlib.nullcontext() if taken else pytest.raises(ConfigurationRefused, match="too long"):
        check(find(None), file, tmp_path)


def test_sockets_of_replicas_are_cleared_and_others_stay(folder: Path) -> None:
    layout = Layout(folder / ".escala")
    layout.create()
    for name in ("web.1.sock", "web.12.sock", "control.sock"):
        (layout.run / name).touch()
    layout.replica_socket("api", 1).mkdir()  # somebody's, in the way; its replica says so
    layout.clear_replica_sockets()
    assert {path.name for path in layout.run.iterdir()} == {"control.sock", "api.1.sock"}


@pytest.mark.parametrize("name", ["a,b", 'a"b', "it's", "a\\b", "$HOME", "a`b`", "a\nb"])
def test_a_path_that_an_engine_would_misread(tmp_path: Path, name: str) -> None:
    with pytest.raises(StartError, match="which engines and shells do not accept in a path"):
        Layout(tmp_path / name).create()
    assert not (tmp_path / name).exists()


def test_a_state_folder_that_cannot_be(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(StartError, match="cannot create the state folder"):
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
    with pytest.raises(StartError, match="has unrelated files"):
        Layout(tmp_path).create()
    assert mode(tmp_path) == 0o1777
    assert [path.name for path in tmp_path.iterdir()] == ["somebody's"]


def test_the_mode_of_an_existing_folder_is_its_owners(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o755)
    for _ in range(2):
        Layout(tmp_path / "s").create()
    assert mode(tmp_path / "s") == 0o755
