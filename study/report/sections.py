"""The figures of a report's page.  in: Results   out: figures with headings and sentences, in the order of the page"""

import numpy as np

from study import analysis, figures
from study.analysis import Results
from study.report import label_errors
from study.report.html import FigureSection

ORDER = (  # of the sections on the page
    *("proxies", "leaderboard", "suspects", "label-errors", "noise-matrix"),
    *("J-fig4", "J-fig2", "J-fig3", "J-fig5", "J-fig6", "B-consensus"),
    *("influence", "B-fig7", "Z-fig2", "B-fig1", "B-fig4", "B-fig3", "B-fig5", "B-fig8", "matrix", "by_epoch"),
    *("J-fig8", "J-fig9a", "J-fig9b", "J-tab1", "A-class", "A-csr"),
)


def figure_sections(results: Results) -> list[FigureSection]:
    """Draw every figure that the runs have the data for, in the order of the page."""
    sections = [*_depth_sections(results)]
    scored = bool(results.runs.cscores["cscore"].notna().any())
    if scored:
        sections += _score_sections(results)
    if results.runs.singles:
        sections += [*_agreement_sections(results), *_training_sections(results)]
    if scored and results.runs.singles:
        sections += [*_proxy_sections(results), *_quality_sections(results)]
    if results.runs.ensemble:
        sections += [*_ratio_sections(results), *_vote_sections(results)]
    if results.label_errors:
        sections += label_errors.figure_sections(results.label_errors, results.dataset.classes)
    return sorted(sections, key=lambda section: ORDER.index(section.id))


def _score_sections(results: Results) -> list[FigureSection]:
    """The examples by their C-scores, whoever computed them."""
    runs, dataset = results.runs, results.dataset
    rows = dataset.rows("train")
    train = runs.cscores[rows].reset_index(drop=True)
    by_class = FigureSection(
        "J-fig6",
        "C-scores by class",
        "Mean and standard deviation of the C-scores in each class.",
        figures.class_statistics(train, dataset.classes),
    )
    if dataset.is_features:
        return [by_class]
    return [
        FigureSection(
            "suspects",
            "Lowest C-scores: check these first",
            "The examples with the lowest soft C-scores, train and test: mislabeled, ambiguous or atypical.",
            figures.suspect_grid(dataset.images, runs.cscores, dataset.classes, maximum=dataset.maximum),
        ),
        FigureSection(
            "J-fig4",
            "Regular and irregular examples of each class",
            "Examples with high, middle and low C-scores, class by class.",
            figures.example_grid(dataset.images[rows], train, dataset.classes, maximum=dataset.maximum),
        ),
        by_class,
    ]


def _proxy_sections(results: Results) -> list[FigureSection]:
    """Single runs against C-scores."""
    runs, dataset, correlations = results.runs, results.dataset, results.correlations
    rows = dataset.rows("train")
    train = runs.cscores[rows].reset_index(drop=True)
    curves = results.curves.groupby(["proxy", "reference", "epoch"], as_index=False)["spearman"].mean()
    trajectory = analysis.trajectory(runs.singles[0])
    correct, epochs = np.ascontiguousarray(trajectory["correct"][:, rows]), trajectory["epochs"]
    return [
        FigureSection(
            "proxies",
            "Which proxy ranks like the C-score",
            "Rank correlation of each proxy with the C-score and its 95 % interval. The vertical line is the noise "
            "ceiling, the highest correlation that a perfect proxy could reach.",
            figures.proxy_ranking(correlations, reference=runs.main),
        ),
        FigureSection(
            "J-fig8",
            "Density in hidden space, by epoch",
            "Rank correlation of the kernel density of the penultimate layer with the C-score, after each epoch of a "
            "single run.",
            figures.hidden_density_by_epoch(curves, reference=runs.main),
        ),
        FigureSection(
            "J-fig9a",
            "Learning curves by C-score",
            "Share of each C-score group that the single run classifies correctly after each epoch.",
            figures.learning_curves_by_score(correct, train["cscore"].to_numpy(dtype=float), epochs),
        ),
        FigureSection(
            "J-fig9b",
            "Softmax confidence, by epoch",
            "Rank correlation of the softmax confidence (of the label, and of the top class) with the C-score.",
            figures.confidence_by_epoch(curves, reference=runs.main),
        ),
        FigureSection(
            "J-tab1",
            "Density in input space",
            "Rank correlation of the kernel densities of the raw pixels with the C-score, and the paper's numbers.",
            figures.density_table(correlations, name=dataset.name, reference=runs.main),
        ),
    ]


def _agreement_sections(results: Results) -> list[FigureSection]:
    """Correlations of the proxies with each other, which need no C-score."""
    if len(results.matrix) < 2:
        return []
    return [
        FigureSection(
            "matrix",
            "Which proxies agree with each other",
            "Rank correlation of every pair of proxies, similar ones next to each other. Proxies in one dark block "
            "carry the same information.",
            figures.correlation_matrix(results.matrix),
        )
    ]


def _quality_sections(results: Results) -> list[FigureSection]:
    """Quality and cost of the proxies, their development over the epochs."""
    return [
        FigureSection(
            "leaderboard",
            "Quality and cost of each proxy",
            "Rank correlation of each proxy with the C-score against the seconds that it takes beyond the training. "
            "The grey line is the best that can be had at that cost or less.",
            figures.quality_by_cost(results.leaderboard),
        ),
        FigureSection(
            "by_epoch",
            "Proxies by epoch",
            "Rank correlation with the C-score after each epoch, for proxies that are computed at a single epoch. "
            "Labelled: those that end highest and those that change most.",
            figures.proxies_by_epoch(results.curves, results.leaderboard, reference=results.runs.main),
        ),
    ]


def _depth_sections(results: Results) -> list[FigureSection]:
    """Prediction depth, where the single run has k-NN probes."""
    depths = analysis.single_run_depths(results.runs, results.dataset)
    if depths is None:
        return []
    sections = [
        FigureSection(
            "B-fig1",
            "Prediction depth",
            "The layer from which on the k-NN probes agree with the network's prediction: early for easy examples, "
            "late or undefined for hard ones.",
            figures.depth_distribution(depths.table, depths.layers),
        ),
        FigureSection(
            "B-fig4",
            "Accuracy at each prediction depth",
            "The single run's accuracy among the examples of each prediction depth; larger dots are more examples.",
            figures.accuracy_by_depth(depths.table, depths.layers),
        ),
        FigureSection(
            "B-fig5",
            "Accuracy of the k-NN probes, layer by layer",
            "Accuracy of the k-NN probe after each layer. Where labels were changed, also for the changed labels and "
            "for the labels before the change.",
            figures.inference_learning_curve(depths.curves, depths.layers),
        ),
    ]
    if depths.table["cscore"].notna().any():
        figure = figures.cscore_by_depth(depths.table, depths.layers)
        sentence = "C-scores of the examples of each prediction depth; in the paper they fall with the depth."
        sections.append(FigureSection("B-fig3", "C-score at each prediction depth", sentence, figure))
    curves = analysis.probe_curves(results.runs, results.dataset, results.difficulty)
    if len(curves):
        sentence = (
            "Confidence of the k-NN probes in each layer of the single run, for examples of different difficulty. "
            "Left: in the label. Right: in the class that networks trained without the example predict."
        )
        figure = figures.probe_confidence(curves, depths.layers)
        sections.append(FigureSection("B-fig8", "Confidence of the k-NN probes, layer by layer", sentence, figure))
    return sections


def _training_sections(results: Results) -> list[FigureSection]:
    """Regularity in two dimensions, and loss sensitivity where the first single run has it."""
    run, dataset = results.runs.singles[0], results.dataset
    sections = []
    if planes := results.planes:
        sentence = (
            "In how many epochs an example is classified correctly, against how often it becomes wrong again. Easy "
            "examples are at the lower right. To reduce a training set, the paper drops examples from the densest "
            "points first. single.density_radius sets the radius of the circles that examples are counted in."
        )
        figure = figures.regularity_planes(planes)
        sections.append(FigureSection("Z-fig2", "Regularity in two dimensions", sentence, figure))
    matrix = analysis.mean_class_sensitivity(run)
    if matrix is not None:
        sentence = (
            "How much inputs of one class change the loss of another class, averaged over training; classes that "
            "share features stand out. The colour scale covers the values off the diagonal."
        )
        figure = figures.class_sensitivity(matrix, dataset.classes)
        sections.append(FigureSection("A-class", "Loss sensitivity between classes", sentence, figure))
    series = analysis.sensitivity_series(run)
    if len(series):
        sentence = (
            "Gini coefficient: near 0 all examples affect the loss equally, near 1 only a few do. Critical sample "
            "ratio: the share of examples that have another predicted class within a small box around them."
        )
        figure = figures.sensitivity_by_epoch(series.index, dict(series.items()))
        sections.append(FigureSection("A-csr", "Loss sensitivity and critical samples", sentence, figure))
    return sections


def _vote_sections(results: Results) -> list[FigureSection]:
    """Consensus and memorization; four forms of difficulty and influence where the members suffice."""
    runs, dataset, influences = results.runs, results.dataset, results.influences
    rows = dataset.rows("train")
    sections = []
    if {"consensus_consistency", "memorization"} <= set(runs.cscores):
        figure = figures.consensus_and_memorization(runs.cscores[rows].reset_index(drop=True))
        sentence = (
            "What networks trained without an example predict, and how much training on it raises their accuracy."
        )
        sections.append(FigureSection("B-consensus", "Consensus and memorization", sentence, figure))
    if results.difficulty is not None:
        table = results.difficulty.table[rows]
        agrees = (runs.cscores["consensus"] == runs.cscores["label"]).to_numpy()[rows]
        depths = table["depth_train"].to_numpy(), table["depth_validation"].to_numpy()
        sentence = (
            "Mean prediction depth of each example over the networks that were trained on it (vertical) and over those "
            "that were not (horizontal). The corners are four forms of difficulty."
        )
        figure = figures.difficulty_plane(*depths, agrees)
        sections.append(FigureSection("B-fig7", "Four forms of difficulty", sentence, figure))
    if influences is not None and len(influences.table) and not dataset.is_features:
        figure = figures.influence_grid(
            dataset.images, dataset.ids, influences.table, dataset.classes, maximum=dataset.maximum
        )
        sentence = (
            "Test examples that depend on single training examples. The number is the influence: the accuracy of "
            "networks trained with the training example minus that of networks trained without it."
        )
        sections.append(FigureSection("influence", "Influential training examples", sentence, figure))
    return sections


def _ratio_sections(results: Results) -> list[FigureSection]:
    """The figures that compare subset ratios."""
    train = results.runs.cscores[results.dataset.rows("train")].reset_index(drop=True)
    sections = [
        FigureSection(
            "J-fig2",
            "C-scores at each subset ratio",
            "The more data the networks are trained on, the more held-out examples they classify correctly.",
            figures.histograms_by_ratio(train),
        )
    ]
    if len(results.points) > 1:
        sentence = (
            "Left: the C-score, the mean over all subset ratios. Right: the mean score of each bar's examples at every "
            "subset ratio; below the dashed line is worse than chance."
        )
        figure = figures.consistency_profile(train, results.dataset.n_classes)
        sections.append(FigureSection("J-fig3", "C-scores and consistency profiles", sentence, figure))
        sentence = "How well the scores at one subset ratio rank the examples like the C-score over all ratios."
        figure = figures.point_estimates(results.points)
        sections.append(FigureSection("J-fig5", "Is one subset ratio enough?", sentence, figure))
    return sections
