"""Every number of docs/results.md, measured anew.

    python bench/results.py results                                     # the bundled models, everything
    python bench/results.py results --model small/bundle --only relit motion --shots 64

Held-out shots, on the CPU. What lies in the folder `results` already is not measured again. Writes a table a section
there (`NAME.md`), and prints it. Sections that are one `strata eval` print that command.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from comfyui_strata.imaging.atomic import replace_file
from comfyui_strata.imaging.colour import linear_to_srgb, srgb_to_linear
from comfyui_strata.imaging.encodings.depth import colours_to_depth
from comfyui_strata.imaging.encodings.flow import colours_to_flow
from comfyui_strata.imaging.files.clips import read_clip, write_clip
from comfyui_strata.imaging.viewing.contact_sheet import contact_sheet
from comfyui_strata.joint.families import ALPHA, FAMILIES, INTRINSIC, UNITY, VIGU, get_family, parse_task, tasks
from comfyui_strata.joint.streams import Family
from comfyui_strata.model_loaders.model_set import find_models
from comfyui_strata.standalone.captions import Captioner, CaptionSettings
from comfyui_strata.standalone.evaluation import Trial, measure
from comfyui_strata.standalone.layers import Job, run
from comfyui_strata.training.evaluate import Plan, usual_caption
from comfyui_strata.training.metrics import Score, fact_scores, normal_errors
from comfyui_strata.training.rendering.caption_facts import caption_facts
from comfyui_strata.training.rendering.captions import Facts, summary
from comfyui_strata.training.report import METHODS, Report
from comfyui_strata.training.shots import Example, synthetic_example

FRAMES, SIDE, FRAMING = 9, 64, "close"  # as the bundled models were trained
# Steps of the sampler: layers of a given picture come out best with few, captions with more; see the section `steps`.
FEW, STEPS = 4, {"vigu": 20}
RATE = Fraction(8)
TOLD = {"kind": "object kind", "colour": "object colour", "texture": "object texture", "motion": "object motion",
        "place": "place", "ground": "ground", "wall": "wall", "light": "light kind", "tint": "light tint",
        "camera": "camera", "all": "all facts"}  # fmt: skip
# What lengths and sizes are measured by: one task a layer.
REACHING = {"intrinsic": ("R2AIN", "AIN2R"), "alpha": ("R2PFB", "PFB2R"), "unity": ("R2D", "R2F", "R2S"),
            "vigu": ("R2C",)}  # fmt: skip
STEPPED = {"intrinsic": ("R2AIN",), "alpha": ("R2PFB",), "unity": ("R2D",), "vigu": ("R2C",)}
COUNTS = (2, FEW, 8, 20)  # sampler steps
DRAWN = {"intrinsic": ("R2AIN",), "alpha": ("R2PFB",), "unity": ("R2D", "R2F", "R2P", "R2K", "R2S")}
GRID = 6  # shots of a picture
SHAPES = ((9, 64), (17, 64), (33, 64), (9, 96))  # frames, side: as trained, 2x and 4x the length, 1.5x the size
HEADS = {"rgb": "PSNR", "albedo": "PSNR", "irradiance": "si-RMSE", "normal": "mean angle", "alpha": "MAD", "fg": "PSNR",
         "bg": "PSNR", "depth": "AbsRel", "flow": "EPE", "densepose": "part accuracy", "skeleton": "PCK@0.2",
         "segmentation": "mIoU", "caption": "fact F1"}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Where to measure what, and on how many shots."""

    folder: Path
    model: str
    shots: int

    def report(self, family: Family, names: Iterable[str], frames: int = FRAMES, side: int = SIDE,
               steps: int | None = None) -> dict:
        """The JSON of `strata eval`; see `command`."""
        steps = steps or _steps(family)
        chosen = tuple(parse_task(family, name) for name in names)
        file = self.folder / f"{family.name}_{len(chosen)}_{frames}x{side}_{steps}_{self.shots}.json"
        if not file.is_file():
            plan = Plan(chosen, range(self.shots), frames, side, side, steps, framing=FRAMING)
            partial = file.with_suffix(".part")
            measure(Trial(plan, partial), find_models(self.model, family), Report())
            partial.replace(file)
        return json.loads(file.read_text(encoding="utf-8"))

    def rows(self, family: Family, names: Iterable[str], *shape: int) -> list[dict]:
        """Its rows."""
        return self.report(family, names, *shape)["rows"]

    def command(self, family: Family, names: Iterable[str] = (), frames: int = FRAMES, side: int = SIDE) -> str:
        """What gives those rows by hand."""
        task = f" --task {' '.join(names)}" if names else ""
        model = "" if self.model == "tiny" else f" --model {self.model}"
        return (f"`strata eval --family {family.name}{task}{model} --framing {FRAMING} --seeds {self.shots} "
                f"--size {side}x{side} --frames {frames} --steps {_steps(family)} --device cpu`")

    def run(self, family: Family, task: str, out: Path, seed: int, **settings) -> dict[str, Path]:
        """`strata run`, unless its result is there."""
        models = find_models(self.model, family)
        job = Job(parse_task(family, task), out=out, steps=_steps(family), seed=seed, **settings)
        made = job.task.targets if (out / "run.json").is_file() else None
        if made is None:
            return run(job, models)
        return {layer: out / (layer if layer in family.pictures else f"{layer}.txt") for layer in made}

    def captioner(self) -> Captioner:
        """Reads clips of the trained size."""
        return Captioner(find_models(self.model, VIGU), CaptionSettings(_steps(VIGU), size=(SIDE, SIDE), frames=FRAMES))


def every_number(bench: Bench, family: Family) -> str:
    """All tasks of a family: every metric beside the stand-ins."""
    rows = bench.rows(family, map(str, tasks(family)))
    return "\n".join([f"{bench.shots} shots: {bench.command(family)}", "", *_full_table(rows)])


def _full_table(rows: list[dict]) -> Iterator[str]:
    stand_ins = [name for name in METHODS[1:] if any(row[name] for row in rows)]
    yield "| task | layer | metric | | unit | model | ± | " + " | ".join(stand_ins) + " |"
    yield "|" + "---|" * (7 + len(stand_ins))
    for row in rows:
        arrow = "↑" if row["better"] == "higher" else "↓"
        cells = [row["task"], row["layer"], row["metric"], arrow, row["unit"], f"**{_cell(row['model'])}**",
                 _text(row["model"]["std"]), *(_cell(row[name]) for name in stand_ins)]
        yield "| " + " | ".join(cells) + " |"


def reach(bench: Bench) -> str:
    """Lengths and sizes that the models were not trained on."""
    return "\n".join([f"{bench.shots} shots; in brackets the best constant. With other `--frames` and `--size`:", "",
                      *_side_by_side(bench, REACHING, {f"{f} x {s} x {s}": (f, s) for f, s in SHAPES})])


def steps(bench: Bench) -> str:
    """More and fewer steps of the sampler."""
    return "\n".join([f"{bench.shots} shots; in brackets the best constant. With other `--steps`:", "",
                      *_side_by_side(bench, STEPPED, {str(count): (FRAMES, SIDE, count) for count in COUNTS})])


def _side_by_side(bench: Bench, chosen: Mapping[str, Iterable[str]],
                  ways: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The head metric of each layer, a column each of `ways`: frames, side and steps; after the commands of one."""
    families = {get_family(name): names for name, names in chosen.items()}
    yield from (f"* {bench.command(family, names)}" for family, names in families.items())
    yield from ("", "| family | task | layer | metric | " + " | ".join(ways) + " |", "|---" * (4 + len(ways)) + "|")
    for family, names in families.items():
        measured = [_by_key(bench.rows(family, names, *way)) for way in ways.values()]
        for key, row in measured[0].items():
            if HEADS.get(key[1]) == key[2]:
                cells = [f"**{_cell(rows[key]['model'])}** ({_cell(rows[key]['constant'])})" for rows in measured]
                yield f"| {family.name} | {' | '.join(key)} {row['unit']} | " + " | ".join(cells) + " |"


def flicker(bench: Bench) -> str:
    """How much each layer's change from frame to frame misses the truth's."""
    lines = ["| task | layer | model | constant | VAE alone |", "|---" * 5 + "|"]
    for family in (INTRINSIC, ALPHA, UNITY):
        names = {str(task) for task in tasks(family) if task.conditions == family.pictures[:1]}
        for row in bench.rows(family, map(str, tasks(family))):
            if row["metric"] == "flicker" and row["task"] in names:
                cells = [row["task"], row["layer"], *(_cell(row[name]) for name in ("model", "constant", "vae"))]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def captions(bench: Bench) -> str:
    """How often a caption has all kinds of objects right, all colours, and both; and the first captions."""
    report = bench.report(VIGU, map(str, tasks(VIGU)))
    texts = [text for text in report["texts"] if text["task"] == "R2C"]
    said, true = ([text[which] for text in texts] for which in ("made", "true"))
    usual = usual_caption(FRAMING)
    lines = [f"{bench.shots} shots: {bench.command(VIGU)}", "",
             "| | kinds of all objects | colours of all objects | both |", "|---|---|---|---|"]
    for name, stated in {"**model**": said, "the most usual caption": [usual] * len(said),
                         "another shot's true caption": true[1:] + true[:1]}.items():
        right = [_objects_right(*pair) for pair in zip(stated, true)]
        lines.append(f"| {name} | " + " | ".join(f"{100 * fmean(column):.0f} %" for column in zip(*right)) + " |")
    lines += ["", "| shot | what is true | what is said |", "|---|---|---|"]
    lines += [f"| {text['shot']} | {text['true']} | {text['made']} |" for text in texts[:GRID]]
    return "\n".join(lines)


def _objects_right(stated: str, true: str) -> tuple[bool, bool, bool]:
    """Whether a caption names exactly the objects that there are: their kinds, their colours, both as they belong."""
    objects = [[(fact.kind, fact.colour) for fact in caption_facts(text).objects] for text in (stated, true)]
    kinds, colours = ([sorted(part[i] for part in each) for each in objects] for i in (0, 1))
    return kinds[0] == kinds[1], colours[0] == colours[1], sorted(objects[0]) == sorted(objects[1])


def agreement(bench: Bench) -> str:
    """Video and caption made together: what the caption says against what a second look at the video says."""
    captioner, said, read, truths = bench.captioner(), [], [], []
    for example in _shots(bench, VIGU):
        out = bench.folder / "agreement" / _digits(example)
        prompt = summary(example.exact["caption"][0])
        made = bench.run(VIGU, "t2RC", out, _seed(example), inputs={}, prompt=prompt, frames=FRAMES, size=(SIDE, SIDE))
        said.append(caption_facts(made["caption"].read_text(encoding="utf-8")))
        read.append(caption_facts(captioner.caption(made["rgb"]).text))
        truths.append(example.exact["caption"][0])
    return _facts_table({
        "caption and the made video's": zip(read, said),
        "another's caption and the made video's": zip(read, said[1:] + said[:1]),
        "caption and the shot that the prompt is of": zip(said, truths),
        "the made video's and the shot that the prompt is of": zip(read, truths)})


def relit(bench: Bench) -> str:
    """What is said of a plate, of its composite after matting, and of that after its light was changed."""
    captioner = bench.captioner()
    facts: dict[str, list[tuple[Facts, Facts]]] = {}
    for example in _shots(bench, ALPHA):
        out, seed = bench.folder / "relit" / _digits(example), _seed(example)
        plate = write_clip(example.layers["rgb"], out / "plate", RATE)
        matte = _read(bench.run(ALPHA, "R2PFB", out / "matte", seed, inputs={"rgb": plate}))
        over = matte["alpha"] * srgb_to_linear(matte["fg"]) + (1 - matte["alpha"]) * srgb_to_linear(matte["bg"])
        composite = write_clip(linear_to_srgb(over).clamp(0, 1), out / "composite", RATE)
        parts = bench.run(INTRINSIC, "R2AIN", out / "parts", seed, inputs={"rgb": composite})
        warm = torch.tensor([1.25, 1.0, 0.7])
        light = linear_to_srgb(srgb_to_linear(read_clip(parts["irradiance"]).images) * warm).clamp(0, 1)
        inputs = {**parts, "irradiance": write_clip(light, out / "warm", RATE)}
        relit = bench.run(INTRINSIC, "AIN2R", out / "relit", seed,
                          inputs={name: inputs[name] for name in ("albedo", "irradiance", "normal")})["rgb"]
        for name, clip in {"the plate": plate, "over(fg, alpha, bg)": composite, "relit warmer": relit}.items():
            said = caption_facts(captioner.caption(clip).text)
            facts.setdefault(name, []).append((said, example.exact["caption"][0]))
    truths = [truth for _, truth in facts["the plate"]]
    others = [said for said, _ in facts["the plate"]]
    return _facts_table({**facts, "another's plate": zip(others[1:] + others[:1], truths)})


def motion(bench: Bench) -> str:
    """Depth and normals carried along the flow: by how much do they change from frame to frame?"""
    carried: dict[str, list[tuple[float, float]]] = {}
    for example in _shots(bench, UNITY):
        out, seed, truth = bench.folder / "motion" / _digits(example), _seed(example), example.layers
        rgb = {"rgb": write_clip(truth["rgb"], out / "rgb", RATE)}
        made = {"depth": _read(bench.run(UNITY, "R2D", out / "depth", seed, inputs=rgb, prompt=example.prompt)),
                "flow": _read(bench.run(UNITY, "R2F", out / "flow", seed, inputs=rgb, prompt=example.prompt)),
                "normal": _read(bench.run(INTRINSIC, "R2AIN", out / "normal", seed, inputs=rgb))}
        ours = {name: layers[name] for name, layers in made.items()}
        normal = synthetic_example(INTRINSIC, seed, FRAMES, SIDE, SIDE, FRAMING).layers["normal"]
        theirs = {"depth": truth["depth"], "flow": truth["flow"], "normal": normal}
        still = torch.ones_like(truth["flow"])  # white: nothing moves
        for name, layers in {"made, along the made flow": ours, "made, along no flow": ours | {"flow": still},
                             "true, along the true flow": theirs, "true, along the made flow": theirs | {
                                 "flow": ours["flow"]}, "true, along no flow": theirs | {"flow": still}}.items():
            carried.setdefault(name, []).append(_carried(**layers, exact=example.exact))
    lines = ["| | depth changes by | ± | normals turn by | ± |", "|---" * 5 + "|"]
    for name, changes in carried.items():
        depths, angles = ([change[i] for change in changes] for i in (0, 1))
        lines.append(f"| {name} | {100 * fmean(depths):.2f} % | {100 * stdev(depths):.2f} | {fmean(angles):.2f} "
                     f"degrees | {stdev(angles):.2f} |")
    return "\n".join(lines)


def grids(bench: Bench) -> str:
    """A picture a family, NAME.jpg: the first frames of some shots, every layer above its truth. Nothing is picked."""
    lines = []
    for family, names in ((get_family(name), names) for name, names in DRAWN.items()):
        rows: dict[str, list[Tensor]] = {}
        for example in _shots(bench, family, range(GRID)):
            out, truth, seed = bench.folder / "grids" / family.name / _digits(example), example.layers, _seed(example)
            rgb = write_clip(truth["rgb"], out / "rgb", RATE)
            rows.setdefault("rgb", []).append(truth["rgb"][0])
            made = {}
            for name in names:
                made |= _read(bench.run(family, name, out / name, seed, inputs={"rgb": rgb}))
            black = torch.zeros_like(truth["rgb"][0])
            for layer in family.pictures[1:]:
                # Where nobody is, there is no true body.
                rows.setdefault(layer, []).append(made.get(layer, [black])[0])
                rows.setdefault(f"true {layer}", []).append(truth.get(layer, [black])[0])
        picture = bench.folder / f"{family.name}.png"
        contact_sheet({name: torch.stack(frames) for name, frames in rows.items()}, picture, GRID, ("rgb",),
                      [name for name in rows if name.startswith("true ")])
        with Image.open(picture) as sheet:
            sheet.save(picture.with_suffix(".jpg"), quality=85)
        picture.unlink()
        lines.append(f"![{family.name}]({family.name}.jpg)")
    return "\n\n".join(lines)


def _carried(depth: Tensor, flow: Tensor, normal: Tensor, exact: Mapping[str, tuple]) -> tuple[float, float]:
    """The mean relative change of depth, and the mean angle between normals in degrees, from each pixel to where the
    flow takes it in the next frame; of those that stay in the picture."""
    metres = colours_to_depth(depth, *exact["depth"])
    vectors = colours_to_flow(flow, *exact["flow"])[:-1].float()
    count, height, width = vectors.shape[:3]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([x, y], -1) + vectors  # [F - 1, H, W, 2] in pixels
    grid = 2 * (places + 0.5) / torch.tensor([width, height]) - 1
    stays = (grid.abs() <= 1).all(-1, keepdim=True)
    def after(layer: Tensor) -> Tensor:
        moved = grid_sample(layer[1:].float().permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=False)
        return moved.permute(0, 2, 3, 1)
    change = (after(metres) / metres[:-1] - 1).abs()[stays].mean().item()
    return change, normal_errors(after(normal), normal[:-1], stays)["mean"]


def _facts_table(pairs: Mapping[str, Iterable[tuple[Facts, Facts]]]) -> str:
    """Markdown: F1 in per cent by subject, over all shots, a row each set of (stated, true)."""
    lines = ["| | " + " | ".join(TOLD.values()) + " |", "|---" * (1 + len(TOLD)) + "|"]
    for name, facts in pairs.items():
        scores = [fact_scores(stated, true) for stated, true in facts]
        whole = {subject: Score(*(sum(getattr(score[subject], part) for score in scores)
                                  for part in ("hits", "said", "true"))) for subject in TOLD}
        lines.append(f"| {name} | " + " | ".join(_text(score.f1) for score in whole.values()) + " |")
    return "\n".join(lines)


def _shots(bench: Bench, family: Family, seeds: range | None = None) -> Iterator[Example]:
    for seed in range(bench.shots) if seeds is None else seeds:
        yield synthetic_example(family, seed, FRAMES, SIDE, SIDE, FRAMING)


def _steps(family: Family) -> int:
    return STEPS.get(family.name, FEW)


def _seed(example: Example) -> int:
    return int(example.name.split()[-1])


def _digits(example: Example) -> str:
    return f"{_seed(example):05d}"


def _read(made: Mapping[str, Path]) -> dict[str, Tensor]:
    return {name: read_clip(path).images for name, path in made.items() if path.is_dir()}


def _by_key(rows: list[dict]) -> dict[tuple[str, str, str], dict]:
    return {(row["task"], row["layer"], row["metric"]): row for row in rows}


def _cell(summary: dict[str, Any] | None) -> str:
    return _text((summary or {"mean": None})["mean"])


def _text(number: float | None) -> str:
    return "–" if number is None else f"{number:.3g}"


SECTIONS: dict[str, Callable[[Bench], str]] = {
    **{name: lambda bench, family=family: every_number(bench, family) for name, family in FAMILIES.items()},
    "grids": grids, "flicker": flicker, "reach": reach, "steps": steps, "captions": captions, "agreement": agreement,
    "relit": relit, "motion": motion,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for results")
    parser.add_argument("--model", default="tiny", metavar="NAME|PATH", help="a bundled model or a folder of files")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--shots", type=int, default=32, help="held-out shots (default: 32)")
    args = parser.parse_args()
    bench = Bench(args.folder, args.model, args.shots)
    bench.folder.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        text = SECTIONS[name](bench)
        print(f"## {name}\n\n{text}\n", flush=True)
        replace_file(bench.folder / f"{name}.md", f"{text}\n".encode())


if __name__ == "__main__":
    main()
