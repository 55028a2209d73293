"""Products of a knowledge graph in K3M's format, and what the paper's experiments make of any products.

A line is an item: id, title, image address, `property#:#value#;#property#:#value`, category, with tabs between. An
address is a path beside the file; a web link is not fetched, but its picture may lie in a folder by its own name or by
the item's id.
"""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from PIL import Image, ImageOps

from lib.corpora.files import (
    count_missing,
    data_folder,
    find_file,
    fingerprint,
    malformed,
    quote,
    resolve_picture,
)
from lib.corpora.types import Corpus, Pair, Picture, Product, Question, open_picture, picture_key
from lib.names import require_known

FILES = {"train": ("train.tsv",), "dev": ("valid.tsv", "dev.tsv"), "test": ("test.tsv",)}
EXPECTED = "items.tsv, or train.tsv, valid.tsv and test.tsv"
FIELDS = "id, title, image address, properties and category, with tabs between"
HELD = 0.1  # of all ids, or titles: the share of dev and of test where no splits are given


# ---- the corpus ----


def load(name: str, root: str | Path | None, limit: int | None = None, images: str | Path | None = None) -> Corpus:
    """The corpus of `Product` in the file or folder `root`; every item is a product of its own.

    A folder holds items.tsv, or train.tsv, valid.tsv (or dev.tsv) and test.tsv. Without given splits the items are
    divided by a hash of their ids, `fashion` by one of their titles, so that no title stands in two splits.
    `images` is a folder of pictures named by item id or as the image address ends; by default images/ beside the file.
    `limit` keeps the first items of the training split, dev and test stay whole. `notes` counts pictures that are
    missing, titles that are empty and items without properties.
    Raises DataError for a root without these files, for every malformed line, and for an id that stands twice.
    """
    splits = _splits(name, *_files(root), None if images is None else data_folder(images, "pictures"))
    train, dev, test = splits["train"][:limit], splits["dev"], splits["test"]
    notes = {
        "missing pictures": count_missing(train + dev + test),
        "empty titles": sum(not product.title for product in train + dev + test),
        "items without properties": sum(not product.properties for product in train + dev + test),
    }
    return Corpus(name, train, dev, test, fingerprint(train, dev, test), notes)


def stream(path: str | Path, images: str | Path | None = None) -> Iterator[Product]:
    """The products of one file, one at a time: a file may be larger than memory. `images` is as in `load`.

    Raises DataError for a malformed line when it comes to it; it does not remember ids, so one may come twice.
    """
    path = Path(path).expanduser().resolve()
    return (product for _, product in _read(path, None if images is None else data_folder(images, "pictures")))


def _files(root: str | Path | None) -> tuple[Path | None, dict[str, Path]]:
    """The file of all items or None, and the files of given splits."""
    path = Path(root or "").expanduser()
    if root and path.is_file():
        return path.resolve(), {}
    folder = data_folder(root, EXPECTED)
    given = {split: found for split, names in FILES.items() if (found := find_file(folder, *names))}
    if len(given) == len(FILES):
        return None, given
    items = find_file(folder, "items.tsv")
    if items is None or given:
        names = ", ".join(found.name for found in (items, *given.values()) if found) or "no such file"
        raise malformed(folder, names, f"{EXPECTED}; or name one file itself")
    return items, {}


def _splits(name: str, items: Path | None, given: dict[str, Path], images: Path | None) -> dict[str, tuple]:
    parts = {split: list(_read(path, images)) for split, path in (given or {"items": items}).items()}
    first = {}
    for where, product in (entry for part in parts.values() for entry in part):
        if product.id in first:
            raise malformed(where, f"id {quote(product.id)} a second time (first: {first[product.id]})", "each id once")
        first[product.id] = where
    products = {split: tuple(product for _, product in part) for split, part in parts.items()}
    return products if given else _divide(products["items"], "title" if name == "fashion" else "id", items)


def _divide(products: tuple[Product, ...], by: str, path: Path) -> dict[str, tuple]:
    """The same split of the same items anywhere; those of the same id, or title in any case, stay together."""
    keys = [getattr(product, by).casefold() or product.id for product in products]
    order = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode()).digest())
    if len(order) < 3:
        raise malformed(path, f"items of {len(order)} different {by}s", "at least 3, one for each split")
    held = max(1, round(HELD * len(order)))
    place = dict.fromkeys(order, "train") | dict.fromkeys(order[:held], "dev") | dict.fromkeys(order[-held:], "test")
    items = list(zip(products, keys, strict=True))
    return {split: tuple(product for product, key in items if place[key] == split) for split in FILES}


def _read(path: Path, images: Path | None) -> Iterator[tuple[str, Product]]:
    """(`file:line`, product) of each line that is not blank."""
    images = images or (path.parent / "images" if (path.parent / "images").is_dir() else None)
    rows, empty = csv.reader(_decoded(path), delimiter="\t", quoting=csv.QUOTE_NONE), True
    try:
        for row in rows:
            if row:
                yield f"{path}:{rows.line_num}", _parse(row, path.parent, images, f"{path}:{rows.line_num}")
                empty = False
    except csv.Error as error:
        raise malformed(f"{path}:{rows.line_num}", f"an unreadable line ({error})", FIELDS) from error
    if empty:
        raise malformed(path, "no item", "at least one")


def _decoded(path: Path) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise malformed(f"{path}:{number}", f"byte {error.object[error.start]:#04x}", "UTF-8 text") from error
    except OSError as error:
        raise malformed(path, f"no readable file ({error.strerror})", f"lines of {FIELDS}") from error


def _parse(row: list[str], root: Path, images: Path | None, where: str) -> Product:
    if len(row) != 5:
        raise malformed(where, f"{len(row)} field{'s' * (len(row) != 1)}", f"5: {FIELDS}")
    id, title, address, properties, category = map(str.strip, row)
    if not id or not category:
        raise malformed(where, f"no {'category' if id else 'id'}", FIELDS)
    triples = tuple(dict.fromkeys(_triple(text, where) for text in properties.split("#;#") if text.strip()))
    return Product(id, _picture(id, address, root, images, where), " ".join(title.split()), triples, category)


def _triple(text: str, where: str) -> tuple[str, str]:
    name, *values = (part.strip() for part in text.split("#:#"))
    if not name or len(values) != 1 or not values[0]:
        raise malformed(where, f"property {quote(text)}", "name#:#value, with #;# between two of them")
    return name, values[0]


def _picture(id: str, address: str, root: Path, images: Path | None, where: str) -> Path | None:
    is_link = "://" in address or address.startswith("//")
    if address and not is_link and (found := resolve_picture(root, address, where)):
        return found
    if images is None:
        return None
    last = re.split("[?#]", address)[0] if is_link else address
    names = (last.rpartition("/")[2], id)
    return next(filter(None, (resolve_picture(images, name, where) for name in names)), None)


# ---- missing and noisy modalities ----

# What befalls the items drawn; where it is several things, they take turns
KINDS = {
    "TMR": ("title missing",),
    "IMR": ("image missing",),
    "MMR": ("title missing", "image missing"),
    "TNR": ("title noisy",),
    "INR": ("image noisy",),
    "TINR": ("both noisy",),
    "MNR": ("title noisy", "image noisy", "both noisy"),
}
STRUCK = {"title": ("title",), "image": ("image",), "both": ("title", "image")}
NOTHING = {"title": "", "image": None}


def drawn(count: int, kind: str, ratio: float, seed: int = 0) -> list[str | None]:
    """What befalls each of `count` examples: "title missing", "image missing", "title noisy", "image noisy", "both
    noisy", or None.

    round(`ratio` x `count`) are drawn, the same ones for every kind, and those of a lower ratio among those of a
    higher, with the same fate. Raises ValueError for an unknown kind, or a ratio that is not between 0 and 1.
    """
    require_known("kind", kind, KINDS)
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio is a share between 0 and 1, got {ratio}")
    fates = [None] * count
    order = Random(f"degrade/{seed}").sample(range(count), count)
    for rank, index in enumerate(order[: round(ratio * count)]):
        fates[index] = KINDS[kind][rank % len(KINDS[kind])]
    return fates


def degrade(products: Sequence, kind: str, ratio: float, seed: int = 0) -> tuple:
    """The products, pairs or questions, in their order, of which a share lost its title or image, or has another's.

    Missing: TMR the title, IMR the image, MMR half of them each. Noisy: TNR the title is another random item's, INR the
    image, TINR both (of two items), MNR a third of them each (the axes of Zhu et al. 2021, Fig. 3 and 4; the shares of
    the mixtures are a reading of their names). The `ratio` of the examples is degraded, see `drawn`; of a pair both
    listings alike, of a question the title in its text too. A donor is of another product among these examples and has
    what it gives; what is missing cannot be noisy. An example with a fate is the same at any ratio and of any kind, so
    every result is a mixture of the clean examples and of TMR, IMR, TNR, INR and TINR at ratio 1.
    Raises ValueError as `drawn` does, and where nobody has a title or an image to give.
    """
    examples = list(products)
    fates = drawn(len(examples), kind, ratio, seed)
    donors = {field: _donors(examples, field) for field in NOTHING}

    def degraded(product: Product, fate: str) -> Product:
        which, how = fate.split()
        fields = {field: NOTHING[field] for field in STRUCK[which]}
        if how == "noisy":
            fields = {field: _another(product, field, donors[field], seed) for field in fields}
        return replace(product, **fields)

    def changed(example, fate: str):
        if isinstance(example, Pair):
            return replace(example, left=degraded(example.left, fate), right=degraded(example.right, fate))
        if isinstance(example, Question):
            product = degraded(example.product, fate)
            return replace(example, product=product, text=_ask(product, example.text.rpartition(SEP)[2]))
        return degraded(example, fate)

    return tuple(changed(example, fate) if fate else example for example, fate in zip(examples, fates, strict=True))


def _donors(examples: list, field: str) -> list[Product]:
    return [product for product in _products(examples) if getattr(product, field)]


def _products(examples: Iterable) -> Iterator[Product]:
    for example in examples:
        if isinstance(example, Pair):
            yield from (example.left, example.right)
        else:
            yield example.product if isinstance(example, Question) else example


def _another(product: Product, field: str, donors: list[Product], seed: int):
    """A random donor's title or image; by the listing's id, so that no ratio and no kind changes it."""
    if not getattr(product, field):
        return NOTHING[field]
    rng = Random(f"{field}/{seed}/{product.id}")
    for donor in (rng.choice(donors) for _ in range(1000)):
        if donor.product != product.product:
            return getattr(donor, field)
    raise ValueError(
        f"no other product has {'a title' if field == 'title' else 'an image'} to give as noise,"
        " expected at least two products with one in each split"
    )


def unnamed(product: Product) -> Product:
    """The product without the words of its title that hold its category's, in singular or plural: "Puma Caps" of the
    category "Caps" becomes "Puma"."""
    word = re.escape(product.category.casefold().rstrip("s") or product.category)
    title = re.sub(rf"[a-z]*{word}[a-z]*", " ", product.title, flags=re.IGNORECASE)
    return replace(product, title=" ".join(title.split()))


# ---- alignment ----

WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")  # a Chinese character, or what stands between spaces
KEPT = 0.7  # how often a listing keeps a word of the title, and a property
SMALLEST = 0.7  # of a picture's sides: what a crop leaves at least
COLOUR = re.compile("colou?r|颜色", re.IGNORECASE)


@dataclass(frozen=True)
class Crop:
    """A part of a picture, (left, top, right, bottom) as fractions of it, perhaps mirrored; made on demand."""

    picture: Picture
    box: tuple[float, float, float, float]
    mirrored: bool

    @property
    def key(self) -> str:
        """Decides every pixel."""
        return f"crop {picture_key(self.picture).hex()} {self.box} {self.mirrored}"

    def draw(self) -> Image.Image:
        """The part as an RGB picture. Raises DataError as `open_picture` does."""
        whole = open_picture(self.picture)
        sides = zip(self.box, (whole.width, whole.height) * 2, strict=True)
        part = whole.crop([round(at * length) for at, length in sides])
        return ImageOps.mirror(part) if self.mirrored else part


def pairs(products: Sequence[Product], seed: int = 0, negatives: int = 1) -> tuple[Pair, ...]:
    """Two listings of each product, and after them `negatives` pairs of one of these with another product's listing.

    Where listings share products, two of them are drawn; products with one listing are left out. Elsewhere two are
    made of each product: words dropped, picture cropped and perhaps mirrored, a subset of the properties. A negative
    is hard: of the same category and colour where there is another such product, else of the same category, else any.
    """
    groups = defaultdict(list)
    for product in products:
        groups[product.product].append(product)
    made = all(len(group) == 1 for group in groups.values())
    two = {name: _two(group, made, seed) for name, group in groups.items() if made or len(group) > 1}
    rivals = _Rivals({name: groups[name] for name in two})
    found = []
    for name, (left, right) in two.items():
        found.append(Pair(f"{left.id}={right.id}", left, right, True))
        for other in (two[rival][1] for rival in rivals.draw(name, negatives, Random(f"rivals/{seed}/{name}"))):
            found.append(Pair(f"{left.id}={other.id}", left, other, False))
    return tuple(found)


class _Rivals:
    """Products by what they share: category and colour, category, nothing."""

    def __init__(self, groups: dict[str, list[Product]]):
        self.likeness = {name: _likeness(group) for name, group in groups.items()}
        self.alike = defaultdict(list)
        for name, likeness in self.likeness.items():
            for level in likeness:
                self.alike[level].append(name)

    def draw(self, name: str, count: int, rng: Random) -> list[str]:
        """So many other products, the most alike first."""
        chosen = []
        for level in self.likeness[name]:
            if len(chosen) < count:
                others = [other for other in self.alike[level] if other != name and other not in chosen]
                chosen += rng.sample(others, min(count - len(chosen), len(others)))
        return chosen


def _likeness(group: list[Product]) -> tuple:
    """What a hard negative shares with a product's listings, from much to nothing."""
    category, triples = group[0].category, (triple for product in group for triple in product.properties)
    return (category, frozenset(value for name, value in triples if COLOUR.search(name))), (category,), ()


def _two(group: list[Product], made: bool, seed: int) -> tuple[Product, Product]:
    if made:
        return _listing(group[0], 1, seed), _listing(group[0], 2, seed)
    return tuple(Random(f"two/{seed}/{group[0].product}").sample(group, 2))


def _listing(product: Product, which: int, seed: int) -> Product:
    """The product as another seller would list it."""
    rng = Random(f"listing/{seed}/{product.id}/{which}")
    words = re.findall(rf"\s*(?:{WORD.pattern})", product.title)
    title = "".join(_some(words, rng)).strip()
    side, mirrored = round(rng.uniform(SMALLEST, 0.95), 3), rng.random() < 0.5
    left, top = (round(rng.uniform(0, 1 - side), 3) for _ in range(2))
    box = (left, top, round(left + side, 3), round(top + side, 3))
    image = product.image and Crop(product.image, box, mirrored)
    properties = tuple(_some(product.properties, rng))
    return replace(product, id=f"{product.id}/{which}", title=title, image=image, properties=properties)


def _some(things: Sequence, rng: Random) -> list:
    """Most of the things, at least one if there are any."""
    return [thing for thing in things if rng.random() < KEPT] or rng.sample(things, min(1, len(things)))


# ---- questions ----

SEP = "[SEP] "


def questions(products: Sequence[Product], seed: int = 0, pool: int | None = None) -> tuple[Question, ...]:
    """One question a product, `title [SEP] question`, about a property that it has one value of; products without one
    are left out.

    The triple that holds the answer is removed. The candidates are the values of all properties of these products,
    or of these `pool` drawn at random for each question, the answer among them. What is asked depends on `seed` and
    ids alone: `questions(degrade(products, …))` are the same questions. Raises ValueError for a pool below one.
    """
    if pool is not None and pool < 1:
        raise ValueError(f"a pool has at least 1 candidate, got {pool}")
    products = list(products)
    values = tuple(sorted({value for product in products for _, value in product.properties}))
    asked = (_question(product, values, pool, Random(f"questions/{seed}/{product.id}")) for product in products)
    return tuple(filter(None, asked))


def _question(product: Product, values: tuple[str, ...], pool: int | None, rng: Random) -> Question | None:
    times = Counter(name for name, _ in product.properties)
    if not (single := [triple for triple in product.properties if times[triple[0]] == 1]):
        return None
    name, answer = asked = rng.choice(single)
    if pool is not None and pool < len(values):
        others = [value for value in values if value != answer]
        values = tuple(sorted([answer, *rng.sample(others, pool - 1)]))
    rest = replace(product, properties=tuple(triple for triple in product.properties if triple != asked))
    return Question(f"{product.id}?{name}", rest, _ask(rest, wording(name)), answer, values)


def wording(name: str) -> str:
    """How a property is asked for."""
    return f"what is the {name}?" if name.isascii() else f"{name}是什么?"


def _ask(product: Product, question: str) -> str:
    return f"{product.title} {SEP}{question}".lstrip()
