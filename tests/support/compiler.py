"""XLA's flags while testing, where much is compiled and little computed.

With ``SWS_JAX_TEST_AS_USERS=1`` in the environment, XLA compiles as it does for users:
as well as it can. `.ci/run` has some tests run like that.
"""

import importlib.metadata
import os

# The versions of jaxlib that were tried and know the flag; others end at one that they
# do not know. Without MLIR's emitters of fused loops, a training step of two blocks is
# compiled in less than half the time.
_EMITTERS = {"0.10.0", "0.10.1", "0.10.2", "0.11.0"}


def flags(devices):
    """So many CPU devices, and compilers that do not try hard."""
    chosen = [f"--xla_force_host_platform_device_count={devices}"]
    if os.environ.get("SWS_JAX_TEST_AS_USERS") != "1":
        chosen += [
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
        ]
        if importlib.metadata.version("jaxlib") in _EMITTERS:
            chosen.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(chosen)
