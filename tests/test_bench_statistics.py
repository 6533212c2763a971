"""The benchmark of statistics runs, and its two standard errors agree; how long they take is no matter for a test."""

from benches import run


def test_the_statistics_benchmark_finds_one_standard_error_by_two_ways():
    """A script that is run once a month breaks unseen; the analytic error is what saves the thousand resamples."""
    words = ["--examples", "2000", "--many", "3000", "--resamples", "200", "--repeats", "1"]
    shown = run("bench_statistics", *words)
    table = {line.split(" | ")[0]: line.strip(" |").split(" | ") for line in shown.splitlines() if "| " in line}
    bootstrap, study = (float(table[f"| Spearman, {way}, 2,000 examples"][-1]) for way in WAYS)
    assert abs(study / bootstrap - 1) < 0.2  # 200 resamples: 5 %
    assert table["| Kendall, scipy, no interval, 3,000 examples"][4] == table["| Kendall, study, 3,000 examples"][4]


WAYS = ("bootstrap with scipy", "study")
