"""Quantiles of durations per service, computed from the gateway's histograms per route (`/metrics/routes`)."""

import http.client
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from escala.gateway.topology.topology import Topology

Histogram = dict[float, int]
"""For each upper bound in seconds, how many requests took at most that long."""

_BUCKET = re.compile(r'escala_route_duration_seconds_bucket\{route="((?:[^"\\]|\\.)*)",le="([^"]+)"\} (\d+)')
_SECONDS = 1.0


def read(metrics: str, topology: Topology) -> dict[str, Histogram]:
    """Return the collector's histograms, per service; an empty dictionary if it does not answer."""
    place = urlsplit(metrics)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=_SECONDS)
    try:
        connection.request("GET", f"{place.path}/routes")
        text = connection.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
    service_of = {route.name: route.service for route in topology.routes}
    found: dict[str, Histogram] = {}
    for route, bound, count in _BUCKET.findall(text):
        service = service_of.get(route)
        if service is not None:
            histogram = found.setdefault(service, {})
            histogram[float(bound)] = histogram.get(float(bound), 0) + int(count)
    return found


def since(before: Mapping[float, int], now: Mapping[float, int]) -> Histogram:
    """Return the requests between two readings. If the collector has restarted in between, return all of `now`."""
    if any(now.get(bound, 0) < count for bound, count in before.items()):
        return dict(now)
    return {bound: count - before.get(bound, 0) for bound, count in now.items()}


def quantile(histogram: Mapping[float, int], share: float) -> float | None:
    """Return the duration in seconds that this share of the requests did not exceed; None if there are no requests.

    Within a bucket, requests are assumed to be evenly spread.
    """
    bounds = sorted(histogram)
    total = histogram[bounds[-1]] if bounds else 0
    if not total:
        return None
    wanted, lower, below = share * total, 0.0, 0
    for bound in bounds:
        if histogram[bound] >= wanted:
            inside = histogram[bound] - below
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * ((wanted - below) / inside if inside else 1.0)
        lower, below = bound, histogram[bound]
    return lower
