"""What the page of a report holds.  in: Findings   out: figures with their sentences, tables, files to take along"""

import numpy as np
import pandas as pd

from study import analysis, figures
from study.analysis import Findings, Gathered
from study.data import Dataset
from study.report.html import File, Section, Table

SUSPECTS = 500  # rows of suspects.csv: as many as the MLflow UI shows
ORDER = (  # of the sections on the page
    *(
        "proxies",
        "leaderboard",
        "suspects",
        "J-fig4",
        "J-fig2",
        "J-fig3",
        "J-fig5",
        "J-fig6",
        "B-consensus",
        "influence",
    ),
    *(
        "B-fig7",
        "Z-fig2",
        "B-fig1",
        "B-fig4",
        "B-fig3",
        "B-fig5",
        "B-fig8",
        "matrix",
        "moments",
        "J-fig8",
        "J-fig9a",
        "J-fig9b",
    ),
    *("J-tab1", "A-class", "A-csr"),
)
LEADERBOARD = {  # columns of the leaderboard as the page heads them
    "label": "proxy",
    "on": "on",
    "spearman": "Spearman",
    "within_class": "in class",
    "seeds": "seeds",
    "architectures": "networks",
    "distinct": "distinct",
    "cost": "cost",
    "seconds": "seconds",
    "flops": "GFLOP",
}


def sections(found: Findings) -> list[Section]:
    """Every figure with the one line that says what it shows, in the order of the page."""
    made = [*_general_sections(found), *_leaderboard_sections(found), *_depth_sections(found), *_inner_sections(found)]
    if found.gathered.ensemble:
        made += [*_ratio_sections(found), *_vote_sections(found)]
    return sorted(made, key=lambda section: ORDER.index(section.id))


def _general_sections(found: Findings) -> list[Section]:
    """Those that need no ensemble."""
    gathered, dataset, correlations, curves = found.gathered, found.dataset, found.correlations, found.curves
    main = gathered.main
    rows = dataset.rows("train")
    train = gathered.cscores[rows].reset_index(drop=True)
    images, classes = dataset.images[rows], dataset.classes
    mean_curves = curves.groupby(["proxy", "reference", "epoch"], as_index=False)["spearman"].mean()
    path = analysis.trajectory(gathered.singles[0], dataset)
    scores = train["cscore"].to_numpy(dtype=float)
    return [
        Section(
            "proxies",
            "Which proxy to trust",
            "Rank correlation of each proxy with the C-score, 95 % interval; "
            "the line is what a perfect proxy could reach.",
            figures.proxy_ranking(correlations, reference=main),
        ),
        Section(
            "suspects",
            "Snapshot at these first",
            "The lowest C-scores of all, test examples too: mislabeled, ambiguous or unlike anything else. Framed, "
            "with the networks' answer: most of those that have not seen it give another class than the label.",
            figures.suspects(dataset.images, gathered.cscores, classes, maximum=dataset.maximum),
        ),
        Section(
            "J-fig4",
            "Regular and irregular, class by class",
            "Examples with high, middle and low C-scores of each class.",
            figures.example_grid(images, train, classes, maximum=dataset.maximum),
        ),
        Section(
            "J-fig6",
            "Difficulty by class",
            "Mean and standard deviation of the C-scores in each class.",
            figures.class_statistics(train, classes),
        ),
        Section(
            "J-fig8",
            "Density in hidden space",
            "The kernel density of the penultimate layer against the C-score, epoch by epoch of a single run.",
            figures.hidden_density_by_epoch(mean_curves, reference=main),
        ),
        Section(
            "J-fig9a",
            "Who is learned first",
            "Share of each C-score group that the single run classifies right after each epoch.",
            figures.learning_curves_by_score(np.ascontiguousarray(path["correct"][:, rows]), scores, path["epochs"]),
        ),
        Section(
            "J-fig9b",
            "Confidence as a proxy",
            "Softmax confidence of the label and of the top class against the C-score, epoch by epoch.",
            figures.confidence_by_epoch(mean_curves, reference=main),
        ),
        Section(
            "J-tab1",
            "Density in input space",
            "The kernel densities of the raw pixels against the C-score, beside the paper's numbers.",
            figures.density_table(correlations, name=dataset.name, reference=main),
        ),
    ]


def _leaderboard_sections(found: Findings) -> list[Section]:
    """What proxies are worth at which price, which say the same, when to take them."""
    return [
        Section(
            "leaderboard",
            "Quality and price",
            "Each proxy's rank correlation against the seconds that it costs beyond the training; the grey stair is "
            "the best for that price or less.",
            figures.quality_by_cost(found.leaderboard),
        ),
        Section(
            "matrix",
            "Who says the same",
            "Rank correlation among the proxies, alike ones side by side: of a dark block one is enough.",
            figures.matrix(found.matrix),
        ),
        Section(
            "moments",
            "When to look",
            "Proxies of one moment against the C-score, epoch by epoch; named are those that end highest and those "
            "that move most.",
            figures.moments_by_epoch(found.curves, found.leaderboard, reference=found.gathered.main),
        ),
    ]


def _depth_sections(found: Findings) -> list[Section]:
    """Prediction depth, where the single run has asked probes in its layers."""
    told = analysis.depths(found.gathered, found.dataset)
    if told is None:
        return []
    sections = [
        Section(
            "B-fig1",
            "Prediction depth",
            "The layer from which on k-nearest-neighbour probes agree with the network's answer: early for easy "
            "examples, late or undefined for hard ones.",
            figures.depth_distribution(told.table, told.layers),
        ),
        Section(
            "B-fig4",
            "Right or wrong at each depth",
            "The single run's accuracy among the examples of each prediction depth; larger dots stand for more.",
            figures.accuracy_by_depth(told.table, told.layers),
        ),
        Section(
            "B-fig5",
            "From layer to layer",
            "Accuracy of the probes after each layer; where labels were changed, of the changed ones, and of the "
            "labels that those examples had before.",
            figures.inference_learning_curve(told.curves, told.layers),
        ),
    ]
    if told.table["cscore"].notna().any():
        drawn = figures.cscore_by_depth(told.table, told.layers)
        sentence = "C-scores of the examples of each prediction depth; in the paper, the deeper the less consistent."
        sections.append(Section("B-fig3", "Depth and consistency", sentence, drawn))
    curves = analysis.probe_curves(found.gathered, found.dataset, found.difficulty)
    if len(curves):
        sentence = (
            "How sure the probes of the single run are, layer by layer, for examples that are hard in different ways; "
            "left of their label, right of the class that networks give which have not seen them."
        )
        drawn = figures.probe_confidence(curves, told.layers)
        sections.append(Section("B-fig8", "Sure or not, layer by layer", sentence, drawn))
    return sections


def _inner_sections(found: Findings) -> list[Section]:
    """What else the first single run tells: two-dimensional regularity, and loss sensitivity where it was taken."""
    run, dataset = found.gathered.singles[0], found.dataset
    sections = []
    if planes := analysis.planes(run, dataset):
        sentence = (
            "How many epochs an example is right against how often it stops being so; easy ones crowd at the lower "
            "right.  To shorten a training set, the paper leaves out examples at the densest spots first."
        )
        sections.append(Section("Z-fig2", "Regularity in two dimensions", sentence, figures.regularity_planes(planes)))
    matrix = analysis.class_sensitivity(run)
    if matrix is not None:
        sentence = (
            "How much the inputs of one class move the loss towards another, averaged over training; classes that "
            "share features stand out.  Colours span what lies off the diagonal."
        )
        drawn = figures.class_sensitivity(matrix, dataset.classes)
        sections.append(Section("A-class", "Loss sensitivity, class by class", sentence, drawn))
    series = analysis.sensitivity_series(run)
    if len(series):
        sentence = (
            "Gini coefficient: near 0 all examples move the loss alike, near 1 few do.  Critical sample ratio: the "
            "share of examples with another class within a small box around them."
        )
        drawn = figures.sensitivity_by_epoch(series.index, dict(series.items()))
        sections.append(Section("A-csr", "Loss sensitivity and critical samples", sentence, drawn))
    return sections


def _vote_sections(found: Findings) -> list[Section]:
    """What only an ensemble tells: consensus and memorization; forms of difficulty and influence where it can."""
    gathered, dataset, influences = found.gathered, found.dataset, found.influences
    sections = []
    if {"consensus_consistency", "memorization"} <= set(gathered.cscores):
        train = gathered.cscores[dataset.rows("train")].reset_index(drop=True)
        sections.append(
            Section(
                "B-consensus",
                "Agreement and memorization",
                "What the networks that have not seen an example agree on, and how much having seen it helps.",
                figures.consensus_and_memorization(train),
            )
        )
    if found.difficulty is not None:
        told = found.difficulty.table[dataset.rows("train")]
        agrees = (gathered.cscores["consensus"] == gathered.cscores["label"]).to_numpy()[dataset.rows("train")]
        depths = told["depth_train"].to_numpy(), told["depth_validation"].to_numpy()
        sections.append(
            Section(
                "B-fig7",
                "Easy, or hard in which way",
                "At which layer the networks decide about an example that they have trained on (upwards) and one that "
                "they have not (to the right).",
                figures.difficulty_plane(*depths, agrees),
            )
        )
    if influences is not None and len(influences.table):
        drawn = dataset.images, dataset.ids, influences.table, dataset.classes
        sections.append(
            Section(
                "influence",
                "Who helps whom",
                "Test examples that hang on single training examples: right with them, wrong without; the number is "
                "the difference in accuracy.",
                figures.influence_grid(*drawn, maximum=dataset.maximum),
            )
        )
    return sections


def _ratio_sections(found: Findings) -> list[Section]:
    """The figures that look at subset ratios one by one."""
    train = found.gathered.cscores[found.dataset.rows("train")].reset_index(drop=True)
    return [
        Section(
            "J-fig2",
            "C-scores at each subset ratio",
            "The more a network has seen, the more examples it gets right that it has not seen.",
            figures.histograms_by_ratio(train),
        ),
        Section(
            "J-fig3",
            "Integral C-scores and their profile",
            "Left: all ratios together. Right: how the examples of "
            "each bar fare as the training set grows; below the dashed line is worse than chance.",
            figures.consistency_profile(train, found.dataset.n_classes),
        ),
        Section(
            "J-fig5",
            "Is one ratio enough?",
            "How well the scores at one ratio rank the examples as all ratios together do.",
            figures.point_estimates(found.points),
        ),
    ]


def suspects(gathered: Gathered, dataset: Dataset) -> pd.DataFrame:
    """Every scored example, train and test, lowest C-score first, with names for classes.

    Returns:
        example | label | networks_say (the most frequent held-out answer) | the scores that there are.
    """
    known = gathered.cscores.dropna(subset=["cscore"])
    table = known.sort_values([name for name in ("cscore", "cscore_soft") if name in known], kind="stable")
    names = dict(enumerate(dataset.classes))
    told = {"example": table["example"], "label": table["label"].map(names)}
    if gathered.ensemble:
        told["networks_say"] = table["consensus"].map(names).fillna("")
    scores = ("cscore", "cscore_soft", "stderr", "held_out") if gathered.ensemble else ()
    told |= {name: table[name] for name in (*scores, "published") if name in table}
    return pd.DataFrame(told).reset_index(drop=True)


def tables(found: Findings, lowest: pd.DataFrame) -> list[Table]:
    """The tables below the figures; `lowest` is that of `suspects`."""
    sentence = (
        "Means over the repeats.  In class: Spearman inside each class, weighted by its size.  Seeds: between "
        "repeats.  Networks: with the newest single run of each other model on this data.  Seconds and GFLOP: "
        "beyond the training, shared evidence whole for each proxy.  – is not known."
    )
    ranks = ["spearman", "within_class", "seeds", "architectures"]
    shown = found.leaderboard.assign(flops=found.leaderboard["flops"] / 1e9).round(dict.fromkeys(ranks, 3))
    shown = shown[list(LEADERBOARD)].rename(columns=LEADERBOARD)
    made = [Table("Leaderboard of proxies", shown, sentence)]
    made += [Table("Lowest C-scores", lowest, f"suspects.csv holds the first {SUSPECTS:,}, test examples too.")]
    if found.difficulty is not None:
        sentence = "Training examples nearest to each corner of the plane of both prediction depths (B-fig7)."
        corners = found.difficulty.corners
        names = corners.assign(label=corners["label"].map(dict(enumerate(found.dataset.classes))))
        made.append(Table("Four forms of difficulty", names, sentence))
    if len(found.points):
        sentence = "Rank correlation of each ratio's C-score with the integral one (J-fig5)."
        made.append(Table("Point estimates", found.points, sentence))
    return made


def files(found: Findings) -> list[File]:
    """What a reader may want to take along, and the run that holds it."""
    gathered, influences = found.gathered, found.influences
    kept = [
        File("suspects.csv", f"the {SUSPECTS:,} lowest C-scores, with labels and the networks' answers"),
        File("correlations.parquet", "the table on top, repeat by repeat"),
        File(
            "leaderboard.parquet",
            "quality and cost of every proxy; matrix.parquet: their own correlations",
        ),
        File("points.parquet", "single subset ratios against all of them (J-fig5)"),
        File("curves.parquet", "proxies against the C-score, epoch by epoch (J-fig8, J-fig9b)"),
        File("recipe.toml", "makes all this again: study run recipe.toml"),
    ]
    if influences is not None and len(influences.table):
        kept.append(File("influence.parquet", "the training examples that help each undecided test example most"))
    if found.difficulty is not None:
        what = "every example's mean prediction depths and type; corners.parquet: the 100 nearest to each corner"
        kept.append(File("difficulty.parquet", what))
    if gathered.ensemble:
        kept.append(File("cscore.parquet", "every example's C-score, consensus, memorization", gathered.ensemble.id))
        kept.append(File("profile.parquet", "the counts behind it, ratio by ratio", gathered.ensemble.id))
    kept += [File("scores.parquet", "every example's proxies", run.id) for run in gathered.singles]
    asked = [run for run in gathered.singles if "probes.npz" in run.files]
    kept += [File("probes.npz", "what the probes in every layer answer", run.id) for run in asked]
    return kept
