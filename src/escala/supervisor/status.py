"""The parts of a status (`control.status`), taken from what runs."""

import contextlib
import time
from collections.abc import Iterable

import psutil

from escala.config import ServiceSettings
from escala.control.status import ProcessStatus, ServiceStatus
from escala.gateway.haproxy.runtime_api import Traffic
from escala.processes.child import Child


def describe_service(
    name: str, service: ServiceSettings, replicas: int, traffic: Traffic | None, *, why: str, rollout: str
) -> ServiceStatus:
    return ServiceStatus(
        name=name,
        replicas=replicas,
        min=service.replicas.min,
        max=service.replicas.most,
        why=why,
        rollout=rollout,
        inflight=traffic.inflight if traffic else 0,
        queued=traffic.queued if traffic else 0,
        rate=traffic.rate if traffic else 0,
        requests=traffic.requests if traffic else 0,
        errors=traffic.errors if traffic else 0,
    )


def describe(
    child: Child, address: str, *, drained: bool = False, health: str = "well", traffic: Traffic | None = None
) -> ProcessStatus:
    """Return what a child does, without its memory: that takes long to measure (`measure`)."""
    service, _, replica = child.name.partition("/")
    if health == "well" and child.state == "serving" and not drained and traffic is not None and not traffic.up:
        health = "unreachable"
    return ProcessStatus(
        service=service,
        replica=replica,
        address=address,
        pid=child.pid,
        state=child.state,
        crashing=child.crashing,
        restarts=child.restarts,
        uptime=time.time() - child.ready_at if child.ready_at else None,
        memory=None,
        drained=drained,
        health=health,
        inflight=traffic.inflight if traffic else None,
        queued=traffic.queued if traffic else None,
        rate=traffic.rate if traffic else None,
        requests=traffic.requests if traffic else None,
        errors=traffic.errors if traffic else None,
    )


def measure(processes: Iterable[ProcessStatus]) -> None:
    """Fill in how much memory each process uses."""
    for process in processes:
        process.memory = memory_of(process.pid) if process.pid else None


def memory_of(pid: int, *, with_children: bool = True) -> int | None:
    """Return the proportional set size of a process, its children included: shared pages are counted once in all."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        family = [process, *(process.children(recursive=True) if with_children else [])]
        return sum(map(_pss, family))
    return None


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            return int(process.memory_full_info().pss)
        except (psutil.AccessDenied, AttributeError):  # not Linux, or not our process: the nearest there is
            return int(process.memory_info().rss)
    return 0
