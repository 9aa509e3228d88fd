"""Executes the notebooks in place: ``python notebooks/run.py``.

Outputs are kept, but no execution counts and times, so that version control sees no
difference in a notebook that did not change.
"""

import os
import pathlib

import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parent


def execute(path: pathlib.Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs; an error in a cell raises."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}
    )
    # The kernel imports this checkout, whether or not it is installed.
    client.execute(env={**os.environ, "PYTHONPATH": str(FOLDER.parent)})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
    return notebook


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(execute(path), path)
        print(path)
