"""MLflow: the server or store that MLFLOW_TRACKING_URI names, or else `mlflow.db` in the work directory.

mlflow ui --backend-store-uri=sqlite:///WORKDIR/mlflow.db
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from mlagent_jax.run_folder import MLFLOW_ARTIFACTS, MLFLOW_DATABASE, TABLES
from mlagent_jax.tracking.backend import PROJECT, Cell, Stage

_PARAMS_PER_REQUEST = 100  # MLflow's limit
_REFUSED = re.compile(r"[^\w\-. :/]")  # of names, such as that of a task


class MlflowBackend:
    def __init__(self, stage: Stage, run_id: str | None) -> None:
        workdir = stage.folder.resolve().parent
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(uri or f"sqlite:///{workdir / MLFLOW_DATABASE}")
        self.last_step = stage.logged if run_id else 0
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
            self.run_id = run_id
        else:
            # Artifacts of a local store would lie in the current folder otherwise; a server knows where they go.
            artifacts = None if uri else (workdir / MLFLOW_ARTIFACTS).as_uri()
            self.run_id = self._create(stage, artifacts)

    def _create(self, stage: Stage, artifacts: str | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(name, artifacts)
        )
        run = self._client.create_run(
            experiment_id, run_name=stage.title, tags={"run": stage.run, "stage": stage.name}
        )
        params = [Param(name, str(value)) for name, value in stage.config.items()]
        for first in range(0, len(params), _PARAMS_PER_REQUEST):
            self._client.log_batch(run.info.run_id, params=params[first : first + _PARAMS_PER_REQUEST])
        return str(run.info.run_id)

    @staticmethod
    def check() -> None: ...

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)  # milliseconds
        metrics = [Metric(_REFUSED.sub("_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        file = f"{TABLES}/{name}.json"
        if file in [artifact.path for artifact in self._client.list_artifacts(self.run_id, TABLES)]:
            return  # MLflow would append the rows to those of an earlier start
        data = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
        self._client.log_table(self.run_id, data, file)

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")
