"""The benchmark of linear heads runs; what it measures is no matter for a test."""

from benches import run


def test_the_benchmark_of_heads_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    small = ("--examples", "400", "--width", "8", "--classes", "3", "--epochs", "1")
    assert "time of 360 heads" in run("bench_heads", *small)
