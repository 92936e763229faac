import pytest

from escala.tasks.retries import RetryPolicy


def test_pauses_grow_up_to_a_limit_and_vary() -> None:
    policy = RetryPolicy.of(5, "1s", "1m")
    for failures, middle in enumerate([1, 2, 4, 8, 16, 32, 60, 60]):
        pauses = [policy.pause(failures) for _ in range(200)]
        assert all(0.75 * middle <= pause <= 1.25 * middle for pause in pauses)
        assert max(pauses) > 1.1 * middle > 0.9 * middle > min(pauses)
    assert policy.pause(10_000) <= 75


def test_by_exception() -> None:
    policy = RetryPolicy.of({Exception: 1, OSError: 5, ConnectionError: 0})
    assert policy.most == 5
    assert policy.allowed(ConnectionResetError()) == 0
    assert policy.allowed(FileNotFoundError()) == 5
    assert policy.allowed(ValueError()) == 1
    assert policy.allowed(KeyboardInterrupt()) == 0
    assert RetryPolicy.of(4).allowed(KeyboardInterrupt()) == 4
    assert RetryPolicy.of({}).most == 0


def test_negative_numbers() -> None:
    with pytest.raises(ValueError, match="retries must be 0 or more, not -1"):
        RetryPolicy.of({ValueError: -1})
