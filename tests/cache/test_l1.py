import time

import pytest

from escala.cache.l1 import L1, Entry


def entry(value: object, *tags: str, ttl: float = 60) -> Entry:
    return Entry(value, time.monotonic() + ttl, tags)


@pytest.fixture
def l1() -> L1:
    made = L1(3)
    made.switch_on()
    return made


def test_it_keeps_and_finds(l1: L1) -> None:
    assert l1.put("a", entry(1), l1.ticket())
    found = l1.get("a")
    assert found is not None
    assert found.value == 1
    assert l1.get("b") is None


def test_an_expired_entry_is_gone(l1: L1) -> None:
    l1.put("a", entry(1, "t", ttl=-1), l1.ticket())
    assert l1.get("a") is None
    assert len(l1) == 0


def test_the_least_recently_used_goes_first(l1: L1) -> None:
    for key in "abc":
        l1.put(key, entry(key), l1.ticket())
    l1.get("a")
    l1.put("d", entry("d"), l1.ticket())
    assert [key for key in "abcd" if l1.get(key)] == ["a", "c", "d"]


def test_invalidation_drops_by_tag(l1: L1) -> None:
    l1.put("a", entry(1, "red", "round"), l1.ticket())
    l1.put("b", entry(2, "red"), l1.ticket())
    l1.put("c", entry(3, "round"), l1.ticket())
    l1.invalidate(["red", "unknown"])
    assert [key for key in "abc" if l1.get(key)] == ["c"]


def test_a_value_read_before_an_invalidation_is_refused(l1: L1) -> None:
    ticket = l1.ticket()
    l1.invalidate(["red"])
    assert not l1.put("a", entry("old", "red"), ticket)
    assert l1.put("b", entry("other", "blue"), ticket)
    assert l1.put("a", entry("new", "red"), l1.ticket())


def test_a_value_read_before_the_switch_is_refused(l1: L1) -> None:
    ticket = l1.ticket()
    l1.switch_off()
    assert not l1.put("a", entry(1), l1.ticket())
    l1.switch_on()
    assert not l1.put("a", entry(1), ticket)
    assert l1.put("a", entry(1), l1.ticket())


def test_switching_off_empties(l1: L1) -> None:
    l1.put("a", entry(1, "t"), l1.ticket())
    l1.switch_off()
    assert len(l1) == 0
    assert not l1.on


def test_what_it_remembers_is_bounded_and_errs_to_the_safe_side(l1: L1) -> None:
    ticket = l1.ticket()
    for number in range(20_001):
        l1.invalidate([f"t{number}"])
    assert len(l1._invalidated) <= 10_001
    assert not l1.put("a", entry(1, "t0"), ticket)
    assert not l1.put("b", entry(1, "never"), ticket)


def test_size_zero_keeps_nothing() -> None:
    off = L1(0)
    off.switch_on()
    assert not off.put("a", entry(1), off.ticket())
