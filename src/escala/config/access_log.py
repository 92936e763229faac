"""[gateway.access_log]: one line per request, in files of newline-delimited JSON."""

from pydantic import Field, model_validator

from escala.config.section import Section
from escala.config.types import Duration, Size


class AccessLogSettings(Section):
    enabled: bool = True
    segment: Size = Field(default=32 * 1024**2)
    """The size in bytes at which a file is closed and the next one is started."""
    age: Duration = 3600.0
    """The age at which a file is closed and the next one is started."""
    total: Size = 512 * 1024**2
    """The maximum size of all files in bytes; the oldest files are deleted first."""

    @model_validator(mode="after")
    def _holds_some(self) -> "AccessLogSettings":
        if self.total < 2 * self.segment:
            raise ValueError("total must be at least twice the size of segment")
        return self
