"""How processes find each other, and what a job says if they do not."""

import concurrent.futures
import os
import socket
import time

import pytest

from sws_jax import main
from sws_jax.errors import UserError
from sws_jax.runtime import rendezvous
from sws_jax.runtime.rendezvous import NotComplete, Place, Start

from support.children import CONFIG
from support.jobs import Job, free_port


def meet(*places, timeout=20, jobs=None):
    """Each place in a thread; the message to each, in their order."""
    address = f"localhost:{free_port()}"

    def one(number, place):
        index, count = place
        job = jobs[number] if jobs else "job"
        try:
            rendezvous.meet(Place(address, count, index), job, timeout)
            return ""
        except NotComplete as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, range(len(places)), places))


def test_all_come_in_any_order():
    assert meet((2, 3), (0, 3), (1, 3)) == ["", "", ""]


def test_who_is_missing_is_said_to_all():
    before = time.monotonic()
    messages = meet((0, 5), (3, 5), timeout=2)
    assert time.monotonic() - before < 10
    for message in messages:
        assert message.startswith(
            "processes 1, 2 and 4 of 5 did not come to localhost:"
        )


def test_without_process_0_each_says_so():
    (words,) = meet((1, 2), timeout=1)
    assert words.startswith("process 1 of 2 cannot reach process 0 at localhost:")


@pytest.mark.parametrize(
    "places, jobs, words",
    [
        (((0, 2), (1, 3)), None, "process 1 expects 3 processes, and process 0 2"),
        (((0, 3), (1, 3), (1, 3)), None, "two processes say that they are process 1"),
        (((0, 2), (1, 2)), ["a", "b"], "process 1 was started with another config"),
    ],
)
def test_processes_that_do_not_belong_together(places, jobs, words):
    messages = meet(*places, jobs=jobs, timeout=5)
    assert any(words in message for message in messages)
    assert all(messages)


def call_and_go(port, data):
    """Sends something to process 0, once it listens, and waits for no answer."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("localhost", port)) as call:
                return call.sendall(data)
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nobody listens at {port}")


def test_strangers_at_the_port_are_passed_over():
    """A port scanner, say: it is not counted, and the others are not kept."""
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(rendezvous.meet, Place(f"localhost:{port}", 2, 0), "j", 20)
        for data in (b"GET / HTTP/1.0\r\n\r\n", b'{"index": 1}\n', b"[]\n"):
            call_and_go(port, data)
        second = pool.submit(rendezvous.meet, Place(f"localhost:{port}", 2, 1), "j", 20)
        assert first.result() is second.result() is None


def test_a_process_that_is_started_again_while_others_are_awaited():
    """The one that was there before is no more; the one that is now counts."""
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        address = f"localhost:{port}"
        first = pool.submit(rendezvous.meet, Place(address, 3, 0), "j", 20)
        call_and_go(port, b'{"index": 1, "count": 3, "job": "j"}\n')
        rest = [
            pool.submit(rendezvous.meet, Place(address, 3, n), "j", 20) for n in (1, 2)
        ]
        assert first.result() is None
        assert [one.result() for one in rest] == [None, None]


def test_those_that_come_after_a_contradiction_hear_of_it():
    address = f"localhost:{free_port()}"
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        places = [Place(address, 3, 0), Place(address, 4, 1), Place(address, 3, 2)]
        meetings = []
        for place in places:
            meetings.append(pool.submit(rendezvous.meet, place, "j", 30))
            time.sleep(1.0)
        for meeting in meetings:
            with pytest.raises(NotComplete, match="process 1 expects 4 processes"):
                meeting.result()


@pytest.mark.parametrize(
    "flags, words",
    [
        (dict(coordinator="host:1"), "all three or none"),
        (dict(num_processes=2, process_id=0), "all three or none"),
        (dict(coordinator="host", num_processes=2, process_id=0), "not 'host'"),
        (dict(coordinator="h:99999", num_processes=2, process_id=0), "HOST:PORT"),
        (dict(coordinator="h:1", num_processes=2, process_id=2), "is 2 of 2"),
        (dict(start_timeout=0), "--start_timeout is at least 1 second"),
    ],
)
def test_incomplete_flags_are_refused(flags, words):
    with pytest.raises(UserError, match=words):
        Start(**flags)


def test_flags_stand_among_the_others():
    argv = ["--config=x", "--process_id", "1", "--num_processes=2", "--coordinator=h:1"]
    start, rest = rendezvous.parse([*argv, "--workdir=w"])
    assert start == Start("h:1", 2, 1)
    assert rest == ["--config=x", "--workdir=w"]
    with pytest.raises(
        UserError, match="--num_processes takes a whole number, and not 'x'"
    ):
        rendezvous.parse(["--num_processes=x"])


def slurm(index, count, port):
    """What ``srun`` sets; JAX takes the port from the number of the job."""
    return {
        "SLURM_JOB_ID": str(port - (65535 - 2**12 + 1)),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }


def open_mpi(index, count, port):
    """What ``mpirun`` of Open MPI 4 sets."""
    job = (port - (65535 - 2**12 + 1)) * 2**12
    return {
        "OMPI_MCA_orte_hnp_uri": f"{job}.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": str(count),
        "OMPI_COMM_WORLD_RANK": str(index),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(index),
    }


def clean(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "KUBERNETES_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("cluster", [slurm, open_mpi])
def test_a_cluster_says_where_everyone_is(cluster, monkeypatch):
    clean(monkeypatch)
    for name, value in cluster(1, 4, 62000).items():
        monkeypatch.setenv(name, value)
    place = rendezvous.detected(5)
    host = "localhost" if cluster is slurm else "127.0.0.1"
    assert place == Place(f"{host}:62000", 4, 1, (1,))


def test_a_lone_host_does_not_wait(monkeypatch):
    clean(monkeypatch)
    assert rendezvous.detected(5) is None
    for name, value in slurm(0, 1, 62000).items():
        monkeypatch.setenv(name, value)
    before = time.monotonic()
    rendezvous.start(Start(), "job")  # a step of one task, as `srun --pty` makes it
    assert time.monotonic() - before < 2


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [slurm, open_mpi])
def test_a_job_that_a_cluster_started(cluster, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    port = 61440 + free_port() % 4096
    job = Job(
        f"--config={tmp_path / 'config.py'}",
        f"--workdir={tmp_path / 'work'}",
        processes=2,
        flags=False,
        cluster=lambda index, _: cluster(index, 2, port),
    )
    codes, outputs = job.finish()
    assert codes == [0, 0], outputs
    for index, output in enumerate(outputs):
        assert f"process {index} of 2, 2 cpu device(s)" in output


@pytest.mark.slow
def test_a_missing_host_is_named_by_the_command(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    job = Job(
        f"--config={tmp_path / 'config.py'}",
        f"--workdir={tmp_path / 'work'}",
        "--start_timeout=15",
        processes=3,
        only=(0, 1),
    )
    codes, outputs = job.finish(60)
    assert codes == [main.EXIT_ERROR] * 2
    for output in outputs:
        assert "process 2 of 3 did not come to localhost:" in output
        assert "Traceback" not in output
    assert not (tmp_path / "work").exists()
