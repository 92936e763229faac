"""The Universal Scalability Law (N. Gunther): throughput by replicas, with the cost of contention and coherence.

C(N) = l N / (1 + s (N - 1) + k N (N - 1)). It is fitted by least squares of the transformed quantity N / C(N), which is
a polynomial in (N - 1).
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Law:
    single: float
    """l: throughput of one replica."""
    contention: float
    """s: the share of the work that cannot run in parallel."""
    coherence: float
    """k: the cost of coordination between each pair of replicas."""

    def at(self, count: float) -> float:
        loss = 1 + self.contention * (count - 1) + self.coherence * count * (count - 1)
        return self.single * count / loss

    def __str__(self) -> str:
        return f"λ = {self.single:.1f}/s, σ = {self.contention:.5f}, κ = {self.coherence:.6f}"  # noqa: RUF001 - its own letters


def fit(measured: Mapping[int, float]) -> Law:
    """Return the law that fits best. Contention and coherence are never negative."""
    single = measured[min(measured)] / min(measured)
    # N l / C - 1 = s (N - 1) + k N (N - 1), divided by (N - 1): a straight line in N.
    points = [(n, (n * single / c - 1) / (n - 1)) for n, c in measured.items() if n > 1]
    mean_n = sum(n for n, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((n - mean_n) ** 2 for n, _ in points)
    slope = max(0.0, sum((n - mean_n) * (y - mean_y) for n, y in points) / spread)
    return Law(single, max(0.0, mean_y - slope * mean_n), slope)


def draw(measured: Mapping[int, float], law: Law) -> str:
    """Return an SVG of the measured points, the fitted law, and linear scaling."""
    width, height, left, bottom = 640, 400, 70, 50
    most_n = max(measured) * 1.05
    most_c = max(max(measured.values()), law.single * max(measured)) * 1.08

    def x(count: float) -> float:
        return left + count / most_n * (width - left - 20)

    def y(value: float) -> float:
        return height - bottom - value / most_c * (height - bottom - 30)

    curve = " ".join(f"{x(n / 4):.1f},{y(law.at(n / 4)):.1f}" for n in range(2, int(most_n * 4) + 1))
    dots = "".join(f'<circle cx="{x(n):.1f}" cy="{y(c):.1f}" r="4" fill="#0969da"/>' for n, c in measured.items())
    ticks = "".join(
        f'<line x1="{x(n):.1f}" y1="{height - bottom}" x2="{x(n):.1f}" y2="{height - bottom + 5}" stroke="#57606a"/>'
        f'<text x="{x(n):.1f}" y="{height - bottom + 20}" text-anchor="middle">{n}</text>'
        for n in measured
    )
    step = 10 ** (len(str(int(most_c))) - 1) / 2
    rows = "".join(
        f'<line x1="{left}" y1="{y(i * step):.1f}" x2="{width - 20}" y2="{y(i * step):.1f}" stroke="#d8dee4"/>'
        f'<text x="{left - 8}" y="{y(i * step) + 4:.1f}" text-anchor="end">{i * step:,.0f}</text>'
        for i in range(int(most_c / step) + 1)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"
  font-size="13" fill="#24292f" role="img" aria-label="Throughput against replicas">
<rect width="{width}" height="{height}" fill="#ffffff"/>
{rows}{ticks}
<line x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(max(measured)):.1f}" y2="{y(law.single * max(measured)):.1f}"
  stroke="#57606a" stroke-dasharray="4 4"/>
<polyline points="{curve}" fill="none" stroke="#0969da" stroke-width="2"/>
{dots}
<text x="{left}" y="18">requests a second against replicas; dashed: linear; line: {law}</text>
<text x="{(left + width) / 2}" y="{height - 8}" text-anchor="middle">replicas</text>
</svg>
"""
