"""Sets of images, written once in a form that runs read fast and by position.

`sources` opens folders, prepared sets and, with `tars`, tars of images. A form writes
them: `records` as encoded images in the layout of TFDS, `resized` as arrays that are
mapped into memory. `sets` completes a set of which `manifests` knows the finished
shards, and `work` runs this shard by shard in processes. `standard` has TFDS prepare a
set that it knows.

A set that was written so, by the command ``prepare`` or by TFDS, is a prepared set.
"""
