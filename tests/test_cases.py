"""The table of situations names tests that there are."""

import csv
import re
from pathlib import Path

import cases_table

TESTS = Path(__file__).parent


def test_every_situation_names_tests_that_there_are():
    """A renamed test must not turn a situation into one that nobody tries."""
    rows = list(csv.DictReader(cases_table.CASES.read_text().splitlines()))
    assert len(rows) >= 35
    for row in rows:
        assert all(row.values())
        for test in row["tests"].split():
            file, _, name = test.partition("::")
            assert re.search(rf"^def {name}\(" if name else "^def test_", (TESTS / file).read_text(), re.MULTILINE), (
                test
            )


def test_the_worst_of_its_tests_is_the_verdict_of_a_situation(tmp_path):
    """Of several parametrized cases one failure counts; a test without a result is told apart from a passed one."""
    case = '<testcase classname="tests.test_a" name="test_{}">{}</testcase>'
    cases = [("x[1]", ""), ("x[2]", "<failure/>"), ("y", "<skipped/>"), ("z", "")]
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuite>{''.join(case.format(*each) for each in cases)}</testsuite>")
    results = cases_table.outcomes(report)
    verdicts = [cases_table.verdict([f"test_a.py::test_{name}"], results) for name in "xyzw"]
    assert verdicts == ["failed", "skipped", "passed", "not run"]
    assert cases_table.verdict(["test_a.py"], results) == "failed"
