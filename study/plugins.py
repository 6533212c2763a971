"""Code from outside the project.  in: installed packages, Python files   out: what they register, registered

A plugin is a module whose import registers something: networks (`register_model`), proxies (`proxy`), signal sources
(`source`).  An installed package names its module as an entry point of the group `study.plugins` and is imported by
every command that needs names; a file is named by `--plugin FILE`.  A plugin file is one module: what it imports must
be installed.
"""

import hashlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from study.errors import PluginError

GROUP = "study.plugins"
CURE = "names of a plugin need --plugin FILE"  # ends errors about names that nobody has registered

_files: dict[str, str] = {}  # absolute path -> sha256 of the content that was imported
_packages: dict[str, str] = {}  # name of the entry point -> distribution and version


def load(files: Iterable[str | Path] = ()) -> None:
    """Import the plugins of installed packages, then these files; each is imported once per process.

    Raises:
        PluginError: one line: which plugin, in which line it failed, why.
    """
    for entry in entry_points(group=GROUP):
        if entry.name not in _packages:
            distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            try:
                entry.load()
            except Exception as error:
                cure = "mend or uninstall it"
                raise PluginError(f"plugin {entry.name} of {distribution}: {_cause(error)}; {cure}") from error
            _packages[entry.name] = distribution
    for file in files:
        _load_file(Path(file))


def loaded() -> list[str]:
    """Absolute paths of the plugin files, in the order of their import: what another process passes to `load`."""
    return list(_files)


def tags() -> dict[str, str]:
    """The tag of a run that says which plugins were there: JSON, file name -> sha256, package's plugin -> version."""
    plugins = {**_packages, **{Path(file).name: f"sha256:{digest}" for file, digest in _files.items()}}
    return {"study.plugins": json.dumps(plugins)} if plugins else {}


def module_name(file: Path) -> str:
    """Name under which a plugin file is imported; classes of it are pickled by this name."""
    return f"study_plugin_{file.stem}"


def _load_file(file: Path) -> None:
    path = file.resolve()
    if str(path) in _files:
        return
    name = module_name(path)
    if name in sys.modules:
        raise PluginError(f"--plugin {file}: another plugin file of this name is loaded already; rename one of them")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PluginError(f"--plugin {file}: cannot be read ({error.strerror}); name a Python file") from None
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"--plugin {file}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"--plugin {file}: {_cause(error, str(path))}") from error
    _files[str(path)] = hashlib.sha256(content).hexdigest()


def _cause(error: Exception, path: str | None = None) -> str:
    """What went wrong, in one line; in a plugin file also where."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    if isinstance(error, SyntaxError):
        lines, text = [error.lineno], error.msg
    else:
        text = " ".join(str(error).split())
    where = f"line {lines[-1]}: " if lines and lines[-1] else ""
    return f"{where}{type(error).__name__}: {text}"
