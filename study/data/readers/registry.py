"""Which reader knows which name.  in: DataSpec   out: Raw"""

import difflib
from collections.abc import Callable

from study.data.raw import Raw, shown
from study.data.readers.csv_table import read_csv
from study.data.readers.digits import read_digits
from study.data.readers.features import read_features
from study.data.readers.folder import read_folder
from study.data.readers.npz import read_npz
from study.data.readers.parquet import read_parquet
from study.data.readers.published import PUBLISHED, read_published
from study.data.readers.table import read_table
from study.data.types import DataSpec
from study.errors import DataError
from study.progress import Bar

Reader = Callable[[DataSpec, Bar], Raw]
READERS: dict[str, Reader] = {}


def reader(name: str) -> Callable[[Reader], Reader]:
    """Register a reader under the name that a recipe's `data.name` gives; a plugin adds its own in this way.

    Args:
        name: not taken yet.

    Raises:
        DataError: the name is taken.

    >>> from study.data.raw import numbered
    >>> @reader("two_squares")
    ... def read_two_squares(data, progress):
    ...     images = np.zeros((4, 1, 8, 8), np.uint8)
    ...     ids = np.array(numbered("train", 4))
    ...     return Raw(images, np.array([0, 1, 0, 1]), ids, n_train=4, classes=("a", "b"), train="squares", test=None)
    >>> READERS.pop("two_squares") is read_two_squares
    True
    """

    def register(function: Reader) -> Reader:
        if name in READERS:
            raise DataError(f"a reader called {shown(name)!r} is registered already; take another name")
        READERS[name] = function
        return function

    return register


def read(data: DataSpec, progress: Bar) -> Raw:
    """The examples as they lie in the source.

    Raises:
        DataError: an unknown name, or whatever the reader says.
    """
    if data.name not in READERS:
        near = difflib.get_close_matches(data.name, READERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(READERS)}"
        raise DataError(f"no data set is called {shown(data.name)!r}; {hint}")
    return READERS[data.name](data, progress)


reader("digits")(read_digits)
for _name in PUBLISHED:
    reader(_name)(read_published)
reader("folder")(read_folder)
reader("csv")(read_csv)
reader("npz")(read_npz)
reader("parquet")(read_parquet)
reader("features")(read_features)
reader("table")(read_table)
