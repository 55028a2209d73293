"""Before any test imports torchvision, make it importable; torch's threads stay as a run would have them."""

import lib  # noqa: F401
