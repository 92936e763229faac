"""Checks that the certificates a configuration names exist and that HAProxy accepts them."""

import tempfile
from pathlib import Path

from escala.config import Config
from escala.engines import haproxy
from escala.errors import ConfigurationRefused, EngineFailed
from escala.gateway.render.text import quoted

_IN_FRONTEND = " in section 'frontend' : "


def find(root: Path, config: Config) -> Path | None:
    """Return the file or folder of the certificates, None without TLS; raise EngineFailed if it does not exist."""
    if config.gateway.tls is None:
        return None
    path = root / config.gateway.tls.certificates.expanduser()
    if not path.exists():
        raise EngineFailed("HAProxy", f"gateway.tls.certificates: {path} does not exist; see `escala cert`")
    return path


def require(root: Path, config: Config, binary: Path) -> None:
    """Raise EngineFailed with HAProxy's message if the certificates are missing or unusable. Blocking."""
    path = find(root, config)
    if path is None:
        return
    bind = f"bind 127.0.0.1:1 ssl crt {quoted(str(path))}"  # a configuration check binds nothing
    text = f"frontend tls\n    mode http\n    timeout client 1s\n    {bind}\n"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "haproxy.cfg"
        file.write_text(text, encoding="utf-8")
        try:
            haproxy.check(binary, file, file.parent)
        except ConfigurationRefused as refused:
            words = [
                alert.partition(_IN_FRONTEND)[2] or f"there is no certificate in {path}" for alert in refused.alerts
            ]
            raise EngineFailed("HAProxy", f"gateway.tls.certificates: {'; '.join(words)}") from None
