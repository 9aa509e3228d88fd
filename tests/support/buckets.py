"""The bucket of the fixture `storage`."""

ROOT = "gs://bucket"
# The warning is right that a large file keeps one thread busy, which does no harm here.
LARGE = "ignore:Sending a large body directly:ResourceWarning"


def put(storage, folder, prefix):
    """All files below a folder, as objects."""
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"{prefix}/{path.relative_to(folder).as_posix()}"
            storage.write(name, path.read_bytes())
