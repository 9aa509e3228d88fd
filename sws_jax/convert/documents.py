"""``python -m sws_jax.convert.documents``: writes docs/convert.md from the code.

What becomes of every key of other libraries' configs stands in their tables alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sws_jax import files
from sws_jax.convert import keys, timm
from sws_jax.convert.keys import Key

PATH = os.path.join("docs", "convert.md")
# What a library's config is called, and the tables of its parts, by their headings.
Sections = Sequence[tuple[str, Sequence[Key]]]
LIBRARIES: dict[str, Sections] = {
    "timm": (
        ("Top level of `config.json`", timm.TOP),
        ("`pretrained_cfg`", timm.PRETRAINED),
        ("`model_args` of ViT and DeiT", timm.ARGUMENTS["vit"]),
        ("`model_args` of LeViT", timm.ARGUMENTS["levit"]),
        ("`model_args` of RegNet", timm.ARGUMENTS["regnet"]),
    ),
    # Hugging Face's tables go here.
}
_INTRODUCTION = """\
# What configs beside weights say

`convert`, `describe` and `convert.load` read the `config.json` (and
`preprocessor_config.json`) that another library wrote beside its weights. A key is
*honoured*; or has *no effect* on the function of pixels that is computed in evaluation;
or is *refused*, with a sentence that names the file and the key. A key in no table is
told in a note. null counts as nothing said, and flags come before all of it.

This page is printed from the code; `python -m sws_jax.convert.documents` rewrites it.
"""


def text() -> str:
    """The page."""
    parts = [_INTRODUCTION]
    for library, sections in LIBRARIES.items():
        parts.append(f"## {library}\n")
        for heading, table in sections:
            parts.append(f"### {heading}\n\n{keys.markdown(table)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    with files.replacing(PATH) as temporary, open(temporary, "w") as file:
        file.write(text())
