"""Stages that a run takes from another one instead of going through them again: `--from=DIR[:STAGE]`.

A stage is taken with all that it was made from, and only if the settings that matter to them are the same. What never
changes (weights, snapshots) is linked, all else copied, so that the run stands for itself: the other may go on, change
or be deleted. `origin.json` says where its stages come from.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging

from experiments.settings import Settings
from experiments.stage_settings import NEEDS, read_by
from experiments.workdir import Workdir, referenced_snapshots
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.errors import UserError
from mlagent_jax.files import link_or_copy, read_json_object, write_atomically
from mlagent_jax.run_folder import CHECKPOINTS, EXPORT

DEFAULT = "sft"
_PARTIAL = ".taken"  # what has been taken so far, beside its place


class OriginError(UserError):
    """Stages of another run cannot be taken; the message says why and what can be."""


@dataclass(frozen=True)
class Origin:
    """A stage of another run."""

    workdir: Workdir
    stage: str

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Of "DIR" or "DIR:STAGE". Raises OriginError for an unknown stage."""
        folder, colon, stage = text.rpartition(":")
        if not colon:
            folder, stage = text, DEFAULT
        if stage not in NEEDS or not folder:
            raise OriginError(
                f"--from={text} is not of the form DIR or DIR:STAGE; stages that can be taken are {', '.join(NEEDS)}"
            )
        return cls(Workdir.at(folder), stage)

    def of_seed(self, seed: int) -> Origin:
        """For one of several runs that differ in their seed: the run of that seed, if the folder holds several."""
        one = self.workdir.of_seed(seed)
        return Origin(one, self.stage) if one.config.exists() else self

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that are taken, in order."""
        return (*NEEDS[self.stage], self.stage)

    def __str__(self) -> str:
        return f"{self.workdir.root}:{self.stage}"

    def check(self, settings: Settings, workdir: Workdir) -> None:
        """Raises OriginError if the stages cannot be taken into `workdir`, for a run of these settings."""
        taken = _stored(workdir)
        if taken is not None:
            folders = [str(each.root) for each in (self.workdir, self.workdir.of_seed(settings.seed))]
            if taken["folder"] not in folders or taken["stage"] != self.stage:
                raise OriginError(
                    f"{workdir.root} has its stages from {taken['folder']}:{taken['stage']}, not from {self}; give "
                    "that, or another --workdir"
                )
            return
        if self.workdir.root == workdir.root:
            raise OriginError(f"--from={self} is the work directory itself; give another --workdir")
        places = [workdir.stage(stage) for stage in self.stages]
        own = [path.name for path in (*places, workdir.tokenizer, workdir.snapshots) if path.exists()]
        if own:
            raise OriginError(
                f"{workdir.root} has {own[0]} of its own already, which --from would replace; give another --workdir, "
                "or leave --from out"
            )
        if not self.workdir.config.exists():
            raise OriginError(f"--from={self}: {self.workdir.root} is not a run's work directory")
        self._check_finished()
        self.check_settings(self.workdir.stored_settings(), settings)
        self._check_tasks(settings)

    def _check_finished(self) -> None:
        for stage in self.stages:
            if not self._is_whole(stage):
                raise OriginError(
                    f"--from={self}: stage {stage} of {self.workdir.root} is not finished, or its files are gone; let "
                    f"that run finish it{self._or_earlier([one for one in self.stages if self._is_whole(one)])}"
                )

    def _is_whole(self, stage: str) -> bool:
        workdir, done = self.workdir, self.workdir.done(stage)
        if not done.exists():
            return False
        if "skipped" in read_json_object(done, OriginError):
            return True
        if stage == "collect":
            has_tokenizer = workdir.tokenizer.exists() or bool(workdir.stored_settings().model.pretrained)
            return workdir.expert_trajectories.exists() and has_tokenizer
        made = workdir.ideas if stage == "ideas" else workdir.checkpoints(stage)
        return made.is_dir() and any(made.iterdir())

    def check_settings(self, other: Settings, own: Settings) -> None:
        """Raises OriginError if settings of the other run that its stages depend on are not those of this run."""
        theirs, ours = other.definition(), own.definition()
        same: list[str] = []
        for stage in self.stages:
            differing = _differences(read_by(stage, theirs), read_by(stage, ours))
            if differing:
                raise OriginError(
                    f"--from={self}: stage {stage} depends on settings that differ ({'; '.join(differing)}): give this "
                    f"run the same values{self._or_earlier(same)}"
                )
            same.append(stage)

    def _check_tasks(self, settings: Settings) -> None:
        """Episodes of a task that was another one then are not those of today's, whatever the settings say."""
        theirs, ours = read_json_object(self.workdir.tasks, OriginError), settings.tasks.fingerprints()
        worked_on = settings.tasks.names("collect")
        if {"ppo", "ppo_shuffled"} & set(self.stages):
            worked_on |= settings.tasks.names("rl")
        for name in sorted(worked_on):
            if theirs.get(name) != ours[name]:
                raise OriginError(
                    f"--from={self}: task {name!r} is not what it was there: its description, script, metric, limits, "
                    "m_best or data differ; leave --from out, or name the tasks of that run (config.tasks.folder)"
                )

    def _or_earlier(self, stages: list[str]) -> str:
        """What else can be done, if only these stages can be taken."""
        last = next((one for one in reversed(stages) if set(NEEDS[one]) <= set(stages)), None)
        return f", or take --from={self.workdir.root}:{last}" if last else ", or leave --from out"

    def take(self, workdir: Workdir) -> None:
        """Puts the stages into `workdir`, which this process has claimed."""
        taken = _stored(workdir)
        if taken is None:
            partial = workdir.root / _PARTIAL
            shutil.rmtree(partial, ignore_errors=True)  # of an interrupted attempt
            record = self._record()
            self._put_into(Workdir(partial))
            write_atomically(workdir.origin, json.dumps(record, indent=1) + "\n")
            logging.info("Stages %s are taken from %s", ", ".join(self.stages), self.workdir.root)
        elif self._has_changed(taken):
            logging.warning(
                "%s has changed since its stages were taken, or is gone; this run keeps what it took",
                self.workdir.root,
            )
        complete(workdir)

    def is_that_of(self, taken: Mapping[str, Any]) -> bool:
        """Whether a run with this `origin.json` has its stages from here, as they are now."""
        is_here = (taken.get("folder"), taken.get("stage")) == (str(self.workdir.root), self.stage)
        return is_here and not self._has_changed(taken)

    def _has_changed(self, taken: Mapping[str, Any]) -> bool:
        try:
            return bool(taken.get("summaries") != self._summaries())
        except OriginError:
            return True

    def _put_into(self, target: Workdir) -> None:
        source = self.workdir
        for stage in self.stages:
            for folder, _, names in os.walk(source.stage(stage), followlinks=True):
                for name in names:
                    _put(Path(folder) / name, source.root, target.root)
        if "collect" in self.stages and source.tokenizer.exists():
            shutil.copytree(source.tokenizer, target.tokenizer)
        snapshots = set(referenced_snapshots(target.root))
        SnapshotStore(source.snapshots).share_with(SnapshotStore(target.snapshots), snapshots)

    def _summaries(self) -> dict[str, Any]:
        done = ((stage, self.workdir.done(stage)) for stage in self.stages)
        return {stage: read_json_object(path, OriginError) for stage, path in done if path.exists()}

    def _record(self) -> dict[str, Any]:
        """The other run, its last start, what its stages reported, and where it took stages of its own from."""
        record: dict[str, Any] = {
            "folder": str(self.workdir.root),
            "name": self.workdir.name,
            "stage": self.stage,
            "summaries": self._summaries(),
        }
        if self.workdir.environment.exists():
            record["start"] = read_json_object(self.workdir.environment, OriginError)["starts"][-1]
        earlier = _stored(self.workdir)
        return record if earlier is None else record | {"origin": earlier}


def complete(workdir: Workdir) -> None:
    """Moves what has been taken into its place, also if that was interrupted before."""
    partial = workdir.root / _PARTIAL
    if not workdir.origin.exists():
        shutil.rmtree(partial, ignore_errors=True)  # half of what an interrupted start was to take
    elif partial.exists():  # whole, as the record is written after it
        for path in sorted(partial.iterdir()):
            path.rename(workdir.root / path.name)
        partial.rmdir()


def _put(path: Path, root: Path, target_root: Path) -> None:
    place = path.relative_to(root)
    target = target_root / place
    if len(place.parts) > 1 and place.parts[1] in (CHECKPOINTS, EXPORT):
        link_or_copy(path, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def _stored(workdir: Workdir) -> dict[str, Any] | None:
    path = workdir.origin
    remedy = "restore it, or choose another --workdir"
    return read_json_object(path, OriginError, remedy) if path.exists() else None


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Each setting that is not the same, with both values."""
    return [
        f"{name} is {theirs.get(name, 'not set')!r} there, {ours.get(name, 'not set')!r} here"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
