"""What is written to MLflow, as data that can wait.  in: a Write   out: a call of MLflow's client"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

KEY = "study.key"  # tag of a run on a server: what was sent twice is there once


@dataclass(frozen=True)
class Write:
    """One call that changes a run.

    Attributes:
        call: name of the client's method.
        run: id of the run; of one that waits to be made, the key that it will have as tag.
        settings: keyword arguments in JSON's types.
    """

    call: str
    run: str
    settings: dict[str, Any] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """As JSON's types."""
        return asdict(self)

    def perform(self, client: "MlflowClient", run: str, file: Path | None = None) -> Any:
        """Call MLflow; doing it again changes nothing.

        Args:
            client: of the store.
            run: id of the run.
            file: what `log_artifact` keeps, under its own name.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        settings = self.settings
        match self.call:
            case "create_run":
                return client.create_run(**settings)
            case "log_metrics":
                return client.log_batch(run, metrics=[Metric(*row) for row in settings["rows"]])
            case "log_params":
                return client.log_batch(run, params=[Param(*row) for row in settings["rows"]])
            case "log_input":
                chip = [InputTag("mlflow.data.context", settings["context"])]
                return client.log_inputs(run, datasets=[DatasetInput(Dataset(**settings["dataset"]), chip)])
            case "log_artifact":
                return client.log_artifact(run, str(file), settings["folder"])
        return getattr(client, self.call)(run, **settings)


def run_with_key(client: "MlflowClient", experiment_id: str, key: str) -> Any:
    """The run that was made with this key, None where there is none: its creation may have arrived, its reply not."""
    from mlflow.entities import ViewType

    runs = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", run_view_type=ViewType.ALL, max_results=1)
    return runs[0] if runs else None
