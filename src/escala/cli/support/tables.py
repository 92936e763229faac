"""Tables that show what runs."""

from rich.table import Table

from escala.control.status import ProcessStatus, ServiceStatus, Status
from escala.units import format_duration, format_size

_STYLES = {
    "serving": "green",
    "ready": "green",
    "starting": "yellow",
    "draining": "yellow",
    "waiting": "red",
    "crashing": "red",
    "stopping": "yellow",
    "stopped": "dim",
    "busy": "yellow",
    "unhealthy": "red",
    "hung": "red",
    "unreachable": "red",
}


def status_table(status: Status) -> Table:
    """Return a table with a row per process: service, replica, address, pid, state, restarts, uptime, memory."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("SERVICE", "REPLICA", "ADDRESS"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PID", "STATE", "RESTARTS", "UPTIME", "MEMORY"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "STATE" else "right")
    for process in status.processes:
        table.add_row(*_row(process))
    return table


def traffic_table(status: Status) -> Table:
    """Return a table with a row per service and per replica.

    Its columns are requests in flight, waiting, per second and in total, and errors.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("REPLICA", no_wrap=True)
    for heading in ("IN FLIGHT", "WAITING", "PER SECOND", "REQUESTS", "ERRORS"):
        table.add_column(heading, no_wrap=True, justify="right")
    for service in status.services:
        table.add_row(service.name, *_counts(service))
        for process in status.processes:
            if process.service == service.name and process.inflight is not None:
                table.add_row(f"  {process.service}/{process.replica}", *_counts(process))
    return table


def _counts(each: ServiceStatus | ProcessStatus) -> tuple[str, ...]:
    return tuple(f"{n or 0:,}" for n in (each.inflight, each.queued, each.rate, each.requests, each.errors))


def styled_state(process: ProcessStatus) -> str:
    state = "crashing" if process.crashing else process.state
    if state == "serving" and process.health != "healthy":
        state = process.health
    style = _STYLES.get(state, "")
    return f"[{style}]{state}[/]" if style else state


def total_memory(status: Status) -> int:
    """Return the total memory of all processes and the supervisor in bytes."""
    return sum(process.memory or 0 for process in status.processes) + (status.memory or 0)


def _row(process: ProcessStatus) -> tuple[str, ...]:
    return (
        process.service,
        process.replica or "–",
        "Unix socket" if process.address.startswith("unix:") else process.address,
        str(process.pid or "–"),
        styled_state(process),
        str(process.restarts),
        format_duration(process.uptime) if process.uptime is not None else "–",
        format_size(process.memory) if process.memory is not None else "–",
    )
