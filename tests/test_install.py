"""install.py, without pip and without a second environment: what it decides, what it calls, what it says."""

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


def load_install(path: Path = REPO / "install.py"):
    """install.py by its path, as a machine with nothing installed runs it."""
    spec = importlib.util.spec_from_file_location("strata_install_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def install():
    return load_install()


@pytest.fixture
def comfyui(tmp_path):
    """A folder that looks like ComfyUI 0.33 from outside, which is all that linking looks at."""
    folder = tmp_path / "Comfy UI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "custom_nodes").mkdir()
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text('__version__ = "0.33.0"\n')
    return folder


@pytest.fixture
def checkout(tmp_path):
    """A checkout of three packages, in a folder with a space."""
    root = tmp_path / "my strata"
    root.mkdir()
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=60"]\n[project]\nname = "comfyui-strata"\nversion = "0.1.0"\n'
        'dependencies = ["packaging>=20"]\n[project.optional-dependencies]\nstandalone = ["pytest>=8"]\n'
        'dev = ["no-such-package-of-ours>=1"]\n'
    )
    (root / "constraints.txt").write_text("# pins\n")
    return root


@pytest.fixture
def calls(install, monkeypatch):
    """What set_up asks of pip, in place of pip; the environment counts as ready."""
    made = []
    monkeypatch.setattr(install, "ready_python", lambda root: Path(sys.executable))
    monkeypatch.setattr(install, "pip_install", lambda python, root, *what: made.append(what))
    return made


# ---- the bare call ---------------------------------------------------------------------------------------------------


def bare(folder: Path, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-I", str(REPO / "install.py")],
        cwd=folder, capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def test_bare_call_says_one_line_and_changes_nothing(comfyui):
    before = sorted(comfyui.rglob("*"))
    done = bare(comfyui, COMFYUI_PATH=str(comfyui))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Strata: nothing needs installing, the nodes run on what ComfyUI brings.\n"
    assert sorted(comfyui.rglob("*")) == before


def test_bare_call_names_a_comfyui_that_is_too_old(comfyui):
    (comfyui / "comfyui_version.py").write_text('__version__ = "0.8.1"\n')
    done = bare(comfyui, COMFYUI_PATH=str(comfyui))
    assert done.returncode == 0
    assert "needs ComfyUI 0.33 or newer" in done.stdout and "0.8.1" in done.stdout


def test_a_python_too_old_is_told_so(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(SystemExit, match=r"needs Python 3\.10 or newer"):
        load_install()


# ---- what is installed -----------------------------------------------------------------------------------------------


def test_survey_finds_what_is_missing(install, checkout):
    assert install.survey(checkout, ["standalone"])["unmet"] == []
    found = install.survey(checkout, ["standalone", "dev"])
    assert found["unmet"] == ["no-such-package-of-ours>=1"]
    assert found["wanted"] == ["setuptools>=60", "packaging>=20", "pytest>=8", "no-such-package-of-ours>=1"]


def test_survey_finds_a_version_other_than_the_pinned_one(install, checkout):
    (checkout / "constraints.txt").write_text('pytest==0.1  # a pin\nPackaging==0.2; python_version < "3"\n')
    assert install.survey(checkout, ["standalone"])["unmet"] == ["pytest>=8"]


def test_survey_knows_another_checkout_from_this_one(install, checkout):
    assert install.survey(checkout, ["standalone"])["installed"] is False


def test_survey_runs_in_the_python_of_the_environment(install):
    found = install.survey_in(Path(sys.executable), REPO, ["standalone", "dev"])
    assert set(found) == {"wanted", "unmet", "installed"}
    assert any(text.startswith("torch") for text in found["wanted"])


def test_pip_is_not_called_when_all_is_there(install, checkout, calls, monkeypatch):
    monkeypatch.setattr(install, "survey_in", lambda *_: {"wanted": ["a"], "unmet": [], "installed": True})
    assert install.set_up(checkout, ["standalone"]) == Path(sys.executable)
    assert calls == []


def test_pip_gets_every_requirement_then_this_folder(install, checkout, calls, monkeypatch):
    survey = {"wanted": ["a>=1", "b>=2"], "unmet": ["b>=2"], "installed": False}
    monkeypatch.setattr(install, "survey_in", lambda *_: survey)
    install.set_up(checkout, ["standalone"])
    assert calls == [("a>=1", "b>=2"), ("--no-deps", "--no-build-isolation", "-e", str(checkout))]


def test_set_up_wants_a_checkout(install, tmp_path):
    with pytest.raises(install.Problem, match="no checkout of Strata"):
        install.set_up(tmp_path, ["standalone"])


# ---- pip, as a small script in its place -----------------------------------------------------------------------------


@pytest.fixture
def fake_pip(tmp_path, checkout):
    """Makes an executable that stands for `python` and speaks as pip does, then exits with `code`."""
    if os.name == "nt":
        pytest.skip("the stand-in for pip is a shell script")
    (checkout / ".venv").mkdir()

    def make(text: str, code: int) -> Path:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        script.chmod(0o755)
        return script

    return make


def test_pip_failure_ends_in_its_last_lines(install, checkout, fake_pip):
    python = fake_pip("first\n" + "line\n" * 12 + "ERROR: the last", 1)
    with pytest.raises(install.Problem, match="could not install") as caught:
        install.pip_install(python, checkout, "x")
    assert str(caught.value).endswith("ERROR: the last") and "first" not in str(caught.value)
    assert not (checkout / ".venv" / install.UNFINISHED).exists()


def test_pip_without_a_network_says_so(install, checkout, fake_pip):
    python = fake_pip("WARNING: Retrying after connection broken by 'NewConnectionError'\n" + "x\n" * 20, 1)
    with pytest.raises(install.Problem, match="could not reach its package index"):
        install.pip_install(python, checkout, "x")


def test_pip_on_a_full_disk_says_so(install, checkout, fake_pip):
    python = fake_pip("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", 1)
    with pytest.raises(install.Problem, match="The disk is full"):
        install.pip_install(python, checkout, "x")


@pytest.mark.parametrize(("code", "left"), [(0, False), (1, True)])
def test_a_mark_stands_only_where_pip_broke_off_while_writing(install, checkout, fake_pip, code, left):
    python = fake_pip("Collecting x\nInstalling collected packages: x", code)
    try:
        install.pip_install(python, checkout, "x")
    except install.Problem:
        assert code
    assert (checkout / ".venv" / install.UNFINISHED).exists() is left


# ---- the environment -------------------------------------------------------------------------------------------------


@pytest.fixture
def made(install, monkeypatch):
    """The environments that would have been made anew."""
    made = []
    monkeypatch.setattr(install, "make_venv", made.append)
    return made


def answer_for(*modules: str):
    """Stands for `answers`: the Python runs, and so do these modules."""
    return lambda *command: "-m" not in command or command[command.index("-m") + 1] in modules


def test_a_working_environment_is_kept(install, checkout, made, monkeypatch):
    monkeypatch.setattr(install, "answers", answer_for("pip"))
    assert install.ready_python(checkout) == install.finder.venv_python(checkout / ".venv")
    assert made == []


def test_a_missing_environment_is_made(install, checkout, made):
    install.ready_python(checkout)
    assert made == [checkout / ".venv"]


def test_a_half_made_environment_is_made_anew(install, checkout, made, monkeypatch):
    monkeypatch.setattr(install, "answers", answer_for("pip"))
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / install.UNFINISHED).touch()
    install.ready_python(checkout)
    assert made == [checkout / ".venv"]


def test_an_environment_whose_pip_cannot_be_mended_is_made_anew(install, checkout, made, monkeypatch):
    monkeypatch.setattr(install, "answers", answer_for("ensurepip"))
    install.ready_python(checkout)
    assert made == [checkout / ".venv"]


def test_pip_is_put_into_an_environment_without_it(install, checkout, made):
    venv.create(checkout / ".venv", with_pip=False, symlinks=os.name != "nt")
    python = install.ready_python(checkout)
    assert made == [] and install.answers(python, "-I", "-m", "pip", "--version")


def test_a_folder_of_the_users_is_not_cleared(install, tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "thesis.txt").touch()
    with pytest.raises(install.Problem, match="something other than a virtual environment"):
        install.make_venv(tmp_path / ".venv")
    assert (tmp_path / ".venv" / "thesis.txt").exists()


def test_a_python_without_venv_says_what_to_install(install, tmp_path, monkeypatch):
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(install.Problem, match="apt install python3-venv"):
        install.make_venv(tmp_path / ".venv")


# ---- the link --------------------------------------------------------------------------------------------------------


def test_linking_twice_is_linking_once(install, comfyui, capsys):
    for _ in range(2):
        install.link(comfyui, REPO)
    assert [entry.name for entry in (comfyui / "custom_nodes").iterdir()] == ["ComfyUI-Strata"]
    assert (comfyui / "custom_nodes" / "ComfyUI-Strata").resolve() == REPO
    assert "already" in capsys.readouterr().err


def test_a_checkout_inside_custom_nodes_is_not_linked_beside_itself(install, comfyui):
    inside = comfyui / "custom_nodes" / "strata-by-another-name"
    inside.mkdir()
    install.link(comfyui, inside)
    assert list((comfyui / "custom_nodes").iterdir()) == [inside]


def test_a_link_to_a_checkout_that_is_gone_is_replaced(install, comfyui, checkout):
    target = comfyui / "custom_nodes" / "ComfyUI-Strata"
    try:
        target.symlink_to(comfyui / "gone", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no symbolic links")
    install.link(comfyui, checkout)
    assert target.resolve() == checkout.resolve()


def test_what_else_stands_there_stays(install, comfyui, checkout):
    target = comfyui / "custom_nodes" / "ComfyUI-Strata"
    target.mkdir()
    with pytest.raises(install.Problem, match="move it out"):
        install.link(comfyui, checkout)
    assert target.is_dir() and not list(target.iterdir())


def test_a_folder_that_is_no_comfyui_is_named(install, tmp_path):
    with pytest.raises(install.Problem, match=r"is no ComfyUI .*main\.py"):
        install.link(tmp_path, REPO)


def test_without_links_a_copy_is_made_and_renewed(install, comfyui, checkout, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    if os.name == "nt":
        monkeypatch.setattr("_winapi.CreateJunction", refuse)
    (checkout / ".venv").mkdir()
    target = comfyui / "custom_nodes" / "ComfyUI-Strata"
    for text in ("one", "two"):
        (checkout / "nodes.py").write_text(text)
        install.link(comfyui, checkout)
        assert (target / "nodes.py").read_text() == text
    assert not (target / ".venv").exists()
    assert not list(comfyui.glob(".strata-*"))


# ---- what is run -----------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(install, monkeypatch):
    """The commands that main runs, each ending with the exit code of `codes` that is next, 0 when there is none."""
    ran, codes = [], []

    def run(command, **_):
        ran.append([str(part) for part in command])
        return subprocess.CompletedProcess(command, codes.pop(0) if codes else 0)

    monkeypatch.setattr(install, "set_up", lambda root, extras: ran.append(["set up", *extras]) or Path(sys.executable))
    monkeypatch.setattr(install.subprocess, "run", run)
    return ran, codes


def test_the_demo_runs_as_a_user_would(install, runs):
    ran, _ = runs
    assert install.main(["--demo"]) == 0
    assert ran[0] == ["set up", "standalone"]
    assert {Path(command[0]).stem for command in ran[1:]} == {"strata"}
    clip = REPO / "workflows/assets/shot.mp4"
    assert ran[1][1:] == ["run", "--family", "intrinsic", "--task", "R2AIN", "--input", f"rgb={clip}",
                          "--out", str(REPO / "out/demo/R2AIN")]
    assert [command[3] for command in ran[1:-1]] == ["intrinsic", "alpha", "unity", "unity", "unity"]
    assert ran[-1][1:] == ["caption", str(clip)]


def test_a_demo_that_fails_ends_there_with_its_exit_code(install, runs):
    ran, codes = runs
    codes.append(3)
    assert install.main(["--demo", "--test"]) == 3
    assert len(ran) == 2


def test_pytest_gets_its_options_and_gives_its_exit_code(install, runs):
    ran, codes = runs
    codes.append(5)
    assert install.main(["--test", "--", "-k", "rope", "--", "x"]) == 5
    assert ran == [
        ["set up", "standalone", "train", "dev"],
        [sys.executable, "-m", "pytest", "-n", "auto", "-k", "rope", "--", "x"],
    ]


def test_flags_combine(install, runs, comfyui):
    ran, _ = runs
    assert install.main(["--comfyui", str(comfyui), "--demo", "--test"]) == 0
    assert [command[1] for command in ran] == ["standalone", *["run"] * 5, "caption", "-m"]
    assert (comfyui / "custom_nodes" / "ComfyUI-Strata").exists()


def test_linking_alone_makes_no_environment(install, runs, comfyui):
    ran, _ = runs
    assert install.main(["--comfyui", str(comfyui)]) == 0
    assert ran == []


@pytest.mark.parametrize("arguments", [["--what"], ["--demo", "--", "-q"], ["--comfyui"]])
def test_wrong_use_exits_with_2(install, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        install.main(arguments)
    assert caught.value.code == 2
    assert "usage: install.py" in capsys.readouterr().err
