"""``doctor`` where data, a bucket or processes are not there, or not all of them."""

import jax
from jobs import free_port
from test_doctor import SMOKE, said

from sws_jax import configs, doctor
from sws_jax.doctor import devices
from sws_jax.doctor.base import Case
from sws_jax.rendezvous import Start

# Processes


def test_doctor_waits_no_longer_than_its_minute_allows():
    given = configs.parse([SMOKE])
    assert Case(*given, Start()).start.start_timeout == 30
    assert Case(*given, Start(start_timeout=6)).start.start_timeout == 6


def test_devices_of_a_host_whose_process_is_apart(tmp_path, monkeypatch):
    """They are not asked, and so are not said to be missing."""
    (tmp_path / "accel0").touch()
    monkeypatch.setattr(devices, "_TPUS", str(tmp_path / "accel[0-9]*"))
    platforms = jax.config.jax_platforms
    start = Start(f"localhost:{free_port()}", 2, 1, start_timeout=1)
    case = Case(*configs.parse([SMOKE, f"--workdir={tmp_path}"]), start)
    names = ("config", "processes", "devices", "mesh")
    checks = [check for check in doctor.CHECKS if check.name in names]
    try:
        found = doctor.examine(case, lambda line: None, checks=checks)
    finally:
        jax.config.update("jax_platforms", platforms)
    config, apart, left_out, mesh = (line.finding for line in found)
    said(config, doctor.OK)
    said(apart, doctor.PROBLEM, "cannot reach process 0", "start all within 1 s")
    said(left_out, doctor.LEFT_OUT, "once all processes are there")
    said(mesh, doctor.LEFT_OUT, "needs devices")
