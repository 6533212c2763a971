"""What can go wrong through a user's input or machine.  Each is shown as one line that names the cure; exit code 2.

StudyError
├── RecipeError      a recipe's form, names or fit
├── DataError        images, labels, files of a data set
│   └── LostImagesError  too many of its images cannot be read
├── StoreError       the MLflow store, its artifacts, a second launch at work
│   ├── ServerAwayError  the tracking server does not answer
│   └── DamagedFileError  a file of a run is missing or is not what was kept
├── PluginError      code from outside that cannot be imported
└── AnalysisError    runs that are missing, or that do not belong together
"""

import difflib
from collections.abc import Iterable, Sequence


class StudyError(Exception):
    """Something that the user can mend; the message is one line and says how."""


class RecipeError(StudyError):
    """A recipe that cannot be run as it is written."""


class DataError(StudyError):
    """Images or labels that cannot be used."""


class LostImagesError(DataError):
    """Too many images of a data set cannot be read.

    Attributes:
        lines: one for each image, with the reason.
    """

    def __init__(self, message: str, lines: Sequence[str]) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


class StoreError(StudyError):
    """The tracking store cannot be opened, read or written."""


class ServerAwayError(StoreError):
    """The tracking server does not answer now; it may do so later."""


class DamagedFileError(StoreError):
    """A file of a run is missing, or is not what was kept."""


class PluginError(StudyError):
    """A plugin that cannot be imported."""


class AnalysisError(StudyError):
    """The runs that an analysis needs are missing or do not fit together."""


class Stopped(Exception):  # noqa: N818  a request, not an error
    """Work was asked to stop; nothing of the members under way is kept."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: `; did you mean 'lr'?`, else `; there are a, b`, else nothing."""
    names = list(names)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(names))}" if names else ""
