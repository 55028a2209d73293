"""Fuzzing: `python tests/benchmarks/fuzz.py --inputs 100000 --seed 0` changes small good files of every loader, and
pictures, at random, and counts what is accepted, refused in one sentence (DataError), or escapes as anything else.

One process, one thread. A line a thousand inputs sums up what was found; Ctrl-C or SIGTERM ends it with the table, and
`--inputs` at another `--seed` goes on elsewhere. The exit status is 1 where something escaped.
"""

import argparse
import io
import json
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[2]))

from PIL import Image  # noqa: E402

from lib import corpora  # noqa: E402
from lib.corpora import DataError, open_picture  # noqa: E402
from lib.encoders.words import Vocabulary, word_vectors  # noqa: E402
from tests.run.test_malformed import ASKED, FILES, write  # noqa: E402

# What files of data have been seen to hold, and what has broken readers elsewhere.
PIECES = [
    *(b"\0", b"\t", b"\n", b"\r", b"\r\n", b" ", b"#", b"#0\t", b"#:#", b"#;#", b"<sep>", b";", b"../", b"/", b"~"),
    *(b"IMGID:", b"B-", b"I-X", b"O", b'"', b"\\", b"\\ud83d", b"{", b"}", b"[", b"]", b"[" * 2000, b"9" * 5000),
    *(b"-1", b"1e999", b"NaN", b"null", b"true", b",", b":", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"x" * 5000),
    *(b"a.jpg", b"images", b"http://x/%2F..%2F", "\u2028\x85\x0c".encode(), "\u200b\u202e".encode()),
    "e\u0301 एक กา 犬 🏳️\u200d🌈".encode(),
]
KINDS = {  # of pictures, and the mode of one
    **{"JPEG": "RGB", "PNG": "RGBA", "GIF": "P", "BMP": "RGB", "TIFF": "F", "WEBP": "RGB", "AVIF": "RGB"},
    **{"PPM": "I", "TGA": "RGB", "PCX": "L", "SGI": "RGB", "DDS": "RGBA", "BLP": "P", "JPEG2000": "L", "XBM": "1"},
    **{"ICO": "RGBA", "MPO": "RGB", "QOI": "RGB", "EPS": "L", "IM": "RGB", "MSP": "1", "SPIDER": "F", "ICNS": "RGBA"},
}


def changed(content: bytes, random: Random) -> bytes:
    """The bytes with one to four changes, each of a few bytes or a line."""
    for _ in range(random.choice((1, 1, 2, 4))):
        start, length = random.randint(0, len(content)), random.choice((0, 1, 1, 2, 8, 40))
        end = min(len(content), start + length)
        lines = content.split(b"\n")
        content = random.choice((
            lambda: content[:start] + random.choice(PIECES) + content[end:],  # noqa: B023
            lambda: content[:start] + random.randbytes(end - start) + content[end:],  # noqa: B023
            lambda: content[:start] + content[end:],  # noqa: B023
            lambda: content[:start],  # noqa: B023
            lambda: content[:start] + content[start:end] * random.choice((2, 3, 50)) + content[end:],  # noqa: B023
            lambda: b"\n".join(random.sample(lines, len(lines))),  # noqa: B023
            lambda: b"\n".join([*lines, random.choice(lines)]),  # noqa: B023
        ))()  # fmt: skip
    return content


@dataclass
class Target:
    """A reader, the good inputs that are changed for it, and what became of them."""

    good: list[Path]
    read: Callable[[Path], object]
    counts: Counter = field(default_factory=Counter)
    escaped: Counter = field(default_factory=Counter)

    def once(self, random: Random) -> None:
        """Change one file, read, and put it back."""
        path = random.choice(self.good)
        content = path.read_bytes()
        path.write_bytes(changed(content, random))
        try:
            self.read(path)
            self.counts["accepted"] += 1
        except DataError as error:
            one = "\n" not in str(error) and len(str(error)) < 2000
            self.counts["refused" if one else "escaped"] += 1
            self.escaped.update([] if one else [f"a long story: {str(error)[:100]!r}"])
        except Exception as error:
            self.counts["escaped"] += 1
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            self.escaped[f"{traceback.format_exception_only(error)[-1].strip()[:120]} ({where})"] += 1
        finally:
            path.write_bytes(content)


def targets(root: Path) -> dict[str, Target]:
    """Every loader with a good folder, word vectors, and the picture decoder."""
    found = {}
    for form, (_, _, dataset, *_) in ASKED.items():
        folder = write(root / form, form)
        files = [folder / name for name in FILES[form]]
        found[form] = Target(files, lambda path, dataset=dataset: whole(corpora.load(dataset, path.parent)))
    found["vectors"] = Target(vectors(root / "vectors"), lambda path: word_vectors(Vocabulary(("red", "dog")), path))
    found["pictures"] = Target(pictures(root / "pictures"), lambda path: open_picture(path).load())
    return found


def whole(corpus) -> None:
    """Look at all of a corpus, as whoever uses it does."""
    corpus.describe()
    for example in [*corpus.train, *corpus.dev, *corpus.test]:
        json.dumps([str(part) for part in vars(example).values()]).encode()


def vectors(folder: Path) -> list[Path]:
    folder.mkdir()
    texts = {"glove.txt": "red 0.1 0.2\n. . . 1 2\ndog -3e-1 .5\n", "fast.vec": "2 3\nred 1 2 3 \ndog 4 5 6 \n"}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def pictures(folder: Path) -> list[Path]:
    """A small picture in each format that this Pillow writes."""
    folder.mkdir()
    noise, paths = Image.effect_noise((24, 16), 60), []
    for kind, mode in KINDS.items():
        kept = io.BytesIO()
        try:
            noise.convert(mode).save(kept, kind)
        except (KeyError, OSError, ValueError):
            continue
        paths.append(folder / f"picture.{kind.lower()}")
        paths[-1].write_bytes(kept.getvalue())
    return paths


def table(found: dict[str, Target]) -> str:
    lines = [f"{'':10} {'inputs':>8} {'accepted':>9} {'refused':>8} {'escaped':>8}"]
    for name, target in found.items():
        counts = [target.counts[kind] for kind in ("accepted", "refused", "escaped")]
        lines.append(f"{name:10} {sum(counts):8} {counts[0]:9} {counts[1]:8} {counts[2]:8}")
    lines.append(f"{'all':10} {sum(sum(target.counts.values()) for target in found.values()):8}")
    for name, target in found.items():
        lines += [f"{name}: {times} x {what}" for what, times in target.escaped.most_common(20)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="some of the readers, by name")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.simplefilter("ignore")
    root = Path(tempfile.mkdtemp())
    try:
        found = {name: target for name, target in targets(root).items() if not chosen.only or name in chosen.only}
        for number in range(chosen.inputs):
            name = list(found)[number % len(found)]
            found[name].once(Random(f"{chosen.seed}/{number}"))
            if number % 1000 == 999:
                escaped = sum(target.counts["escaped"] for target in found.values())
                print(f"{number + 1} of {chosen.inputs} inputs, {escaped} escaped", flush=True)
    except KeyboardInterrupt:
        print("stopped")
    finally:
        shutil.rmtree(root)
    print(table(found))
    return int(any(target.counts["escaped"] for target in found.values()))


if __name__ == "__main__":
    sys.exit(main())
