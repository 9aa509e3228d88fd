"""Data made ready once: read by position, and fast, in every run that follows.

`sources` finds images (folders, tars, prepared sets), a form writes them (`records`:
encoded, as TFDS lays sets out; `arrays`: resized, to be mapped into memory), and `work`
makes what is missing of a form, shard by shard, in processes. `standard` hands a set
that TFDS knows to TFDS.
"""
