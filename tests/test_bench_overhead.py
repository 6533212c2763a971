"""The benchmark of a launch's overhead runs; what it measures is no matter for a test."""

from benches import run


def test_the_overhead_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    words = ["--examples", "600", "--members", "2", "--epochs", "1", "--repeats", "1"]
    shown = run("bench_overhead", *words)
    assert "launch, with a new store" in shown
    assert "18 networks, 1 epochs" in shown
