"""The architecture as one picture and in numbers, from the imports.

    python docs/house.py                       writes docs/architecture.svg
    python docs/house.py --counts [ROOT]       lines, imports, circles, who knows SWS
    python docs/house.py --config-walk [ROOT]  the modules that a config passes
    python docs/house.py --startup [ROOT]      what `--help` loads, and its time

ROOT is a checkout of this project, of any age, and by default the one that holds this
file. The first two need nothing but Python; the other two run the package.

A box is a file or a folder directly in `sws_jax/`. An arrow leads from the importer to
what is imported, and counts once. A late import is in a function, or for type checkers
alone. A circle is a set of modules of which each reaches each other one.
"""

from __future__ import annotations

import argparse
import ast
import collections
import dataclasses
import io
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Iterable, Iterator, Mapping

import picture

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = "sws_jax"
LAYERS = "docs/layers.txt"
SVG = "docs/architecture.svg"

# The folders of the methods, which may name themselves. Older checkouts have the first.
METHODS = ("learngenes", "methods")
# Words that name SWS in code: identifiers, its module, and strings of one word.
# Docstrings, comments and sentences may name it, and so does the name of the package.
STRICT = re.compile(r"(?<![a-z0-9./])sws(?!_jax|[a-z0-9])", re.IGNORECASE)
# Words that name its Aux-Net.
AUXILIARY = re.compile(
    r"(?<![a-z0-9/])(?<!has_)aux(?![a-z0-9])|AuxViT|Aux-?Net|\.stages\b", re.IGNORECASE
)
# RegNets and LeViTs have stages, too: `.stages` is not counted where they are named.
OTHER_STAGES = re.compile("regnet|levit", re.IGNORECASE)

# The walk of a config ends when the first step is traced, in a function of this name.
ARRIVED = "train_step"
CONFIG = "configs/smoke.py"
DRY = "--config.mesh.dry_run=1"
HEAVY = ("jax", "flax", "optax", "orbax", "matplotlib")


@dataclasses.dataclass(frozen=True)
class Import:
    """One import of a module of the package.

    Attributes:
      source: the module that imports, without the package's name.
      target: the module that is imported.
      late: whether it is in a function, or for type checkers alone.
    """

    source: str
    target: str
    late: bool


@dataclasses.dataclass(frozen=True)
class Module:
    """A file of the package.

    Attributes:
      name: dotted, without the package's; empty for the package's own ``__init__``.
      path: of the file.
      source: its text.
      tree: its syntax tree.
    """

    name: str
    path: pathlib.Path
    source: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.source.count("\n")

    @property
    def package(self) -> str:
        """The folder that the module is in, dotted, for relative imports."""
        if self.path.name == "__init__.py":
            return self.name
        return self.name.rpartition(".")[0]

    @property
    def box(self) -> str:
        return self.name.split(".")[0] or "__init__"


def read(root: pathlib.Path) -> dict[str, Module]:
    """The modules of a checkout's package, by name."""
    top = root / PACKAGE
    if not top.is_dir():
        raise SystemExit(f"{root} is no checkout of the project: it has no {PACKAGE}/")
    modules = {}
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        source = path.read_text(encoding="utf-8")
        modules[name] = Module(name, path, source, ast.parse(source))
    return modules


def code_lines(module: Module) -> set[int]:
    """Numbers of the lines that have more than a comment or a docstring."""
    empty = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT,
        tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER,
    }  # fmt: skip
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
        if token.type not in empty:
            numbers.update(range(token.start[0], token.end[0] + 1))
    for text in docstrings(module.tree):
        numbers.difference_update(range(text.lineno, (text.end_lineno or 0) + 1))
    return numbers


def docstrings(tree: ast.AST) -> list[ast.Constant]:
    """Strings that are statements: docstrings, wherever they are."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def statements(module: Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import of a module, and whether it is late."""

    def visit(node: ast.AST, late: bool) -> Iterator:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, late
        for field, value in ast.iter_fields(node):
            inner = late or (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                or (
                    field == "body"
                    and isinstance(node, ast.If)
                    and "TYPE_CHECKING" in ast.unparse(node.test)
                )
            )
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from visit(child, inner)

    yield from visit(module.tree, False)


def full_names(
    module: Module, statement: ast.Import | ast.ImportFrom
) -> list[tuple[str, str]]:
    """(Dotted name, name in the file) of everything that a statement imports."""
    if isinstance(statement, ast.Import):
        return [(a.name, a.asname or a.name) for a in statement.names]
    base = statement.module or ""
    if statement.level:
        inside = [PACKAGE, *filter(None, module.package.split("."))]
        kept = inside[: len(inside) - statement.level + 1]
        base = ".".join([*kept, *filter(None, [base])])
    return [(f"{base}.{a.name}", a.asname or a.name) for a in statement.names]


def module_of(dotted: str, modules: Mapping[str, Module]) -> str | None:
    """The module that a dotted name reaches, or None outside the package."""
    if dotted.split(".")[0] != PACKAGE:
        return None
    name = dotted.removeprefix(PACKAGE).removeprefix(".")
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def imports(modules: Mapping[str, Module]) -> list[Import]:
    """All imports within the package, each pair and lateness once."""
    links: dict[Import, None] = {}  # a set that keeps their order
    for module in modules.values():
        for statement, late in statements(module):
            for dotted, _ in full_names(module, statement):
                target = module_of(dotted, modules)
                if target is not None and target != module.name:
                    links[Import(module.name, target, late)] = None
    return list(links)


def arrows(links: Iterable[Import], *, late: bool = True) -> set[tuple[str, str]]:
    """Pairs of modules, with late imports or without."""
    return {(i.source, i.target) for i in links if late or not i.late}


def between_boxes(
    pairs: Iterable[tuple[str, str]], modules: Mapping[str, Module]
) -> set[tuple[str, str]]:
    boxed = {(modules[a].box, modules[b].box) for a, b in pairs}
    return {(a, b) for a, b in boxed if a != b}


def circles(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Sets of names of which each reaches all others, the largest first."""
    reach = picture.reachable(pairs)
    components = {
        tuple(sorted(b for b in reach[a] if a in reach.get(b, ())))
        for a in reach
        if a in reach[a]
    }
    return sorted(
        (list(c) for c in components if len(c) > 1), key=lambda c: (-len(c), c)
    )


def private_names(module: Module, modules: Mapping[str, Module]) -> set[str]:
    """Private names of other modules that a module uses: ``module._name``."""
    names, local = set(), {}
    for statement, _ in statements(module):
        for dotted, called in full_names(module, statement):
            target = module_of(dotted, modules)
            if target is None or target == module.name:
                continue
            # A dotted name that is no module is a name in one.
            if dotted == f"{PACKAGE}.{target}":
                local[called] = target
            last = dotted.rpartition(".")[2]
            if is_private(last):
                names.add(f"{target}.{last}" if called in local else dotted)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            target = local.get(ast.unparse(node.value))
            if target is not None:
                names.add(f"{PACKAGE}.{target}.{node.attr}")
    return {name.removeprefix(f"{PACKAGE}.") for name in names}


def private_doors(module: Module) -> set[str]:
    """Private names of libraries that a module uses, without Python's own."""
    doors, local = set(), {}
    for statement, _ in statements(module):
        for dotted, called in full_names(module, statement):
            library = dotted.split(".")[0]
            if library != PACKAGE and library not in sys.stdlib_module_names:
                local[called] = dotted
                if any(is_private(part) for part in dotted.split(".")):
                    doors.add(dotted)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root, _, rest = ast.unparse(node).partition(".")
            if root in local and root.isidentifier():
                doors.add(f"{local[root]}.{rest}")
    # A string may name one, as in `sys.modules["jax._src"]`.
    for word in words(module):
        if word.split(".")[0] in HEAVY and any(map(is_private, word.split("."))):
            doors.add(word)
    return doors


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def words(module: Module) -> list[str]:
    """Identifiers and strings of one word in a module's code."""
    used = []
    prose = {id(text) for text in docstrings(module.tree)}
    for node in ast.walk(module.tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in prose:
                used += [text] if len(text.split()) == 1 else []
            case ast.Attribute():
                used.append(node.attr)
                if ast.unparse(node.value) != "jax":
                    used.append(f".{node.attr}")
            case ast.Name(id=name) | ast.arg(arg=name):
                used.append(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                used.append(name)
            case ast.keyword(arg=str(name)):
                used.append(name)
            case ast.Import() | ast.ImportFrom():
                for dotted, called in full_names(module, node):
                    used += [called, dotted.rpartition(".")[2]]
    return used


def knows(module: Module) -> tuple[set[str], set[str]]:
    """The words of a module that name SWS itself, and those that name its Aux-Net."""
    used = words(module)
    strict = {word.removeprefix(".") for word in used if STRICT.search(word)}
    others = any(OTHER_STAGES.search(w) for w in used)
    wide = set()
    for word in used:
        hit = AUXILIARY.search(word)
        if hit and not (others and hit[0] == ".stages"):
            wide.add(hit[0] if hit[0] == ".stages" else word.removeprefix("."))
    return strict, wide


def layers(root: pathlib.Path) -> list[list[str]]:
    """The boxes of each layer, the lowest first; empty where the list is missing."""
    path = root / LAYERS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join("" if line.startswith("#") else line for line in lines)
    return [part.split() for part in re.split(r"\n\s*\n", text) if part.split()]


def upward(
    pairs: Iterable[tuple[str, str]], order: list[list[str]]
) -> list[tuple[str, str]]:
    """Arrows from a layer to a higher one."""
    at = {name: i for i, layer in enumerate(order) for name in layer}
    return sorted((a, b) for a, b in pairs if a in at and at[a] < at.get(b, -1))


def counts(root: pathlib.Path) -> str:
    """The counts that need no run of the package, as text."""
    modules = read(root)
    links = imports(modules)
    late, early = arrows(links), arrows(links, late=False)
    boxes = {module.box for module in modules.values()}
    boxed, boxed_early = between_boxes(late, modules), between_boxes(early, modules)
    folders = {m.path.parent for m in modules.values()} - {root / PACKAGE}
    inside = [(a, b) for a, b in late if modules[a].box == modules[b].box]
    rows = picture.levels(sorted(boxes), boxed, [])
    private = {m.name: private_names(m, modules) for m in modules.values()}
    doors = {m.name: private_doors(m) for m in modules.values()}
    out = [
        _row("lines of the package", sum(m.lines for m in modules.values())),
        _row("  of code", sum(len(code_lines(m)) for m in modules.values())),
        _row("lines of tests", lines_below(root / "tests")),
        _row("files of the package", len(modules)),
        _row("folders", len(folders)),
        _row("boxes", len(boxes)),
        _row("  files among them", len(boxes - {f.name for f in folders})),
        _row("levels of boxes", 1 + max(rows.values())),
        _row("arrows between modules", len(late)),
        _row("  without late imports", len(early)),
        _row("arrows between boxes", len(boxed)),
        _row("  without late imports", len(boxed_early)),
        *_circles("circles of modules", circles(late)),
        *_circles("  without late imports", circles(early)),
        *_circles("  inside one folder", circles(inside)),
        *_circles("circles of boxes", circles(boxed)),
        *_circles("  without late imports", circles(boxed_early)),
    ]
    if order := layers(root):
        up = upward(boxed, order)
        out.append(_row("arrows upwards", len(up), [f"{a} -> {b}" for a, b in up]))
    outside = [m for m in modules.values() if m.box not in METHODS]
    words_of = {m.name or "__init__": knows(m) for m in outside}
    strict = _named({n: s for n, (s, _) in words_of.items()}, " | ")
    wide = _named({n: s | w for n, (s, w) in words_of.items()}, " | ")
    libraries = _named(doors, ", ")
    number = sum(map(len, private.values()))
    out += [
        _row("private names of others", number, _named(private, ", ")),
        _row("private names of libraries", len(libraries), libraries, "files"),
        _row("files that know SWS, strictly", len(strict), strict),
        _row("files that know its Aux-Net", len(wide), wide),
    ]
    return "\n".join(out)


def lines_below(folder: pathlib.Path) -> int:
    """Lines of all Python files in a folder."""
    return sum(p.read_text("utf-8").count("\n") for p in sorted(folder.rglob("*.py")))


def _row(what: str, number: int, details: Iterable[str] = (), unit: str = "") -> str:
    lines = [f"{what:<32}{number:>8,} {unit}".rstrip()]
    return "\n".join([*lines, *(f"      {line}" for line in details)])


def _named(words: Mapping[str, set[str]], between: str) -> list[str]:
    """A line for each module that has words."""
    return [f"{n}: {between.join(sorted(w))}" for n, w in words.items() if w]


def _circles(what: str, sets: list[list[str]]) -> list[str]:
    members = [f"{len(c)}: {' '.join(n or '__init__' for n in c)}" for c in sets]
    return [_row(what, len(sets), members)]


def svg(root: pathlib.Path) -> str:
    """The picture of a checkout.

    Raises:
      SystemExit: its list of layers and its package do not name the same boxes.
    """
    modules = read(root)
    order = layers(root)
    boxes = {module.box for module in modules.values()}
    named = [name for layer in order for name in layer]
    if order and (wrong := sorted(boxes.symmetric_difference(named))):
        raise SystemExit(
            f"{LAYERS} and {PACKAGE}/ name different boxes: {', '.join(wrong)}"
        )
    links = imports(modules)
    boxed = between_boxes(arrows(links), modules)
    early = between_boxes(arrows(links, late=False), modules)
    files: dict[str, list[Module]] = collections.defaultdict(list)
    for module in modules.values():
        files[module.box].append(module)
    drawn = [
        picture.Box(
            name=name,
            files=tuple(m.name.partition(".")[2] for m in inside if "." in m.name),
            lines=sum(m.lines for m in inside),
        )
        for name, inside in sorted(files.items())
    ]
    return picture.draw(drawn, boxed, boxed - early, order)


def walk(root: pathlib.Path, *, dry: bool) -> str:
    """The modules whose functions are passed a config, the most often visited first.

    It runs the smallest job in another process, until that traces its first training
    step, or a dry run to its end.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, os.fspath(HERE / "house.py"), "--walked", str(root)]
        command += [f"--config={root / CONFIG}", f"--workdir={folder}/job"]
        command += [DRY] if dry else []
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True
        )
    reports = [x for x in done.stdout.splitlines() if x.startswith("visited ")]
    if not reports:
        raise SystemExit(f"the job did not come to where it is watched:\n{done.stderr}")
    visits = [tuple(visit.split(":")) for visit in reports[-1].split()[1:]]
    times = collections.Counter(name for name, _ in visits)
    doors = collections.Counter(name for name, _ in set(visits))
    title = "a dry run, to its end" if dry else "from the command line to the step"
    out = [
        f"a config on its way: {title}",
        _row("  files that it passes", len(times)),
        _row("  functions that let it in", sum(doors.values())),
        _row("  steps from file to file", len(visits) - 1),
        f"    {'file':<28}{'functions':>12}{'times':>8}",
        *(f"    {n:<28}{doors[n]:>12}{count:>8}" for n, count in times.most_common()),
    ]
    return "\n".join(out)


def walked(root: pathlib.Path, flags: list[str]) -> None:
    """Runs the job, in the process that `walk` starts, and prints what it visits."""
    sys.path.insert(0, os.fspath(root))
    import ml_collections

    top = os.fspath(root / PACKAGE) + os.sep
    visits: list[tuple[str, str]] = []  # file and function
    files: dict = {}  # by code object: its file, or an empty string

    kinds = ml_collections.ConfigDict | ml_collections.FrozenConfigDict

    def has_config(value: object) -> bool:
        """Whether it is a config, has one in an attribute, or is a sequence of such."""
        if isinstance(value, list | tuple):
            return any(map(has_config, value[:4]))
        fields = getattr(value, "__dict__", None)
        return isinstance(value, kinds) or (
            isinstance(fields, dict)
            and any(isinstance(v, kinds) for v in fields.values())
        )

    def finish() -> None:
        print("\nvisited", *(":".join(visit) for visit in visits), flush=True)
        os._exit(0)

    def watch(frame, event, argument) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code not in files:
            inside = code.co_filename.startswith(top)
            files[code] = code.co_filename.removeprefix(top) if inside else ""
        file = files[code]
        if not file:
            return
        if code.co_name == ARRIVED:
            sys.setprofile(None)
            visits.append((file, code.co_name))
            finish()
        if not (visits and visits[-1][0] == file):
            parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(has_config(frame.f_locals.get(name)) for name in parameters):
                visits.append((file, code.co_qualname.replace(":", ".")))

    from sws_jax import main

    sys.setprofile(watch)
    refused = main.main(flags)
    sys.setprofile(None)
    if refused or DRY not in flags:
        sys.exit(1)  # The job has ended before the step.
    finish()


# Requests to `python -m sws_jax.main` that need no network for their answer: its flags.
REQUESTS = {
    "--help": ["--help"],
    "an unknown flag": ["--config=configs/smoke.py", "--colour=red"],
    "an unknown field": ["--config=configs/smoke.py", "--config.modal.depth=3"],
    "a missing config": ["--config=configs/none.py"],
}
_ANSWER = """
import runpy, sys
sys.argv = ["sws_jax.main", *sys.argv[1:]]
try:
    runpy.run_module("sws_jax.main", run_name="__main__")
finally:
    print("loaded", *(n for n in {heavy!r} if n in sys.modules), flush=True)
"""


def loaded(root: pathlib.Path, flags: list[str]) -> list[str]:
    """The heavy libraries that an answer of `python -m sws_jax.main` loads."""
    lines = _python(root, "-c", _ANSWER.format(heavy=HEAVY), *flags).splitlines()
    return [line for line in lines if line.startswith("loaded")][-1].split()[1:]


def startup(root: pathlib.Path) -> str:
    """What the answers to `REQUESTS` load, and how long start-up takes."""
    out = ["loaded by an answer to"]
    for what, flags in REQUESTS.items():
        out.append(f"  {what:<30}{' '.join(loaded(root, flags)) or 'nothing heavy'}")
    base = _seconds(root, "-c", "pass")
    out.append(f"seconds (python -c pass: {base:.2f})")
    for what, arguments in (
        ("python -m sws_jax.main --help", ["-m", "sws_jax.main", "--help"]),
        ("python -m sws_jax --help", ["-m", "sws_jax", "--help"]),
        ("import sws_jax.errors", ["-c", "import sws_jax.errors"]),
    ):
        took = _seconds(root, *arguments)
        out.append(f"  {what:<30}{took:.2f}, {took / base:.0f} times that")
    return "\n".join(out)


def _python(root: pathlib.Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True).stdout


def _seconds(root: pathlib.Path, *arguments: str) -> float:
    """The shortest of five runs."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        _python(root, *arguments)
        took.append(time.perf_counter() - began)
    return min(took)


def main(argv: list[str]) -> None:
    if argv[:1] == ["--walked"]:
        walked(pathlib.Path(argv[1]), argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choice = parser.add_mutually_exclusive_group()
    for flag in ("--counts", "--config-walk", "--startup"):
        choice.add_argument(
            flag, nargs="?", metavar="ROOT", type=pathlib.Path, const=HERE.parent
        )
    args = parser.parse_args(argv)
    if args.counts:
        print(counts(args.counts.resolve()))
    elif args.config_walk:
        for dry in (False, True):
            print(walk(args.config_walk.resolve(), dry=dry))
    elif args.startup:
        print(startup(args.startup.resolve()))
    else:
        path = HERE.parent / SVG
        path.write_text(svg(HERE.parent), encoding="utf-8", newline="\n")
        print(f"wrote {SVG}")


if __name__ == "__main__":
    main(sys.argv[1:])
