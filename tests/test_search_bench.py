"""The benchmark of searches runs; what it measures is no matter for a test."""

from benches import run


def test_the_search_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    words = ["--examples", "512", "--trials", "3", "--epochs", "1", "--repeats", "1", "--device", "cpu"]
    shown = run("bench_search", *words)
    assert "one at a time" in shown
    assert "side by side" in shown
