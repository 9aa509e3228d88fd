"""Damage and nonsense as Hypothesis draws it, and the bounds a case must keep."""

import contextlib
import datetime
import io
import json
import os
import resource
import signal
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import configuration
from hypothesis import strategies as st

SECONDS = 20.0  # of one case: some compile a program first
GIBIBYTES = 1.0  # that a test may take on top of what the process has

# A few cases by default, and 1,000 of all targets together in the marked run.
FEW_AND_MANY = pytest.mark.parametrize(
    "cases",
    [25, pytest.param(200, marks=pytest.mark.slow)],
)


def bounded(cases):
    """So many cases, the same ones in every run, and nothing kept of them."""
    return hypothesis.settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        # Without shrinking, which would wait for a hang many times over.
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        deadline=datetime.timedelta(seconds=SECONDS),
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@contextlib.contextmanager
def in_time():
    """Fails, rather than hangs, and whatever the code inside catches."""

    def late(number, frame):
        pytest.fail(f"not done in {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def in_memory(folder):
    """Fails where the peak of memory rises by gigabytes; Hypothesis writes to `folder`.

    Args:
      folder: for what the library keeps of Unicode and of the source's constants.
    """
    configuration.set_hypothesis_home_dir(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert grown < GIBIBYTES, f"the process has grown by {grown:.1f} GiB"


def one_sentence(text):
    """What a command says of a request that cannot be met."""
    assert text.startswith("sws_jax: ") and text.endswith("\n"), text
    assert len(text.splitlines()) == 1, text
    assert "Traceback" not in text
    return True


# As a shell hands it over: any bytes but NUL.
ODD_TEXTS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8
) | st.binary(max_size=8).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
NUMBERS = st.one_of(
    st.integers(-3, 20),
    st.sampled_from([2**31, 2**32, 2**63, -(2**63), 10**9, 10**12, 10**30, 10**400]),
    st.floats(),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | ODD_TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(ODD_TEXTS, inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw, whole, *, early=64):
    """Bytes with a few places changed, cut out, put in or cut off.

    Args:
      whole: the bytes.
      early: half of the places lie among that many first ones, where headers are.
    """
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        last = max(len(data) - 1, 0)
        at = draw(st.integers(0, min(early, last)) | st.integers(0, last))
        kind = draw(st.sampled_from(["flip", "set", "cut", "insert", "end", "repeat"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            patch = draw(st.binary(min_size=1, max_size=8) | st.just(b"\xff" * 4))
            data[at : at + len(patch)] = patch
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "repeat":
            data[at:at] = data[at : at + 64]
        else:
            del data[at:]
    return bytes(data)


@st.composite
def edited(draw, value):
    """JSON with a few of its values changed, removed, added or swapped."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        node, key = draw(st.sampled_from(list(_places(value))))
        kind = draw(st.sampled_from(["set", "number", "delete", "add", "wrap"]))
        if kind == "set":
            node[key] = draw(JSON)
        elif kind == "number":
            node[key] = draw(NUMBERS)
        elif kind == "wrap":
            node[key] = [node[key]]
        elif kind == "delete":
            del node[key]
        elif isinstance(node, list):
            node.insert(key, draw(JSON))
        else:
            node[draw(ODD_TEXTS)] = draw(JSON)
        if not value:
            break
    return value


def _places(value):
    """(container, key) of everything inside, the containers first."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
    for key in keys:
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def safetensors_parts(whole):
    """The JSON header and the numbers of a ``.safetensors`` file."""
    (length,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def safetensors_of(header, numbers):
    text = json.dumps(header).encode("utf-8", "replace")
    return struct.pack("<Q", len(text)) + text + numbers


def header_of(shape):
    """The start of an ``.npy`` of bytes, which promises that shape."""
    file = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()
