"""Records as objects: one frozen msgspec Struct per schema, for the few places that handle rows.

`structs.struct("FlowPacket")` and `structs.FlowPacket` are the same class; a field that has a default in its schema
has it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import GenericAlias
from typing import Any

import msgspec

from flowapp.records import schemas

_TYPES: Mapping[str, Any] = {"long": int, "double": float, "boolean": bool, "string": str, "bytes": bytes}


@cache
def struct(name: str) -> type[msgspec.Struct]:
    """Return the class of a record; SchemaError when there is no such record."""
    fields = [_field(field) for field in schemas.schema(name)["fields"]]
    return msgspec.defstruct(name, fields, module=__name__, frozen=True, kw_only=True)


def _field(field: Mapping[str, Any]) -> tuple[str, Any] | tuple[str, Any, Any]:
    base, item, nullable = schemas.split_type(field["type"])
    kind: Any = GenericAlias(list, (_TYPES[item],)) if item is not None else _TYPES[base]
    annotation = kind | None if nullable else kind
    if "default" not in field:
        return field["name"], annotation
    default = msgspec.field(default_factory=list) if field["default"] == [] else field["default"]
    return field["name"], annotation, default


def __getattr__(name: str) -> Any:
    if name in schemas.names():
        return struct(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
