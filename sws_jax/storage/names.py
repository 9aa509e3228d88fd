"""Names of the files that runs and jobs leave, each with what it holds."""

# Reports of a job.
RESULTS = "results.csv"  # a row for every scored set of weights
TABLE = "table.md"  # the comparison by depth, in Markdown
PICTURE = "report.png"
REPORT_FILES = (RESULTS, TABLE, PICTURE)
