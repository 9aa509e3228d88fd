"""Names of the files and folders in the directory of a run and of a job."""

# A run's directory.
CONFIG = "config.json"  # its config, with the network that it really has
INPUTS = "inputs.json"  # digests of its files, its data's fingerprint, how it began
METRICS = "metrics.jsonl"  # a line of numbers for every step that is logged
EVENTS = "events.out.tfevents"  # begins the names of those for TensorBoard
CHECKPOINTS = "checkpoints"  # a folder for each step that was saved
BROKEN = "broken_checkpoints"  # those of them that cannot be read, moved aside
WEIGHTS = "weights.safetensors"  # the trained network, except of an Aux-Net
LEARNGENE_FILE = "learngene.safetensors"  # the trained genes of an Aux-Net
OWN = "own.safetensors"  # an objective's own parameters, where it has some
RESULT = "result.json"  # scores, sizes and times; the last file that is written
LOCK = "lock"  # exists while a process works on the run

# A job's directory. It holds a directory for each run, named after it, and files with
# the names of a run's: CONFIG is the job's own, INPUTS says only how a job of older
# software began, LEARNGENE_FILE is a copy of its Aux-Net's (of other methods than SWS
# behind the method's prefix), and LOCK is there while the job writes what it shares
# with other jobs.

# What a path begins with that names a run of the same job.
RUN = "run:"

# Reports of a job.
RESULTS = "results.csv"  # a row for every scored set of weights
TABLE = "table.md"  # the comparison by depth, in Markdown
PICTURE = "report.png"
REPORT_FILES = (RESULTS, TABLE, PICTURE)
