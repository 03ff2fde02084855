"""The tree keeps its promises: imports go down, Ray stays behind its doors, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "platform" / "twotower"
LAYERS = {
    "core": 0,
    "kernels": 0,
    "serving": 1,
    "data": 2,
    "datasets": 2,
    "models": 2,
    "objectives": 2,
    "evaluation": 2,
    "training": 3,
    "runtime": 4,
    "report": 5,
    "export": 5,
    "study": 6,
    "bench": 6,
    "demo": 6,
    "cli": 7,
}
RAY_DOORS = ("data/pipeline.py", "runtime/")
RAY_FREE = ("runtime/reference.py",)
TORCH_FREE = ("core", "serving", "data", "datasets", "report")
NOT_TO_SERVE = ("torch", "ray", "pyarrow", "pandas", "polars", "pydantic")
FILES = sorted(SOURCE.rglob("*.py"))
ENTRIES = sorted([*(ROOT / "jobs").glob("*.py"), *(ROOT / "tune").glob("*.py")])
LOOPS = {"training/loop.py": ("fit", 60), "training/step.py": ("train_step", 40)}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(module: str) -> tuple[str, int] | None:
    parts = module.split(".")
    return (
        (parts[1], LAYERS[parts[1]])
        if parts[0] == "twotower" and parts[1:2] and parts[1] in LAYERS
        else None
    )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    if parts[0] not in LAYERS:
        assert parts == ("__init__",)
        return
    mine, level = parts[0], LAYERS[parts[0]]
    for module in imports(path):
        assert module.split(".")[0] not in {"jobs", "tune", "tests"}
        other = layer_of(module)
        if other and other[0] != mine:
            assert other[1] < level, f"{name_of(path)} imports {module}: imports go down only"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_ray_and_torch_stay_behind_their_doors(path: Path) -> None:
    name, top = name_of(path), {module.split(".")[0] for module in imports(path)}
    if not name.startswith(RAY_DOORS) or name in RAY_FREE:
        assert "ray" not in top
    if name.split("/")[0] in TORCH_FREE:
        assert "torch" not in top


def test_serving_needs_numpy_and_safetensors_only() -> None:
    modules = [
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for path in sorted((SOURCE / "serving").glob("[!_]*.py"))
    ]
    code = f"import sys, {', '.join(modules)}; print(*{{n.split('.')[0] for n in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCE.parent, capture_output=True, text=True, check=True
    )
    assert not set(NOT_TO_SERVE) & set(done.stdout.split())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno:
            assert node.end_lineno - node.lineno < 60, f"{node.name} has over 60 lines"


def test_packages_are_plain_folders() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow the standard library"
    for init in SOURCE.rglob("__init__.py"):
        if init.parent != SOURCE:
            assert init.read_text(encoding="utf-8") == "", f"{init}: must be empty"


def test_platform_does_not_shadow_the_standard_library() -> None:
    code = "import platform, uuid; print(platform.python_version())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", LOOPS)
def test_the_loop_and_the_step_fit_a_page(name: str) -> None:
    function, limit = LOOPS[name]
    tree = ast.parse((SOURCE / name).read_text(encoding="utf-8"))
    sizes = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert sizes[function] <= limit


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.name)
def test_entry_points_are_thin_and_well_named(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") <= 60
    assert path.stem not in sys.stdlib_module_names | {"ray", "torch", "optuna", "twotower"}


def test_the_top_level_is_fixed() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    top = {name.split("/")[0] for name in listed.stdout.split() if not name.startswith(".")}
    assert top <= {
        "platform", "jobs", "tune", "configs", "tests", "pyproject.toml", "docs", "README.md",
        "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "Makefile", "constraints.txt",
    }  # fmt: skip


# Messages between prepare's driver and its own tasks; nothing that was ever a file.
PICKLED_MESSAGES = {"data/pipeline.py"}
RUNS_DATA = {"eval", "exec", "yaml.load", "torch.load", "pickle.load", "pickle.loads"}


@pytest.mark.parametrize("path", [*FILES, *ENTRIES], ids=lambda path: path.name)
def test_no_code_that_runs_data(path: Path) -> None:
    inside = path.is_relative_to(SOURCE) and name_of(path) in PICKLED_MESSAGES
    refused = RUNS_DATA - ({"pickle.loads"} if inside else set())
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in refused, f"{path}:{node.lineno}"
            assert not [k for k in node.keywords if k.arg == "shell"], f"{path}:{node.lineno}"
