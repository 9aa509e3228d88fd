"""Sets of images, written once in a form that runs read fast and by position.

`sources` opens folders, prepared sets and, with `tars`, tars of images. A form writes
them: `records` as encoded images in the layout of TFDS, `resized` as arrays that are
mapped into memory. `sets` verifies a set and completes it, and `work` runs this shard
by shard in processes. `standard` has TFDS prepare a set that it knows.

"To prepare" is this, and nothing else, in all of the project: what the command
``prepare`` does, or what TFDS does for it.
"""
