"""``python -m sws_jax.convert.documents``: writes docs/convert.md from the code.

What becomes of every key of other libraries' configs stands in their tables alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sws_jax.convert import hugging_face, keys, processors, timm
from sws_jax.convert.keys import Key
from sws_jax.storage import files

PATH = os.path.join("docs", "convert.md")
# What a library's config is called, and the tables of its parts, by their headings;
# a table that is none of keys is printed already.
Sections = Sequence[tuple[str, Sequence[Key] | str]]
LIBRARIES: dict[str, Sections] = {
    "timm": (
        ("Top level of `config.json`", timm.TOP),
        ("`pretrained_cfg`", timm.PRETRAINED),
        ("`model_args` of ViT and DeiT", timm.ARGUMENTS["vit"]),
        ("`model_args` of LeViT", timm.ARGUMENTS["levit"]),
        ("`model_args` of RegNet", timm.ARGUMENTS["regnet"]),
    ),
    "transformers": (
        ("`config.json` of ViT and DeiT", hugging_face.CONFIGS["vit"]),
        ("`config.json` of LeViT", hugging_face.CONFIGS["levit"]),
        ("`config.json` of RegNet", hugging_face.CONFIGS["regnet"]),
        (
            "`preprocessor_config.json`, or `image_processor` within "
            "`processor_config.json`",
            processors.KEYS,
        ),
        ("What processors do where nothing is said", processors.defaults()),
    ),
}
_INTRODUCTION = """\
# What configs beside weights say

`convert`, `describe` and `convert.load` read the `config.json` (and
`preprocessor_config.json`) that another library wrote beside its weights. A key is
*honoured*; or has *no effect* on the function of pixels that is computed in evaluation;
or is *refused*, with a sentence that names the file and the key. A key in no table is
told in a note. null counts as nothing said, and flags come before all of it.

Pixels are those of the library, but for two kinds of images: of one more than four
times as long as what is looked at, the rest is not scaled, which may move a pixel by a
level; and a grey image of 16 bits is scaled to 8, where Pillow clips what is above 255.

This page is printed from the code; `python -m sws_jax.convert.documents` rewrites it.
"""


def text() -> str:
    """The page."""
    parts = [_INTRODUCTION]
    for library, sections in LIBRARIES.items():
        parts.append(f"## {library}\n")
        for heading, table in sections:
            rows = table if isinstance(table, str) else keys.markdown(table)
            parts.append(f"### {heading}\n\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    with files.replacing(PATH) as temporary:
        with open(temporary, "w", encoding="utf-8") as page:
            page.write(text())
