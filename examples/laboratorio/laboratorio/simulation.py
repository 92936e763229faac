"""Monte-Carlo estimates."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

_BATCH = 20_000


def missed_connection(
    late_in: Sequence[int],
    late_out: Sequence[int],
    slack: int,
    draws: int,
    progress: Callable[[float, str], None],
    seed: int | None = None,
) -> dict[str, Any]:
    """Estimate how often an arrival is later than `slack` minutes plus the delay of the onward flight.

    `late_in` and `late_out` are observed delays in minutes. `progress` is called after each batch. Returns the
    probability, its binomial standard error, and the number of draws.
    """
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    missed = done = 0
    while done < draws:
        size = min(_BATCH, draws - done)
        pairs = zip(chance.choices(late_in, k=size), chance.choices(late_out, k=size), strict=True)
        missed += sum(arrival > slack + max(0, departure) for arrival, departure in pairs)
        done += size
        progress(done / draws, f"{done:,} draws")
    probability = missed / draws
    error = math.sqrt(probability * (1 - probability) / draws)
    return {"probability": round(probability, 5), "standard_error": round(error, 5), "draws": draws}
