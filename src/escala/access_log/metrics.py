"""Metrics of routes, computed from the access log, in Prometheus' text format (version 0.0.4)."""

import http
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from escala.access_log.line import Entry
from escala.http.prometheus import label_value

BUCKETS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)
"""Upper bounds of the durations, in milliseconds."""


METHODS = {method.value for method in http.HTTPMethod}
"""All other methods are counted together, because clients must not be able to create any number of label values."""


class _Sums:
    """Sums over the requests of a route."""

    __slots__ = ("durations", "milliseconds", "received", "sent")

    def __init__(self) -> None:
        self.durations = [0] * (len(BUCKETS) + 1)
        self.milliseconds = 0
        self.received = 0
        self.sent = 0


class RouteMetrics:
    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, str, int], int] = defaultdict(int)
        self._routes: dict[str, _Sums] = defaultdict(_Sums)
        self.lines = 0
        self.lost = 0
        """Lines that HAProxy dropped, or that could not be written to disk."""

    def count(self, entry: Entry) -> None:
        route, method = entry.route or "", entry.method if entry.method in METHODS else "other"
        self.lines += 1
        self._requests[route, entry.service or "", method, entry.status] += 1
        sums = self._routes[route]
        sums.durations[bisect_left(BUCKETS, entry.total)] += 1
        sums.milliseconds += max(0, entry.total)
        sums.received += entry.received
        sums.sent += entry.sent

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# HELP escala_route_requests_total Requests by route, service, method and status."
        yield "# TYPE escala_route_requests_total counter"
        for (route, service, method, status), count in sorted(self._requests.items()):
            names = {"route": route, "service": service, "method": method, "status": str(status)}
            labels = ",".join(f'{name}="{label_value(text)}"' for name, text in names.items())
            yield f"escala_route_requests_total{{{labels}}} {count}"
        yield "# HELP escala_route_duration_seconds Time from the request's first byte to the answer's last byte."
        yield "# TYPE escala_route_duration_seconds histogram"
        routes = [(label_value(name), sums) for name, sums in sorted(self._routes.items())]
        for label, sums in routes:
            below = 0
            for bound, count in zip((*(f"{b / 1000:g}" for b in BUCKETS), "+Inf"), sums.durations, strict=True):
                below += count
                yield f'escala_route_duration_seconds_bucket{{route="{label}",le="{bound}"}} {below}'
            yield f'escala_route_duration_seconds_sum{{route="{label}"}} {sums.milliseconds / 1000:.3f}'
            yield f'escala_route_duration_seconds_count{{route="{label}"}} {below}'
        for name, words in (("received", "Bytes received from clients."), ("sent", "Bytes sent to clients.")):
            yield f"# HELP escala_route_{name}_bytes_total {words}"
            yield f"# TYPE escala_route_{name}_bytes_total counter"
            for label, sums in routes:
                yield f'escala_route_{name}_bytes_total{{route="{label}"}} {getattr(sums, name)}'
        yield "# HELP escala_access_log_lines_total Lines of the access log."
        yield "# TYPE escala_access_log_lines_total counter"
        yield f"escala_access_log_lines_total {self.lines}"
        yield "# HELP escala_access_log_lost_total Lines that were lost, because they could not be written fast enough."
        yield "# TYPE escala_access_log_lost_total counter"
        yield f"escala_access_log_lost_total {self.lost}"
