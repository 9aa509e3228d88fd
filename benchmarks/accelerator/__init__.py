"""An accelerator, checked and measured within minutes: is it right, how fast is it?

    python -m benchmarks.accelerator OUT [--toy] [--minutes=8] [--only=curves,steps]

Each part is a process of its own, so that one that crashes or hangs takes no other with
it. `parts` lists them, the most important first, `schedule` runs them, and `report`
keeps what they found: after each row OUT/results.json and OUT/table.md are whole.
"""
