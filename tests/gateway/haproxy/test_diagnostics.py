import pytest

from escala.gateway.haproxy.diagnostics import explained, setting

TEXT = """# written by Escala

global
    maxconn 100

frontend gateway
    bind 127.0.0.1:1 ssl crt "/certs"
    http-request deny

backend shop
    balance leastconn
    http-check send meth GET
    timeout queue 5s

backend shop:1
    cookie replica

backend escala.tokens
    stick-table type binary
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("maxconn", "gateway.max_connections"),
        ("bind", "gateway.tls.certificates"),
        ("balance", "services.shop.balance"),
        ("http-check", "services.shop.health"),
        ("timeout queue", "services.shop"),
        ("cookie", "services.shop.balance.sticky"),
        ("stick-table", None),
        ("http-request", None),
    ],
)
def test_the_setting_behind_a_line(line: str, expected: str | None) -> None:
    number = next(n for n, text in enumerate(TEXT.splitlines(), start=1) if line in text)
    assert setting(f"[ALERT] parsing [/a (copy); #1/gateway/1/haproxy.cfg:{number}] : nonsense", TEXT) == expected


def test_words_without_a_line_stay_as_they_are() -> None:
    assert explained("something is wrong", TEXT) == "something is wrong"
    assert explained("parsing [x:999] : y", TEXT) == "parsing [x:999] : y"
