"""`model_loaders.doctor` and `model_loaders.find_comfyui`: what they see, and that every complaint says what to do."""

import os
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from comfyui_strata.model_loaders import doctor, find_comfyui


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No ComfyUI named by the environment, and an empty home."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")


def make_comfyui(folder: Path, version: str = "0.33.0") -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "custom_nodes").mkdir()
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder


def line(name: str, lines=None):
    """The report's line of that name."""
    return next(entry for entry in lines or doctor.report() if entry[0] == name)


# ---- find_comfyui ----------------------------------------------------------------------------------------------------


def test_no_comfyui_is_none():
    assert find_comfyui.find_comfyui() is None


def test_comfyui_is_found_in_home(tmp_path):
    comfyui = make_comfyui(tmp_path / "home/comfy/ComfyUI")
    assert find_comfyui.find_comfyui() == comfyui


def test_the_comfyui_around_the_pack_goes_before_home(tmp_path):
    make_comfyui(tmp_path / "home/comfy/ComfyUI")
    around = make_comfyui(tmp_path / "around")
    assert find_comfyui.find_comfyui(around / "custom_nodes" / "any-name") == around


def test_a_named_comfyui_goes_before_all(tmp_path, monkeypatch):
    named = make_comfyui(tmp_path / "named")
    around = make_comfyui(tmp_path / "around")
    monkeypatch.setenv("COMFYUI_PATH", str(named))
    assert find_comfyui.find_comfyui(around / "custom_nodes" / "strata") == named


def test_a_named_folder_without_comfyui_is_not_replaced_by_another(tmp_path, monkeypatch):
    make_comfyui(tmp_path / "home/comfy/ComfyUI")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nothing"))
    assert find_comfyui.find_comfyui() is None
    _, ok, text = line("ComfyUI")
    assert ok is None and "COMFYUI_PATH is" in text and "nothing" in text


def test_comfyui_runs_on_its_own_python_unless_one_is_named(tmp_path, monkeypatch):
    comfyui = make_comfyui(tmp_path / "comfyui")
    assert find_comfyui.comfyui_python(comfyui) == Path(sys.executable)
    own = comfyui / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_comfyui.comfyui_python(comfyui) == own
    monkeypatch.setenv("COMFYUI_PYTHON", str(tmp_path / "other"))
    assert find_comfyui.comfyui_python(comfyui) == tmp_path / "other"


@pytest.mark.parametrize(("text", "version"), [('__version__ = "0.33.0"', (0, 33, 0)), ("nothing", None)])
def test_comfyui_version(tmp_path, text, version):
    (tmp_path / "comfyui_version.py").write_text(text)
    assert find_comfyui.comfyui_version(tmp_path) == version
    assert find_comfyui.comfyui_version(tmp_path / "nowhere") is None


# ---- the report ------------------------------------------------------------------------------------------------------


def test_every_line_has_a_name_a_verdict_and_a_text():
    lines = doctor.report()
    assert {"Python", "torch", "ComfyUI", "Tiny model", "Disk"} <= {name for name, _, _ in lines}
    assert all(ok in (True, False, None) and text and "\n" not in text for _, ok, text in lines)


def test_torch_names_its_device():
    _, ok, text = line("torch")
    assert ok is not False and any(device in text for device in ("cuda", "mps", "cpu"))


def test_a_machine_without_torch_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    _, ok, text = doctor.torch_and_device()
    assert ok is False and "comfyui-strata[standalone]" in text


def test_optional_packages_say_what_they_are_for(monkeypatch):
    def version(name):
        if name == "OpenEXR":
            return "3.5.3"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    lines = doctor.optional_packages()
    assert line("OpenEXR", lines) == ("OpenEXR", True, "3.5.3 (EXR files)")
    _, ok, text = line("diffusers", lines)
    assert ok is None and "VAE outside ComfyUI" in text and "pip install" in text
    for name, purpose in (("scikit-image", "strata eval"), ("peft", "training"), ("accelerate", "training")):
        _, ok, text = line(name, lines)
        assert ok is None and purpose in text and "comfyui-strata[train]" in text


def test_any_opencv_counts(monkeypatch):
    def version(name):
        if name == "opencv-python":
            return "4.12"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert line("opencv", doctor.optional_packages())[1] is True


def test_an_old_comfyui_and_a_missing_link_are_named(tmp_path, monkeypatch):
    comfyui = make_comfyui(tmp_path / "old", "0.32.9")
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    lines = doctor.report()
    _, ok, text = line("ComfyUI", lines)
    assert ok is False and "0.32.9" in text and "update it to 0.33" in text
    _, ok, text = line("Node pack", lines)
    assert ok is None and f"install.py --comfyui {comfyui}" in text


def test_a_linked_pack_is_seen(tmp_path):
    comfyui = make_comfyui(tmp_path / "comfyui")
    entry = comfyui / "custom_nodes" / "whatever"
    try:
        entry.symlink_to(find_comfyui.PACK, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no symbolic links")
    assert doctor.comfyui_lines(comfyui)[1] == ("Node pack", True, str(entry))


@pytest.mark.parametrize(("content", "ok"), [(None, False), (b"", False), (b"weights", True)])
def test_the_tiny_model_must_be_there_and_hold_something(tmp_path, monkeypatch, content, ok):
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "doctor.py"))
    if content is not None:
        (tmp_path / "tiny" / "vae").mkdir(parents=True)
        (tmp_path / "tiny" / "vae" / "wan.safetensors").write_bytes(content)
    assert doctor.tiny_model()[1] is ok


@pytest.mark.parametrize(("free", "ok"), [(5e9, None), (500e9, True)])
def test_free_disk_is_held_against_a_published_model(monkeypatch, free, ok):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert doctor.free_disk()[1] is ok
