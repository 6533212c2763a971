"""The leaderboard: quality, agreement, price of every proxy; each number against an independent computation."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from study import analysis, figures
from study.analysis import StudyRuns, correlations, influences, leaderboard, proxy_matrix, within_class
from study.cli import main as cli
from study.cli.tables import leaderboard_markdown, leaderboard_table
from study.errors import StoreError
from study.figures.leaderboard import choose_lines
from study.proxies import PROXIES
from study.runs.ensemble import run_ensemble
from study.runs.single import run_singles
from study.scores.cscore import cscore_columns, shard_profile
from study.scores.memorization import chance_influence, memorization_columns
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

NAMES = ("cbtl", "forgetting_events", "target_confidence", "cbgl")
SEEDS = 3


def run(costs=None, **declared):
    """A run that has nothing but scores.json, and costs.json where there are any."""
    files = {"scores.json": declared} | ({"costs.json": costs} if costs else {})
    return SimpleNamespace(id="x", files=list(files), read_json=files.__getitem__)


@pytest.fixture(scope="module")
def dataset():
    return blobs(80, 20)


@pytest.fixture(scope="module")
def runs(dataset) -> StudyRuns:
    """Three repeats and two other networks, whose scores follow the C-score with noise; one has another setting."""
    rng = np.random.default_rng(0)
    ease = rng.random(dataset.n) + 0.3 * (dataset.labels == 0)
    masks = rng.random((24, dataset.n)) < 0.5
    masks[:, dataset.n_train :] = False
    predictions = np.where(rng.random(masks.shape) < ease, dataset.labels, (dataset.labels + 1) % 3)
    members = [0.5] * 24, range(24), 3
    profile = shard_profile(masks, predictions, np.full(masks.shape, 0.5), dataset.labels, *members)
    frame = pd.DataFrame({"example": dataset.ids, "label": dataset.labels, "split": dataset.split()})
    cscores = frame.assign(**cscore_columns(profile, dataset.labels), **memorization_columns(profile))

    def scores(seed: int, noise: float) -> pd.DataFrame:
        generator, table = np.random.default_rng(seed), frame.copy()
        for name in NAMES:
            values = np.round(8 * (cscores["cscore"] + generator.normal(0, noise, dataset.n)))
            turned = values if PROXIES[name].easy == "high" else -values
            table[name] = np.where(frame["split"] == PROXIES[name].on, turned, np.nan).astype(np.float32)
        return table

    settings = {name: {"settings": {}} for name in NAMES}
    singles = tuple(
        run({name: {"seconds": 1.0 + seed, "flops": 10.0 * (1 + seed)} for name in NAMES}, **settings)
        for seed in range(SEEDS)
    )
    other = {name: {"settings": {}} for name in NAMES} | {"cbtl": {"settings": {"another": 1}}}
    others = ((run(**{name: {"settings": {}} for name in NAMES}), scores(10, 0.3)), (run(**other), scores(11, 0.3)))
    tables = tuple(scores(seed, 0.3) for seed in range(SEEDS))
    return StudyRuns(SimpleNamespace(id="e"), singles, None, cscores, profile, tables, others)


@pytest.fixture(scope="module")
def table(runs, dataset) -> pd.DataFrame:
    return leaderboard(runs, dataset)


@pytest.fixture(scope="module")
def correlated(runs) -> pd.DataFrame:
    return correlations(runs)


def values(runs, name, table):
    """The oriented scores of one proxy and the C-scores beside them, on its rows."""
    rows = (runs.cscores["split"] == PROXIES[name].on) & runs.cscores["cscore"].notna()
    sign = 1 if PROXIES[name].easy == "high" else -1
    return sign * table[name][rows].to_numpy(float), runs.cscores["cscore"][rows], runs.cscores["label"][rows]


def row(table, name):
    return table.set_index("proxy").loc[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_of_a_proxy_are_means_over_its_repeats(table, correlated, name):
    """The leaderboard and the table of correlations must not tell two stories."""
    chosen = (correlated["reference"] == "cscore") & (correlated["part"] == "all")
    rows = correlated[chosen & (correlated["proxy"] == name)]
    assert len(rows) == SEEDS
    for column in ("spearman", "low", "high", "kendall", "ceiling", "distinct"):
        assert row(table, name)[column] == pytest.approx(rows[column].mean())


def test_the_best_comes_first_and_every_proxy_once(table):
    """It is read from the top."""
    assert sorted(table["proxy"]) == sorted(NAMES)
    assert table["spearman"].is_monotonic_decreasing


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_all_pairs_of_repeats(table, runs, name):
    """How well a second training ranks the examples like the first."""
    columns = [values(runs, name, scores)[0] for scores in runs.scores]
    pairs = [stats.spearmanr(columns[i], columns[j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))]
    assert row(table, name)["seeds"] == pytest.approx(np.mean(pairs))


def test_one_repeat_has_no_agreement_between_seeds(runs, dataset):
    """Unknown is not 1."""
    alone = replace(runs, scores=runs.scores[:1], singles=runs.singles[:1], others=())
    result = leaderboard(alone, dataset)
    assert result[["seeds", "architectures"]].isna().all(axis=None)
    assert result["spearman"].notna().all()


@pytest.mark.parametrize("name", NAMES)
def test_architectures_are_other_networks_with_the_same_settings(table, runs, name):
    """A proxy with another setting is another proxy; cbtl of the second network does not count."""
    same = runs.others[: 1 if name == "cbtl" else 2]
    columns = [values(runs, name, scores)[0] for scores in runs.scores]
    each = [np.mean([stats.spearmanr(x, values(runs, name, t)[0]).statistic for x in columns]) for _, t in same]
    assert row(table, name)["architectures"] == pytest.approx(np.mean(each))


def test_cost_is_the_mean_over_the_runs_and_missing_where_nothing_was_recorded(table, runs, dataset):
    """Runs from before costs were recorded still have a place in the leaderboard."""
    assert row(table, "cbtl")["seconds"] == 2
    assert row(table, "cbtl")["flops"] == 20
    assert row(table, "cbtl")["cost"] == PROXIES["cbtl"].cost
    silent = tuple(run(**{name: {"settings": {}} for name in NAMES}) for _ in range(SEEDS))
    assert leaderboard(replace(runs, singles=silent), dataset)[["seconds", "flops"]].isna().all(axis=None)


def test_damaged_costs_are_named_and_missing(runs, dataset, capsys):
    """A finished run is not trained again for them, so they must not end the report."""

    def read_json(name):
        if name == "costs.json":
            raise StoreError("run x: file costs.json is damaged at y; run its recipe again")
        return {proxy: {"settings": {}} for proxy in NAMES}

    damaged = SimpleNamespace(id="x", files=["scores.json", "costs.json"], read_json=read_json)
    table = leaderboard(replace(runs, singles=(damaged,) * SEEDS), dataset)
    assert table["seconds"].isna().all()
    assert "costs.json is damaged at y; its costs are missing in the table" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_within_class_is_the_weighted_mean_of_scipys_in_each_class(table, runs, name):
    """Averaged over the repeats, weighted by the size of the class."""
    result = []
    for scores in runs.scores:
        proxy, cscores, labels = values(runs, name, scores)
        each = [stats.spearmanr(proxy[labels == c], cscores[labels == c]).statistic for c in range(3)]
        result.append(np.average(each, weights=[(labels == c).sum() for c in range(3)]))
    assert row(table, name)["within_class"] == pytest.approx(np.mean(result))


def test_a_proxy_that_only_tells_classes_apart_has_nothing_within_them():
    """Over all examples it looks good; that is what the column is for."""
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 2000)
    cscores, proxy = 0.3 * labels + 0.1 * rng.random(4000), labels + 0.1 * rng.random(4000)
    assert stats.spearmanr(cscores, proxy).statistic > 0.7
    assert abs(within_class(cscores, proxy, labels)) < 0.05


def test_classes_without_an_order_are_left_out_of_the_mean():
    """Two examples, or one value only: no correlation, and no zero."""
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    cscores, proxy = np.array([1, 2, 3, 4, 1, 2, 5, 5, 5.0]), np.array([1, 2, 4, 3, 1, 2, 1, 2, 3.0])
    assert within_class(cscores, proxy, labels) == pytest.approx(0.8)
    assert np.isnan(within_class(cscores[4:], proxy[4:], labels[4:]))


def test_published_scores_alone_are_enough_for_a_league(runs, dataset):
    """A recipe of kind "single" has no ensemble; test rows have no published score, so their proxies have no row."""
    published = runs.cscores["cscore"].where(runs.cscores["split"] == "train")
    cscores = runs.cscores[["example", "label", "split"]].assign(cscore=published, published=published)
    alone = replace(runs, ensemble=None, profile=None, cscores=cscores)
    result = leaderboard(alone, dataset)
    assert set(result["proxy"]) == set(NAMES) - {"cbgl"}
    assert result["ceiling"].isna().all()
    assert "published" in set(proxy_matrix(alone, dataset)["proxy"])


# -------------------------------------------------------------------------------------------------------------- matrix


def test_the_matrix_equals_scipys_in_its_own_order(runs, dataset):
    """Mean over the repeats, oriented, C-score included; rows and columns in one order."""
    result = proxy_matrix(runs, dataset)
    assert list(result.columns[3:]) == list(result["proxy"])
    assert set(result["proxy"]) == {"cscore", "cbtl", "forgetting_events", "target_confidence"}
    for one in result["proxy"]:
        for other in result["proxy"]:
            columns = []
            for scores in runs.scores:
                computed = {"cscore": values(runs, "cbtl", scores)[1]}
                pair = [computed[n] if n in computed else values(runs, n, scores)[0] for n in (one, other)]
                columns.append(stats.spearmanr(*pair).statistic)
            assert result.set_index("proxy").loc[one, other] == pytest.approx(np.mean(columns))


def test_alike_proxies_stand_side_by_side(runs, dataset):
    """That is what the picture is read for; a copy of a proxy is its neighbour."""
    copied = tuple(scores.assign(top_confidence=scores["cbtl"]) for scores in runs.scores)
    order = list(proxy_matrix(replace(runs, scores=copied), dataset)["proxy"])
    assert abs(order.index("cbtl") - order.index("top_confidence")) == 1


def test_a_constant_proxy_does_not_take_the_matrix_down(runs, dataset):
    """Its row is missing; the others keep theirs."""
    flat = tuple(scores.assign(cbtl=np.float32(1)) for scores in runs.scores)
    result = proxy_matrix(replace(runs, scores=flat), dataset).set_index("proxy")
    assert result["cbtl"].isna().all()
    assert result.loc["forgetting_events", "cscore"] > 0.3


# ------------------------------------------------------------------------------------------------------------ printing


def test_the_terminal_and_markdown_show_the_same_numbers(table, capsys):
    """Blank where nothing is known; every proxy by the name that a recipe uses."""
    holes = table.assign(seconds=np.nan)
    leaderboard_table(holes)
    printed = capsys.readouterr().out
    lines = leaderboard_markdown(holes).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    for entry, line in zip(table.itertuples(), lines[2:], strict=True):
        assert line.startswith(f"| `{entry.proxy}` |")
        for text in (f"{entry.spearman:+.3f}", f"{entry.within_class:+.3f}"):
            assert text in line
            assert text in printed
    assert "nan" not in printed + "".join(lines)


def test_the_verb_prints_the_league_of_the_finished_runs(trained, recipe, dataset, monkeypatch, capsys):
    """`study leaderboard RECIPE`: one command, no report needed; Markdown for a README."""
    monkeypatch.setattr(cli, "open_finished", lambda *_: (recipe, dataset, trained[0]))
    cli.leaderboard(markdown=True)
    expected = leaderboard_markdown(leaderboard(trained[1], dataset))
    assert capsys.readouterr().out == expected
    assert expected.splitlines()[2].startswith("| `cbtl` | train |")
    cli.leaderboard(markdown=False)
    assert "cbtl" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------- figures


def save(figure):
    """Render, as that is when layout, ticks and fonts warn."""
    drawing = io.BytesIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    return drawing.getvalue()


def many(count: int) -> pd.DataFrame:
    """A leaderboard of so many made-up proxies."""
    rng = np.random.default_rng(count)
    families = list(figures.FAMILY_COLOURS)
    return pd.DataFrame(
        {
            "proxy": [f"p{i}" for i in range(count)],
            "label": [f"a proxy of some length, number {i}" for i in range(count)],
            "family": [families[i % len(families)] for i in range(count)],
            "on": ["test" if i % 9 == 4 else "train" for i in range(count)],
            "cost": ["free" if i % 4 == 0 else "pass" for i in range(count)],
            "spearman": rng.random(count),
            "seconds": 10 ** rng.uniform(-2, 3, count),
        }
    )


def test_names_in_the_picture_of_prices_do_not_cover_each_other():
    """Forty proxies on one picture: each name is written, once, on its own place."""
    figure = figures.quality_by_cost(many(40))
    save(figure)
    (axes,) = figure.axes
    boxes = [text.get_window_extent().shrunk(0.98, 0.85) for text in axes.texts]
    assert len(boxes) == 40
    assert not sum(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_a_price_that_nobody_recorded_is_counted_and_not_drawn():
    """At the left edge it would look free."""
    figure = figures.quality_by_cost(many(12).assign(seconds=np.nan))
    assert len(figure.axes[0].texts) == 3
    assert "9 more: cost not recorded" in {text.get_text() for text in figure.texts}


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_leagues_of_any_size_are_drawn(count):
    """A recipe may name one proxy."""
    table = many(count)
    assert save(figures.quality_by_cost(table))
    matrix = pd.DataFrame(np.eye(count), columns=table["proxy"])
    matrix.insert(0, "proxy", table["proxy"])
    assert save(figures.correlation_matrix(matrix.assign(label=table["label"], family=table["family"])))


def test_odd_leagues_are_drawn_without_a_warning(table):
    """All costs the same, a correlation that is not defined, a matrix with holes."""
    assert save(figures.quality_by_cost(table.assign(seconds=1.0, spearman=[np.nan, 0.1, 0.1, -0.2])))
    assert save(figures.quality_by_cost(table.assign(cost="free")))
    holes = pd.DataFrame([["a", "a", "", 1.0, np.nan], ["b", "b", "", np.nan, np.nan]])
    assert save(figures.correlation_matrix(holes.set_axis(["proxy", "label", "family", "a", "b"], axis=1)))


def test_the_lines_with_a_name_are_the_best_and_the_most_moving():
    """Forty lines in one panel; the highest ends first, then the widest range."""
    lines = {name: pd.Series(line) for name, line in {"a": [0, 9], "b": [5, 5], "c": [-9, 1], "d": [1, 2]}.items()}
    assert choose_lines(lines, 3) == ["a", "b", "c"]


@pytest.mark.parametrize("epochs", [0, 1, 2, 40])
def test_any_number_of_moments_is_drawn(epochs):
    """One epoch is a sentence, not a picture of dots."""
    rows = [(f"p{i}", "cscore", e, np.sin(i + e / 9)) for i in range(20) for e in range(1, epochs + 1)]
    curves = pd.DataFrame(rows, columns=["proxy", "reference", "epoch", "spearman"])
    assert save(figures.proxies_by_epoch(curves, many(20)))


def test_consensus_and_difficulty_are_drawn_for_odd_data(runs):
    """All right, all missing, no training at all, one example."""
    train = runs.cscores[runs.cscores["split"] == "train"]
    for changed in (train, train.assign(memorization=np.nan), train.assign(cscore=np.nan), train.head(1)):
        assert save(figures.consensus_and_memorization(changed))
    agrees = (train["consensus"] == train["label"]).to_numpy()
    depth = np.random.default_rng(0).random(len(train)) * 9
    for one, other in ((depth, depth[::-1]), (depth * 0, depth * 0), (depth * np.nan, depth)):
        assert save(figures.difficulty_plane(one, other, agrees))


# ----------------------------------------------------------------------------------------------- from a store


@pytest.fixture(scope="module")
def recipe():
    subset = {"ratios": [0.5], "members": 120}
    return toy_recipe("study", subset=subset, train={"epochs": 1}, proxies={"cbtl": {}}, runtime={"shard": 60})


@pytest.fixture(scope="module")
def trained(recipe, dataset, stores):
    """An ensemble of 120 small networks, a single run, and one of another network."""
    store = stores()
    wide = recipe.model_copy(update={"model": recipe.model.model_copy(update={"settings": {"widths": (20,)}})})
    run_singles(wide, dataset, store)
    run_ensemble(recipe, dataset, store)
    run_singles(recipe, dataset, store)
    return store, analysis.load_runs(recipe, dataset, store)


def test_the_newest_run_of_each_other_network_is_read(trained):
    """Found by asking the store; two widths are two networks."""
    _, runs = trained
    (other, _), first = runs.others[0], runs.singles[0]
    assert len(runs.others) == 1
    assert other.params["model.settings.widths"] != first.params["model.settings.widths"]
    assert other.id in {run.id for run in runs.all_runs}


def test_influences_equal_a_loop_over_the_members_bits(trained, recipe, dataset):
    """From the shards' files: right when i was trained on, minus right when not, for test examples in doubt."""
    store, runs = trained
    result = influences(runs, recipe, dataset, store, top=3)
    subset, right = [], []
    for shard in store.find("shard"):
        kept = shard.read_arrays("members.npz")
        subset.append(np.unpackbits(kept["subset"], axis=1, count=dataset.n_train).astype(bool))
        right.append(kept["miss"] == 0)
    subset, right = np.concatenate(subset), np.concatenate(right)
    undecided = [j for j in range(dataset.n_train, dataset.n) if 0 < right[:, j].mean() < 1]
    assert set(result.table["target"]) == set(dataset.ids[undecided])
    for j in undecided:
        of_target = result.table[result.table["target"] == dataset.ids[j]]
        every = [right[subset[:, i], j].mean() - right[~subset[:, i], j].mean() for i in range(dataset.n_train)]
        assert of_target["influence"].tolist() == pytest.approx(sorted(every, reverse=True)[:3])
        first = np.flatnonzero(dataset.ids == of_target["source"].iloc[0])[0]
        assert every[first] == pytest.approx(max(every))
    assert save(figures.influence_grid(dataset.images, dataset.ids, result.table, dataset.classes))


def test_too_few_members_for_influence_are_said(trained, recipe, dataset):
    """A list of chance differences looks like any other list."""
    store, runs = trained
    none = influences(runs, recipe.model_copy(update={"seed": 9}), dataset, store)  # a recipe without members
    assert none.table.empty
    enough = int(none.summary.split("; ")[1].removesuffix(" members would do"))
    assert chance_influence(80, enough / 2, enough / 2) <= 0.5 < chance_influence(80, enough / 2 - 1, enough / 2 - 1)
    assert save(figures.influence_grid(dataset.images, dataset.ids, none.table, dataset.classes))
