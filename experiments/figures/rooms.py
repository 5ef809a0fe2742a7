"""Draws the rooms of the library and their arrows from its imports: mlagent_jax/rooms.svg.

    python -m experiments.figures.rooms            # `--check` only says whether the picture is out of date

An arrow points from a room to one that it imports. Arrows that a longer path implies are left out, and so are the small
modules beside the packages. An import against the order, which closes a cycle, is drawn dashed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from absl import flags
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from experiments.cli.program import run_program
from experiments.figures.imports import ROOT, Rooms, room_imports
from experiments.figures.layers import Drawing, Ends, Place, draw, transitive_reduction, without_cycles
from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically

COMMAND = "python -m experiments.figures.rooms"
PICTURE = ROOT / "mlagent_jax" / "rooms.svg"
CHECK = flags.DEFINE_bool("check", False, "Write nothing; exit with 1 where the picture is out of date.")

# What each room is, and the part of the system that its colour tells.
ROOMS: dict[str, tuple[str, str]] = {
    "experiments": ("entry points, stages, configurations", "runs"),
    "planner": ("compiles a run for absent hardware", "runs"),
    "evaluation": ("scores, intervals, report", "runs"),
    "exploration": ("ideas and expert trajectories", "learning"),
    "ppo": ("step-wise and episodic RL", "learning"),
    "sft": ("supervised fine-tuning", "learning"),
    "training": ("optimisers, checkpoints", "learning"),
    "tracking": ("metrics, trackers, glossary", "learning"),
    "controls": ("sequence, bandit, searches", "environment"),
    "agent": ("prompts, policies, episodes", "environment"),
    "pipelines": ("scripts as values, edits, grammar", "environment"),
    "rewards": ("a step's score as a reward", "environment"),
    "environment": ("the MDP: states, tools, feedback", "environment"),
    "tasks": ("task folders and their data", "environment"),
    "grading": ("metrics and submissions", "environment"),
    "sandbox": ("isolated runs of scripts", "environment"),
    "serving": ("OpenAI-compatible HTTP", "model"),
    "llm": ("models of roles: calls, costs", "model"),
    "generate": ("paged cache, continuous batching", "model"),
    "models": ("Qwen2, LoRA, safetensors", "model"),
    "nn": ("attention, RoPE, chunked losses", "model"),
    "parallel": ("meshes and sharding rules", "model"),
    "text": ("tokenizers, chat templates, packing", "model"),
}
AREAS = ("runs", "learning", "environment", "model")

BOX_HEIGHT, ROW_HEIGHT, MARGIN, GAP = 40, 68, 22, 20
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
CHARACTER, PADDING = 5.6, 22  # px, of the smaller line at 10.5 px


@dataclass(frozen=True)
class Arrow:
    """An arrow from room `tail` to `head`, which it imports; against: upwards, since it closes a cycle."""

    tail: str
    head: str
    path: str
    against: bool = False


def main(argv: Sequence[str]) -> int:
    if CHECK.value:
        stale = is_stale()
        print(f"{PICTURE} is {f'out of date; run {COMMAND}' if stale else 'up to date'}")
        return int(stale)
    write_atomically(PICTURE, render(room_imports()))
    print(f"wrote {PICTURE}")
    return 0


def is_stale() -> bool:
    """Whether the picture is another one than the imports make."""
    current = PICTURE.read_text(encoding="utf-8") if PICTURE.exists() else "<svg/>"
    return differ(current, render(room_imports()))


def differ(one: str, other: str) -> bool:
    """Whether two pictures differ by more than a pixel. Less depends on the processor: places are floating point."""
    (words, numbers), (other_words, other_numbers) = _contents(one), _contents(other)
    return words != other_words or any(
        abs(number - other_number) > 1 for number, other_number in zip(numbers, other_numbers, strict=True)
    )


def _contents(picture: str) -> tuple[list[str], list[float]]:
    """What a picture consists of: its elements with their attributes and texts, and apart from these the numbers."""
    elements = ElementTree.fromstring(picture).iter()
    text = [f"{each.tag} {sorted(each.attrib.items())} {each.text} {each.tail}" for each in elements]
    return [_NUMBER.sub("#", line) for line in text], [
        float(n) for line in text for n in _NUMBER.findall(line)
    ]


def render(imports: Rooms) -> str:
    """The picture as SVG. Raises UserError for a room without a description and for one that is gone."""
    shared = _shared(imports)
    graph, against = without_cycles(
        {room: {other: n for other, n in imports[room].items() if other not in shared} for room in ROOMS}
    )
    widths = {room: max(CHARACTER * len(about) + PADDING, 96.0) for room, (about, _) in ROOMS.items()}
    drawing = draw(transitive_reduction(graph), widths, GAP)
    left = min(drawing.x[room] - widths[room] / 2 for room in ROOMS) - MARGIN
    right = max(drawing.x[room] + widths[room] / 2 for room in ROOMS) + MARGIN
    layers = 1 + max(drawing.layer[room] for room in ROOMS)
    boxes = [
        {
            "name": room,
            "about": about,
            "area": area,
            "x": round(drawing.x[room] - widths[room] / 2 - left, 1),
            "y": _top(drawing.layer[room]),
            "width": round(widths[room], 1),
        }
        for room, (about, area) in ROOMS.items()
    ]
    arrows = [Arrow(*ends, _curve(drawing, route, left)) for ends, route in drawing.routes.items()]
    arrows += [Arrow(*ends, _upwards(drawing, ends, left), against=True) for ends in against]
    return _template().render(
        boxes=boxes,
        arrows=arrows,
        areas=AREAS,
        shared=sorted(shared),
        width=round(right - left),
        height=_top(layers - 1) + BOX_HEIGHT + 82,
        box_height=BOX_HEIGHT,
    )


def _shared(imports: Rooms) -> set[str]:
    """Single modules that use no room. Raises UserError for whatever else has no place in the picture."""
    here = Path(__file__).relative_to(ROOT)
    shared = {
        name for name in imports.keys() - ROOMS.keys() if (ROOT / "mlagent_jax" / f"{name}.py").exists()
    }
    rooms = imports.keys() - shared
    users = {name for name in shared if imports[name].keys() & rooms}
    unknown, gone = sorted((rooms - ROOMS.keys()) | users), sorted(ROOMS.keys() - imports.keys())
    if unknown:
        raise UserError(f"ROOMS of {here} lacks {', '.join(unknown)}; add what each is, then run {COMMAND}")
    if gone:
        raise UserError(
            f"ROOMS of {here} has {', '.join(gone)}, which is gone; remove it, then run {COMMAND}"
        )
    return shared


def _top(layer: int) -> int:
    return MARGIN + ROW_HEIGHT * layer


def _curve(drawing: Drawing, route: Sequence[Place], left: float) -> str:
    """The path from the bottom of the first box through the bends to the top of the last, vertical at every layer."""
    points = []
    for place in route:
        top = _top(drawing.layer[place])
        points += [(drawing.x[place] - left, y) for y in (top, top + BOX_HEIGHT)]
    points = [*points[1:-2], (points[-2][0], points[-2][1] - 3)]  # 3 px for the tip
    path = f"M{points[0][0]:.1f},{points[0][1]}"
    for (x, y), (next_x, next_y) in itertools.pairwise(points):
        middle = (y + next_y) / 2
        path += f"C{x:.1f},{middle:.1f} {next_x:.1f},{middle:.1f} {next_x:.1f},{next_y}"
    return path


def _upwards(drawing: Drawing, ends: Ends, left: float) -> str:
    tail, head = ends
    x, y = drawing.x[tail] - left + 14, _top(drawing.layer[tail])
    head_x, head_y = drawing.x[head] - left + 14, _top(drawing.layer[head]) + BOX_HEIGHT + 3
    return f"M{x:.1f},{y}L{head_x:.1f},{head_y}"


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("experiments.figures", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("rooms.svg.jinja")


if __name__ == "__main__":
    run_program(main)
