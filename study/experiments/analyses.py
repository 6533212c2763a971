"""The papers' analyses of many runs, by their ids.  in: names, finished runs   out: findings

A recipe names the ids under `sweep.analyses`, a command line by `--analysis`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from study.errors import AnalysisError, RecipeError, did_you_mean
from study.experiments import (
    arpit_analyses,
    baldock,
    baldock_difficulty,
    baldock_single,
    jiang,
    zhang,
    zhang_robustness,
    zhang_synchronization,
)
from study.experiments.findings import Finding, FinishedRuns

log = logging.getLogger(__name__)
ANALYSES: Mapping[str, Callable[[FinishedRuns], Iterator[Finding]]] = {
    "A-sensitivity": arpit_analyses.sensitivity_under_noise,
    "A-class": arpit_analyses.class_sensitivity_under_noise,
    "A-csr": arpit_analyses.critical_samples_under_noise,
    "A-reg": arpit_analyses.memorization_under_regularizers,
    "Z-fig2": zhang.regularity_in_two_dimensions,
    "Z-fig3": zhang.regularity_in_one_dimension,
    "Z-fig5": zhang.repeated_events,
    "Z-fig6": zhang.density_correlations,
    "Z-fig7": zhang.memorization_and_generalization,
    "Z-online": zhang.online_counts,
    "Z-tab2": zhang_robustness.statistics_between_trainings,
    "Z-fig11": zhang_robustness.planes_between_trainings,
    "Z-sync": zhang_synchronization.synchronization,
    "B-fig1": baldock_single.depths_and_images,
    "B-fig2": baldock.depth_agreement,
    "B-fig3": baldock.cscore_by_validation_depth,
    "B-fig4": baldock.consistency_by_validation_depth,
    "B-entropy": baldock.entropy_by_validation_depth,
    "B-fig7": baldock_difficulty.difficulty_plane_with_images,
    "B-fig8": baldock_difficulty.probes_by_difficulty,
    "B-fig5": baldock_single.learned_and_depth,
    "B-fig6": baldock_single.depth_and_margins,
    "B-hinge": baldock_single.margin_intervention,
    "B-k": baldock_single.neighbours_of_probes,
    "B-tab2": baldock_single.final_accuracies,
    "J-fig5": jiang.point_estimates,
    "J-fig6": jiang.class_statistics,
    "J-fig7": jiang.class_exemplars,
    "J-fig16": jiang.equal_groups,
    "J-tab3": jiang.optimizer_accuracies,
}


def check_analyses(names: Iterable[str]) -> None:
    """Refuse names of no analysis.

    Raises:
        RecipeError: such a name; suggests another.
    """
    for name in names:
        if name not in ANALYSES:
            raise RecipeError(f"sweep.analyses: there is no analysis {name!r}{did_you_mean(name, ANALYSES)}")


def run_analyses(names: Sequence[str], runs: FinishedRuns) -> list[Finding]:
    """Do each analysis once, in the order of the names.

    Analyses that lack their runs are named in a message and left out.

    Raises:
        RecipeError: a name of no analysis.
    """
    check_analyses(names)
    findings = []
    for name in dict.fromkeys(names):
        try:
            findings += ANALYSES[name](runs)
        except AnalysisError as error:
            log.warning(f"{name} is left out: {error}")
    return findings
