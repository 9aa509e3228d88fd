"""Our own documents, edited by hand, and files that are not ours: none is lost, and
each is answered in one sentence with its name."""

import contextlib
import copy
import json
import os
import shutil
from unittest import mock

import pytest

from sws_jax.data import arrays
from sws_jax.errors import UserError
from sws_jax.jobs import begun, differences, execute, preflight, records
from sws_jax.jobs.directory import RunDirectory, refuse_other
from sws_jax.jobs.rows import runs
from sws_jax.reports import figures
from sws_jax.reports.rows import roles
from sws_jax.storage import documents, files, names
from sws_jax.storage.names import CONFIG, METRICS
from sws_jax.training import metrics

from support.smallest import NAME, asked


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("done")
    execute.execute(*asked(workdir))
    return workdir


@pytest.fixture
def job(done, tmp_path, monkeypatch):
    """A copy of the finished job, whose picture is asked for and not drawn."""
    work = tmp_path / "work"
    shutil.copytree(done, work)

    def draw(results, workdir, path):
        figures._draw_curve(mock.MagicMock(), results, workdir)

    monkeypatch.setattr(figures, "draw", draw)
    return work


def test_a_finished_job_holds_the_files_that_are_named(done):
    known = {NAME}
    known |= {v for k, v in vars(names).items() if k.isupper() and isinstance(v, str)}
    present = {path.name for path in (*done.iterdir(), *(done / NAME).iterdir())}
    events = {name for name in present if name.startswith(names.EVENTS)}
    assert events and present - events <= known
    run = names.CONFIG, names.INPUTS, names.METRICS, names.WEIGHTS, names.RESULT
    assert present.issuperset(run)


def test_what_a_value_must_be():
    wanted = {"a": int, "b?": [float, ...], "c?": {"d": (str, type(None))}}
    assert documents.misfit({"a": 1, "other": []}, wanted) == ""
    assert documents.misfit({"a": 1, "b": [1, 2.5], "c": {"d": None}}, wanted) == ""
    for value, words in (
        ([], "it is no object"),
        ({}, "a is missing"),
        ({"a": True}, "a is true and no whole number"),
        ({"a": "1"}, 'a is "1" and no whole number'),
        ({"a": 1, "b": []}, "b is no list of at least one"),
        ({"a": 1, "b": [1, "x"]}, 'b[1] is "x" and no number'),
        ({"a": 1, "c": {}}, "c.d is missing"),
        ({"a": 1, "c": {"d": 3}}, "c.d is 3 and no text or null"),
    ):
        assert documents.misfit(value, wanted) == words


def _edits(value, at=()):
    """The places of a document: every key, at every depth; of lists, the first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1])
    for key, inner in inside:
        yield (*at, key)
        if isinstance(inner, dict | list):
            yield from _edits(inner, (*at, key))


def _edited(document):
    """The document with a key removed, or with a value of another type, each once."""
    for place in _edits(document):
        for other in (None, "removed", "7", 7, [], [7], {}, {"x": 1}):
            edited = copy.deepcopy(document)
            parent = edited
            for key in place[:-1]:
                parent = parent[key]
            if other == "removed":
                del parent[place[-1]]
            elif type(other) is type(parent[place[-1]]) and other not in ([], {}):
                continue
            else:
                parent[place[-1]] = other
            yield place, other, edited


@pytest.mark.parametrize(
    "name", [f"{NAME}/result.json", f"{NAME}/inputs.json", f"{NAME}/config.json"]
)
def test_a_document_edited_anywhere_is_answered_by_its_name(name, job):
    path = job / name
    document = json.loads(path.read_text())
    config, workdir = asked(job)
    refused = 0
    # The fields of a config are merely compared, but for those that are looked at by
    # name; its groups must be groups.
    edits = list(_edited(document))
    if name.endswith("config.json"):
        looked_at = ("init", "compute", "data", "model", "name")
        edits = [e for e in edits if len(e[0]) == 1 or e[0][-1] in looked_at_by_name()]
        edits = [e for e in edits if e[0][0] in looked_at]
    of_run = runs(config)[0].config
    for place, other, edited in edits:
        path.write_text(json.dumps(edited))
        run = RunDirectory(str(path.parent), of_run, "")
        try:
            result = run.result()
            run_data = records.read_inputs(run.path).get(records.DATA)
            if name.endswith("result.json"):
                single = {**result, "role": "single"}
                execute.write_report(runs(config), [single], workdir)
            begun.as_begun(run.path, run.config, workdir)
            assert run_data is None or isinstance(run_data, dict)
        except UserError as error:
            refused += 1
            assert str(job) in str(error) and "\n" not in str(error), (place, other)
        except Exception as error:
            raise AssertionError(f"{place} as {other!r}") from error
    assert refused > 5
    path.write_text("[1, 2]")
    with pytest.raises(UserError, match="holds no JSON object"):
        execute.execute(config, workdir)


def looked_at_by_name():
    """Fields of a written config, without their groups."""
    return [
        n.split(".")[-1]
        for n in (*differences.CHANGEABLE, *differences.LATER, "insist")
    ]


@pytest.mark.parametrize(
    "line, words",
    [
        ('{"step": 1, "loss": "low"}', 'loss is "low" and no number'),
        ('{"step": 1, "loss": [1]}', r"loss is \[1\] and no number"),
        ('{"step": 1, "val_top1": null}', "val_top1 is null"),
        ('{"step": 1, "loss": true}', "loss is true"),
    ],
)
def test_rows_of_metrics_are_numbers(line, words, tmp_path):
    path = tmp_path / METRICS
    path.write_text('{"step": 1, "loss": 2}\n{"cut of\n' + line + "\n")
    with pytest.raises(UserError, match=f"metrics.jsonl .*line 3: {words}"):
        metrics.read(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n", "run,role,price\nx,y,3\n", "dear to me", "", "run,role\n\udce9"],
)
@pytest.mark.parametrize("ours_beside", [True, False])
def test_a_foreign_table_is_never_written_over(text, ours_beside, tmp_path):
    path = tmp_path / names.RESULTS
    path.write_text(text, errors="surrogateescape")
    if ours_beside:
        config, _ = asked(tmp_path)
        files.write_json(str(tmp_path / CONFIG), documents.plain(config.to_dict()))
    with pytest.raises(UserError, match="results.csv .*take another --workdir"):
        execute.execute(*asked(tmp_path))
    assert path.read_text(errors="surrogateescape") == text


def test_tables_of_older_versions_are_ours(tmp_path):
    (tmp_path / names.RESULTS).write_text("run,role,depth\na,tune,3\nshort\n")
    assert roles(str(tmp_path)) == {"a": "tune", "short": ""}


@pytest.mark.parametrize(
    "name",
    [
        "table.md",
        "report.png",
        "results.csv",
        "learngene.safetensors",
        f"{NAME}/weights.safetensors",
        f"{NAME}/learngene.safetensors",
        f"{NAME}/metrics.jsonl",
        f"{NAME}/result.json",
        f"{NAME}/checkpoints/x",
    ],
)
def test_a_file_of_the_users_is_not_written_over(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("run,role\n")
    before = sorted(tmp_path.rglob("*"))
    word = "checkpoints" if "checkpoints" in name else path.name
    with pytest.raises(UserError, match=f"{word}.* and no config.json"):
        execute.execute(*asked(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    assert path.read_text() == "run,role\n"


def test_what_a_killed_run_leaves_refuses_nothing(tmp_path):
    run = tmp_path / NAME
    run.mkdir()
    for name in ("inputs.json", "lock", ".config.sws-01234567.json"):
        (run / name).write_text("{}")
    (run / "events.out.tfevents.1.host.2").write_bytes(b"")
    config, workdir = asked(tmp_path)
    refuse_other(str(run), runs(config)[0].config, workdir)
    preflight.refuse_other(config, runs(config), workdir)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"shape": [8, 8, "1"]}, 'shape.2. is "1"'),
        ({"class_names": "ab"}, "class_names is no list"),
        ({"splits": []}, "splits is no object"),
        ({"splits": {"train": 3}}, "splits.train is no object"),
        ({"splits": {"train": {"rows": "3"}}}, "splits.train.rows"),
        ({"name": 3}, "name is 3 and no text"),
    ],
)
def test_a_prepared_set_that_was_edited(change, words, tmp_path):
    about = {"name": "x", "class_names": ["a"], "shape": [8, 8, 1], "splits": {}}
    (tmp_path / arrays.DESCRIPTION).write_text(json.dumps({**about, **change}))
    with pytest.raises(UserError, match=f"{arrays.DESCRIPTION} is damaged .{words}"):
        arrays.misfits(str(tmp_path))


def test_a_work_directory_that_is_not_utf8(tmp_path):
    work = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(UserError, match=r"caf\\udce9 is not UTF-8"):
        execute.execute(*asked(work))
    assert not os.path.exists(work)


def test_a_name_that_is_not_utf8_is_kept_escaped(tmp_path):
    path = tmp_path / "a.csv"
    files.write_text(str(path), "é \udce9\n")
    assert path.read_text(encoding="utf-8") == "é \\udce9\n"


def test_a_job_of_one_run_is_loaded_as_its_run_is(done, tmp_path):
    from sws_jax.jobs import load

    network, label = load.load(str(done))
    assert network.spec.depth == 1 and NAME in label
    steps = os.listdir(done / NAME / "checkpoints")
    if steps:
        assert load.load(str(done), step=int(steps[0]))[0].spec == network.spec
    for name in ("one", "two"):
        shutil.copytree(done / NAME, tmp_path / name)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(done / CONFIG, tmp_path)
    with pytest.raises(UserError, match="holds 2 runs .one, two.: name one"):
        load.load(str(tmp_path))


@pytest.mark.parametrize(
    "name, shown",
    [
        ("café", "café"),
        ("猫", r"\u732b"),
        ("a$b$_c", r"a\$b\$_c"),
        ("x\udce9", r"x\udce9"),
        ("e\u0301", "e\u0301"),
    ],
)
def test_names_in_a_picture_need_no_glyph_that_is_not_there(name, shown):
    from matplotlib import figure

    assert figures.drawable(name) == shown
    drawn = figure.Figure()
    drawn.suptitle(figures.drawable(name))
    drawn.canvas.draw()  # a missing glyph is a warning, and so a failure here
