"""The JSON Schema of a verdict, generated from the dataclasses in `tellframe.types`.

Names, types and descriptions are all read from the types, so that the published schema cannot
drift away from what is written.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import types as pytypes
import typing
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from typing import Any, Final

from tellframe import types
from tellframe.types import REASON_TEXT, SCHEMA_VERSION, Evidence, Reason, Verdict

_SHARES: Final = ("probability", "real_to", "fake_from", "prior_use")
"""Fields whose values lie between 0 and 1."""
_PRIMITIVES: Final = {str: "string", int: "integer", float: "number", bool: "boolean"}


def verdict_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one row, as `verdict_to_dict` makes it.

    Fields may be added under the same version, so unknown keys are allowed; all known keys are
    always present.

    Returns:
        A fresh dictionary that can be passed to `json.dumps` or to a validator.
    """
    defs: dict[str, Any] = {}
    body = _object_schema(Verdict, defs)
    body["properties"] |= {
        "schema_version": {
            "const": SCHEMA_VERSION,
            "description": "Version of this schema; raised when a field changes meaning.",
        },
        "tellframe_version": {
            "type": "string",
            "description": "Version of the tellframe that wrote the row.",
        },
    }
    body["required"] += ["schema_version", "tellframe_version"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:tellframe:verdict:{SCHEMA_VERSION}",
        "title": "Verdict",
        **body,
        "$defs": dict(sorted(defs.items())),
    }


def written_fields(cls: type) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """Yield every field of the dataclass `cls` that is written to JSON, with its resolved type.

    Args:
        cls: A dataclass of `tellframe.types`.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if Evidence not in typing.get_args(hints[field.name]):
            yield field, hints[field.name]


def without_none(hint: Any) -> tuple[Any, bool]:
    """Split `X | None` into (X, True); any other type is returned as (type, False)."""
    if isinstance(hint, pytypes.UnionType) or typing.get_origin(hint) is typing.Union:
        rest = [arg for arg in typing.get_args(hint) if arg is not pytypes.NoneType]
        if len(rest) == 1:
            return rest[0], True
    return hint, False


def _object_schema(cls: type, defs: dict[str, Any]) -> dict[str, Any]:
    texts = _field_docstrings().get(cls.__name__, {})
    properties = {}
    for field, hint in written_fields(cls):
        schema = _type_schema(hint, defs)
        if field.name in _SHARES:
            schema |= {"minimum": 0, "maximum": 1}
        if field.name in texts:
            schema["description"] = texts[field.name]
        properties[field.name] = schema
    return {
        "description": inspect.getdoc(cls) or "",
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _type_schema(hint: Any, defs: dict[str, Any]) -> dict[str, Any]:
    inner, optional = without_none(hint)
    if optional:
        schema = _type_schema(inner, defs)
        if "type" in schema:
            return schema | {"type": [schema["type"], "null"]}
        return {"anyOf": [schema, {"type": "null"}]}
    if hint in _PRIMITIVES:
        return {"type": _PRIMITIVES[hint]}
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": "array", "items": _type_schema(args[0], defs)}
    if origin is tuple:
        items = [_type_schema(arg, defs) for arg in args]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if origin is dict:
        values = {} if args[1] is object else _type_schema(args[1], defs)
        return {"type": "object", "additionalProperties": values}
    return _reference(hint, defs)


def _reference(hint: type, defs: dict[str, Any]) -> dict[str, Any]:
    name = hint.__name__
    if name not in defs:
        defs[name] = {}  # reserved first: a type may refer to itself
        if issubclass(hint, StrEnum):
            defs[name] = _enum_schema(hint)
        else:
            defs[name] = _object_schema(hint, defs)
    return {"$ref": f"#/$defs/{name}"}


def _enum_schema(hint: type[StrEnum]) -> dict[str, Any]:
    text = inspect.getdoc(hint) or ""
    if hint is Reason:
        text += " " + "; ".join(f"{reason}: {REASON_TEXT[reason]}" for reason in Reason) + "."
    return {"description": text, "type": "string", "enum": [member.value for member in hint]}


@cache
def _field_docstrings() -> dict[str, dict[str, str]]:
    """Read the string below every field of every class in `tellframe.types`.

    Python keeps no docstrings of fields at run time. Where the source is not at hand (a frozen
    application), the schema merely lacks these descriptions.
    """
    try:
        tree = ast.parse(inspect.getsource(types))
    except (OSError, TypeError):
        return {}
    texts: dict[str, dict[str, str]] = {}
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        found = texts.setdefault(cls.name, {})
        for before, after in zip(cls.body, cls.body[1:], strict=False):
            match before, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split())
    return texts
