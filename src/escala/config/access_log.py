"""[gateway.access_log]: a line a request, in files of newline-delimited JSON."""

from pydantic import Field, model_validator

from escala.config.section import Section
from escala.config.types import Duration, Size


class AccessLogSettings(Section):
    enabled: bool = True
    segment: Size = Field(default=32 * 1024**2)
    """Bytes after which a file is closed and the next begun."""
    age: Duration = 3600.0
    """The same by time."""
    total: Size = 512 * 1024**2
    """Bytes of all files; the oldest go first."""

    @model_validator(mode="after")
    def _holds_some(self) -> "AccessLogSettings":
        if self.total < 2 * self.segment:
            raise ValueError("total must hold at least two segments")
        return self
