import pytest

from escala.access_log.line import Entry, decode, encode, parse
from escala.gateway.render.frontend_section import LOG_FIELDS
from tests.access_log.lines import line


def parsed(text: bytes) -> tuple[Entry, int, int]:
    (numbered,) = parse([text])
    return numbered


def test_a_line_becomes_an_entry_and_json_and_an_entry_again() -> None:
    entry, worker, number = parsed(line(worker=8, number=3, subject="Zo%C3%AB%09x", token="AB", path="/a\tb"))
    assert (worker, number) == (8, 3)
    assert (entry.service, entry.replica, entry.status, entry.subject) == ("web", "1", 200, "Zoë\tx")
    assert entry.path == "/a\tb"  # the last field takes whatever is left
    assert entry.termination == "--"
    assert decode(encode([entry])) == entry
    assert encode([entry, entry]).count(b"\n") == 2


def test_each_line_becomes_what_it_is_among_others() -> None:
    texts = [line(number=1), b"Server web/1 is DOWN", line(number=2, path="/x"), line(status="x"), line(number=3)]
    assert [number for _, _, number in parse(texts)] == [1, 2, 3]
    good = [line(number=number, path=f"/{number}") for number in range(100)]
    assert parse(good) == [parsed(text) for text in good]


@pytest.mark.parametrize(
    ("logged", "path"),
    [
        ("/a#22b#23", '/a"b#'),
        ("/a%22", "/a%22"),
        ("/cut#2", "/cut#2"),
        ("/a#7Bb#7D", "/a{b}"),
        ("/a#09b", "/a\tb"),
        ("/#C3#AB#FF", "/ë\ufffd"),
        ('/a","b\\"\\u0022', '/a","b\\"\\u0022'),
    ],
)
def test_what_haproxy_encodes_in_a_path_is_decoded(logged: str, path: str) -> None:
    entry, *_ = parsed(line(path=logged))
    assert entry.path == path
    assert decode(encode([entry])) == entry


def test_what_is_not_known_is_null() -> None:
    entry, *_ = parsed(
        line(service="gateway", replica="<NOSRV>", route="-", id="-", status=400, total="+5", sent="+7", retries="+2")
    )
    assert (entry.replica, entry.route, entry.id, entry.subject, entry.token) == (None, None, None, None, None)
    assert (entry.total, entry.sent, entry.retries) == (5, 7, 2)


def test_only_numbers_lose_a_sign() -> None:
    entry, *_ = parsed(line(method="+GET", subject="+me", path="+x"))
    assert (entry.method, entry.subject, entry.path) == ("+GET", "+me", "+x")


@pytest.mark.parametrize("text", [b"", b"Server web/1 is DOWN", b"a\tb", line(status="x"), line(number="x")])  # type: ignore[arg-type]
def test_other_words_are_no_line(text: bytes) -> None:
    assert parse([text]) == []


def test_bytes_that_are_no_text() -> None:
    entry, *_ = parsed(line() + b"\xff\xfe")
    assert entry.path.startswith("/data/x")
    assert decode(encode([entry])) == entry


def test_a_line_has_the_fields_that_haproxy_is_told_to_send() -> None:
    assert line().count(b"\t") + 1 == len(LOG_FIELDS)
    assert parse([line().rpartition(b"\t")[0]]) == []
