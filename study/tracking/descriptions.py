"""What the MLflow UI says of a run.  in: a recipe   out: names, Markdown notes, the columns worth a look

A name has room for some twenty letters in the runs table, a shard's for some twelve.
"""

from study.recipe import Recipe
from study.scores.subsets import percent

SHORT = 6  # of a digest's letters: enough to tell the recipes of one table apart

# what the table of an experiment shows when `study ui` opens it: metrics, then params
COLUMNS = {
    "ensemble": (
        ("reliability/full", "cscore/mean", "cscore/share_at_1", "holdout/accuracy", "test/accuracy"),
        ("ratio", "model.name", "optimizer.lr", "train.epochs", "subset.members"),
    ),
    "single": (
        ("train/accuracy", "test/accuracy", "train/loss", "time/train_s"),
        ("repeat", "model.name", "optimizer.lr", "train.epochs"),
    ),
    "report": (
        (
            *("rank/spearman/cbtl", "rank/spearman/cumulative_confidence", "rank/spearman/forgetting_events"),
            *("rank/spearman/kernel_density_hidden_relative", "ceiling/rank"),
        ),
        ("model.name", "optimizer.lr", "train.epochs", "subset.members"),
    ),
    "sweep": (
        ("cells/done",),
        ("model.name", "optimizer.name", "optimizer.lr", "train.epochs", "sweep.repeats"),
    ),
    "reference": (("cscore/mean", "cscore/share_at_1"), ("file",)),
    "search": (
        ("score", "val/accuracy", "val/loss", "train/loss", "search/value", "test/accuracy"),
        ("optimizer.lr", "optimizer.momentum", "optimizer.weight_decay", "train.batch_size", "schedule.name"),
    ),
}

EXPERIMENTS = {
    "ensemble": "Subset ensembles, one run each; the plus sign unfolds the shards of members that were trained for it.",
    "single": "Single runs on the whole training set, one per repeat, with the proxies of every example.",
    "report": "Reports: proxies against C-scores.  Open a run, Artifacts, report.html.",
    "sweep": "Sweeps: a recipe at several values.  A run names its cells, which are runs of other tables.",
    "reference": "Published C-scores that reports compare with.",
    "search": (
        "Searches for hyper-parameters; the plus sign unfolds the trials.  Tick them all, then Compare, for parallel "
        "coordinates over what was tried."
    ),
}

ENSEMBLE = """
**Subset ensemble: {members} networks at each of the subset ratios {ratios} %.** Each has seen a random share of the
training set.  An example's C-score is how often the networks that have *not* seen it answer its label, averaged over
the ratios: 1 regular, 0 mislabeled, ambiguous or alone of its kind.

- `cscore.parquet`: a row per example.  `cscore`; `cscore_soft`, the mean probability of the label (ranks as well from
  fewer networks); `stderr`, their standard errors; `held_out`, the number of answers; `consensus`, the most frequent
  one; `cscore_10` ..., ratio by ratio.  Never held out = missing.  Also `consensus_consistency`, the share of the
  answers that are the consensus; `prediction_entropy` of the answers, in nats; `memorization`, how much more often
  networks that have seen the example are right, and `memorization_stderr`.
- `profile.parquet`: the sums behind it.  `preview/`: the first 500 rows, to look at here.
- `recipe.toml`: `study run recipe.toml` does all this again.
- `holdout/accuracy` and `test/accuracy` are curves over the ratio (step = percent); a table shows their last point.
- `reliability/full`: the rank correlation to expect with a second ensemble of this size.

Its child runs are shards of some members each; the plus sign in the runs table unfolds them.  To compare two ensembles
tick both there, then Compare, then "Show diff only".
"""

SHARD = """
**Members {first} to {last} of the ensemble, trained on {ratio} % of the training set each.**

- `member/...`: a point per member (step = member), after its last epoch.
- `members.npz`: what each was trained on (`subset`, packed bits) and where it is wrong (`miss`, (answer - label) mod
  classes, 0 = right); with `subset.depth` also the prediction depths (`depth`, -1 undefined).  `recipe.toml` is with
  the parent run.
"""

SINGLE = """
**A single run on the whole training set, repeat {repeat}: the proxies that stand in for the C-score.**

- `scores.parquet`: a row per example, a column per proxy; `scores.json` says of each whether high or low means easy,
  its unit, settings and source.
- `trajectory.npz`: right or wrong and softmax confidence of every example after every epoch.
- `curves.npz`: proxies of one checkpoint (densities in hidden space, margins, ...) after every so many epochs.
  `preview/`: the first 500 rows, to look at here.
- `probes.npz`, where the recipe asks for prediction depth: what k-nearest-neighbour probes answer in every layer.
- `train/accuracy`, `test/accuracy`, `train/loss` are curves over the epochs (step = epoch).
"""

REPORT = """
**How well the proxies rank the examples as the C-score does.**  Open `report.html` under Artifacts.

- `suspects.csv`: the lowest C-scores, likeliest label errors first.
- `correlations.parquet`: every proxy against every reference, with intervals and ceilings; `points.parquet`: single
  ratios; `curves.parquet`: epoch by epoch; `figures/`: the pictures of the page.
- `leaderboard.parquet`: quality and cost of each proxy; `matrix.parquet`: how far proxies say the same;
  `influence.parquet`, where the members are enough: which training example helps which test example;
  `difficulty.parquet`, where members recorded depths.
- `rank/spearman/<proxy>`, `rank/kendall/<proxy>`: against the C-score on all examples; `unsaturated/...`: without
  scores of exactly 0 or 1; `soft/...`, `published/...`: against other references.  Positive always means: agrees.
- `ceiling/...`: the Spearman that a perfect proxy would reach, given how well the C-scores repeat themselves.
- `ratio/spearman`: a curve over the subset ratio (step = percent); `epoch/<proxy>`: curves over the epochs.

Read from {sources}.
"""

SEARCH = """
**A search for hyper-parameters, judged by {measure}.**  Each child run is a trial with its whole recipe as parameters
and its curves; the tag `optuna.verdict` says why one ended before its time, `score` is what a completed one is worth.

- `figures/`: `history.png`, trials in their order; `slices.png`, each hyper-parameter by itself; `importance.png`,
  which of them decide.
- `trials.parquet`: a row per finished trial.  `best.toml`: the winner, a recipe for `study run`.
- `search/best` is a curve over the finished trials; `test/accuracy` is the winner's, it has chosen nothing.

Parallel coordinates: tick the trials in the runs table, Compare, and choose parameters and `score`.
"""

TRIAL = """
**Trial {number} of a search.**  `val/accuracy` and the losses are curves over the epochs (step = epoch), on examples
that it has not trained on; `reliability/half_soft` is one over the members (step = members at each ratio).
"""

SWEEP = """
**A sweep of {cells} cells: {values}.**

- `cells.parquet`: a row per run of a cell, with the values that it was trained at and its run id.
- The cells are runs of the tables `.../single` and `.../ensemble`, with all their parameters; filter there with
  ``tags.`study.sweep.{digest}` != ''``.  A cell that was trained before, by another sweep or alone, is the same run.
- `comparison/`: accuracies, agreement and learning curves side by side, once `study compare` has been there.
"""

MEASURES = {"accuracy": "validation accuracy", "reliability": "split-half reliability (soft)"}


def ensemble_name(recipe: Recipe, data: str) -> str:
    """`mlp 40x9 17688f`: network, members, ratios, the beginnings of the recipe's digest and of the data's."""
    most = "≤" if recipe.subset.until.active else ""
    return f"{recipe.model.name} {most}{recipe.subset.members}x{len(recipe.subset.ratios)} {_letters(recipe, data)}"


def _letters(recipe: Recipe, data: str) -> str:
    """As many letters of the recipe's digest as of the data's, which changes with every corrected label."""
    return recipe.digest()[: SHORT // 2] + data[: SHORT // 2]


def shard_name(ratio: float, first: int, last: int) -> str:
    """`30 %: 0-9`: subset ratio, members."""
    return f"{percent(ratio)} %: {first}-{last}"


def single_name(recipe: Recipe, data: str, repeat: int) -> str:
    """`mlp repeat 0 4f288f`: network, repeat, the beginnings of both digests."""
    return f"{recipe.model.name} repeat {repeat} {_letters(recipe, data)}"


def report_name(part: Recipe, data: str) -> str:
    """The name of its ensemble; without one, network and digests of the single runs."""
    return ensemble_name(part, data) if part.kind == "ensemble" else f"{part.model.name} {_letters(part, data)}"


def measure(recipe: Recipe) -> str:
    """What a search judges its trials by, in words."""
    stable = recipe.search.objective == "accuracy" and recipe.search.score == "stable"
    return MEASURES[recipe.search.objective] + (" (last quarter, mean less deviation)" if stable else "")


def search_name(recipe: Recipe, name: str) -> str:
    """`mlp tpe 4f2a1c`: network, sampler, the search's name."""
    return f"{recipe.model.name} {recipe.search.sampler} {name[:SHORT]}"


def trial_name(number: int, of_round: int | None) -> str:
    """`trial 7`, or `round 2: trial 7`."""
    return f"trial {number}" if of_round is None else f"round {of_round}: trial {number}"


def sweep_note(recipe: Recipe, digest: str, cells: int) -> str:
    """Say what a sweep is, and how its cells are seen."""
    values = ", ".join(f"{name} at {len(values)} values" for name, values in recipe.sweep.values.items())
    return _note(recipe, SWEEP.format(cells=cells, values=values, digest=digest))


def search_note(recipe: Recipe) -> str:
    """Say what a search is, and how its files and curves are read."""
    return _note(recipe, SEARCH.format(measure=measure(recipe)))


def trial_note(number: int) -> str:
    """Say what a trial is, and how its curves are read."""
    return TRIAL.format(number=number).strip()


def ensemble_note(recipe: Recipe) -> str:
    """Say what an ensemble is, and how its files and curves are read."""
    ratios = ", ".join(percent(ratio) for ratio in recipe.subset.ratios)
    most = "at most " if recipe.subset.until.active else ""
    return _note(recipe, ENSEMBLE.format(members=f"{most}{recipe.subset.members}", ratios=ratios))


def shard_note(ratio: float, first: int, last: int) -> str:
    """Say which part of an ensemble a shard is."""
    return SHARD.format(ratio=percent(ratio), first=first, last=last).strip()


def single_note(recipe: Recipe, repeat: int) -> str:
    """Say what a single run is, and how its files and curves are read."""
    return _note(recipe, SINGLE.format(repeat=repeat))


def report_note(recipe: Recipe, sources: dict[str, str]) -> str:
    """Say what a report run holds; `sources` are the names and ids of the runs it was made from."""
    return _note(recipe, REPORT.format(sources=", ".join(f"{name} (`{run}`)" for run, name in sources.items())))


def _note(recipe: Recipe, text: str) -> str:
    """The recipe's `why` first, as a quotation: it is the experimenter's, the rest is ours."""
    why = " ".join(recipe.why.split())
    return (f"> {why}\n\n" if why else "") + text.strip()
