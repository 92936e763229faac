"""A section of escala.toml."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of escala.toml. It is frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
