"""What a piece of code does, as a number.  in: a function, class or callable   out: 16 hex digits

Comments, docstrings, annotations, formatting and registering decorators do not count.  What the code names counts too:
functions, classes and plain constants, as far as they are defined in the same module or below a given package.
"""

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

REGISTERING = ("proxy", "register_model", "source")
SKIPPED = ("annotation", "returns", "type_comment", "type_params", "ctx", "kind")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_hash(code: Callable[..., Any], package: str | None = None) -> str:
    """16 hex digits that change when the code does.

    Args:
        code: a function, a class, a `functools.partial`, or an object that is called.
        package: definitions in its modules that the code names count as well; the module of `code` unless given.
    """
    parts: dict[str, str] = {}
    _collect(code, package or _module_of(code), parts)
    return hashlib.sha256("\n".join(sorted(parts.values())).encode()).hexdigest()[:16]


@functools.cache
def package_digest() -> str:
    """Digest of this package's modules and templates, as they were when this process first read them."""
    files = (file for file in sorted(Path(__file__).parent.rglob("*")) if file.suffix in (".py", ".html", ".js"))
    return hashlib.sha256("\x1f".join(file.read_text("utf-8") for file in files).encode()).hexdigest()


def _module_of(code: Any) -> str:
    code = inspect.unwrap(getattr(code, "func", code))
    return getattr(code, "__module__", None) or type(code).__module__


def _collect(code: Any, package: str, parts: dict[str, str]) -> None:
    """Put the text of a definition into `parts`, then of those that it names."""
    code = inspect.unwrap(code)
    if isinstance(code, functools.partial):
        parts[f"arguments of {code.func!r}"] = f"{_constant(code.args)} {_constant(code.keywords)}"
        return _collect(code.func, package, parts)
    if not isinstance(code, type | types.FunctionType):
        code = getattr(code, "__func__", None) or type(code)
    key = f"{code.__module__}.{code.__qualname__}"
    if key in parts:
        return
    tree = _tree(code)
    parts[key] = _bytecode(code) if tree is None else _text(tree)
    for name, value in _named(code, tree):
        if isinstance(value, type | types.FunctionType):
            if _inside(value, package):
                _collect(value, package, parts)
        elif isinstance(value, Mapping) and any(callable(each) for each in value.values()):
            for each in value.values():
                if callable(each) and _inside(each, package):
                    _collect(each, package, parts)
        elif (text := _constant(value)) is not None:
            parts[f"{code.__module__}:{name}"] = f"{name} = {text}"


def _inside(value: Any, package: str) -> bool:
    module = getattr(value, "__module__", None) or ""
    return module == package or module.startswith(f"{package}.")


def _tree(code: Any) -> ast.AST | None:
    """The definition's syntax tree; None for a lambda, and where there is no source."""
    if code.__name__ == "<lambda>":
        return None
    try:
        module = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):
        return None
    return module.body[0] if len(module.body) == 1 else None


def _named(code: Any, tree: ast.AST | None) -> Iterator[tuple[str, Any]]:
    """What the global and enclosing names of a definition stand for, in the order of the names."""
    scope = dict(vars(sys.modules[code.__module__])) if code.__module__ in sys.modules else {}
    functions = [each for each in vars(code).values() if callable(each)] if isinstance(code, type) else [code]
    for function in functions:
        function = inspect.unwrap(function)
        if isinstance(function, types.FunctionType):
            scope |= function.__globals__
            cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
            scope |= {name: cell.cell_contents for name, cell in cells if not _is_empty(cell)}
    names: set[tuple[str, ...]] = set()
    if tree is None:
        names = {(name,) for function in functions for name in _code_names(getattr(function, "__code__", None))}
        names |= {(base.__name__,) for base in code.__bases__} if isinstance(code, type) else set()
    else:
        for node in ast.walk(_stripped(tree)):
            if isinstance(node, ast.Name):
                names.add((node.id,))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names.add((node.value.id, node.attr))
    for first, *rest in sorted(names):
        value = scope.get(first)
        if rest and isinstance(value, types.ModuleType):
            yield f"{first}.{rest[0]}", getattr(value, rest[0], None)
        elif not rest and first in scope and not first.startswith("__"):
            yield first, value


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  raises where nothing is bound yet
    except ValueError:
        return True
    return False


def _code_names(code: types.CodeType | None) -> Iterator[str]:
    if code is not None:
        yield from (*code.co_names, *code.co_freevars)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                yield from _code_names(constant)


def _bytecode(code: Any) -> str:
    """Instructions and constants of a function, or of all plain of a class."""
    if isinstance(code, type):
        methods = {name: inspect.unwrap(each) for name, each in sorted(vars(code).items()) if callable(each)}
        plain = {name: each for name, each in methods.items() if isinstance(each, types.FunctionType)}
        bases = [base.__qualname__ for base in code.__bases__]
        return f"class {code.__name__} {bases} " + " ".join(f"{name}: {_bytecode(plain[name])}" for name in plain)
    return _instructions(code.__code__) + f" {_constant(code.__defaults__)} {_constant(code.__kwdefaults__)}"


def _instructions(code: types.CodeType) -> str:
    constants = (_instructions(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts)
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} [{', '.join(constants)}]"


def _constant(value: Any) -> str | None:
    """Text of plain data, the same in every process; None for anything else."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, set | frozenset):
        items = [_constant(each) for each in value]
        return None if None in items else f"{{{', '.join(sorted(map(str, items)))}}}"
    if isinstance(value, tuple | list):
        items = [_constant(each) for each in value]
        return None if None in items else f"({', '.join(map(str, items))})"
    if isinstance(value, Mapping):
        items = [(_constant(key), _constant(each)) for key, each in value.items()]
        return None if any(None in pair for pair in items) else f"{{{', '.join(f'{a}: {b}' for a, b in items)}}}"
    return None


def _stripped(tree: ast.AST) -> ast.AST:
    """Without annotations, docstrings and registering decorators."""
    if isinstance(tree, ast.AST):
        copy = type(tree)(**{name: _without(tree, name, value) for name, value in ast.iter_fields(tree)})
        return copy
    return tree


def _without(node: ast.AST, name: str, value: Any) -> Any:
    if name in SKIPPED and name != "ctx":
        return None if name != "type_params" else []
    if name == "decorator_list":
        value = [each for each in value if not _registers(each)]
    if name == "body" and isinstance(node, DOCUMENTED) and _is_text(value[0]):
        value = value[1:]
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    return _stripped(value)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _registers(decorator: ast.AST) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
    return name in REGISTERING


def _text(tree: Any) -> str:
    """A syntax tree as text that does not depend on the version of Python: fields that are empty are left out."""
    if isinstance(tree, ast.AST):
        tree = _stripped(tree)
        return _plain(tree)
    return repr(tree)


def _plain(node: Any) -> str:
    if isinstance(node, ast.AST):
        fields = (
            f"{name}={_plain(value)}"
            for name, value in ast.iter_fields(node)
            if name not in SKIPPED and value is not None and value != []
        )
        return f"{type(node).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_plain, node))}]" if isinstance(node, list) else repr(node)
