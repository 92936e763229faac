"""Load generated with wrk (https://github.com/wg/wrk): measures throughput, latency and failures."""

import re
import subprocess
from dataclasses import dataclass

from benchmarks.processes import processor_seconds, required

_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Measured:
    requests: int
    seconds: float
    failed: int
    """Answers other than 2xx and 3xx, broken connections and time-outs."""
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Processor time of the measured process per request, in microseconds."""

    @property
    def rps(self) -> float:
        return self.requests / self.seconds


def measure(url: str, token: str, pid: int, *, connections: int = 64, seconds: int = 4) -> Measured:
    """Warm a server up, put it under load, and measure throughput, latency and processor time of process `pid`."""
    command = [str(required("wrk")), "-t1", f"-c{connections}", "-H", f"Authorization: Bearer {token}", "--latency"]
    subprocess.run([*command, "-d1", url], capture_output=True, check=True)
    before = processor_seconds(pid)
    said = subprocess.run([*command, f"-d{seconds}", url], capture_output=True, text=True, check=True).stdout
    used = processor_seconds(pid) - before
    requests = int(_found(r"(\d+) requests in", said))
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", said)))
    for errors in re.findall(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said):
        failed += sum(map(int, errors))
    return Measured(
        requests=requests,
        seconds=float(seconds),
        failed=failed,
        p50_ms=_latency(said, "50%"),
        p99_ms=_latency(said, "99%"),
        cpu_us=used / max(1, requests) * 1e6,
    )


def _latency(said: str, percentile: str) -> float:
    number, unit = re.findall(rf"{percentile}\s+([\d.]+)(us|ms|s)", said)[0]
    return float(number) * _UNITS[unit]


def _found(pattern: str, said: str) -> str:
    match = re.search(pattern, said)
    if match is None:
        raise SystemExit(f"cannot read the output of wrk:\n{said}")
    return match[1]
