"""The benchmark of distances runs; what it measures is no matter for a test."""

from benches import run


def test_the_distances_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    words = ["--examples", "400", "--slice", "150", "--repeats", "1", "--only", "/hidden"]
    shown = run("bench_distances", *words)
    assert "kernel, hidden 400 x 256: study" in shown
    assert "neighbors, hidden 400 x 256: study" in shown
