"""What there is.  in: nothing   out: DataFrames of proxies, networks, data sets"""

import pandas as pd


def list_proxies() -> pd.DataFrame:
    """List the registered proxies, those of plugins too.

    Returns:
        One row per proxy: `proxy` (its name), `family`, `easy` ("high" or "low", whichever means easy), `unit`, `label`
        for axes, `split` on which it is defined, `cost` (what it takes beyond the training), `source` (paper and
        passage).

    >>> list_proxies().set_index("proxy").loc["forgetting_events", ["easy", "split"]].tolist()
    ['low', 'train']
    """
    from study.proxies import PROXIES

    return pd.DataFrame(
        {
            "proxy": spec.name,
            "family": spec.family,
            "easy": spec.easy,
            "unit": spec.unit,
            "label": spec.label,
            "split": spec.on,
            "cost": spec.cost,
            "source": spec.source,
        }
        for spec in PROXIES.values()
    )


def list_models() -> pd.DataFrame:
    """List the registered networks, those of plugins too; every name of timm works as well.

    Returns:
        One row per network: `model` (its name), `what` it is, `settings` (names and defaults), `source`.

    >>> "mlp" in set(list_models()["model"])
    True
    """
    from study.models.build import names
    from study.models.registry import NETWORKS

    return pd.DataFrame(
        {"model": name, "what": entry.what, "settings": dict(entry.settings), "source": entry.source}
        for name, entry in ((name, NETWORKS[name]) for name in names())
    )


def list_datasets() -> list[str]:
    """List the names that `study.Dataset.from_name` and a recipe's `data.name` take.

    >>> list_datasets()[:2]
    ['digits', 'mnist']
    """
    from study.data.readers.registry import READERS

    return list(READERS)
