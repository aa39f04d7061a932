"""The `strata` command. Results go to stdout, talk to stderr; exit 0 all well, 1 something failed, 2 wrong use."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = build_parser().parse_args(argv)
    try:
        return args.command(args)
    except BrokenPipeError:  # the reader of our output has enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("Interrupted; nothing half-written was left.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"strata: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Every command and option."""
    parser = argparse.ArgumentParser(prog="strata", description="Split a shot into its layers and join them again.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    tasks = commands.add_parser("tasks", help="list every task of every family")
    tasks.add_argument("--json", action="store_true", help="as JSON")
    tasks.set_defaults(command=list_tasks)

    _add_run(commands)
    _add_caption(commands)
    _add_train(commands)
    _add_eval(commands)

    parity = commands.add_parser("parity", help="replay fixtures that the authors' code computed")
    parity.add_argument("folders", nargs="+", metavar="DIR", help="a folder with a manifest.json")
    parity.add_argument("--device", default="cpu", metavar="D", help="(default: cpu)")
    parity.set_defaults(command=replay_fixtures)

    models = commands.add_parser("models", help="say what weight files are")
    models.add_argument("files", nargs="+", metavar="FILE", help="a .safetensors or .pth file")
    models.set_defaults(command=describe_files)

    _add_convert(commands)

    doctor = commands.add_parser("doctor", help="check this machine")
    doctor.set_defaults(command=check_machine)
    return parser


def _add_run(commands) -> None:
    run = commands.add_parser(
        "run", help="make the missing layers of a shot",
        description="Make the missing layers of a shot. A clip is a video, a still or a folder of numbered frames.")
    run.add_argument("--family", required=True, help="intrinsic, alpha, unity or vigu")
    _add_model(run)
    _add_guidance(run)
    run.add_argument("--task", required=True, help="such as R2AIN: rgb given; albedo, irradiance, normal made")
    run.add_argument("--input", action="append", default=[], type=_layer_and_path, metavar="LAYER=PATH",
                     help="a given layer; repeat for more")
    run.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    run.add_argument("--prompt", default="", metavar="S",
                     help="what the shot shows; the caption, where a task is given one (default: empty)")
    run.add_argument("--negative", metavar="S", help="what to steer away from (default: Wan's own)")
    run.add_argument("--seed", type=int, default=1, metavar="N", help="(default: 1)")
    run.add_argument("--frames", type=_positive, metavar="N",
                     help="length where nothing is given, else take the first N frames of what is")
    run.add_argument("--size", type=_size, metavar="WxH", help="size where nothing is given")
    run.add_argument("--format", default="png", choices=("png", "exr", "mp4"), help="(default: png, 16 bit)")
    run.set_defaults(command=run_task)


def _add_caption(commands) -> None:
    caption = commands.add_parser(
        "caption", help="say in words what clips show",
        description="Say in words what clips show, one line a clip: PATH<TAB>CAPTION. A clip is a video, a still or a "
                    "folder of numbered frames; of a folder with several of them all are captioned, those in its "
                    "folders, too. docs/captions.md says more.")
    caption.add_argument("clips", nargs="+", type=Path, metavar="CLIP", help="a clip, or a folder of clips")
    caption.add_argument("--json", action="store_true", help="a JSON object a line instead")
    caption.add_argument("--sidecar", action="store_true",
                         help="also write CLIP.txt beside each clip; one that has it already is passed over")
    caption.add_argument("--overwrite", action="store_true", help="caption those again, too")
    _add_model(caption)
    caption.add_argument("--length", type=_positive, metavar="N", help="tokens (default: the model's, 256)")
    caption.add_argument("--seed", type=int, default=1, metavar="N", help="(default: 1)")
    caption.add_argument("--hint", default="", metavar="TEXT",
                         help="what is known of the clips already; needs a text encoder")
    caption.add_argument("--fit", default="cover", choices=("cover", "crop", "whole"),
                         help="scale until the size is covered and keep the centre, cut out the centre unscaled as "
                              "published, or look at the whole clip in its own size (default: cover)")
    caption.add_argument("--size", type=_size, metavar="WxH", help="size to look at (default: the model's, 832x480)")
    caption.add_argument("--frames", type=_positive, metavar="N",
                         help="frames to look at at once: 1, 5, 9, ... 81 (default: the model's, 81)")
    caption.add_argument("--long", default="sample", choices=("sample", "windows"),
                         help="of a longer clip, look at that many frames evenly over it, or at all of it piece by "
                              "piece and join the captions (default: sample)")
    caption.add_argument("--sampler", default="jump", choices=("jump", "published"),
                         help="skip the steps that change nothing, or draw as published (default: jump)")
    caption.set_defaults(command=write_captions)


def _add_train(commands) -> None:
    train = commands.add_parser(
        "train", help="train layer adapters",
        description="Train layer adapters by a config (docs/training.md). For several GPUs: "
                    "accelerate launch -m comfyui_strata.cli train ...")
    train.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="a TOML file; left out with --resume")
    train.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    train.add_argument("--resume", action="store_true", help="go on with the run in DIR, by the config that lies there")
    train.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    train.set_defaults(command=train_adapters)


def _add_eval(commands) -> None:
    evaluate = commands.add_parser(
        "eval", help="measure a model on shots it has never seen",
        description="Measure a model on synthetic shots that are never trained on, against their exact layers, beside "
                    "a constant, a copy of what is given and the VAE alone. docs/metrics.md says what the numbers are.")
    evaluate.add_argument("--family", required=True, help="intrinsic, alpha, unity or vigu")
    _add_model(evaluate)
    _add_guidance(evaluate)
    evaluate.add_argument("--task", nargs="+", default=["all"], metavar="T", help="tasks, or all (default: all)")
    evaluate.add_argument("--seeds", type=_positive, default=8, metavar="N", help="how many shots (default: 8)")
    evaluate.add_argument("--first-seed", type=int, default=0, metavar="N", help="the first of them (default: 0)")
    evaluate.add_argument("--framing", choices=("wide", "close"), default="wide",
                          help="the set and all in it, or one or two objects that fill the picture (default: wide)")
    evaluate.add_argument("--size", type=_size, metavar="WxH", help="(default: the model's)")
    evaluate.add_argument("--frames", type=_positive, metavar="N", help="(default: the model's)")
    evaluate.add_argument("--seed", type=int, default=0, metavar="N", help="another draw of the noise (default: 0)")
    evaluate.add_argument("--json", type=Path, metavar="FILE",
                          help="write all numbers there, anew after each task of each shot")
    evaluate.add_argument("--pictures", type=Path, metavar="DIR",
                          help="write a contact sheet with the truth there for each task of each shot")
    evaluate.set_defaults(command=evaluate_model)


def _add_convert(commands) -> None:
    convert = commands.add_parser(
        "convert", help="split a published checkpoint of UnityVideo or Uni-ViGU",
        description="Split a published checkpoint of UnityVideo or Uni-ViGU into NAME.wan.safetensors, a Wan model for "
                    "any loader, and NAME.layers.safetensors, the layers that ride on it.")
    convert.add_argument("checkpoint", type=Path, metavar="CHECKPOINT",
                         help="a .pth or .safetensors file, or a folder of shards")
    convert.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    convert.add_argument("--name", metavar="NAME", help="(default: the checkpoint's)")
    convert.add_argument("--tokenizer", type=Path, metavar="PATH",
                         help="Uni-ViGU's: spiece.model of google/umt5-xxl, or a file or folder that holds it "
                              "(default: the text encoder's)")
    convert.add_argument("--text-encoder", type=Path, metavar="PATH",
                         help="umt5_xxl: embed the prompts that never change once and for all")
    convert.add_argument("--dtype", default="keep", choices=("keep", "bf16", "fp16", "fp32"), help="(default: keep)")
    convert.set_defaults(command=convert_checkpoint)


def _add_model(command) -> None:
    """The options of every command that samples."""
    command.add_argument("--model", default="tiny", metavar="NAME|PATH",
                         help="a bundled model, or a folder that holds the files (default: tiny)")
    for part in ("backbone", "adapters", "vae", "text-encoder"):
        command.add_argument(f"--{part}", metavar="PATH", help=f"the {part.replace('-', ' ')}, if not from --model")
    command.add_argument("--steps", type=_positive, metavar="N", help="sampling steps (default: the family's)")
    command.add_argument("--device", metavar="D", help="cuda, mps or cpu (default: the best there is)")
    command.add_argument("--attention", default="sdpa", help="sdpa, flash3 or sage (default: sdpa)")


def _add_guidance(command) -> None:
    command.add_argument("--cfg", type=float, metavar="X",
                         help="how strongly the prompt steers (default: the family's; 1 for an empty prompt)")


def _find_models(args, family):
    from .model_loaders.model_set import find_models

    return find_models(args.model, family, backbone=args.backbone, adapters=args.adapters, vae=args.vae,
                       text_encoder=args.text_encoder)


def list_tasks(args) -> int:
    """`strata tasks`: one line a task, or JSON."""
    from .joint.families import FAMILIES, tasks

    rows = [{"family": family.name, "task": str(task), "given": list(task.conditions), "made": list(task.targets),
             "text": task.uses_text} for family in FAMILIES.values() for task in tasks(family)]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        given = ", ".join(row["given"]) or "text only"
        print(f"{row['family']:<10} {row['task']:<7} {given:<30} -> {', '.join(row['made']):<38} "
              f"{'prompt' if row['text'] else 'empty prompt'}")
    return 0


def run_task(args) -> int:
    """`strata run`: prints each result as `name<TAB>path`."""
    from .joint.families import get_family, parse_task
    from .model_loaders.device import best_device
    from .standalone.layers import Job, run

    try:
        family = get_family(args.family)
    except ValueError as error:  # wrong use, not a failure
        return _wrong_use("run", error)
    models = _find_models(args, family)
    try:
        task = parse_task(_in_file(models, family), args.task)
        inputs = dict(args.input)
        if len(inputs) < len(args.input):
            raise ValueError("A layer is given twice: give each --input once.")
        job = Job(task, inputs, args.out, args.prompt, args.negative, args.steps, args.cfg, args.seed, args.frames,
                  args.size, args.format, args.device or best_device(), args.attention)
        job.check()
    except ValueError as error:
        return _wrong_use("run", error)
    for name, path in run(job, models).items():
        print(f"{name}\t{path}")
    return 0


def _in_file(models, family):
    """A family as the variant that its layer file holds, which decides what tasks there are. A file of something else
    is refused where it is loaded."""
    from .model_loaders.detect import detect

    found = detect(models.adapters).family
    return found if found is not None and found.name == family.name else family


def _wrong_use(command: str, error: Exception) -> int:
    print(f"strata {command}: {error}", file=sys.stderr)
    return 2


def write_captions(args) -> int:
    """`strata caption`: prints a line a clip, as soon as it has it; exit 1 when a clip has got no caption."""
    from .model_loaders.device import best_device
    from .standalone.captions import CAPTIONER, CaptionSettings, Failure, caption_clips

    settings = CaptionSettings(args.steps, args.length, args.seed, args.hint, args.fit, args.size, args.frames,
                               args.long, args.sampler, args.device or best_device(), args.attention)
    try:
        settings.check()
        if args.overwrite and not args.sidecar:
            raise ValueError("--overwrite is about the files of --sidecar: add that, or leave it out.")
    except ValueError as error:
        return _wrong_use("caption", error)
    # Captions and names are in any language, which a redirected stdout on Windows could not hold; and a name on Linux
    # may be no text at all.
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    code = 0
    for result in caption_clips(args.clips, settings, _find_models(args, CAPTIONER), sidecar=args.sidecar,
                                overwrite=args.overwrite):
        if isinstance(result, Failure):
            print(f"strata caption: {result.reason}", file=sys.stderr)
            code = 1
        elif args.json:
            print(json.dumps(result.as_json(), ensure_ascii=False), flush=True)
        else:
            print(f"{result.path}\t{' '.join(result.text.split()) or '(no text)'}", flush=True)
    return code


def train_adapters(args) -> int:
    """`strata train`: prints each file that it made as `name<TAB>path`."""
    from .training.config import CONFIG, read_config

    saved = args.out / CONFIG
    try:
        if args.resume and args.config:
            raise ValueError(f"--resume goes on by {saved}: leave CONFIG out, or change what it says there.")
        if not args.resume and not args.config:
            raise ValueError("CONFIG is needed, a TOML file (docs/training.md); or --resume to go on.")
        if not args.resume and saved.exists():
            raise ValueError(f"'{args.out}' holds a run already: go on with --resume, or choose another --out.")
        config = read_config(saved if args.resume else args.config)
    except (ValueError, FileNotFoundError) as error:
        return _wrong_use("train", error)
    from .training.trainer import train

    for name, path in train(config, args.out, cpu=args.cpu).items():
        print(f"{name}\t{path}")
    return 0


def evaluate_model(args) -> int:
    """`strata eval`: prints a table, also of what was measured before something stopped the rest."""
    from .joint.families import get_family, parse_task, tasks
    from .model_loaders.device import best_device
    from .standalone.evaluation import Trial, measure
    from .training.evaluate import Plan, check_packages
    from .training.report import Report

    try:
        family = get_family(args.family)
    except ValueError as error:
        return _wrong_use("eval", error)
    models = _find_models(args, family)
    family = _in_file(models, family)
    try:
        names = map(str, tasks(family)) if args.task == ["all"] else args.task
        height, width = args.size or (family.height, family.width)
        plan = Plan(tuple(dict.fromkeys(parse_task(family, name) for name in names)),
                    range(args.first_seed, args.first_seed + args.seeds), args.frames or family.frames, height, width,
                    args.steps or family.flow.steps, args.seed, args.framing)
        trial = Trial(plan, args.json, args.pictures, args.cfg, args.device or best_device(), args.attention)
        trial.check()
    except ValueError as error:
        return _wrong_use("eval", error)
    check_packages()
    # The table has arrows, which a redirected stdout on Windows could not hold.
    sys.stdout.reconfigure(encoding="utf-8")
    report = Report()
    try:
        measure(trial, models, report)
    finally:
        if report.rows():
            print(report.table())
    return 0


def replay_fixtures(args) -> int:
    """`strata parity`: a line a case, and a closing line."""
    from .model_loaders.device import check_device
    from .model_loaders.parity.replay import replay

    check_device(args.device)
    passed = failed = 0
    for folder in args.folders:
        for r in replay(folder, args.device):
            mark = "" if r.passed else "  FAILED"
            print(f"{r.family:<10} {r.case:<34} {r.dtype}  {r.error:.2e}  limit {r.limit:.0e}{mark}", flush=True)
            passed, failed = passed + r.passed, failed + (not r.passed)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def describe_files(args) -> int:
    """`strata models`: a line a file; exit 1 when one is unknown or unreadable."""
    from .model_loaders.detect import detect

    code = 0
    for file in args.files:
        try:
            found = detect(file)
            line, code = found.line, max(code, found.kind == "unknown")
        except (ValueError, OSError) as error:
            line, code = str(error), 1
        print(f"{file}: {line}")
    return int(code)


def convert_checkpoint(args) -> int:
    """`strata convert`: prints each file that it made as `name<TAB>path`."""
    from tqdm import tqdm

    from .model_loaders.convert import DTYPES, convert

    with tqdm(desc="convert", unit="B", unit_scale=True, disable=None) as bar:
        def on_bytes(done: int, whole: int) -> None:
            bar.total = whole
            bar.update(done)

        made = convert(args.checkpoint, args.out, name=args.name, tokenizer=args.tokenizer,
                       text_encoder=args.text_encoder, dtype=DTYPES[args.dtype], on_bytes=on_bytes)
    for name, path in made.items():
        print(f"{name}\t{path}")
    return 0


def check_machine(args) -> int:
    """`strata doctor`: a line a finding; exit 1 when something needed is wrong."""
    from .model_loaders.doctor import report

    marks = {True: "ok  ", None: "note", False: "BAD "}
    findings = report()
    for name, ok, text in findings:
        print(f"{marks[ok]} {name}: {text}")
    return 1 if any(ok is False for _, ok, _ in findings) else 0


def _layer_and_path(text: str) -> tuple[str, Path]:
    layer, equals, path = text.partition("=")
    if not (layer and equals and path):
        raise argparse.ArgumentTypeError(f"'{text}' is not LAYER=PATH")
    return layer, Path(path).expanduser()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 up")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not x:
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT")
    return _positive(height), _positive(width)


if __name__ == "__main__":
    sys.exit(main())
