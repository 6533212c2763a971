"""What can go wrong through a user's input or machine.  Each is shown as one line that names the cure; exit code 2.

StudyError
├── RecipeError      a recipe's form, names or fit
├── DataError        images, labels, files of a data set
├── StoreError       the MLflow store, its artifacts, a second launch at work
├── PluginError      code from outside that cannot be imported
└── AnalysisError    runs that are missing, or that do not belong together
"""


class StudyError(Exception):
    """Something that the user can mend; the message is one line and says how."""


class RecipeError(StudyError):
    """A recipe that cannot be run as it is written."""


class DataError(StudyError):
    """Images or labels that cannot be used."""


class StoreError(StudyError):
    """The tracking store cannot be opened, read or written."""


class PluginError(StudyError):
    """A plugin that cannot be imported."""


class AnalysisError(StudyError):
    """The runs that an analysis needs are missing or do not fit together."""


class Stopped(Exception):  # noqa: N818  a request, not an error
    """Work was asked to stop; nothing of the members under way is kept."""
