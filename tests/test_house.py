"""The picture of the package is up to date, and the counts of its imports are exact."""

import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import house  # noqa: E402
import picture  # noqa: E402

FILES = {
    "docs/layers.txt": """
# Names of boxes.
low parts

methods
high

__init__ main
""",
    "sws_jax/__init__.py": """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from sws_jax.high import act
""",
    "sws_jax/low.py": '''
"""The word sws in a docstring is not counted."""
import os
_hidden = 1  # nor is sws in a comment

def late():
    from sws_jax import high
    return high.act, os._exit
''',
    "sws_jax/high.py": """
import sws_jax.low
from sws_jax import low as ground
from sws_jax.parts import first
from sws_jax.parts.second import _secret

def act(config):
    return ground._hidden, sws_jax.low._hidden, first.whole, config

def unseen(config):
    from jax._src import core
    return config._own, core, _secret
""",
    "sws_jax/parts/__init__.py": "",
    "sws_jax/parts/first.py": """
from . import second
method = "sws"
whole = second
""",
    "sws_jax/parts/second.py": """
import sws_jax.parts.first
_secret = "sws_jax and a sentence on sws"

def of(aux, jax):
    return jax.stages, aux.stages
""",
    "sws_jax/methods/__init__.py": "",
    "sws_jax/methods/sws.py": "NAME = 'sws'\n",
    "sws_jax/main.py": """
import ml_collections
from sws_jax import high, low
from sws_jax.methods import sws

def main(flags):
    config = ml_collections.ConfigDict()
    high.act(config)
    hold(Run(config))
    high.act([Run(config)])
    low.late()
    if not any("dry_run" in flag for flag in flags):
        train_step()

class Run:
    def __init__(self, config):
        self.config = config

def hold(run):
    pass

def train_step():
    raise AssertionError("it is the end of the way")
""",
    "tests/test_none.py": "\n\n",
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def rows(text):
    """The numbers of printed counts, each with the lines below it, by their names.

    The name of an indented row begins with that of the row above it.
    """
    counted, last, above = {}, "", ""
    for line in text.splitlines():
        if line.startswith(" " * 6):
            counted[last][1].append(line.strip())
            continue
        name, number = re.fullmatch(r"(.*?) +([\d,]+)( \w+)?", line).groups()[:2]
        above = above if line.startswith(" ") else name
        last = name if name == above else f"{above}: {name.strip()}"
        counted[last] = int(number.replace(",", "")), []
    return counted


def test_the_picture_is_not_stale():
    current = house.svg(ROOT)
    kept = (ROOT / house.SVG).read_text(encoding="utf-8")
    assert kept == current, f"{house.SVG} is stale: run python docs/house.py"


def test_no_box_of_the_picture_covers_another():
    space = "{http://www.w3.org/2000/svg}"
    top = xml.etree.ElementTree.parse(ROOT / house.SVG).getroot()
    width, height = float(top.get("width")), float(top.get("height"))
    boxes = []
    for group in top.iter(f"{space}g"):
        rect = group.find(f"{space}rect")
        boxes.append([float(rect.get(key)) for key in ("x", "y", "width", "height")])
    assert len(boxes) == len({m.box for m in house.read(ROOT).values()})
    for i, (x, y, w, h) in enumerate(boxes):
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
        for a, b, c, d in boxes[:i]:
            assert a + c <= x or x + w <= a or b + d <= y or y + h <= b


def test_the_counts_are_exact(root):
    counted = rows(house.counts(root))
    modules = sum(text.count("\n") for n, text in FILES.items() if "sws_jax/" in n)
    assert {name: number for name, (number, _) in counted.items()} == {
        "lines of the package": modules,
        "lines of the package: of code": 43,
        "lines of tests": 2,
        "files of the package": 9,
        "folders": 2,
        "boxes": 6,
        "boxes: files among them": 4,
        "levels of boxes": 3,
        "arrows between modules": 10,
        "arrows between modules: without late imports": 8,
        "arrows between boxes": 7,
        "arrows between boxes: without late imports": 5,
        "circles of modules": 2,
        "circles of modules: without late imports": 1,
        "circles of modules: inside one folder": 1,
        "circles of boxes": 1,
        "circles of boxes: without late imports": 0,
        "arrows upwards": 1,
        "private names of others": 2,
        "private names of libraries": 1,
        "files that know SWS, strictly": 2,
        "files that know its Aux-Net": 3,
    }


@pytest.mark.parametrize(
    "name, lines",
    [
        ("circles of modules", ["2: high low", "2: parts.first parts.second"]),
        ("circles of modules: inside one folder", ["2: parts.first parts.second"]),
        ("arrows upwards", ["low -> high"]),
        ("private names of others", ["high: low._hidden, parts.second._secret"]),
        ("private names of libraries", ["high: jax._src.core"]),
        ("files that know SWS, strictly", ["main: sws", "parts.first: sws"]),
        (
            "files that know its Aux-Net",
            ["main: sws", "parts.first: sws", "parts.second: .stages | aux"],
        ),
    ],
)
def test_what_is_counted_is_named(root, name, lines):
    assert rows(house.counts(root))[name][1] == lines


def test_a_checkout_without_a_list_of_layers_is_counted(root):
    (root / house.LAYERS).unlink()
    counted = rows(house.counts(root))
    assert "arrows upwards" not in counted
    assert counted["boxes"][0] == 6
    assert "<svg" in house.svg(root)


def test_the_list_of_layers_and_the_package_name_the_same_boxes(root):
    (root / "sws_jax/new.py").touch()
    (root / "sws_jax/main.py").unlink()
    with pytest.raises(SystemExit, match="name different boxes: main, new"):
        house.svg(root)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    command = [sys.executable, ROOT / "docs/house.py", "--counts", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        done.stderr == f"{tmp_path} is no checkout of the project: it has no sws_jax/\n"
    )


def test_the_picture_tells_late_arrows_and_those_that_lead_up(root):
    drawn = house.svg(root)
    # High and low are a circle, of which one arrow leads down.
    assert drawn.count(picture.RED) == 2  # a line and its head
    assert "1 in red lead up, or in a circle" in drawn
    # The package's own file imports for type checkers alone.
    assert drawn.count("line late") == 1
    assert (
        "high: &lt;50 lines\nimports: low, parts\nimported by: __init__, low, main"
        in drawn
    )


PAIRS = {("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d"), ("e", "d")}


def test_arrows_beside_a_longer_way_are_left_out():
    kept = {("a", "b"), ("b", "c"), ("c", "d"), ("e", "d")}
    assert picture.reduced(PAIRS) == kept


def test_rows_are_the_longest_way_down():
    rows = picture.levels("abcde", PAIRS, [])
    assert rows == {"a": 3, "b": 2, "c": 1, "d": 0, "e": 1}


def test_a_circle_stands_side_by_side():
    circle = {*PAIRS, ("c", "b"), ("f", "a")}
    rows = picture.levels("abcdef", circle, [])
    assert rows == {"a": 2, "b": 1, "c": 1, "d": 0, "e": 1, "f": 3}


def test_a_layer_is_above_the_one_before_it():
    rows = picture.levels("abcde", PAIRS, [["c", "d"], ["e"], ["a", "b"]])
    assert rows == {"d": 0, "c": 1, "e": 2, "b": 3, "a": 4}


def test_lines_are_uncrossed():
    boxes = {n: picture.Box(n, (), 1) for n in "abcdxyzw"}
    at = {n: int(n in "abcd") for n in boxes}
    down = set(zip("abcd", "wzyx", strict=True))
    crossed = sorted(((a, 1), (b, 0)) for a, b in down)
    rows = [[(n, row) for n in sorted(boxes) if at[n] == row] for row in (0, 1)]
    assert picture.crossings(rows, crossed) == 3
    plan = picture.arranged(boxes, at, down)
    assert picture.crossings(plan.rows, plan.links) == 0


def test_a_config_is_followed_to_the_step(root):
    lines = house.walk(root, dry=False).splitlines()
    assert lines[0].endswith("from the command line to the step")
    # high.act, main.hold, high.act, main.train_step: each enters another file.
    assert [line.split() for line in lines[-2:]] == [
        ["high.py", "1", "2"],
        ["main.py", "2", "2"],
    ]
    assert [int(line.split()[-1]) for line in lines[1:4]] == [2, 3, 3]


def test_a_dry_run_is_followed_to_its_end(root):
    lines = house.walk(root, dry=True).splitlines()
    assert [int(line.split()[-1]) for line in lines[1:4]] == [2, 2, 2]


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("end", ["raise OSError('gone')", "sys.exit('gone')"])
def test_a_job_that_fails_is_told(root, end, dry):
    program = f"import sys\ndef main(flags):\n    {end}\n"
    (root / "sws_jax/main.py").write_text(program)
    with pytest.raises(SystemExit, match="did not come to .*:\n(.|\n)*gone"):
        house.walk(root, dry=dry)


@pytest.mark.parametrize("dry, code", [(True, 2), (False, 0)])
def test_a_job_that_is_refused_or_trains_nothing_is_told(root, dry, code):
    (root / "sws_jax/main.py").write_text(f"def main(flags):\n    return {code}\n")
    with pytest.raises(SystemExit, match="did not come to where it is watched"):
        house.walk(root, dry=dry)


@pytest.mark.parametrize("what", house.REQUESTS)
def test_short_answers_load_nothing_heavy(what):
    assert house.loaded(ROOT, house.REQUESTS[what]) == []


def test_what_an_answer_loads_is_seen(tmp_path):
    (tmp_path / "sws_jax").mkdir()
    (tmp_path / "sws_jax/main.py").write_text("import optax\nraise SystemExit(2)\n")
    assert house.loaded(tmp_path, []) == ["jax", "optax"]


PAGE = ROOT / "docs" / "architecture.md"


def test_the_page_names_what_is_there():
    """Of `file.py` and the names that follow it, up to the next file."""
    named = 0
    for paragraph in PAGE.read_text(encoding="utf-8").split("\n\n"):
        source, path = "", ""
        for word in re.findall(r"`([^`\s]+)`", paragraph):
            if re.fullmatch(r"[\w/]+(\.py|/)", word):
                path = word
                assert (ROOT / "sws_jax" / word).exists() or (ROOT / word).exists(), (
                    word
                )
                file = ROOT / "sws_jax" / word
                source = file.read_text(encoding="utf-8") if file.is_file() else ""
            elif source and word.isidentifier():
                defined = rf"^\s*(def|class) {word}\b|^\s*{word}\b.* ="
                assert re.search(defined, source, re.M), f"{path} has no {word}"
                named += 1
    assert named > 40
