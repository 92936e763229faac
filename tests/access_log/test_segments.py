from pathlib import Path

from escala.access_log.segments import Segments, segments


def test_a_full_file_is_followed_by_another(tmp_path: Path) -> None:
    log = Segments(tmp_path, segment=100, age=3600, total=10_000)
    for _ in range(10):
        log.append(b"x" * 49 + b"\n")
    log.close()
    assert [file.stat().st_size for file in segments(tmp_path)] == [100] * 5
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in segments(tmp_path))


def test_so_is_an_old_one(tmp_path: Path) -> None:
    now = 1000.0
    log = Segments(tmp_path, segment=10**6, age=60, total=10**7, clock=lambda: now)
    log.append(b"a\n")
    now += 59
    log.append(b"b\n")
    now += 1
    log.append(b"c\n")
    log.close()
    assert sorted(file.read_bytes() for file in segments(tmp_path)) == [b"a\nb\n", b"c\n"]


def test_all_together_stay_within_their_bound(tmp_path: Path) -> None:
    log = Segments(tmp_path, segment=100, age=3600, total=500)
    for number in range(100):
        log.append(f"{number:049}\n".encode())
        assert sum(file.stat().st_size for file in segments(tmp_path)) <= 500
    log.close()
    kept = b"".join(file.read_bytes() for file in segments(tmp_path)).splitlines()
    assert [int(line) for line in kept] == list(range(100 - len(kept), 100))  # the newest
