"""pydantic models, without importing pydantic."""

from typing import Any


def is_model(kind: type) -> bool:
    return hasattr(kind, "__pydantic_serializer__") and hasattr(kind, "__pydantic_fields__")


def load_model_json(kind: Any, payload: Any) -> Any:
    """Make a model of its JSON (msgspec's `dec_hook`)."""
    return kind.__pydantic_validator__.validate_json(payload, by_alias=False, by_name=True)
