"""Weights & Biases. Its own variables choose where a run goes, such as WANDB_PROJECT and WANDB_ENTITY.

With WANDB_MODE=offline a run is kept in `wandb/` of the stage's folder, and `wandb sync` sends it later. Each start of
the stage makes a new part there, which has the whole history: the newest one is enough.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence

import wandb

from mlagent_jax.errors import UserError
from mlagent_jax.tracking.backend import PROJECT, Cell, Stage


class WandbBackend:
    def __init__(self, stage: Stage, run_id: str | None) -> None:
        self.run_id = run_id or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.run_id,
            name=stage.title,
            group=stage.run,
            job_type=stage.name,
            config=dict(stage.config),
            dir=stage.folder,
            resume="allow" if run_id else None,
            allow_val_change=True,
            reinit="create_new",  # a run of the caller's own goes on
            settings=wandb.Settings(console="off"),
        )
        # wandb keeps what it has not sent or written yet in a process that ends with this one, so after kill -9 the
        # server may have less than was logged, and an offline part may be empty.
        self.last_step = 0 if self._run.offline else self._run.starting_step - 1

    @staticmethod
    def check() -> None:
        if os.environ.get("WANDB_MODE", "online") != "online":
            return
        try:
            logged_in = wandb.login()
        except wandb.Error as error:
            raise UserError(f"{_NO_LOGIN} ({error})") from error
        if not logged_in:
            raise UserError(_NO_LOGIN)

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step, commit=True)  # not only with the next step

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


_NO_LOGIN = (
    "config.tracking has 'wandb', which is not logged in: run `wandb login`, set WANDB_API_KEY, or set "
    "WANDB_MODE=offline to keep the run on this machine"
)
