"""A section of escala.toml."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of escala.toml: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
