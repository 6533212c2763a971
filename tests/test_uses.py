"""What scores are for: each use reads one finished study, trains what it needs, and says what it has gained."""

import numpy as np
import pandas as pd
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.tree import DecisionTreeClassifier

from study.analysis import load_runs
from study.errors import AnalysisError
from study.experiments.sweep import train_parts
from study.figures.uses import accuracy_by_budget, accuracy_by_class, accuracy_by_share, small_test_sets
from study.scores.learning_curves import fit_power_law
from study.scores.selection import select
from study.scores.test_sets import ranking_precision
from study.uses.collection import more_data
from study.uses.curricula import compare_curricula
from study.uses.files import write_reduction
from study.uses.reduction import reduce_training_set
from study.uses.test_sets import small_test_sets as draw_test_sets
from study.uses.zoo import classifiers, right_on_test
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]
PROXIES = {"cbtl": {}, "el2n": {}}


@pytest.fixture(scope="module")
def dataset():
    return blobs(n_test=60)


@pytest.fixture(scope="module")
def recipe():
    return toy_recipe("study", proxies=PROXIES, subset={"ratios": [0.3, 0.5, 0.7], "members": 4})


@pytest.fixture(scope="module")
def store(stores, recipe, dataset):
    """The store of a finished study; its report is not needed."""
    store = stores()
    store.root.mkdir(parents=True, exist_ok=True)
    train_parts(recipe, dataset, store)
    return store


@pytest.fixture(scope="module")
def runs(recipe, dataset, store):
    return load_runs(recipe, dataset, store)


@pytest.mark.parametrize(("rule", "rows"), [("easy", [3, 5]), ("hard", [0, 4]), ("middle", [1, 2])])
def test_rules_keep_what_they_say(rule, rows):
    """By hand; an example without a score is the last to be taken."""
    scores = [0.1, 0.4, 0.5, 0.8, 0.2, 0.9, np.nan]
    assert select(scores, 2 / 7, rule, np.random.default_rng(0)).tolist() == rows


def test_strata_leave_the_hardest_out_and_cover_the_others():
    """A thousand easy examples and twenty of each of five harder kinds: the kinds are kept whole, but the hardest."""
    scores = np.repeat([0.0, 1, 2, 3, 4, 9], [100, 20, 20, 20, 20, 820])
    kept = np.bincount(scores[select(scores, 0.2, "strata", np.random.default_rng(0))].astype(int), minlength=10)
    assert kept[[0, 1, 2, 3, 4, 9]].tolist() == [0, 20, 20, 20, 20, 120]


def test_a_reduced_training_set_is_trained_as_long_and_compared_with_random_ones(recipe, dataset, store, tmp_path):
    """A second call finds every training; the list of all examples is the training set itself."""
    chosen = {"by": ["random", "density", "cbtl:hard"], "shares": [0.3], "repeats": 2}
    reduced = reduce_training_set(recipe, dataset, store, **chosen)
    assert reduced.table[["by", "n", "runs"]].to_numpy().tolist()[-1] == ["all", 120, 2]
    part = reduced.table[reduced.table["share"] == 0.3].set_index("by")
    assert set(part.index) == set(chosen["by"])
    assert part["n"].between(36, 38).all()  # one of each class that a list leaves out
    assert part["gain"].isna().to_dict() == {"random": True, "density": False, "cbtl:hard": False}
    params = store.get(reduced.runs["run"].iloc[0]).params
    assert params["train.steps"] == str(recipe.train.length(dataset.n_train)[1])
    again = reduce_training_set(recipe, dataset, store, **chosen)
    pd.testing.assert_frame_equal(again.runs, reduced.runs)
    assert [path.name for path in write_reduction(reduced, tmp_path)][-1] == "reduction.png"
    with pytest.raises(AnalysisError, match="no score 'cbtk'; did you mean 'cbtl'"):
        reduce_training_set(recipe, dataset, store, by=["cbtk:hard"], shares=[0.3])


def test_small_test_sets_rank_a_zoo(runs, dataset):
    """Balanced and random ones of one size; with every example in the set the ranking is that of the whole set."""

    def zoo(seed):
        kinds = (
            GaussianNB(var_smoothing=1),
            NearestCentroid(),
            KNeighborsClassifier(1),
            DecisionTreeClassifier(max_depth=1),
        )
        return dict(zip("abcd", kinds, strict=True))

    right = right_on_test(dataset, zoo=zoo, networks=lambda seed: {})
    sets = draw_test_sets(runs, dataset, right, per_bin=[3, 60], draws=5)
    assert sets.bins.sum() == dataset.n_test
    whole = sets.table[sets.table["n"] == dataset.n_test]
    assert whole["spearman"].tolist() == pytest.approx([1, 1])
    assert sets.chosen["example"].str.startswith("test/").all()
    assert len(small_test_sets(sets.table).axes) == 2
    assert len(classifiers()) >= 17


def test_a_ranking_turned_round_has_the_lowest_precision():
    """By hand: the best of three comes last (1/3), the best two come second and third (1/2 and 2/3)."""
    assert ranking_precision([3, 2, 1], [1, 2, 3]) == pytest.approx((1 / 3 + (1 / 2 + 2 / 3) / 2) / 2)


def test_more_data_extrapolates_the_accuracy_of_each_class(runs, dataset):
    """The classes with the largest gain come first, and intervals hold the value."""
    collected = more_data(runs, dataset, times=3)
    table = collected.table
    assert table["gain"].is_monotonic_decreasing
    assert (table["now_low"] <= table["now"] + 1e-9).all()
    assert (table["now"] <= table["more"]).all()
    assert len(accuracy_by_class(collected.curves, table, 3).axes) == 1


def test_a_power_law_that_would_rise_is_flat():
    """More data that hurt in a few draws are no reason to foretell that accuracy falls."""
    assert fit_power_law([10, 100], [1, 5], [10, 10]).exponent == 0


def test_orders_and_weights_are_compared_at_each_length(recipe, dataset, store):
    """Every way is trained as often and as long as shuffled training."""
    compared = compare_curricula(recipe, dataset, store, by="cbtl", budgets=[0.5], repeats=2)
    ways = ["shuffled", "easy-first", "hard-first", "random", "easy-weighted", "hard-weighted"]
    assert compared.table["way"].tolist() == ways
    assert (compared.table["runs"] == 2).all()
    assert (compared.table["steps"] == round(0.5 * recipe.train.length(dataset.n_train)[1])).all()
    figures = [
        accuracy_by_budget(compared.table),
        accuracy_by_share(pd.DataFrame({"by": ["all"], "share": 1.0, "accuracy": 0.9, "low": 0.8, "high": 1.0})),
    ]
    assert all(figure.axes for figure in figures)
