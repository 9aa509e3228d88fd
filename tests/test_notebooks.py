"""The notebooks run, and show the outputs that they have."""

import importlib.util
import pathlib

import nbformat
import pytest

from support import compiler

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def printed(notebook, to="stdout"):
    return [
        "".join(o.text for o in cell.outputs if o.get("name") == to)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# The warnings are those of the kernel's own libraries.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_runs_and_its_outputs_are_those_it_shows(path, monkeypatch):
    """Without a warning of the missing flag, which its first cell adds."""
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("XLA_FLAGS", compiler.flags(8))
    spec = importlib.util.spec_from_file_location("run", FOLDER / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    fresh, stored = run.execute(path), nbformat.read(path, as_version=4)
    assert printed(fresh) == printed(stored)
    assert "".join(printed(fresh, "stderr")) == ""
    for notebook in (fresh, stored):
        pictures = [
            o
            for cell in notebook.cells
            for o in cell.get("outputs", [])
            if "image/png" in o.get("data", {})
        ]
        assert len(pictures) >= 1
        assert all(cell.get("execution_count") is None for cell in notebook.cells)


def test_there_is_one():
    assert [path.stem for path in NOTEBOOKS] == ["expand"]
