"""Names that people type: a wrong one is refused with the nearest right one."""

import difflib
from collections.abc import Collection


def require_known(kind: str, name: str, known: Collection[str]) -> None:
    """ValueError with the nearest valid name, if `name` is not one of `known`."""
    if any(name == one for one in known):  # whatever was given, unhashable things too
        return
    near, shown = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0), repr(name)[:80]
    raise ValueError(f"{kind} {shown} is unknown, did you mean {near[0]!r}? Known: {', '.join(sorted(known))}")
