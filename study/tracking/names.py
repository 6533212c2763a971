"""What MLflow takes as names, values and conditions.  in: text   out: the same, or one line that says why not"""

import re
from collections.abc import Collection, Mapping

from study.errors import StoreError

KIND = "study.kind"  # tag: what a run is
LONGEST_PARAM = 6000  # MLflow cuts longer values off, with a warning only
LONGEST_TAG = 8000
SAFE_TO_QUOTE = re.compile(r"[\w./:@+, ()-]+")  # MLflow's filters have no escape for quotes; the rest is compared here


def condition(kinds: Collection[str], tags: Mapping[str, str], statuses: Collection[str]) -> str:
    """Write what MLflow can compare; `Store.find` compares the rest."""
    equal = {**tags, **({KIND: next(iter(kinds))} if len(kinds) == 1 else {})}
    parts = [f"tags.`{key}` = '{value}'" for key, value in equal.items() if SAFE_TO_QUOTE.fullmatch(value)]
    if len(statuses) == 1:
        parts.append(f"attributes.status = '{next(iter(statuses))}'")
    return " AND ".join(parts)


def short(key: str, value: object, what: str, longest: int) -> str:
    """A value as text.

    Raises:
        StoreError: MLflow would cut it off.
    """
    text = str(value)
    if len(text) > longest:
        raise StoreError(f"{what} {key} has {len(text)} characters, MLflow keeps {longest}; log it as a file instead")
    return text


def file_safe(name: str) -> str:
    """A name of an experiment or a lock as the name of a file."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "unnamed"
