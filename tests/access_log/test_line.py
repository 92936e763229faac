import pytest

from escala.access_log.line import NotALine, decode, encode, parse
from tests.access_log.lines import line


def test_a_line_becomes_an_entry_and_json_and_an_entry_again() -> None:
    entry, worker, number = parse(line(worker=8, number=3, subject="Zo%C3%AB%09x", token="AB", path="/a\tb"))
    assert (worker, number) == (8, 3)
    assert (entry.service, entry.replica, entry.status, entry.subject) == ("web", "1", 200, "Zoë\tx")
    assert entry.path == "/a\tb"  # the last field takes whatever is left
    assert entry.termination == "--"
    assert decode(encode(entry)) == entry
    assert encode(entry).count(b"\n") == 1


@pytest.mark.parametrize(
    ("logged", "path"), [("/a#22b#23", '/a"b#'), ("/a%22", "/a%22"), ("/cut#2", "/cut#2"), ("/a#7Bb#7D", "/a{b}")]
)
def test_what_haproxy_encodes_in_a_path_is_decoded(logged: str, path: str) -> None:
    entry, *_ = parse(line(path=logged))
    assert entry.path == path
    assert decode(encode(entry)) == entry


def test_what_is_not_known_is_null() -> None:
    entry, *_ = parse(line(service="gateway", replica="<NOSRV>", route="-", id="-", status=400, total="+5", sent="+7"))
    assert (entry.replica, entry.route, entry.id, entry.subject, entry.token) == (None, None, None, None, None)
    assert (entry.total, entry.sent) == (5, 7)


@pytest.mark.parametrize("text", [b"", b"Server web/1 is DOWN", b"a\tb", line(status="x"), line(number="x")])  # type: ignore[arg-type]
def test_other_words_are_no_line(text: bytes) -> None:
    with pytest.raises(NotALine):
        parse(text)


def test_bytes_that_are_no_text() -> None:
    entry, *_ = parse(line() + b"\xff\xfe")
    assert entry.path.startswith("/data/x")
    assert decode(encode(entry)) == entry
