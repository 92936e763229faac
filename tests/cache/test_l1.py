import random
import time
from collections import OrderedDict

import pytest

from escala.cache.counts import Counts
from escala.cache.l1 import L1, OVERHEAD, Entry


def entry(key: str, *tags: str, ttl: float = 60, weight: int = 1) -> Entry:
    made = Entry(key, tags, key, None, lambda payload: payload, weight, Counts())
    made.refresh_at = made.fresh_until = made.stale_until = made.error_until = time.monotonic() + ttl
    return made


def full(size: int, room: int = 10**9) -> L1:
    made = L1(size, room)
    made.switch_on()
    return made


@pytest.fixture
def l1() -> L1:
    return full(3)


def put(l1: L1, key: str, *tags: str, ttl: float = 60, weight: int = 1) -> bool:
    return l1.put(entry(key, *tags, ttl=ttl, weight=weight), l1.ticket())


def test_it_keeps_and_finds(l1: L1) -> None:
    assert put(l1, "a")
    found = l1.get("a")
    assert found is not None
    assert found.read() == "a"
    assert l1.get("b") is None


def test_an_expired_entry_is_gone(l1: L1) -> None:
    put(l1, "a", "t", ttl=-1)
    assert l1.get("a") is None
    assert len(l1) == 0


def test_what_is_asked_for_again_stays(l1: L1) -> None:
    for key in "abc":
        put(l1, key)
    l1.get("a")
    for key in "defg":
        put(l1, key)
    assert l1.get("a")
    assert len(l1) == 3
    assert l1.evictions == 4


def test_the_size_in_bytes_is_bounded() -> None:
    each = OVERHEAD + 1000 + len("0000") + len("t")
    l1 = full(1000, room=100 * each)
    for number in range(1000):
        put(l1, f"{number:04}", "t", weight=1000)
    assert len(l1) == 100
    assert l1.bytes == 100 * each
    assert not put(l1, "huge", weight=l1.largest + 1)
    l1.invalidate(["t"])
    assert (len(l1), l1.bytes) == (0, 0)


def test_a_replaced_entry_counts_once(l1: L1) -> None:
    for _ in range(5):
        put(l1, "a", "t", "u", weight=10)
    assert (len(l1), l1.bytes) == (1, 10 + OVERHEAD + len("atu"))


def test_a_tag_takes_its_entries_along(l1: L1) -> None:
    put(l1, "a", "t", "u")
    put(l1, "b", "u")
    l1.invalidate(["t"])
    assert l1.get("a") is None
    assert l1.get("b")
    l1.invalidate(["b"])
    assert l1.get("b") is None


def test_an_entry_that_was_invalidated_while_it_was_loaded_is_refused(l1: L1) -> None:
    ticket = l1.ticket()
    l1.invalidate(["t"])
    assert not l1.put(entry("a", "t"), ticket)
    assert l1.put(entry("b", "u"), ticket)
    l1.invalidate(["c"])
    assert not l1.put(entry("c"), ticket)
    assert l1.put(entry("a", "t"), l1.ticket())


def test_switched_off_it_keeps_nothing(l1: L1) -> None:
    put(l1, "a")
    ticket = l1.ticket()
    l1.switch_off()
    assert l1.get("a") is None
    assert not put(l1, "a")
    l1.switch_on()
    assert not l1.put(entry("a"), ticket)
    assert put(l1, "a")


def test_forgetting_invalidations_refuses_loads_in_progress(l1: L1) -> None:
    ticket = l1.ticket()
    for number in range(10_001):
        l1.invalidate([str(number)])
    assert not l1.put(entry("a", "t"), ticket)


def test_a_dropped_entry_is_useless_to_whoever_has_it(l1: L1) -> None:
    put(l1, "a", "t")
    found = l1.get("a")
    assert found is not None
    l1.remember_call(("a", 1), found)
    assert l1.calls[("a", 1)] is found
    l1.invalidate(["t"])
    assert l1.calls == {}
    assert found.refresh_at < time.monotonic()
    l1.remember_call(("a", 1), found)
    assert l1.calls == {}


class Lru:
    """The policy to compare with."""

    def __init__(self, size: int) -> None:
        self.size, self.entries = size, OrderedDict[str, None]()

    def asked(self, key: str) -> bool:
        if key in self.entries:
            self.entries.move_to_end(key)
            return True
        self.entries[key] = None
        if len(self.entries) > self.size:
            self.entries.popitem(last=False)
        return False


def test_a_scan_does_not_push_out_what_is_used() -> None:
    chance = random.Random(1)
    l1, lru = full(100), Lru(100)
    hits = [0, 0]
    for step in range(20_000):
        key = f"hot{chance.randrange(80)}" if step % 2 else f"scan{step}"
        if l1.get(key):
            hits[0] += 1
        else:
            put(l1, key)
        hits[1] += lru.asked(key)
    assert hits[0] > hits[1] * 1.2


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_keeps_the_books(seed: int) -> None:
    chance = random.Random(seed)
    l1 = full(10, room=20 * OVERHEAD)
    for _ in range(2000):
        key, tag = str(chance.randrange(30)), f"t{chance.randrange(5)}"
        deed = chance.random()
        if deed < 0.5:
            put(l1, key, tag, weight=chance.randrange(3 * OVERHEAD), ttl=chance.choice([-1, 60]))
        elif deed < 0.9:
            l1.get(key)
        else:
            l1.invalidate([chance.choice([key, tag])])
        assert len(l1) <= 10
        assert l1.bytes <= 20 * OVERHEAD
    for number in range(30):
        l1.invalidate([str(number)])
    assert (len(l1), l1.bytes, dict(l1._keys_of), l1._small_count) == (0, 0, {}, 0)
    assert len(l1._small) + len(l1._main) <= 2 * (100 + 2 * 10)
