"""Sets as TFDS prepares them, here without TensorFlow."""

import contextlib
import io

import numpy as np
from PIL import Image

SIZE = (12, 10)  # height, width
CLASSES = ["wasp", "ant", "bee"]  # in the set's own order


def encoded(seed, form="PNG", mode="RGB", size=SIZE):
    """A file of smooth colours."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (3, 3, 3), np.uint8))
    file = io.BytesIO()
    image = small.resize(size[::-1], Image.Resampling.BICUBIC).convert(mode)
    image.save(file, form)
    return file.getvalue()


def prepare(
    root, splits, *, name="insects", config=None, version="1.0.0", channels=3, **others
):
    """Writes a set as its builder would.

    Args:
      splits: for each, a list of (encoded image, label).
      others: features that replace these two, each with the value of every record.
    """
    import tensorflow_datasets as library

    library.disable_progress_bar()
    kinds = library.features
    features = dict(
        image=kinds.Image(shape=(None, None, channels)),
        label=kinds.ClassLabel(names=CLASSES),
    )
    features |= {key: kind for key, (kind, _) in others.items()}
    features = {key: kind for key, kind in features.items() if kind is not None}

    class Insects(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version(version)
        BUILDER_CONFIGS = [library.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return library.core.DatasetInfo(
                builder=self,
                features=kinds.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, manager):
            return {key: self._generate_examples(rows) for key, rows in splits.items()}

        def _generate_examples(self, rows):
            for number, (content, label) in enumerate(rows):
                example = dict(image=io.BytesIO(content), label=label)
                example |= {key: value for key, (_, value) in others.items()}
                yield number, {key: example[key] for key in features}

    Insects.name = name
    builder = Insects(data_dir=str(root), file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()


def records(first, count):
    return [(encoded(n), n % 3) for n in range(first, first + count)]


SPLITS = {"train": records(0, 24), "test": records(24, 6)}
