"""The command `escala systemd`."""

import getpass
import sys
from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.cli.support.options import File, Settings, open_project
from escala.gateway.render.render import MAX_DRAIN
from escala.project.project import Project

User = Annotated[str | None, typer.Option("--user", help="The user that it runs as. Default: you.")]

_UNIT = """\
# Written by `escala systemd` for {file}
#   escala systemd | sudo tee /etc/systemd/system/escala-{name}.service
#   sudo systemctl daemon-reload && sudo systemctl enable --now escala-{name}

[Unit]
Description=Escala: {name}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# Applies the changed escala.toml and replaces every replica, without dropping a request.
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={root}
User={user}
Restart=on-failure
RestartSec=2
# Trying again helps neither against an invalid file, nor if another `escala up` of the same project runs.
RestartPreventExitStatus=2 4
# The supervisor stops its children in the right order. Processes that are left after that are killed.
KillMode=mixed
TimeoutStartSec={start}
TimeoutStopSec={stop}
WatchdogSec=90
LimitNOFILE=65536

NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={ambient}
PrivateTmp=yes
PrivateDevices=yes
ProtectSystem=strict
ReadWritePaths={state}
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def systemd(file: File = None, settings: Settings = None, user: User = None) -> None:
    """Print a hardened systemd unit for the project. The project notifies systemd when it is ready, and regularly."""
    out.print(unit(open_project(file, settings), user or getpass.getuser()), markup=False, end="")


def unit(project: Project, user: str) -> str:
    options = "".join(f" --set {_word(setting)}" for setting in project.settings)
    longest = max((service.stop_timeout for service in project.config.services.values()), default=10.0)
    ports = [project.config.gateway.bind.port]
    if project.config.gateway.tls is not None and project.config.gateway.tls.redirect is not None:
        ports.append(project.config.gateway.tls.redirect.port)
    low = "CAP_NET_BIND_SERVICE" if min(ports) < 1024 else ""
    # As root, PostgreSQL runs as a user of its own, and keys and sockets are given to that user.
    root = "CAP_SETUID CAP_SETGID CAP_CHOWN CAP_DAC_OVERRIDE CAP_KILL CAP_FOWNER" if user == "root" else ""
    return _UNIT.format(
        file=project.file,
        name=project.name,
        command=f"{_word(sys.executable)} -m escala up --no-output --file {_word(str(project.file))}{options}",
        root=str(project.root).replace("%", "%%"),
        start=round(max((service.start_timeout for service in project.config.services.values()), default=30.0) + 300),
        user=user,
        stop=round(longest + min(MAX_DRAIN, 60.0) + 30),
        state=_word(str(project.layout.state if project.layout.state.exists() else _nearest(project))),
        capabilities=f"{low} {root}".strip(),
        ambient=low,
    )


def _nearest(project: Project) -> str:
    """Return the nearest existing parent of the state folder, because ReadWritePaths must exist."""
    folder = project.layout.state.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return str(folder)


def _word(text: str) -> str:
    """Return `text` as one word of a unit file (systemd.syntax(7), systemd.service(5))."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"' if plain != text or any(c.isspace() for c in text) else text
