"""The benchmark of convolutional members runs; what it measures is no matter for a test."""

from benches import run


def test_the_convolutions_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    words = ["--examples", "32", "--members", "1", "--batch", "8", "--networks", "resnet8", "--no-probe"]
    shown = run("bench_convolutions", *words)
    assert "resnet8, nn.Module" in shown
    assert "resnet8, study," in shown
