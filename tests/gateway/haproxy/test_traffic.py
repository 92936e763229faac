"""Totals that no reload resets."""

from dataclasses import replace

from escala.gateway.haproxy.traffic import Traffic, TrafficMeter

WEB = Traffic("web", "1", True, 0, 0, 0, 0, 0, 0, False, 5)


def counted(requests: int, errors: int = 0) -> Traffic:
    return replace(WEB, requests=requests, errors=errors, answers=requests)


def test_a_new_worker_begins_at_zero_and_the_total_does_not() -> None:
    meter = TrafficMeter()
    readings = [
        {1: [counted(100, 2)]},
        {2: [counted(0)], 1: [counted(110, 2)]},  # a reload: the old worker finishes what it has
        {2: [counted(5, 1)], 1: [counted(112, 2)]},
        {2: [counted(8, 1)]},  # the old worker has ended
    ]
    totals = [[(each.requests, each.errors) for each in meter.add(reading)] for reading in readings]
    assert totals == [[(100, 2)], [(110, 2)], [(117, 3)], [(120, 3)]]


def test_momentary_figures_are_those_of_all_workers_now() -> None:
    meter = TrafficMeter()
    found = meter.add({2: [replace(WEB, inflight=1)], 1: [replace(WEB, inflight=2)]})
    assert [each.inflight for each in found] == [3]


def test_another_replica_of_the_same_number_begins_at_zero() -> None:
    meter = TrafficMeter()
    meter.add({1: [counted(100)]})
    assert [each.requests for each in meter.add({1: [counted(3)]})] == [3]


def test_a_server_that_is_gone_is_forgotten() -> None:
    meter = TrafficMeter()
    meter.add({1: [counted(100)]})
    assert meter.add({1: []}) == []
    assert [each.requests for each in meter.add({1: [counted(4)]})] == [4]


def test_a_worker_that_does_not_answer_once_is_not_counted_again() -> None:
    meter = TrafficMeter()
    meter.add({2: [counted(10)], 1: [counted(1000)]})
    meter.add({2: [counted(10)]})
    assert [each.requests for each in meter.add({2: [counted(10)], 1: [counted(1000)]})] == [1010]


def test_a_number_that_is_given_anew_begins_at_zero_while_an_old_worker_lives() -> None:
    meter = TrafficMeter()
    meter.add({2: [counted(3)], 1: [counted(500)]})
    meter.forget("web", "1")
    assert [each.requests for each in meter.add({2: [counted(0)], 1: [counted(500)]})] == [0]
    assert [each.requests for each in meter.add({2: [counted(3)], 1: [counted(500)]})] == [3]
