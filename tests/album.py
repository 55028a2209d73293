"""A folder of a few captioned pictures, as Flickr8k comes, for tests of whole runs that take seconds."""

from pathlib import Path

from PIL import Image

COLOURS = ("red", "green", "blue", "orange", "purple", "black", "white", "yellow")
SIZES = {"train": 16, "dev": 6, "test": 6}


def write_album(root: Path, missing: tuple[str, ...] = ()) -> Path:
    """Plain pictures with two captions each; those `missing` are listed, but not there."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for split, size in SIZES.items():
        names = [f"{split}{i}.png" for i in range(size)]
        (root / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            colour = COLOURS[i % len(COLOURS)]
            wide = "wide " * (i // len(COLOURS))
            lines += [f"{name}#0\ta {wide}{colour} picture .", f"{name}#1\tall of it is {wide}{colour} ."]
            if name not in missing:
                Image.new("RGB", (40 + 8 * i, 40), colour).save(root / "images" / name)
    (root / "Flickr8k.token.txt").write_text("\n".join(lines))
    return root
