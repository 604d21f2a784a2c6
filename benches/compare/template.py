"""A tiny template language for the peers' configuration files.

`@NAME@` is replaced by a value; the lines between `%if tag` (or `%if !tag`) and
`%end` stay only when the job has (or lacks) the tag. Blocks may nest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent / "templates"
PLACEHOLDER = re.compile(r"@([A-Z][A-Z0-9_]*)@")


def render(name: str, tags: Collection[str], values: Mapping[str, object]) -> str:
    """Render the template `name`; an unknown placeholder is a KeyError."""
    lines = _select((TEMPLATES / name).read_text().splitlines(), tags)
    return PLACEHOLDER.sub(lambda found: str(values[found[1]]), "\n".join(lines) + "\n")


def _select(lines: list[str], tags: Collection[str]) -> list[str]:
    """Keep the lines whose enclosing conditions all hold."""
    kept: list[str] = []
    conditions: list[bool] = []
    for line in lines:
        if line.startswith("%if "):
            tag = line.removeprefix("%if ").strip()
            conditions.append(tag.lstrip("!") not in tags if tag.startswith("!") else tag in tags)
        elif line == "%end":
            conditions.pop()
        elif all(conditions):
            kept.append(line)
    return kept
