"""What is wrong with a recipe, in one line that names the cure.  in: pydantic's errors   out: text"""

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from study.errors import did_you_mean

UNION = ("bool", "int", "float", "str")  # what pydantic calls the kinds of a Scalar
SCALAR = "must be a number, text, true or false, or for a network's settings a list of these"
MESSAGES = {
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be a list",
    "string_type": "must be text, in quotes",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_pattern_mismatch": "must be auto, cpu, cuda, or one of several such as cuda:1",
}
MISSING: dict[str, str] = dict.fromkeys(("data", "data.name"), "; say which examples: [data] name = 'digits'")


def one_line(error: ValidationError, section: type[BaseModel], prefix: str = "") -> str:
    """The first of pydantic's errors: where, what, what was given; and how many more there are."""
    errors = error.errors(include_url=False)
    first = errors[0]
    loc = [str(part) for part in first["loc"]]
    kinds = [part for part in loc if part in UNION]
    loc = loc[: loc.index(kinds[0])] if kinds else loc  # pydantic names each kind that a value could have been
    others = {other["loc"][: len(loc)] for other in errors} - {first["loc"][: len(loc)]}
    more = f" (and {len(others)} more)" if others else ""
    where = ".".join(filter(None, (prefix, *loc)))
    if first["type"] == "extra_forbidden":
        *tables, key = loc
        return f"unknown key {where!r}{did_you_mean(key, keys_of(section, tables))}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{MISSING.get(where, '')}{more}"
    message = SCALAR if kinds else MESSAGES.get(first["type"], first["msg"])
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    given = "" if first["type"] == "value_error" else f", got {shortened(repr(first['input']))}"
    return f"{where}: {message}{given}{more}" if where else f"{message}{more}"


def keys_of(section: Any, tables: Sequence[object]) -> list[str]:
    """The keys of the table at this path, none where it is no fixed table."""
    for word in tables:
        field = section.model_fields.get(str(word))
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
    return list(section.model_fields)


def is_text(section: Any, names: Sequence[str]) -> bool:
    """Whether the value at this path is text, so that a command line may leave out the quotes."""
    *tables, key = names
    for name in tables:
        field = getattr(section, "model_fields", {}).get(name)
        section = field.annotation if field else None
    field: FieldInfo | None = getattr(section, "model_fields", {}).get(key)
    if field is None:
        return False
    kinds = [get_args(kind)[0] if hasattr(kind, "__metadata__") else kind for kind in get_args(field.annotation)]
    return field.annotation is str or (str in kinds and set(kinds) <= {str, type(None)})


def shortened(text: str, most: int = 200) -> str:
    """The beginning and the end of a long text."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 4 :]}"
