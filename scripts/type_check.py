"""Count type errors per package and compare with what is allowed.  in: type_errors.json   out: lines, an exit code

The public packages have none.  Elsewhere a count may fall, never rise; `scripts/check --ratchet` writes lower ones
down.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = ROOT / "scripts" / "type_errors.json"
PUBLIC = ("__init__", "api", "data", "errors", "proxies", "random_streams", "scores")


def diagnostics():
    """The errors that basedpyright finds: dicts with file, range, message, rule."""
    command = ["basedpyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        result = json.loads(done.stdout)["generalDiagnostics"]
    except (ValueError, KeyError):
        sys.exit(f"basedpyright did not run (exit code {done.returncode}); its lines above say why")
    return [each for each in result if each["severity"] == "error"]


def package(file):
    """The package, or the module, right below study that a file belongs to."""
    return Path(file).relative_to(ROOT / "study").parts[0].removesuffix(".py")


def compare(counts, allowed):
    """(packages with more errors than allowed, packages with fewer), sorted."""
    names = sorted({*counts, *allowed})
    risen = [name for name in names if counts.get(name, 0) > allowed.get(name, 0)]
    fallen = [name for name in names if counts.get(name, 0) < allowed.get(name, 0)]
    return risen, fallen


def main(ratchet):
    """Check, or write lower counts down; a count that has risen is shown error by error and is exit code 1."""
    errors = diagnostics()
    counts = Counter(package(error["file"]) for error in errors)
    allowed = json.loads(ALLOWED.read_text(encoding="utf-8"))
    risen, fallen = compare(counts, allowed)
    for error in errors:
        if package(error["file"]) in risen:
            line = error["range"]["start"]["line"] + 1
            message = " ".join(error["message"].split())
            print(f"{Path(error['file']).relative_to(ROOT)}:{line}: {message} ({error.get('rule', 'syntax')})")
    for name in risen:
        print(f"study/{name}: {counts[name]} type errors, {allowed.get(name, 0)} are allowed")
    for name in fallen:
        print(f"study/{name}: {counts[name]} type errors, fewer than the {allowed[name]} that are allowed")
    if fallen and ratchet:
        lower = {name: min(counts[name], count) for name, count in sorted(allowed.items()) if counts[name]}
        ALLOWED.write_text(json.dumps(lower, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {ALLOWED.relative_to(ROOT)}")
    elif fallen:
        print("scripts/check --ratchet writes the lower counts down")
    print(f"{len(errors)} type errors" + ("" if risen else ", none beyond what is allowed"))
    return 1 if risen else 0


if __name__ == "__main__":
    sys.exit(main("--ratchet" in sys.argv[1:]))
