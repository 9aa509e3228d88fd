"""timm's own transforms of image files, in a process of its own.

timm prepares images with torchvision, whose wheel has compiled operators for one build
of PyTorch. Beside another build they do not load, and torchvision stops at declaring
them, though no transform needs one: here, and nowhere else, that is passed over.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

# A folder that holds torchvision, where it is not installed.
VARIABLE = "SWS_JAX_TORCHVISION"


@contextlib.contextmanager
def transforms():
    """A function of what timm resolves of a network's images, and of an image's path;
    its pixels as numpy float32 [channels, height, width]. None without torchvision.
    """
    place = os.environ.get(VARIABLE, "")
    if not place and importlib.util.find_spec("torchvision") is None:
        yield None
        return
    paths = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-W", "ignore", str(pathlib.Path(__file__))]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin and child.stdout

        def pixels(look, path):
            import numpy as np

            child.stdin.write(json.dumps([look, str(path)]) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline().strip()
            assert answer, f"timm's transform of {path} failed"
            return np.load(answer)

        yield pixels
        child.stdin.close()


def _serve() -> None:
    import numpy as np
    import PIL.Image
    import torch.library

    declare = torch.library.register_fake

    def passed_over(operator, *args, **kwargs):
        if str(operator).startswith("torchvision::"):
            return lambda function: function
        return declare(operator, *args, **kwargs)

    torch.library.register_fake = passed_over
    import timm.data

    for line in sys.stdin:
        look, path = json.loads(line)
        transform = timm.data.create_transform(**look, is_training=False)
        with PIL.Image.open(path) as image:
            np.save(f"{path}.npy", transform(image).numpy())
        print(f"{path}.npy", flush=True)


if __name__ == "__main__":
    _serve()
