"""Tracking URIs, before MLflow sees them.  in: a URI as the user has set it   out: nothing, or one line that helps"""

import importlib.util
import ipaddress
import urllib.parse
import urllib.request

from study.errors import StoreError
from study.progress import printable

SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
DRIVERS = {  # of SQLAlchemy where the URI names none: module, what installs it
    "postgresql": ("psycopg", "psycopg[binary]"),
    "postgresql+psycopg": ("psycopg", "psycopg[binary]"),
    "postgresql+psycopg2": ("psycopg2", "psycopg2-binary"),
    "mysql": ("MySQLdb", "mysqlclient"),
    "mysql+mysqldb": ("MySQLdb", "mysqlclient"),
    "mysql+pymysql": ("pymysql", "pymysql"),
    "mssql": ("pyodbc", "pyodbc"),
    "mssql+pyodbc": ("pyodbc", "pyodbc"),
}
UNSET = "or unset MLFLOW_TRACKING_URI to use the local store"


def check(uri: str) -> None:
    """Look at the form of a URI, and whether the driver of its database is installed.

    Raises:
        StoreError: it cannot be used; the line names the cure.
    """
    shown = printable(uri).replace("\n", "\\n")[:200]
    if shown != uri[:200] or (uri.startswith("http") and " " in uri):
        raise StoreError(f"{shown}: a tracking URI has no blanks or control characters; mend it, {UNSET}")
    try:
        parts = urllib.parse.urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise StoreError(f"{shown}: no tracking URI ({error}); write it as http://host:5000, {UNSET}") from None
    if uri.startswith(("databricks", "uc:")):
        raise StoreError(f"{shown}: stores at Databricks are not supported; name an MLflow server, {UNSET}")
    kind = parts.scheme.partition("+")[0]
    if kind not in SCHEMES:
        if parts.scheme not in ("", "file") or _has_port(uri):
            cure = f"write it as http://{shown}" if "://" not in uri else f"it begins with {', '.join(SCHEMES)}"
            raise StoreError(f"{shown}: no tracking URI; {cure}, {UNSET}")
        return  # a folder
    if kind in ("http", "https") and not host:
        raise StoreError(f"{shown}: names no host; write it as http://host:5000, {UNSET}")
    module, package = DRIVERS.get(parts.scheme, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise StoreError(f"{kind}: its Python driver is not installed; `uv pip install '{package}'`, {UNSET}")


def _has_port(uri: str) -> bool:
    """Whether this is `host:5000` without a scheme."""
    host, _, port = uri.partition("/")[0].rpartition(":")
    return bool(host) and port.isdigit()


def proxy_cure(uri: str) -> str:
    """What to do where a proxy of the environment stands before the server; nothing where none does."""
    parts = urllib.parse.urlsplit(uri)
    host, proxies = parts.hostname or "", urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    names = f"{host},localhost" if _is_loopback(host) and host != "localhost" else host
    return f"the proxy {printable(proxy)} is asked for it; export NO_PROXY={names} to reach it directly"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
