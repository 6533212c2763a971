"""Classifiers of many kinds that a test set is to rank.  in: a Dataset   out: which test examples each gets right"""

import warnings
from collections.abc import Callable

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
from study.progress import Bar, quiet


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


def right_on_test(
    dataset: Dataset, *, seed: int = 0, zoo: Callable[[int], dict[str, object]] = classifiers, bar: Bar = quiet
) -> pd.DataFrame:
    """Train every classifier on the training examples.

    Args:
        dataset: with a test split.
        seed: of those that draw.
        zoo: names and classifiers.
        bar: display of the progress.

    Returns:
        (n_test, m) bool, a column per classifier: whether it gets each test example right.
    """
    pixels = dataset.images.reshape(dataset.n, -1).astype(np.float32) / dataset.maximum
    train, test, right = dataset.rows("train"), dataset.rows("test"), {}
    listed = zoo(seed)
    with bar("classifiers", len(listed), unit="classifiers") as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # short trainings are wanted
        for name, classifier in listed.items():
            classifier.fit(pixels[train], dataset.labels[train])  # pyright: ignore[reportAttributeAccessIssue]
            right[name] = classifier.predict(pixels[test]) == dataset.labels[test]  # pyright: ignore
            advance(1)
    return pd.DataFrame(right)
