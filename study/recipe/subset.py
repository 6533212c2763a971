"""The table of the subset ensemble: who trains on what, and how many networks.  in: TOML values   out: sections"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from study.recipe.sections import Section


class Until(Section):
    """When an ensemble has enough networks; nothing set: when it has `subset.members` at each ratio.

    Networks are then trained in rounds. Each round adds whole blocks at the ratios where they lower the variance of the
    C-scores most for their cost, and `subset.members` is the most at a ratio. The scores stay unbiased: see
    `scores.allocation`.

    reliability: split-half reliability of the C-scores of all networks, at least (0 to 1).
    stderr: mean standard error of the C-scores, at most.
    score: of the hard or of the soft C-score.
    """

    reliability: Annotated[float, Field(gt=0, lt=1)] | None = None
    stderr: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    score: Literal["hard", "soft"] = "hard"

    @property
    def active(self) -> bool:
        """Whether the networks decide how many are trained."""
        return self.reliability is not None or self.stderr is not None

    @model_validator(mode="after")
    def _one_of_two(self) -> "Until":
        if self.reliability is not None and self.stderr is not None:
            raise ValueError("set reliability or stderr, not both")
        return self


class Subset(Section):
    """The subset ensemble: ratios of the training set, members at each, how subsets are drawn (J-alg1, J-integral).

    ratios: shares of the training examples, rising, in whole percent.
    members: networks at each ratio.
    until: when to stop before that; see below.
    design: balanced, every example is held out equally often; or uniform, every subset is drawn by itself.
    min_class: a network counts for an example that it holds out if it has trained on so many of the example's class;
        without such a network at any one ratio the score is missing, not 0.
    group_duplicates: images with the same pixels are trained on together or held out together, by every member; without
        it a network may have seen the copy of an image that it counts for.
    depth: every member keeps the prediction depth of all examples, by probes made of what it was trained on (B-fig7);
        the k-NN searches cost more than the training of a small network, and on a GPU members then train one by one.
    """

    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    members: Annotated[int, Field(ge=2, le=10_000)] = 20
    design: Literal["uniform", "balanced"] = "balanced"
    depth: bool = False
    min_class: Annotated[int, Field(ge=0, le=1000)] = 1
    group_duplicates: bool = False
    until: Until = Until()

    @field_validator("ratios")
    @classmethod
    def _ratios_rise(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if not ratios or list(ratios) != sorted(set(ratios)):
            raise ValueError("the ratios must rise and must not repeat")
        if any(round(ratio, 2) != ratio for ratio in ratios):
            raise ValueError("a ratio is a whole percentage, 0.01 to 0.99")
        return ratios
