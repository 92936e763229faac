"""The certificates that a configuration names: whether they are there, and HAProxy takes them."""

import tempfile
from pathlib import Path

from escala.config import Config
from escala.engines import haproxy
from escala.errors import ConfigurationRefused, EngineFailed
from escala.gateway.render.text import quoted

_IN_FRONTEND = " in section 'frontend' : "


def find(root: Path, config: Config) -> Path | None:
    """Return the file or folder of the certificates, None without TLS; raise EngineFailed where it is not there."""
    if config.gateway.tls is None:
        return None
    path = root / config.gateway.tls.certificates.expanduser()
    if not path.exists():
        raise EngineFailed("HAProxy", f"gateway.tls.certificates: there is no {path}; see `escala cert`")
    return path


def require(root: Path, config: Config, binary: Path) -> None:
    """Raise EngineFailed, with HAProxy's words, where the certificates are missing or not to be used. Blocking."""
    path = find(root, config)
    if path is None:
        return
    bind = f"bind 127.0.0.1:1 ssl crt {quoted(str(path))}"  # nothing is bound to check a configuration
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
