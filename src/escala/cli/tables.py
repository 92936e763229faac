"""Tables of what runs."""

from rich.table import Table

from escala.config.units import format_duration, format_size
from escala.supervisor.status import ProcessStatus, Status

_STYLES = {"ready": "green", "starting": "yellow", "waiting": "red", "stopping": "yellow", "stopped": "dim"}


def status_table(status: Status) -> Table:
    """Return a row for each process: service, replica, address, pid, state, restarts, uptime, memory."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("SERVICE", "REPLICA", "ADDRESS"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PID", "STATE", "RESTARTS", "UPTIME", "MEMORY"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "STATE" else "right")
    for process in status.processes:
        table.add_row(*_row(process))
    return table


def total_memory(status: Status) -> int:
    """Return the memory of all processes and the supervisor, in bytes."""
    return sum(process.memory or 0 for process in status.processes) + (status.memory or 0)


def _row(process: ProcessStatus) -> tuple[str, ...]:
    style = _STYLES.get(process.state, "")
    return (
        process.service,
        process.replica or "–",
        process.address,
        str(process.pid or "–"),
        f"[{style}]{process.state}[/]" if style else process.state,
        str(process.restarts),
        format_duration(process.uptime) if process.uptime is not None else "–",
        format_size(process.memory) if process.memory is not None else "–",
    )
