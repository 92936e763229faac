import pytest

from escala.supervisor.changes.canary import Served, judge, together, weight_for


@pytest.mark.parametrize(
    ("canary", "old", "good"),
    [
        (Served(100, 0, 20), Served(900, 0, 20), True),
        (Served(100, 3, 20), Served(900, 0, 20), False),
        (Served(100, 2, 20), Served(900, 0, 20), True),  # may be chance
        (Served(1000, 9, 20), Served(9000, 0, 20), True),  # below one point more
        (Served(100, 30, 20), Served(900, 300, 20), True),  # as bad as the old one
        (Served(100, 0, 31), Served(900, 0, 20), False),
        (Served(100, 0, 29), Served(900, 0, 20), True),
        (Served(100, 0, 9), Served(900, 0, 1), True),  # nine times as long is still nothing
        (Served(5, 0, 900), Served(900, 0, 20), True),  # too few to tell
        (Served(4, 4, 20), Served(900, 0, 20), False),
        (Served(0, 0, 0), Served(0, 0, 0), True),
    ],
)
def test_the_rule(canary: Served, old: Served, good: bool) -> None:
    verdict = judge(canary, old)
    assert verdict.good is good
    assert verdict.why


def test_several_as_one() -> None:
    assert together([Served(100, 1, 10), Served(300, 3, 30)]) == Served(400, 4, 25)
    assert together([]) == Served(0, 0, 0)


@pytest.mark.parametrize(("share", "others", "expected"), [(0.1, 4, 44), (0.5, 1, 100), (0.01, 1, 1), (0.9, 9, 256)])
def test_weights(share: float, others: int, expected: int) -> None:
    assert weight_for(share, 1, others) == expected
    assert weight_for(share, 1, 0) == 100
