"""Long work: a job whose enqueue returned is run, also when the worker that had it is killed."""

import asyncio

from escala import task
from escala.tasks import progress


@task(retries=3, timeout="5m")
async def report(pages: int, reader: str) -> dict[str, object]:
    for page in range(pages):
        await asyncio.sleep(0.2)  # here a page would be written
        progress((page + 1) / pages, f"page {page + 1} of {pages}")
    return {"reader": reader, "pages": pages}
