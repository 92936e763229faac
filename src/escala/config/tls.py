"""[gateway.tls]: HTTPS."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from escala.config.address import BindAddress
from escala.config.section import Section
from escala.config.types import Duration


class TlsSettings(Section):
    certificates: Annotated[Path, Strict(False)]
    """A PEM file with certificate chain and key, or a folder of such files, relative to escala.toml.

    From a folder, the file is chosen by the server name that the client requests (SNI). Changes take effect within
    seconds.
    """
    redirect: BindAddress | None = None
    """A plain HTTP address whose requests are redirected to HTTPS, such as ":80"."""
    hsts: Duration | None = Field(default=None)
    """How long browsers must use only HTTPS (RFC 6797)."""
