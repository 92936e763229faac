from escala.processes.backoff import CAP, GOOD_SERVICE, Backoff


def test_pauses_double_up_to_the_cap() -> None:
    backoff = Backoff(clock=lambda: 0.0)
    pauses = [backoff.next() for _ in range(12)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == CAP


def test_good_service_is_forgiven_a_short_one_is_not() -> None:
    now = [0.0]
    backoff = Backoff(clock=lambda: now[0])
    backoff.next()
    backoff.ready()
    now[0] += GOOD_SERVICE - 1
    assert backoff.next() == 0.2
    backoff.ready()
    now[0] += GOOD_SERVICE
    assert backoff.next() == 0.1
