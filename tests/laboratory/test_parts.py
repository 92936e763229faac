"""The laboratory's own arithmetic and drawings, without the rest."""

import xml.etree.ElementTree as ET

from laboratorio import charts, simulation

ROWS = [
    {"airline": "A & B <Air>", "month": 1, "mean_arrival_delay": -0.2},
    {"airline": "A & B <Air>", "month": 3, "mean_arrival_delay": 45.0},
    {"airline": "Zed", "month": 1, "mean_arrival_delay": None},
]


def test_the_chart_is_well_formed_whatever_the_names() -> None:
    svg = ET.fromstring(charts.delay_chart(ROWS))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "A & B <Air>" in texts
    assert {"Jan", "Mar", "0", "45"} <= set(texts)
    assert "-0" not in texts


def test_csv() -> None:
    assert charts.csv_of(ROWS).splitlines()[0] == "airline,month,mean_arrival_delay"
    assert charts.csv_of([]).strip() == "airline"


def test_a_probability_that_is_known() -> None:
    """Arrivals late by 0..99 minutes, onward flights on time, 50 minutes of slack: 49 of 100 are missed."""
    said: list[float] = []
    estimate = simulation.missed_connection(
        range(100), [0], 50, 200_000, lambda fraction, message: said.append(fraction), seed=1
    )
    assert abs(estimate["probability"] - 0.49) < 4 * estimate["standard_error"]
    assert said == sorted(said)
    assert said[-1] == 1.0


def test_a_delayed_onward_flight_waits() -> None:
    late = range(100)
    on_time = simulation.missed_connection(late, [0], 30, 20_000, lambda f, m: None, seed=2)
    delayed = simulation.missed_connection(late, [60], 30, 20_000, lambda f, m: None, seed=2)
    early = simulation.missed_connection(late, [-10], 30, 20_000, lambda f, m: None, seed=2)
    assert 0 < delayed["probability"] < on_time["probability"] == early["probability"]
