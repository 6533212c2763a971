"""Classifiers of many kinds that a test set is to rank.  in: a Dataset   out: which test examples each gets right"""

import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing

import numpy as np
import pandas as pd
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from study.data import Dataset
from study.errors import Stopped
from study.models.spec import NetworkSpec
from study.progress import Bar, quiet
from study.training.autotune import place_network
from study.training.fit import fit
from study.training.results import Hooks
from study.training.types import JobTemplate, OptimizerSpec, RuntimeSpec, ScheduleSpec, TrainSpec


def classifiers(seed: int = 0) -> dict[str, object]:
    """Twenty-five classifiers of scikit-learn, of different kinds, sizes and lengths of training, untrained."""
    zoo: dict[str, object] = {
        "nearest centroid": NearestCentroid(),
        "Gaussian naive Bayes": GaussianNB(var_smoothing=1e-2),
        "Bernoulli naive Bayes": BernoulliNB(binarize=0.4),
        "linear discriminant": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
        "ridge": RidgeClassifier(),
    }
    zoo |= {
        f"decision tree, depth {depth}": DecisionTreeClassifier(max_depth=depth, random_state=seed)
        for depth in (4, 8, 16)
    }
    zoo |= {f"{k} nearest neighbours": KNeighborsClassifier(k) for k in (1, 5, 25, 100)}
    zoo |= {f"random forest of {n}": RandomForestClassifier(n, random_state=seed) for n in (3, 10, 60)}
    zoo["extra trees"] = ExtraTreesClassifier(60, random_state=seed)
    zoo |= {f"logistic regression, {n} steps": LogisticRegression(max_iter=n) for n in (2, 5, 40)}
    zoo["linear support vectors"] = SVC(kernel="linear", C=0.1)
    zoo["support vectors"] = SVC()
    for width, epochs in ((8, 5), (32, 5), (32, 30), (128, 20)):
        network = MLPClassifier((width,), max_iter=epochs, learning_rate_init=0.003, random_state=seed)
        zoo[f"MLP of {width}, {epochs} epochs"] = network
    return zoo


def convolutional_networks(seed: int = 0) -> dict[str, JobTemplate]:
    """Three trainings of a small convolutional network, of different lengths."""
    return {
        f"ResNet-8, {epochs} epoch{'s' * (epochs > 1)}": JobTemplate(
            NetworkSpec("resnet8"),
            OptimizerSpec(lr=0.05, weight_decay=5e-4),
            ScheduleSpec("triangular"),
            TrainSpec(epochs=epochs, batch_size=64, normalize="standard"),
            seed,
        )
        for epochs in (1, 3, 6)
    }


def right_on_test(
    dataset: Dataset,
    *,
    seed: int = 0,
    zoo: Callable[[int], dict[str, object]] = classifiers,
    networks: Callable[[int], Mapping[str, JobTemplate]] = convolutional_networks,
    runtime: RuntimeSpec | None = None,
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> pd.DataFrame:
    """Train every classifier on the training examples, on images the convolutional networks too.

    Args:
        dataset: with a test split.
        seed: of those that draw.
        zoo: names and classifiers.
        networks: names and networks, for images alone.
        runtime: where the networks are trained.
        stop: set to end after the classifier or the step under way.
        bar: display of the progress.

    Returns:
        (n_test, m) bool, a column per classifier: whether it gets each test example right.

    Raises:
        Stopped: `stop` was set.
    """
    stop = stop or threading.Event()
    right = _of_classifiers(dataset, zoo(seed), stop, bar)
    if not dataset.is_features:
        right |= _of_networks(dataset, networks(seed), runtime or RuntimeSpec(), stop, bar)
    return pd.DataFrame(right)


def _of_classifiers(dataset: Dataset, zoo: dict[str, object], stop: threading.Event, bar: Bar) -> dict[str, np.ndarray]:
    pixels = dataset.images.reshape(dataset.n, -1).astype(np.float32) / dataset.maximum
    train, test, right = dataset.rows("train"), dataset.rows("test"), {}
    with bar("classifiers", len(zoo), unit="classifiers") as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # short trainings are wanted
        warnings.filterwarnings("ignore", "self.within_class_std_dev_", UserWarning)  # a pixel that a class never uses
        for name, classifier in zoo.items():
            if stop.is_set():
                raise Stopped
            classifier.fit(pixels[train], dataset.labels[train])  # pyright: ignore[reportAttributeAccessIssue]
            right[name] = classifier.predict(pixels[test]) == dataset.labels[test]  # pyright: ignore
            advance(1)
    return right


def _of_networks(
    dataset: Dataset, networks: Mapping[str, JobTemplate], runtime: RuntimeSpec, stop: threading.Event, bar: Bar
) -> dict[str, np.ndarray]:
    rows, test = np.arange(dataset.n_train), dataset.rows("test")
    seen = {name: template.training.seen(dataset.n_train) for name, template in networks.items()}
    right = {}
    with bar("convolutional networks", sum(seen.values()), unit="examples") as advance:
        for name, template in networks.items():
            placement = place_network(template, dataset, runtime, seen[name], alone=True)
            job = template.job(("classifier", name), rows)
            with closing(fit([job], dataset, placement, Hooks(progress=advance, stop=stop))) as outcomes:
                prediction = next(outcomes).prediction
            right[name] = prediction[test] == dataset.labels[test]
    return right
