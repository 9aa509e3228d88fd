"""Disks of one's own, which can be filled."""

import os
import pathlib
import subprocess


class Disk:
    """A file system of its own, as small as asked, in a namespace of its own."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        mount = f"mount -t tmpfs tmpfs {folder} && echo mounted && exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", mount],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.usable = self._holder.stdout.readline() == "mounted\n"
        self.inside = (
            *("nsenter", "--user", "--mount", "--preserve-credentials"),
            *("--target", str(self._holder.pid), "--"),
        )
        # What processes inside see at `folder`, for those outside.
        self.path = pathlib.Path(f"/proc/{self._holder.pid}/root{folder}")

    def remount(self, options):
        command = ["mount", "-o", f"remount,{options}", str(self.folder)]
        subprocess.run([*self.inside, *command], check=True)

    def free(self, kib):
        """Leaves so much of it free, whatever is on it."""
        self.remount("size=64m")
        disk = os.statvfs(self.path)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024
        self.remount(f"size={used + kib}k")

    def close(self):
        self._holder.communicate()
