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

from mlagent_jax.errors import UserError
from mlagent_jax.run_folder import MLFLOW_ARTIFACTS, MLFLOW_DATABASE, TABLES
from mlagent_jax.tracking.backend import PROJECT, Cell, Stage

_PARAMS_PER_REQUEST = 100  # MLflow's limit
# MLflow would try for minutes to reach a server that is gone, and the stage would wait. Seconds, and requests after the
# first; whoever sets these variables has their own patience.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_PASSWORD = re.compile(r"(?<=://)[^/@]*@")  # of an address, with its user
_REFUSED = re.compile(r"[^\w\-. :/]")  # of names, such as that of a task


class MlflowBackend:
    def __init__(self, stage: Stage, run_id: str | None) -> None:
        workdir = stage.folder.resolve().parent
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = _client(uri or f"sqlite:///{workdir / MLFLOW_DATABASE}")
        self.last_step = stage.logged if run_id else 0
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
            self.run_id = run_id
        else:
            # Artifacts of a local store would lie in the current folder otherwise; a server knows where they go.
            artifacts = None if uri else (workdir / MLFLOW_ARTIFACTS).as_uri()
            self.run_id = self._create(stage, artifacts)

    def _create(self, stage: Stage, artifacts: str | None) -> str:
        name = _experiment_name()
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
    def check() -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            return
        try:
            _client(uri).get_experiment_by_name(_experiment_name())
        except Exception as error:  # MLflow's, its HTTP client's or its database's
            problem = _PASSWORD.sub("", f"{type(error).__name__}: {error}")
            raise UserError(
                f"config.tracking has 'mlflow', but MLFLOW_TRACKING_URI={_PASSWORD.sub('', uri)} cannot be used "
                f"({' '.join(problem.split())}): start that server, correct the variable, or unset it to keep "
                f"the run in {MLFLOW_DATABASE} of the work directory"
            ) from error

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


def _client(uri: str) -> MlflowClient:
    for variable, value in _PATIENCE.items():
        os.environ.setdefault(variable, value)
    return MlflowClient(uri)


def _experiment_name() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
