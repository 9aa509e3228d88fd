"""Imports point down, and nothing heavy or machine-bound slips in."""

import ast
import graphlib
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import house  # noqa: E402

# Lowest first: a name imports only what stands before it in this list, where it stands
# for a module or, as a folder, for all that is in it.
LAYERS = [name for layer in house.layers(ROOT) for name in layer]
PUBLIC = ""  # sws_jax/__init__.py: above everything, so that it may import everything

# What a folder must not import, besides what stands above it: names of modules,
# folders and libraries.
FORBIDDEN = {
    "methods": ("sws_jax.data", "sws_jax.storage", "sws_jax.training"),
    "training": ("ml_collections", "absl", "sws_jax.jobs"),
}

# Who may read a command line. The pipeline reads none: Grain's worker processes want to
# see flags parsed. Nor do the files of PyTorch: published ones hold a Namespace beside
# weights.
FLAG_LIBRARIES = ("argparse", "absl", "ml_collections.config_flags")
READ_FLAGS = (
    "main", "jobs.commandline", "__main__", "commands", "data.pipeline",
    "convert.tensors", "runtime.rendezvous",
)  # fmt: skip

MODULES = house.read(ROOT)
IMPORTS = house.imports(MODULES)


def module(source, name="program"):
    """A module of some source, as the walk takes it."""
    path = pathlib.Path(*name.split(".")).with_suffix(".py")
    return house.Module(name, path, source, ast.parse(source))


def targets(one, *, late=None):
    """Dotted names of all that a module imports; with `late`, of its (un)late ones."""
    return [
        dotted
        for statement, is_late in house.statements(one)
        if late in (None, is_late)
        for dotted, _ in house.full_names(one, statement)
    ]


def belongs(name, names):
    return any(name == n or name.startswith(n + ".") for n in names)


def layer_of(name):
    """The position of the entry that claims a module."""
    return LAYERS.index(name.split(".")[0] or "__init__")


def upward(pairs):
    return [pair for pair in pairs if layer_of(pair[1]) > layer_of(pair[0])]


def circle(pairs):
    """Modules of which each imports the next, the first one again at the end."""
    sorter = graphlib.TopologicalSorter()
    for source, target in sorted(pairs):
        sorter.add(source, target)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_the_list_of_layers_names_all_there_is():
    assert sorted(LAYERS) == sorted({one.box for one in MODULES.values()})


@pytest.mark.parametrize("name", [name for name in MODULES if name != PUBLIC])
def test_imports_point_down(name):
    pairs = house.arrows(link for link in IMPORTS if link.source == name)
    assert upward(pairs) == []


def test_no_modules_import_each_other():
    """Neither within a folder nor across folders, late imports among them."""
    assert circle(house.arrows(IMPORTS)) == []


def test_a_circle_is_seen():
    line = {("a", "b"), ("b", "c"), ("a", "c")}
    assert circle(line) == []
    assert set(circle(line | {("c", "b")})) == {"b", "c"}


@pytest.mark.parametrize("name", list(MODULES))
def test_private_names_stay_in_their_module(name):
    assert house.private_names(MODULES[name], MODULES) == set()


@pytest.mark.parametrize("folder, forbidden", FORBIDDEN.items())
def test_a_folder_knows_nothing_of(folder, forbidden):
    inside = [one for one in MODULES.values() if one.box == folder]
    assert inside
    used = [(one.name, target) for one in inside for target in targets(one)]
    assert [pair for pair in used if belongs(pair[1], forbidden)] == []


def test_the_walk_sees_every_form_of_import():
    source = """
import sws_jax.jobs.train
from sws_jax import main, trees
def late():
    from sws_jax.methods import sws
    from .. import preview
    from ..models.vit import Block
"""
    npz = module(source, "data.npz")
    reached = {
        late: [house.module_of(name, MODULES) for name in targets(npz, late=late)]
        for late in (False, True)
    }
    assert reached == {
        False: ["jobs.train", "main", "trees"],
        True: ["methods.sws", "preview", "models.vit"],
    }
    pairs = [("data.npz", to) for names in reached.values() for to in names]
    assert [to for _, to in upward(pairs)] == [
        "jobs.train",
        "main",
        "methods.sws",
        "preview",
    ]
    assert upward([("specs", PUBLIC)]) == [("specs", PUBLIC)]


@pytest.mark.parametrize("name", list(MODULES))
def test_only_commands_read_flags(name):
    used = [t for t in targets(MODULES[name]) if belongs(t, FLAG_LIBRARIES)]
    assert not used or belongs(name, READ_FLAGS)


# Modules that load JAX and compute nothing with it: they count devices and processes,
# and hand whole numbers about.
IDLE = ("runtime.processes",)
# They load it within their functions, after the flag is set: commands.
LATE = (
    "commands",
    "main",
    "private",
    "runtime.host",
    "runtime.progress",
    "runtime.rendezvous",
)
COMPUTING = ("jax", "flax", "optax")


def loads_jax(name, *, late):
    """Whether a module imports it on its top, or late."""
    return any(belongs(t, COMPUTING) for t in targets(MODULES[name], late=late))


def warns(name):
    return any(
        isinstance(node, ast.Expr) and ast.unparse(node) == "xla_flags.warn()"
        for node in MODULES[name].tree.body
    )


def loaded_with(name):
    """All modules that importing one loads, itself and the packages around included."""
    early = house.arrows(IMPORTS, late=False)
    loaded, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        while name and name not in loaded:
            loaded.add(name)
            waiting += [target for source, target in early if source == name]
            name = name.rpartition(".")[0]
    return loaded


def test_who_computes_tells_of_the_flag_that_is_missing():
    """Each module alone: from `models.norm`, no other one is reached."""
    computing = [name for name in MODULES if loads_jax(name, late=False)]
    assert {"pixels", "models.norm", "trees", "training.step", "data.augment"} <= set(
        computing
    )
    silent = [
        name for name in computing if not any(warns(to) for to in loaded_with(name))
    ]
    assert tuple(silent) == IDLE
    late = [n for n in MODULES if loads_jax(n, late=True) and n not in computing]
    assert late and all(belongs(name, LATE) for name in late)


def test_tests_import_no_other_test():
    """What they share is in `tests/support`; programs within strings are walked too."""
    tests = {path.stem: path for path in (ROOT / "tests").rglob("*.py")}
    modules = {name for name in tests if name.startswith("test_")} | {"conftest"}
    assert len(modules) > 50
    taken = []
    for name, path in tests.items():
        for source in programs(path.read_text()):
            if not any(name in source for name in modules):
                continue  # It names none, and so imports none.
            taken += [
                (name, target)
                for target in targets(module(source))
                if not modules.isdisjoint(target.split("."))
            ]
    assert taken == []


def programs(source):
    """Python source, and what in its strings can be read as such."""
    yield source
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if "import" in node.value:
                try:
                    inner = textwrap.dedent(node.value)
                    ast.parse(inner)
                except SyntaxError:
                    continue
                yield inner


def test_imports_within_strings_are_found():
    source = """
def late():
    from test_none import run
    import tests.test_nothing
PROGRAM = '''
    import test_nobody
    print(1)
'''
WORDS = "import no program"
"""
    names = [t for program in programs(source) for t in targets(module(program))]
    assert names == ["test_none.run", "tests.test_nothing", "test_nobody"]


# A learngene through files and expansion, in a process that lacks what Windows lacks.
# JAX, which has its own ways there, is loaded before.
ELSEWHERE = """
import os, signal, sys
tried = set()
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "torch"):
            tried.add(name)
sys.meta_path.insert(0, Watch())
import jax, numpy
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in [n for n in sys.modules if n.partition(".")[0] == "filelock"]:
    del sys.modules[name]  # which JAX loads, and which looks for locks as it is loaded
for name in ("SIGKILL", "pthread_sigmask", "setitimer"):
    delattr(signal, name)
for name in ("fchmod", "sched_getaffinity", "sysconf"):
    delattr(os, name)
import sws_jax
import sws_jax.jobs.execute
from sws_jax.training import metrics
os.mkdir("run")
metrics.Writer("run").close()
for path in os.listdir("run"):
    os.remove(os.path.join("run", path))
from absl import flags
own = [m for m in flags.FLAGS.flags_by_module_dict() if m.startswith("sws_jax")]
print(sorted(tried), flags.FLAGS.is_parsed(), own)

from sws_jax.models import networks
from sws_jax.storage import files, locks
from sws_jax.data.base import Normalization
small = dict(width=16, heads=2, patch_size=4, image_size=8, channels=1, num_classes=3)
net = sws_jax.ViTSpec(depth=3, **small)
spec = sws_jax.AuxViTSpec(net, (1, 2))
about = sws_jax.Description(
    kind="aux_net", net=net, stages=(1, 2), method="sws",
    normalization=Normalization((0.5,), (0.5,)),
)
params = jax.tree.map(
    lambda leaf: numpy.ones(leaf.shape, leaf.dtype), networks.abstract_params(spec)
)
gene = sws_jax.extract(sws_jax.Network(spec, params, about))
sws_jax.save_learngene("gene.safetensors", gene)
descendant = sws_jax.expand(
    sws_jax.load_learngene("gene.safetensors"), depth=4, num_classes=5
)
network = sws_jax.Network(descendant.spec, descendant.params, about.replace(
    kind="network", net=descendant.spec, stages=(), plan=descendant.plan))
sws_jax.save_network("network.safetensors", network)
print(sws_jax.load_network("network.safetensors").spec.name)
files.write_text("run/table.md", "97.5 \\u00b1 0.1\\n")
print(locks.is_claimed("run/lock"))
for path in ("run/lock", "other/lock"):
    try:
        with locks.claimed(path):
            print("unlocked")
    except sws_jax.UserError as error:
        print(error)
print(sorted(os.listdir()), os.listdir("run"))
"""


def test_importing_is_light_and_expanding_needs_no_posix(tmp_path):
    """Neither another framework nor flags: not even an attempt, installed or not, nor
    by the library that writes for TensorBoard. And where there are no locks, what needs
    one says so and leaves nothing."""
    command = [sys.executable, "-W", "error", "-c", ELSEWHERE]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # ASCII
    environment = {**os.environ, **plain, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert lines[:1] == ["[] False []"], done.stderr
    assert lines[1:3] == ["vit_w16h2_patch4_L4", "False"], done.stderr
    for line, path in zip(lines[3:5], ("run/lock", "other/lock"), strict=True):
        assert line.startswith(f"{path} cannot be locked, as this system has no fcntl")
    assert lines[5:] == [
        "['gene.safetensors', 'network.safetensors', 'run'] ['table.md']"
    ]
    assert (tmp_path / "run/table.md").read_bytes() == b"97.5 \xc2\xb1 0.1\n"


def test_no_file_names_this_machine():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    assert listed.returncode == 0, listed.stderr
    places = [b"/" + name + b"/" for name in (b"work", b"farm")]
    files = [ROOT / name for name in filter(None, listed.stdout.decode().split("\0"))]
    assert ROOT / "pyproject.toml" in files
    present = [path for path in files if path.is_file()]
    assert [
        p for p in present if any(place in p.read_bytes() for place in places)
    ] == []
