"""[gateway.tls]: HTTPS."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from escala.config.address import BindAddress
from escala.config.section import Section
from escala.config.types import Duration


class TlsSettings(Section):
    certificates: Annotated[Path, Strict(False)]
    """A PEM file with certificate chain and key, or a folder of them, chosen by the client's server name (SNI);
    relative to escala.toml. A change is taken over within seconds."""
    redirect: BindAddress | None = None
    """An address for plain HTTP whose requests are sent on to HTTPS, such as ":80"."""
    hsts: Duration | None = Field(default=None)
    """How long browsers shall insist on HTTPS (RFC 6797)."""
