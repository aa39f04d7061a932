"""Sets a machine up for Strata. Standard library only; runs from any folder with any Python >= 3.10.

    python3 install.py                  what ComfyUI-Manager runs: inside ComfyUI nothing needs installing
    python3 install.py --demo           .venv, then a bundled clip into layers and words: no ComfyUI, no GPU
    python3 install.py --test [-- ...]  .venv, then the tests on several cores; what follows -- goes to pytest
    python3 install.py --dev            .venv for developing, nothing run
    python3 install.py --comfyui PATH   a link to this folder in PATH/custom_nodes

pip is only called when a package is missing or is not the pinned version, so a machine that has them works offline.
Exit 0 all well, 1 something failed, 2 wrong use; --test and --demo pass on the exit code of what they run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 -- older Pythons get this far too, and this sentence is for them
    sys.exit(f"Strata needs Python 3.10 or newer and {sys.executable} is {sys.version.split()[0]}: use a newer one.")

ROOT = Path(__file__).resolve().parent
NAME = "ComfyUI-Strata"  # of the folder in custom_nodes
DISTRIBUTION = "comfyui-strata"
UNFINISHED = "strata-unfinished"  # stands in .venv while pip writes there; whoever finds it finds a half-made one
COPIED = ".copied-from"  # stands in a copy in custom_nodes, where neither link nor junction could be made
CLIP = "workflows/assets/shot.mp4"
DEMO = ("R2AIN", "intrinsic"), ("R2PFB", "alpha"), ("R2D", "unity"), ("R2F", "unity"), ("R2S", "unity")


class Problem(Exception):
    """What went wrong, in a sentence that says what to do."""


def say(text: str) -> None:
    """Talk goes to stderr; stdout is left to the results of what is run."""
    print(text, file=sys.stderr, flush=True)


def load_finder():
    """`model_loaders/find_comfyui.py`, loaded by its path since nothing is installed yet.

    From the path as given, not resolved: Manager may call this through a link in custom_nodes.
    """
    path = Path(__file__).absolute().parent / "model_loaders" / "find_comfyui.py"
    spec = importlib.util.spec_from_file_location("strata_find_comfyui", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


finder = load_finder()


# ---- the virtual environment -----------------------------------------------------------------------------------------


def answers(*command) -> bool:
    """Whether a command runs and exits with 0."""
    try:
        return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def failure(sentence: str, output: str) -> Problem:
    """`sentence` with the last lines of a tool's `output`, or the sentence for a full disk.

    venv hides what its own tool said, so a disk that is now full counts as much as one that is named.
    """
    text = output.strip()
    free = {place: shutil.disk_usage(place).free for place in (str(ROOT), tempfile.gettempdir())}
    named = any(sign in text for sign in ("No space left on device", "Errno 28", "not enough space on the disk"))
    if named or min(free.values()) < 20e6:
        places = ", ".join(f"{size / 1e9:.1f} GB free at {place}" for place, size in free.items())
        return Problem(f"The disk is full ({places}): free about 6 GB and run the same command again.")
    return Problem(sentence + "; its last lines:\n" + "\n".join(text.splitlines()[-10:]))


def make_venv(venv: Path) -> None:
    """A new, empty `.venv` with pip, in the place of a broken one.

    Raises:
        Problem: this Python cannot make one, or something that is no virtual environment has the name.
    """
    if venv.is_symlink() or (venv.exists() and not venv.is_dir()):
        raise Problem(f"{venv} is no folder: remove it and run the same command again.")
    parts = {"bin", "scripts", "include", "lib", "lib64", "share", "pyvenv.cfg", UNFINISHED}
    if venv.is_dir() and not (venv / "pyvenv.cfg").is_file() and {p.name.lower() for p in venv.iterdir()} - parts:
        raise Problem(f"{venv} holds something other than a virtual environment: move it away and run this again.")
    if venv.exists() and Path(sys.prefix).resolve() == venv.resolve():
        raise Problem(f"{venv} is half-made and cannot rebuild itself: run install.py with the system's Python.")
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise Problem(
                f"{sys.executable} lacks the module {module}: install it (Debian and Ubuntu: apt install python3-venv) "
                "or run install.py with another Python."
            )
    say(f"Making {venv}")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, errors="replace"
    )
    if made.returncode:
        raise failure(f"{sys.executable} could not make {venv}", made.stdout + made.stderr)


def ready_python(root: Path) -> Path:
    """The Python of `root`/.venv, made or repaired if need be. It runs, is >= 3.10 and has pip."""
    venv = root / ".venv"
    python = finder.venv_python(venv)
    check = "import sys; sys.exit(sys.version_info < (3, 10) or sys.prefix == sys.base_prefix)"
    if (venv / UNFINISHED).exists() or not answers(python, "-I", "-c", check):
        make_venv(venv)
    elif not answers(python, "-I", "-m", "pip", "--version"):  # made by uv, or interrupted at its last step
        say(f"Putting pip into {venv}")
        if not (answers(python, "-I", "-m", "ensurepip") and answers(python, "-I", "-m", "pip", "--version")):
            make_venv(venv)
    return python


# ---- what is installed there -----------------------------------------------------------------------------------------


def survey(root: Path, extras: list[str]) -> dict:
    """What `root` needs against what the *running* Python has; `--survey` runs it inside .venv, where pip is.

    Returns:
        "wanted": every requirement of pyproject.toml with `extras`; "unmet": those missing, or other than the range
        there or the pin in constraints.txt allows; "installed": whether this very folder is installed, editable.
    """
    from importlib import metadata
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name

    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib

    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    project = settings["project"]
    wanted = [*settings["build-system"]["requires"], *project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]

    lines = (line.split("#")[0].strip() for line in (root / "constraints.txt").read_text("utf-8").splitlines())

    def applies(requirement: Requirement) -> bool:
        return not requirement.marker or requirement.marker.evaluate()

    pins = [pin for pin in map(Requirement, filter(None, lines)) if applies(pin)]

    def met(requirement: Requirement) -> bool:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            return False
        name = canonicalize_name(requirement.name)
        rules = [requirement, *(pin for pin in pins if canonicalize_name(pin.name) == name)]
        return all(rule.specifier.contains(version, prereleases=True) for rule in rules)

    def installed() -> bool:
        try:
            ours = metadata.distribution(DISTRIBUTION)
        except metadata.PackageNotFoundError:
            return False
        source = json.loads(ours.read_text("direct_url.json") or "{}")
        folder = Path(url2pathname(urlparse(source.get("url", "")).path))
        editable = source.get("dir_info", {}).get("editable", False)
        return ours.version == project["version"] and editable and folder.resolve() == root.resolve()

    wanted = [text for text in dict.fromkeys(wanted) if applies(Requirement(text))]
    unmet = [text for text in wanted if not met(Requirement(text))]
    return {"wanted": wanted, "unmet": unmet, "installed": installed()}


def survey_in(python: Path, root: Path, extras: list[str]) -> dict:
    """`survey`, run by `python`. -I keeps this folder, with its egg-info, off that Python's path."""
    command = [str(python), "-I", str(root / "install.py"), "--survey", ",".join(extras)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise failure(f"{python} could not list its packages", done.stderr)
    return json.loads(done.stdout)


def pip_install(python: Path, root: Path, *what: str) -> None:
    """`pip install` under constraints.txt. Shows what pip loads, and its last lines if it fails.

    Raises:
        Problem: pip failed or the disk is full.
    """
    mark = root / ".venv" / UNFINISHED
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "-c", str(root / "constraints.txt")]
    command = [str(python), "-I", "-m", "pip", "install", *options, *what]
    tail: deque[str] = deque(maxlen=10)
    reached = True
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=root
    ) as pip:
        for line in pip.stdout:
            tail.append(line.rstrip())
            reached = reached and "after connection broken" not in line
            if line.lstrip().startswith(("Downloading ", "Building ", "Installing ")):
                say("  " + line.strip()[:150])
            if line.startswith("Installing collected packages"):
                mark.touch()  # from here on an interrupt leaves halves of packages, which pip itself would not notice
    if pip.returncode:
        # Without its index pip blames the pins, so say what the matter is.
        away = "it could not reach its package index: connect this machine, or set PIP_FIND_LINKS to a folder of wheels"
        raise failure("pip could not install the packages" + ("" if reached else f", {away}"), "\n".join(tail))
    mark.unlink(missing_ok=True)


def set_up(root: Path, extras: list[str]) -> Path:
    """Makes `root`/.venv hold this package, editable, with `extras`. Returns its Python."""
    if not (root / "pyproject.toml").is_file():
        raise Problem(f"{root} is no checkout of Strata: run the install.py of a checkout.")
    python = ready_python(root)
    found = survey_in(python, root, extras)
    if found["unmet"]:
        say("Installing into .venv: " + ", ".join(found["unmet"]))
        pip_install(python, root, *found["wanted"])
    if not found["installed"]:
        # With its build tool already there and no dependencies to look up, this step needs no network.
        pip_install(python, root, "--no-deps", "--no-build-isolation", "-e", str(root))
    return python


# ---- what can be asked for -------------------------------------------------------------------------------------------


def check_host() -> None:
    """The bare call: one line, never a change. ComfyUI already brings all that the nodes need."""
    comfyui = finder.find_comfyui()
    version = finder.comfyui_version(comfyui) if comfyui else None
    needed = ".".join(map(str, finder.OLDEST))
    if version and version < finder.OLDEST:
        have = ".".join(map(str, version))
        print(f"Strata needs ComfyUI {needed} or newer and {comfyui} is {have}: update it; nothing else is needed.")
    else:
        print("Strata: nothing needs installing, the nodes run on what ComfyUI brings.")


def link(comfyui: Path, root: Path) -> None:
    """Puts `root` into `comfyui`'s custom_nodes: a symbolic link, on Windows a junction, where neither goes a copy.

    Raises:
        Problem: no ComfyUI there, or something else has the name.
    """
    comfyui = comfyui.expanduser().absolute()
    if not finder.is_comfyui(comfyui):
        raise Problem(f"{comfyui} is no ComfyUI (no main.py and comfy/ there): give the folder that holds its main.py.")
    there = finder.links_to(comfyui, root)
    if there:  # under any name: loaded twice, the node ids would clash
        say(f"{there} is this folder already.")
        return
    target = comfyui / "custom_nodes" / NAME
    mark = target / COPIED
    if target.is_symlink() and not target.exists():
        target.unlink()  # a link whose checkout is gone
    elif target.exists() and not (mark.is_file() and mark.read_text("utf-8") == str(root)):
        raise Problem(f"{target} is something else than this folder: move it out of custom_nodes and run this again.")
    target.parent.mkdir(exist_ok=True)
    say(f"{make_link(target, root)} {target} -> {root}")


def make_link(target: Path, root: Path) -> str:
    """Makes `target` lead to `root` by the best means this system allows; returns its name."""
    if not target.exists():
        try:
            target.symlink_to(root, target_is_directory=True)
            return "Linked"
        except OSError:  # Windows without the right to, or a file system without links
            if os.name == "nt":
                import _winapi

                try:
                    _winapi.CreateJunction(str(root), str(target))
                    return "Joined"
                except OSError:
                    pass  # another drive kind (network, exFAT): copy
    # Written aside, outside custom_nodes, so that ComfyUI never sees half a pack.
    with tempfile.TemporaryDirectory(dir=target.parents[1], prefix=".strata-") as aside:
        fresh = Path(aside) / NAME
        leave = shutil.ignore_patterns(
            ".git", ".venv", "out", "build", "dist", "node_modules", "__pycache__", "*.egg-info", ".*_cache"
        )
        shutil.copytree(root, fresh, ignore=leave)
        (fresh / COPIED).write_text(str(root), "utf-8")
        if target.exists():
            target.rename(Path(aside) / "old")
        fresh.rename(target)
    return "Copied (run this again after each update)"


def demo(root: Path, python: Path) -> int:
    """What each family is for, run as a user runs it. Returns the exit code."""
    strata = str(python.with_name("strata.exe" if os.name == "nt" else "strata"))
    clip, out = str(root / CLIP), root / "out" / "demo"
    commands = [["run", "--family", family, "--task", task, "--input", f"rgb={clip}", "--out", str(out / task)]
                for task, family in DEMO]
    for command in [*commands, ["caption", clip]]:
        say(f"\nstrata {' '.join(command)}")
        code = subprocess.run([strata, *command], cwd=root, check=False).returncode
        if code:
            say(f"That failed (exit {code}); `strata doctor` says what this machine has.")
            return code
    say(f"\nThe layers lie in {out}; look at {out / DEMO[0][0] / 'contact_sheet.png'} first.")
    return 0


def main(arguments: list[str]) -> int:
    """Does what the command line asks for, in the order link, demo, test."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, passed_on = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="install.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", action="store_true", help="set up .venv and split a bundled clip")
    parser.add_argument("--test", action="store_true", help="set up .venv and run the tests (pytest options after --)")
    parser.add_argument("--dev", action="store_true", help="set up .venv for developing, run nothing")
    parser.add_argument("--comfyui", metavar="PATH", type=Path, help="link this folder into PATH/custom_nodes")
    parser.add_argument("--survey", metavar="EXTRAS", help=argparse.SUPPRESS)
    asked = parser.parse_args(own)
    if passed_on and not asked.test:
        parser.error("only --test takes options after --")
    if asked.survey:
        print(json.dumps(survey(ROOT, asked.survey.split(","))))
        return 0
    if not (asked.demo or asked.test or asked.dev or asked.comfyui):
        check_host()
        return 0
    if asked.comfyui:
        link(asked.comfyui, ROOT)
    if not (asked.demo or asked.test or asked.dev):
        return 0
    python = set_up(ROOT, ["standalone", "train", "dev"] if asked.test or asked.dev else ["standalone"])
    code = demo(ROOT, python) if asked.demo else 0
    if asked.test and not code:
        code = subprocess.run([str(python), "-m", "pytest", "-n", "auto", *passed_on], cwd=ROOT, check=False).returncode
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Problem as problem:
        sys.exit(f"install.py: {problem}")
    except OSError as error:
        sys.exit(f"install.py: {failure('the system refused', str(error))}")
    except KeyboardInterrupt:
        say("\nInterrupted. Run the same command again: it goes on or starts over as needed.")
        sys.exit(130)
