"""Pages of the site that are made from the code.  in: schema, registries, commands, CSV   out: docs/reference/*.md

`python scripts/docs_pages.py` writes them, `--check` says which are out of date; a test does the same.
"""

import csv
import inspect
import io
import re
import sys
import tokenize
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- made by scripts/docs_pages.py from {source}; change that and run `scripts/docs --write` -->\n\n"
ENTRY = re.compile(r"^(\w[\w, ]*): +(.*)$")


def pages() -> dict[str, str]:
    """File name in docs/reference to the text that belongs there."""
    return {
        "recipe.md": recipe_page(),
        "commands.md": commands_page(),
        "signals.md": signals_page(),
        "experiments.md": experiments_page(),
    }


def recipe_page() -> str:
    """Every table and key of a recipe: type, default, meaning."""
    from study.recipe.schema import Recipe
    from study.recipe.search import Round, Search, Space

    text = NOTE.format(source="study/recipe/") + RECIPE_HEAD
    scalars = {name: each for name, each in Recipe.model_fields.items() if section_of(each.annotation) is None}
    text += f"## Top level\n\n{key_table(Recipe, scalars)}\n"
    for name, each in Recipe.model_fields.items():
        section = section_of(each.annotation)
        if section is not None:
            text += section_text(f"## `[{name}]`", section)
            inner = {key: section_of(field.annotation) for key, field in section.model_fields.items()}
            text += "".join(section_text(f"### `[{name}.{key}]`", table) for key, table in inner.items() if table)
        if section is Search:
            text += section_text("### `[search.space]`", Space) + section_text("### `[[search.rounds]]`", Round)
    return text.rstrip() + "\n"


def section_text(heading: str, section: type[BaseModel]) -> str:
    """A table of the recipe under its heading."""
    fields = {name: each for name, each in section.model_fields.items() if section_of(each.annotation) is None}
    return f"{heading}\n\n{summary(section)}\n\n{key_table(section, fields)}\n"


RECIPE_HEAD = """# Recipe reference

A recipe is a TOML file. It says what differs from its `base` and from the defaults below.

- `base = "other.toml"` names a recipe to start from, relative to this file. Tables merge; every other value, lists too,
  is replaced. `settings` of a model do not outlive the `name` that they were for.
- `--set NAME=VALUE` overrides a value on the command line: `--set optimizer.lr=0.05`. The value is read as TOML.
- An unknown key is an error that names the nearest one. `study check` checks form, names and fit without training.
- The **digest** of a recipe covers what decides which networks come out. `why`, counts (`subset.members`,
  `subset.ratios`, `single.repeats`), `[proxies]`, `[signals]`, `[search]`, `[runtime]` and paths are no part of it.
  They are free to change: finished work is found again.

"""


def section_of(annotation: object) -> type[BaseModel] | None:
    """The section that a key holds; None for a plain value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def summary(section: type) -> str:
    """The docstring without the entries of single keys."""
    kept, inside = [], False
    for line in (inspect.getdoc(section) or "").splitlines():
        entry = ENTRY.match(line)
        inside = bool(entry and keys_of(entry, section)) or (inside and line.startswith(" "))
        if not inside:
            kept.append(line)
    return re.sub(r"`?\n+`?$", "", "\n".join(kept).strip())


def keys_of(entry: re.Match, section: type) -> list[str]:
    """The keys that a docstring entry such as `low, high: ...` is about."""
    names = [name.strip() for name in entry[1].split(",")]
    return names if all(name in section.model_fields for name in names) else []


def meanings(section: type) -> dict[str, str]:
    """What docstring and comments say of each key."""
    meaning: dict[str, str] = {}
    for each in reversed(section.__mro__):
        if each is not BaseModel and issubclass(each, BaseModel):
            meaning |= entries(each)
    return meaning


def entries(section: type) -> dict[str, str]:
    """What docstring and comments of one class say of its keys."""
    meaning: dict[str, str] = comments(section)
    current: list[str] = []
    for line in (inspect.cleandoc(section.__doc__ or "")).splitlines():
        entry = ENTRY.match(line)
        names = keys_of(entry, section) if entry else []
        if names:
            current = names
            meaning |= dict.fromkeys(names, entry[2])
        elif current and line.startswith(" "):
            meaning |= {name: f"{meaning[name]} {line.strip()}" for name in current}
        else:
            current = []
    return meaning


def comments(section: type) -> dict[str, str]:
    """The comment at the end of each key's line."""
    meaning, name = {}, ""
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(section)).readline):
        if token.type == tokenize.NAME and token.start[1] == 4 and token.string in section.model_fields:
            name = token.string
        elif token.type == tokenize.COMMENT and name and token.start[1] > 4:
            meaning[name] = token.string.removeprefix("#").strip()
            name = ""
    return meaning


def key_table(section: type, fields: dict) -> str:
    """A row per key."""
    meaning = meanings(section)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, each in fields.items():
        default = "required" if each.is_required() else shown_default(each)
        rows.append(row(f"`{name}`", shown_type(each), default, meaning.get(name, "")))
    return "\n".join(rows) + "\n"


def shown_default(each: typing.Any) -> str:
    """A default as TOML writes it."""
    value = each.default_factory() if each.default is PydanticUndefined else each.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | list):
        return "`[" + ", ".join(str(item) for item in value) + "]`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def shown_type(each: typing.Any) -> str:
    """A type in a reader's words, with its limits."""
    limits = [limit for limit in map(shown_limit, each.metadata) if limit]
    return ", ".join([plain_type(each.annotation), *limits])


def plain_type(annotation: typing.Any) -> str:
    """`float | None` as number, `Literal` as its choices."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        limits = [limit for part in inner[1:] for limit in map(shown_limit, unpacked(part)) if limit]
        return ", ".join([plain_type(inner[0]), *limits])
    if origin is typing.Literal:
        return " or ".join(f'`"{each}"`' if isinstance(each, str) else f"`{each}`" for each in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(plain_type(each) for each in inner if each is not type(None)))
    if origin is tuple:
        return f"list of {plain_type(inner[0])}"
    if origin is dict or annotation is dict:
        return "table"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def unpacked(part: typing.Any) -> list:
    """The limits of a Field, or the one limit itself."""
    return getattr(part, "metadata", [part])


def shown_limit(limit: typing.Any) -> str:
    """`ge=1` as at least 1."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [f"{word} {getattr(limit, key):g}" for key, word in words.items() if getattr(limit, key, None) is not None]
    return " ".join(limits).replace("below 9.22337e+18", "below 2^63")


def commands_page() -> str:
    """Every command with its arguments and options."""
    import typer

    from study.cli.main import app

    group = typer.main.get_command(app)
    text = NOTE.format(source="the command line") + COMMANDS_HEAD
    text += "\n".join(
        ["| command | what it does |", "|---|---|"]
        + [row(f"[`study {name}`](#study-{name})", first_line(each.help)) for name, each in group.commands.items()]
    )
    for name, command in group.commands.items():
        text += f"\n\n## `study {name}` {{ #study-{name} }}\n\n{paragraphs(command.help)}\n\n"
        text += f"```\n{usage(name, command)}\n```\n\n" + option_table(command)
    return text.rstrip() + "\n"


COMMANDS_HEAD = """# Command reference

In a checkout `./scripts/run COMMAND ...` sets the environment up and calls `study COMMAND ...`. Results go to stdout,
progress and messages to stderr. An error that you can mend is one line and exit code 2. After Ctrl-C or `kill` the same
command goes on.

"""


def paragraphs(text: str | None) -> str:
    """A docstring without its indentation."""
    return inspect.cleandoc(text or "")


def first_line(text: str | None) -> str:
    """The first sentence of a command's help."""
    return re.split(r"(?<=[.;])\s", paragraphs(text))[0]


def usage(name: str, command: typing.Any) -> str:
    """The command with its positional arguments."""
    words = ["study", name]
    for each in command.params:
        if each.param_type_name == "argument":
            shown = (each.metavar or each.name.upper()).strip("[]") + ("..." if each.nargs == -1 else "")
            words.append(shown if each.required else f"[{shown}]")
    return " ".join([*words, "[OPTIONS]"])


def option_table(command: typing.Any) -> str:
    """A row per argument and option."""
    rows = ["| argument or option | default | meaning |", "|---|---|---|"]
    for each in command.params:
        if each.name == "help":
            continue
        if each.param_type_name == "argument":
            name = (each.metavar or each.name.upper()).strip("[]")
        else:
            name = each.opts[0] + ("" if getattr(each, "is_flag", False) else f" {each.metavar or 'N'}")
        default = "" if each.default in (None, (), [], "", False, 0) or each.required else shown_command_default(each)
        rows.append(row(f"`{name}`", "required" if each.required else default, each.help or ""))
    return "\n".join(rows) if len(rows) > 2 else ""


def shown_command_default(each: typing.Any) -> str:
    """A path or number as one types it."""
    value = each.default[0] if isinstance(each.default, tuple | list) else each.default
    return f"`{value}`"


def signals_page() -> str:
    """Every signal that a proxy may read, and the sources that give them."""
    from study.proxies.registry import PROXIES, SIGNALS

    text = NOTE.format(source="the registries of signals and proxies") + SIGNALS_HEAD
    given = {key: each.name for each in sources() for key in each.signals}
    readers = {key: [f"`{spec.name}`" for spec in PROXIES.values() if key in spec.signals] for key in SIGNALS}
    rows = ["| signal | axes | meaning | source | read by |", "|---|---|---|---|---|"]
    for key, signal in SIGNALS.items():
        source = f"`{given[key]}`" if key in given else "the training"
        rows.append(row(f"`{key}`", f"({', '.join(signal.axes)})", signal.meaning, source, ", ".join(readers[key])))
    text += "\n".join(rows) + "\n\n" + SOURCES_HEAD
    rows = ["| source | when | settings and defaults |", "|---|---|---|"]
    for each in sources():
        settings = ", ".join(f"`{name} = {toml(value)}`" for name, value in each.settings.items())
        rows.append(row(f"`{each.name}`", each.when, settings))
    text += "\n".join(rows) + "\n\n" + SETTINGS_HEAD
    rows = ["| proxy | settings and defaults |", "|---|---|"]
    for spec in PROXIES.values():
        if spec.settings:
            settings = ", ".join(f"`{name} = {toml(value)}`" for name, value in spec.settings.items())
            rows.append(row(f"`{spec.name}`", settings))
    return text + "\n".join(rows) + "\n"


def sources() -> Iterator:
    """The registered signal sources."""
    import_module("study.signals")  # registers them
    yield from import_module("study.signals.registry").SOURCES.values()


def toml(value: object) -> str:
    """A setting as TOML writes it."""
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


SIGNALS_HEAD = """# Signals and settings

A **signal** is an array that proxies read; a proxy names its signals as positional parameters. Axes: `n` examples (of
the split that the proxy is defined on), `e` evaluated epochs, `t` = e + 1, `c` classes, `k` neighbours, `l` layers,
`w` epochs with costly signals.

"""
SOURCES_HEAD = """## Sources

A source computes signals during or after the training. `[signals.NAME]` in a recipe changes its settings. When: `data`,
once, of the data alone; `first`, before the first step; `epoch`, at every evaluated epoch (`single.evaluate_every`);
`due`, at every `single.signals_every`-th epoch of those; `last`, after the last epoch.

"""
SETTINGS_HEAD = """## Settings of proxies

`[proxies.NAME]` in a recipe changes them.

"""


EXPERIMENTS = ROOT / "study" / "experiments" / "inventory.csv"
EXPERIMENTS_HEAD = """# The papers' experiments

A row for every figure, table and idea of the four papers; [the papers and their ids](../concepts/papers.md) says what
each is. The command makes it, "where" names the part of the report or the file that shows it. Files under
`comparison/` lie with the sweep's run in MLflow, and in the folder that `study compare RECIPE --out FOLDER` writes. The
verdict is of the scale beside it: nothing here says how the experiment would come out on the paper's own data and
networks.

"""


def experiments() -> list[dict[str, str]]:
    """Rows of the inventory: id (several with " / " between them), command, where, verdict, scale."""
    with EXPERIMENTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def experiments_page() -> str:
    """The inventory of the papers' experiments, with how to make each."""
    rows = experiments()
    verdicts = list(dict.fromkeys(each["verdict"] for each in rows))
    counts = [f"{sum(each['verdict'] == verdict for each in rows)} {verdict}" for verdict in verdicts]
    text = NOTE.format(source="study/experiments/inventory.csv") + EXPERIMENTS_HEAD
    text += (
        f"{len(rows)} rows: {', '.join(counts)}.\n\n| id | command | where | verdict | scale |\n|---|---|---|---|---|\n"
    )
    return text + "".join(
        row(each["id"], f"`{each['command']}`", each["where"], each["verdict"], each["scale"]) + "\n" for each in rows
    )


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def main() -> None:
    """Write the pages, or say which are not current."""
    stale = []
    for name, text in pages().items():
        file = FOLDER / name
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(f"docs/reference/{name}")
        if "--check" not in sys.argv:
            file.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"not current: {', '.join(stale)}; run scripts/docs --write")
    print(f"{len(stale)} pages written" if stale else "generated pages are current", file=sys.stderr)


if __name__ == "__main__":
    main()
