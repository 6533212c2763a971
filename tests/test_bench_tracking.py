"""The benchmark of tracking runs; what it measures is no matter for a test."""

from benches import run


def test_the_tracking_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    shown = run("bench_tracking", "--examples", "512", "--epochs", "2", "--repeats", "1")
    assert "right in passing" in shown
    assert "a pass after each epoch" in shown
