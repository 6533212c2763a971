"""Run the tests of tests/cases.csv and print what came of each situation.  in: words for pytest   out: the table"""

import csv
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "cases.csv"
WORST = ("failed", "skipped", "passed")


def outcomes(report):
    """Map test files, and file::function, to the outcomes of their tests."""
    results = defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        file = case.get("classname", "").rpartition(".")[2] + ".py"
        results[file].append(outcome)
        results[f"{file}::{case.get('name', '').partition('[')[0]}"].append(outcome)
    return results


def verdict(tests, results):
    """The worst outcome of a situation's tests; `not run` where one of them has none."""
    if any(not results[test] for test in tests):
        return "not run"
    return min((outcome for test in tests for outcome in results[test]), key=WORST.index)


def main(words):
    """Run the tests of all situations once; 1 where one did not end as it should."""
    rows = list(csv.DictReader(CASES.read_text().splitlines()))
    tests = sorted({f"tests/{test}" for row in rows for test in row["tests"].split()})
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-n", "auto", "--dist", "loadfile", f"--junitxml={report}", *words]
        subprocess.run([sys.executable, "-m", "pytest", *options, *tests], cwd=ROOT, stdout=sys.stderr)
        results = outcomes(report)
    verdicts = [verdict(row["tests"].split(), results) for row in rows]
    for row, text in zip(rows, verdicts, strict=True):
        print(f"{text:8}{row['area']}: {row['situation']}\n        {row['outcome']}")
    print(", ".join(f"{verdicts.count(text)} {text}" for text in dict.fromkeys(verdicts)))
    return int(any(text in ("failed", "not run") for text in verdicts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
