"""The commands that the scripts of launch/ print, and what they refuse."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

from support.children import CONFIG, ROOT

LAUNCH = ROOT / "launch"
EXAMPLE = LAUNCH / "settings.example.env"
GOLDEN = ROOT / "tests" / "golden" / "launch"
SCRIPTS = ("tpu", "gke", "xpk", "sky", "slurm", "local")
# Words that a shell, YAML or Kubernetes would read as something else.
ARGUMENTS = (
    "--config=configs/aux_deit.py:variant=S/16,dataset=tfds:imagenet2012",
    "--workdir=gs://bucket/aux",
    "--config.data.mean=(0.5, 0.5, 0.5)",
    "--config.name=it's: $HOME $(NAME) # {1}",
)


def launch(script, *words, settings=EXAMPLE, **variables):
    """Runs a script with none of this machine's settings in its environment."""
    defaults = {"SETTINGS": str(settings), "DRY_RUN": "1", "PYTHON": "python3"}
    inherited = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
    return subprocess.run(
        [LAUNCH / f"{script}.sh", *words],
        env={**inherited, **defaults, **variables},
        capture_output=True,
        text=True,
        cwd="/",
    )


def printed(script, *words, **variables):
    done = launch(script, *words, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_commands_are_printed(script):
    """All of them, against a file that was read through when it was written."""
    start = {"tpu": "watch", "local": None}.get(script, "create")
    several = {"PROCESSES": "2", "GPUS_PER_PROCESS": "4"}
    lines = printed(script, *filter(None, [start]), "--", *ARGUMENTS, **several)
    if script != "local":
        others = ["stop", "setup"] if script == "tpu" else []
        for command in [*others, "status", "delete"]:
            lines += printed(script, command)
    assert lines == (GOLDEN / f"{script}.txt").read_text()


def test_the_check_of_an_accelerator_writes_where_it_was_called():
    words = ("--toy", "--only=curves,steps")
    command = "python3 -m benchmarks.accelerator"
    for out, shown in (("out", "/out"), ("/tmp/out", "/tmp/out")):
        line = printed("check_accelerator", out, *words)
        assert line == f"{command} {shown} {' '.join(words)}\n"
    refused = launch("check_accelerator", "--toy")
    assert refused.returncode == 2 and "is the folder" in refused.stderr


@pytest.mark.parametrize("script", ["tpu", "xpk", "slurm", "local"])
def test_the_arguments_arrive_as_they_were(script):
    """They pass through a shell here, and with some scripts through one there."""
    start = {"tpu": ["run"], "local": []}.get(script, ["create"])
    last = printed(script, *start, "--", *ARGUMENTS).splitlines()[-1]
    words = shlex.split(last)
    if script in ("tpu", "xpk"):
        (inner,) = [w for w in words if w.startswith("--command=")]
        words = shlex.split(inner.removeprefix("--command="))
    first = words.index(ARGUMENTS[0])
    assert tuple(words[first : first + len(ARGUMENTS)]) == ARGUMENTS


@pytest.mark.parametrize("script", ["tpu", "gke", "xpk", "sky", "slurm"])
def test_nothing_is_spent_or_deleted_unasked(script):
    refused = launch(script, "create", "--", *ARGUMENTS, DRY_RUN="0")
    assert refused.returncode == 2
    assert "costs money: add --spend" in refused.stderr
    refused = launch(script, "delete", DRY_RUN="0")
    assert refused.returncode == 2 and "add --delete" in refused.stderr


@pytest.mark.parametrize(
    "script, words, variables, sentence",
    [
        ("tpu", ["create"], {"ZONE": "", "PROJECT": ""}, "set PROJECT ZONE in "),
        ("tpu", ["run"], {}, "after '--' come the arguments of python -m sws_jax.main"),
        ("tpu", ["run", "--spent"], {}, "not '--spent'"),
        ("tpu", ["status"], {"NAME": "A_b"}, "NAME is up to 40 small letters"),
        ("tpu", ["status"], {"MAX_RESTARTS": "x"}, "MAX_RESTARTS is a whole number"),
        ("tpu", ["status"], {"SETTINGS": "/no"}, "there is no settings file /no"),
        ("tpu", ["status"], {"POLL_SECONDS": "1m30"}, "is a number of seconds, and is"),
        ("tpu", ["delete", "--delete"], {"DRY_RUN": "true"}, "DRY_RUN is 0 or 1"),
        ("tpu", ["create"], {"SPOT": "yes"}, "SPOT is 0 or 1, and is 'yes'"),
        ("tpu", ["setup"], {"WORKER_DIR": ".."}, "WORKER_DIR is one plain name"),
        ("gke", ["manifest", "--", *ARGUMENTS], {"HOSTS": "8"}, "16x16 has 256 chips"),
        (
            "gke",
            ["create", "--", *ARGUMENTS],
            {"TPU_TOPOLOGY": "16by16"},
            "TPU_TOPOLOGY is as 16x16 or 4x4x4, and is '16by16'",
        ),
        (
            "slurm",
            ["create", "--", *ARGUMENTS],
            {"GPUS_PER_NODE": "08"},
            "GPUS_PER_NODE is a whole number, and is '08'",
        ),
        ("sky", ["task", "--", *ARGUMENTS], {"SKY_SPOT": "1"}, "true or false"),
        (
            "sky",
            ["status"],
            {"DRY_RUN": "0", "PATH": "/usr/bin:/bin"},
            "there is no sky on the PATH: pip install",
        ),
        ("slurm", ["logs"], {"NAME": "nothing"}, "there is no log build/launch/nothi"),
        ("local", ["--", *ARGUMENTS], {"PROCESSES": "0"}, "PROCESSES is at least 1"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_sentence(
    script, words, variables, sentence
):
    refused = launch(script, *words, **variables)
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.startswith(f"launch/{script}.sh: ")
    assert sentence in refused.stderr and refused.stderr.count("\n") == 1


def test_the_environment_comes_before_the_file(tmp_path):
    file = tmp_path / "mine.env"
    file.write_text("NAME=of-the-file  # why\nPROJECT=p\nZONE='a zone'\n")
    rest = dict(ACCELERATOR_TYPE="v4-8", RUNTIME_VERSION="r", NAME="mine")
    (line,) = printed("tpu", "create", settings=file, **rest).splitlines()
    assert "create mine --node-id=mine" in line and "'--zone=a zone'" in line


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_example_file_names_every_setting(script):
    text = "".join(path.read_text() for path in LAUNCH.glob(f"{script}*.sh"))
    text += (LAUNCH / "common.sh").read_text()
    used = set(re.findall(r'"\$\{([A-Z_]+):=', text))
    needed = re.findall(r"^[^#]*\bneed ([A-Z_ ]+)$", text, re.MULTILINE)
    used |= set(" ".join(needed).split())
    named = set(re.findall(r"^#? ?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE))
    assert len(used) > 3 and used - named == {"DRY_RUN"}


def test_settings_may_be_named_from_where_one_is(tmp_path):
    """A job of Slurm, which runs later and elsewhere, finds them too."""
    (tmp_path / "mine.env").write_text("NAME=mine\nNODES=1\nGPUS_PER_NODE=1\n")
    stubs = ROOT / "tests" / "stubs"
    done = subprocess.run(
        ["bash", "slurm.sh", "create", "--spend", "--", *ARGUMENTS],
        env={
            "PATH": f"{stubs}:{os.environ['PATH']}",
            "SETTINGS": os.path.relpath(tmp_path / "mine.env", LAUNCH),
            "NODE_PYTHON": "true",
            "SLURM_STUB": str(tmp_path),
            "STUB_JOB": "7",
        },
        capture_output=True,
        text=True,
        cwd=LAUNCH,
    )
    log = ROOT / "build" / "launch" / "mine-7.log"
    output = log.read_text() if log.exists() else done.stderr
    log.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ended").read_text() == "0 1", output


@pytest.mark.parametrize("script", [*SCRIPTS, "worker"])
def test_a_script_may_be_run_from_its_folder(script):
    done = subprocess.run(
        ["bash", f"{script}.sh", "--help"], cwd=LAUNCH, capture_output=True, text=True
    )
    worker = script == "worker"  # It has no --help: its usage is an error.
    assert done.returncode == (2 if worker else 0), done.stderr
    assert f"launch/{script}.sh " in (done.stderr if worker else done.stdout)


@pytest.mark.parametrize(
    "words, warned",
    [
        (["--workdir=gs://b/x"], False),
        (["--workdir", "gs://b/x"], False),
        (["--workdir=runs/gs://x"], True),
        ([], True),
    ],
)
def test_a_workdir_that_goes_with_the_workers_is_warned_of(words, warned):
    errors = launch("tpu", "run", "--", ARGUMENTS[0], *words).stderr
    assert ("--workdir is not on gs://" in errors) == warned


def test_a_jobset_that_is_there_already_is_not_taken_for_a_new_one(tmp_path):
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        "#!/bin/sh\ncat > /dev/null\n[ $1 = create ] || exit 0\n"
        "echo 'Error from server (AlreadyExists)' >&2\nexit 1\n"
    )
    kubectl.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    words = ("create", "--spend", "--", *ARGUMENTS)
    done = launch("gke", *words, DRY_RUN="0", PATH=path)
    assert done.returncode == 1
    assert "(AlreadyExists)" in done.stderr
    assert "one that is there goes by launch/gke.sh delete --delete" in done.stderr


def jobset():
    return yaml.safe_load(printed("gke", "manifest", "--", *ARGUMENTS))


def test_a_jobset_starts_again_only_what_may_go_on():
    manifest = jobset()
    assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert manifest["kind"] == "JobSet"
    spec = manifest["spec"]
    assert set(spec) == {"network", "failurePolicy", "replicatedJobs"}
    policy = spec["failurePolicy"]
    assert policy["maxRestarts"] == 20  # the action of all that no rule names
    (rule,) = policy["rules"]
    assert rule["action"] == "FailJobSet"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    (replicated,) = spec["replicatedJobs"]
    assert set(replicated) == {"name", "replicas", "template"}
    job = replicated["template"]["spec"]
    assert job["parallelism"] == job["completions"] == 64 and job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert not {0, 75, 134, 137, 143} & set(rule["onExitCodes"]["values"])
    assert {1, 2, 3, 130} == set(rule["onExitCodes"]["values"])
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # as a podFailurePolicy asks for
    (container,) = pod["containers"]
    assert container["name"] == rule["onExitCodes"]["containerName"]
    assert tuple(map(expanded, container["args"])) == ARGUMENTS
    chips = container["resources"]
    assert chips["limits"] == chips["requests"] == {"google.com/tpu": "4"}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "16x16",
    }


def expanded(word):
    """An argument as Kubernetes expands it, where every name is a variable."""

    def value(match):
        return "$" if match[0] == "$$" else "a variable"

    return re.sub(r"\$\$|\$\([^)]*\)", value, word)


@pytest.mark.slow
def test_the_job_of_a_jobset_fits_the_schema_of_kubernetes():
    validate = pytest.importorskip("kubernetes_validate").validate
    template = jobset()["spec"]["replicatedJobs"][0]["template"]
    name = {"metadata": {"name": "worker"}}
    job = {"apiVersion": "batch/v1", "kind": "Job", **name, **template}
    validate(job, "1.31", strict=True)
    job["spec"]["backOffLimit"] = job["spec"].pop("backoffLimit")
    with pytest.raises(Exception, match="backOffLimit"):
        validate(job, "1.31", strict=True)


@pytest.mark.parametrize("machine", ["tpu-v5litepod-256", "H100:8"])
def test_a_task_of_skypilot(machine):
    text = printed(
        "sky", "task", "--", *ARGUMENTS, SKY_ACCELERATORS=machine, SKY_NODES="2"
    )
    task = yaml.safe_load(text)
    assert set(task) == {"name", "workdir", "num_nodes", "resources", "setup", "run"}
    assert task["num_nodes"] == 2 and task["resources"]["accelerators"] == machine
    assert task["resources"]["use_spot"] is True
    assert task["resources"]["job_recovery"] == {
        "strategy": "EAGER_NEXT_REGION",
        "max_restarts_on_errors": 0,
        "recover_on_exit_codes": [75, 134],
    }
    # The words that the shell of the second machine passes on.
    shown = task["run"].replace("exec .venv/bin/python", "printf '%s\\n'")
    variables = dict(
        SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2",
        SKYPILOT_NUM_NODES="2",
        SKYPILOT_NODE_RANK="1",
    )
    done = subprocess.run(
        ["bash", "-c", shown], env=variables, capture_output=True, text=True
    )
    words = done.stdout.splitlines()
    assert tuple(words[2 : 2 + len(ARGUMENTS)]) == ARGUMENTS
    flags = ["--coordinator=10.0.0.1:8476", "--num_processes=2", "--process_id=1"]
    assert words[2 + len(ARGUMENTS) :] == ([] if machine.startswith("tpu") else flags)


def test_the_image_holds_what_a_run_needs():
    text = (LAUNCH / "Dockerfile").read_text()
    ignore = (LAUNCH / "Dockerfile.dockerignore").read_text()
    for name in re.findall(r"^COPY (\S+)", text, re.MULTILINE):
        assert (ROOT / name).exists() and f"!{name}\n" in ignore
    entry = re.search(r"^ENTRYPOINT (.*)", text, re.MULTILINE)
    assert json.loads(entry[1]) == ["python", "-m", "sws_jax.main"]


def test_buckets_are_within_reach_wherever_packages_are_installed():
    """The package for ``gs://`` paths, of the version that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (requirement,) = project["optional-dependencies"]["gs"]
    defaults = {
        path.name: re.findall(r"PACKAGES[^\n]*?jax\[([^\n\"'}]*)", path.read_text())
        for path in LAUNCH.iterdir()
        if path.suffix != ".md"
    }
    used = {name: texts for name, texts in defaults.items() if texts}
    assert set(used) == {
        *("tpu.sh", "gke.sh", "sky.sh", "worker.sh"),
        *("Dockerfile", "settings.example.env"),
    }
    for name, texts in used.items():
        assert [text.split()[1:] for text in texts] == [[requirement]], name


def test_the_page_shows_what_is_printed():
    """The dry run of a launch, word for word; its memory sheet is the README's."""
    page = (LAUNCH / "README.md").read_text()
    shown = page.split("<!-- plan -->")[1].split("<!-- end -->")[0]
    command, sheet, commands = re.search(
        r"\$ launch/tpu.sh plan -- (.*?)\n(.*?)\n\n(# launch/tpu.sh watch.*)```",
        shown,
        re.DOTALL,
    ).groups()
    readme = (ROOT / "README.md").read_text().split("<!-- dry run -->")[1]
    table = sheet.partition("\n")[2]  # below the title
    assert len(table.splitlines()) > 8 and table in readme
    lines = printed("tpu", "watch", "--", *shlex.split(command))
    lines += printed("tpu", "delete")
    command_lines = [s for s in commands.splitlines() if s and s[0] != "#"]
    assert command_lines == lines.splitlines()


@pytest.mark.slow
def test_a_plan_is_the_memory_sheet_and_the_commands(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    arguments = (f"--config={tmp_path / 'config.py'}", "--config.mesh.fsdp=2")
    variables = dict(ACCELERATOR_TYPE="v5litepod-4", PYTHON=sys.executable)
    text = printed("tpu", "plan", "--", *arguments, DRY_RUN="0", **variables)
    assert "v5e-4: 4 devices of 16 GiB, nothing is run" in text
    assert "worker.sh start " + " ".join(arguments) in text
    assert "queued-resources delete" in text.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.sh")), ids=lambda p: p.name)
def test_shellcheck_has_nothing_to_say(path):
    beside = os.path.dirname(sys.executable)
    shellcheck = shutil.which("shellcheck", path=f"{beside}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        [shellcheck, "-x", path.relative_to(ROOT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
