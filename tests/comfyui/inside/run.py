"""Run the in-process checks inside ComfyUI's own Python: `python run.py COMFYUI BASE OUT [NAME...]`.

COMFYUI is its folder, BASE a folder laid out as ComfyUI's --base-directory (models/ in it holds the tiny files that
test_inside.py wrote), OUT the JSON file to write: {"module.check": {"ok": bool, "detail": str, "seconds": float}}.
NAMEs choose checks by substring. Needs nothing that ComfyUI does not bring (no pytest).
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACK = HERE.parents[2]
NOT_CHECKS = {"run", "tiny"}


def load_pack(comfyui: Path, base: Path):
    """The pack, loaded by ComfyUI's own loader from a custom_nodes folder whose name is no Python name."""
    sys.path[0] = str(comfyui)  # what `python main.py` has there, instead of this folder
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.base_directory = str(base)
    import server

    import nodes

    server.PromptServer(asyncio.new_event_loop())  # some stock nodes ask for the instance
    folder = base / "custom_nodes" / "A Strata 1.0"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        folder.symlink_to(PACK, target_is_directory=True)
    if not asyncio.run(nodes.load_custom_node(str(folder), module_parent="custom_nodes")):
        raise RuntimeError("ComfyUI could not load the pack; its log says why.")
    return str(folder).replace(".", "_x_")


def checks(package: str, names: list[str]):
    """(name, function) of every check, module by module."""
    for path in sorted(HERE.glob("*.py")):
        if path.stem in NOT_CHECKS:
            continue
        module = importlib.import_module(f"{package}.tests.comfyui.inside.{path.stem}")
        for name, function in vars(module).items():
            full = f"{path.stem}.{name}"
            if name.startswith("check_") and function.__module__ == module.__name__ and (
                    not names or any(part in full for part in names)):
                yield full, function


def main(comfyui: str, base: str, out: str, *names: str) -> None:
    """Run the checks one by one; a failing one does not stop the others."""
    package = load_pack(Path(comfyui), Path(base))
    import comfy.utils
    import torch

    comfy.utils.set_progress_bar_enabled(False)
    torch.set_num_threads(1)  # these tensors are too small to share out
    results = {}
    for name, function in checks(package, list(names)):
        start = time.monotonic()
        try:
            with torch.inference_mode():  # as ComfyUI runs its nodes
                ok, detail = True, function() or ""
        except Exception:
            ok, detail = False, traceback.format_exc()
        gc.collect()
        results[name] = {"ok": ok, "detail": detail, "seconds": round(time.monotonic() - start, 2)}
        print(f"{'ok  ' if ok else 'FAIL'} {results[name]['seconds']:6.2f} s  {name}: {detail}", flush=True)
    Path(out).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
