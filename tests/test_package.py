"""The package as users get it: metadata, wheel, a custom_nodes folder of any name; and which way imports point."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))
PROJECT = SETTINGS["project"]
PACKAGES = SETTINGS["tool"]["setuptools"]["packages"]
FOLDERS = [name.partition(".")[2].replace(".", "/") for name in PACKAGES]  # "" is the root itself
OUTSIDE = {"tests", "bench", "docs"}  # folders of the checkout that are no part of the package
SOURCES = sorted(path for folder in FOLDERS for path in (REPO / folder).glob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


def imports(path: Path) -> list[tuple[int, str]]:
    """Every import in a file: how many dots it starts with, and the module after them."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from . import a, b` names modules too
            found += [(node.level, node.module)] if node.module else [(node.level, a.name) for a in node.names]
    return found


# ---- metadata --------------------------------------------------------------------------------------------------------


def requirements() -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *SETTINGS["build-system"]["requires"]]
    return [Requirement(text) for text in texts + sum(PROJECT["optional-dependencies"].values(), [])]


def pins(python_version: str) -> dict[str, str]:
    """constraints.txt as that Python sees it: a version for each name."""
    lines = (line.split("#")[0].strip() for line in (REPO / "constraints.txt").read_text("utf-8").splitlines())
    here = {"python_version": python_version}
    held = [pin for pin in map(Requirement, filter(None, lines)) if not pin.marker or pin.marker.evaluate(here)]
    names = [canonicalize_name(pin.name) for pin in held]
    assert len(set(names)) == len(names), "a package is pinned twice"
    return {name: re.fullmatch(r"==([\d.]+)", str(pin.specifier))[1] for name, pin in zip(names, held)}


def test_the_nodes_need_only_what_comfyui_brings():
    assert {Requirement(text).name for text in PROJECT["dependencies"]} == {
        "numpy", "safetensors", "pillow", "av", "tqdm"
    }  # fmt: skip


def test_users_get_ranges():
    for requirement in requirements():
        assert requirement.specifier, f"{requirement.name} has no oldest version"
        assert all(rule.operator in (">=", "<", "!=") for rule in requirement.specifier), f"{requirement} pins"


@pytest.mark.parametrize("python_version", ["3.10", "3.11", "3.13"])
def test_every_requirement_is_pinned_inside_its_range(python_version):
    held = pins(python_version)
    for requirement in requirements():
        if requirement.marker and not requirement.marker.evaluate({"python_version": python_version}):
            continue
        version = held.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is missing in constraints.txt"
        assert version in requirement.specifier, f"{version} is outside {requirement}"


def test_the_registry_reads_every_field():
    parser = pytest.importorskip("comfy_cli.registry.config_parser")
    read = parser.extract_node_configuration(str(REPO / "pyproject.toml"))
    assert (read.project.name, read.project.version) == ("comfyui-strata", PROJECT["version"])
    assert read.project.license.text == "Apache-2.0"
    assert read.project.supported_os == ["OS Independent"]
    assert read.project.supported_accelerators == ["GPU :: NVIDIA CUDA"]
    assert read.project.supported_comfyui_version == ">=0.33.0"
    assert read.project.urls.repository.endswith("/ComfyUI-Strata")
    assert read.tool_comfy.display_name == "Strata" and read.tool_comfy.publisher_id


def test_every_package_is_listed():
    found = {path.parent.relative_to(REPO) for depth in ("*", "*/*") for path in REPO.glob(f"{depth}/__init__.py")}
    assert {folder.as_posix() for folder in found if folder.parts[0] not in OUTSIDE} == set(FOLDERS) - {""}


# ---- wheel -----------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_module_and_its_data(tmp_path):
    tree = tmp_path / "tree"  # setuptools writes build/ beside its sources
    ignore = shutil.ignore_patterns(".*", "build", "dist", "out", "node_modules", "__pycache__", "*.egg-info")
    shutil.copytree(REPO, tree, ignore=ignore)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())

    data = [p for p in (REPO / "model_loaders/tiny").rglob("*") if p.is_file()]
    data += [p for pattern in ("*.json", "*.jpg", "api/*.json", "assets/*") for p in (REPO / "workflows").glob(pattern)]
    data += [p for p in (REPO / "web").rglob("*") if p.is_file()]
    data += (REPO / "locales").glob("*/*.json")
    data += (REPO / "training/recipes").glob("*.toml")
    wanted = {f"comfyui_strata/{relative(path)}" for path in [*SOURCES, *data]}
    ours = {name for name in names if name.startswith("comfyui_strata/")}
    assert ours == wanted
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


# ---- a folder in custom_nodes ----------------------------------------------------------------------------------------

AS_COMFYUI_DOES = """
import importlib, importlib.util, sys
folder, modules = sys.argv[1], sys.argv[2:]
before = list(sys.path)
name = folder.replace(".", "_x_")  # nodes.py of ComfyUI, load_custom_node
spec = importlib.util.spec_from_file_location(name, folder + "/__init__.py")
pack = sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
assert callable(pack.comfy_entrypoint) and pack.WEB_DIRECTORY == "./web"
assert not hasattr(pack, "NODE_CLASS_MAPPINGS")  # ComfyUI would then never ask for comfy_entrypoint
assert "torch" not in sys.modules, "torch is imported before it is needed"
for module in modules:
    importlib.import_module(f"{name}.{module}")
assert sys.path == before, "sys.path was changed"
strangers = {"comfyui_strata", "comfy", "nodes", "folder_paths"} & set(sys.modules)
assert not strangers, f"imported absolutely: {strangers}"
"""


@pytest.mark.parametrize("folder", ["ComfyUI-Strata", "0_strata.v2-main"])
def test_the_pack_loads_from_a_folder_of_any_name_without_comfyui(tmp_path, folder):
    try:
        (tmp_path / folder).symlink_to(REPO, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no symbolic links")
    hostless = ("joint", "imaging", "model_loaders", "training")
    free = [path for path in SOURCES if path.relative_to(REPO).parts[0] in hostless]
    modules = [relative(path.with_suffix("")).replace("/", ".") for path in free if path.stem != "__init__"]
    command = [sys.executable, "-I", "-c", AS_COMFYUI_DOES, str(tmp_path / folder), *modules]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_installed_package_is_this_tree():
    assert Path(importlib.import_module("comfyui_strata").__file__).resolve() == REPO / "__init__.py"


# ---- imports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_imports_the_package_absolutely(path):
    # `nodes` is left out: absolute, that is ComfyUI's own module.
    own = {"comfyui_strata", "cli", "install", *FOLDERS} - {"", "nodes"}
    assert not [module for level, module in imports(path) if level == 0 and module.split(".")[0] in own]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_changes_the_module_search_path(path):
    attributes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)]
    assert not [node.lineno for node in attributes if ast.unparse(node) == "sys.path"]


@pytest.mark.parametrize("path", sorted((REPO / "joint").glob("*.py")), ids=relative)
def test_joint_imports_nothing_of_ours_and_no_comfyui(path):
    for level, module in imports(path):
        assert level < 2, f"reaches up to {module}"
        assert module.split(".")[0] not in ("comfy", "comfy_api", "folder_paths", "nodes"), f"needs ComfyUI's {module}"


def own_imports(path: Path) -> list[tuple[str, ...]]:
    """The relative imports of a file as paths from the package's root: `from ..colour import x` of
    imaging/files/exr.py is ("imaging", "colour")."""
    here = path.relative_to(REPO).parts[:-1]
    return [(*here[:len(here) + 1 - level], *module.split(".")) for level, module in imports(path) if level]


@pytest.mark.parametrize("folder", ["imaging", "model_loaders"])
def test_imports_point_down_the_house(folder):
    above = {"cli", "nodes", "comfy_host", "standalone", "training"}
    for path in (REPO / folder).rglob("*.py"):
        reached = {module[0] for module in own_imports(path)}
        assert not reached & above, f"{relative(path)} imports {reached & above}"


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name == "imaging" or name.startswith("imaging/")])
def test_the_packages_of_imaging_form_no_circle(folder):
    below = {"files": {"compositing", "encodings"}, "sizes": {"encodings"}, "viewing": {"encodings"}}
    packages = {name.partition("/")[2] for name in FOLDERS if name.startswith("imaging/")}
    package = folder.partition("/")[2]
    for path in (REPO / folder).glob("*.py"):
        reached = {module[1] for module in own_imports(path) if module[0] == "imaging"} & packages
        assert reached <= {package} | below.get(package, set()), f"{relative(path)} imports {reached}"
