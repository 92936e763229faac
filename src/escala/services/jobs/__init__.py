"""The pages under /jobs."""

from starlette.routing import Route

from escala.services.jobs.events import events
from escala.services.jobs.listing import listing
from escala.services.jobs.single import cancel, file, retry, show

routes = [
    Route("/jobs", listing),
    Route("/jobs/{id}", show),
    Route("/jobs/{id}", cancel, methods=["DELETE"]),
    Route("/jobs/{id}/retry", retry, methods=["POST"]),
    Route("/jobs/{id}/events", events),
    Route("/jobs/{id}/files/{name}", file),
]
