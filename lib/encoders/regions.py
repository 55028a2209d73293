"""Regions of a picture, up to 36: each with its vector, its box, its classes and its mean colour, computed once.

They are the cells of an image encoder's grid, given boxes, or what Faster R-CNN finds (Zhu et al. 2021: 36 objects of
a Faster R-CNN). A picture's row in the cache is (36, D + 5 + 3 + 2 x 32): `unpack` takes it apart.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pad

from lib.corpora.types import DataError, Picture, open_picture, picture_key
from lib.encoders.cache import FeatureCache, Features
from lib.encoders.images import CACHE, ImageEncoder, _network
from lib.names import require_known
from lib.precision import device
from lib.progress import ticking

REGIONS = 36
TOP = 32  # classes kept a region; with the rest spread evenly, 0.07 to 0.12 nats from Lite0's whole distribution
VERSION = 1  # raise it when the same picture and boxes come to give other rows
SOURCES = ("grid", "boxes", "detector")
HEADS = {"lite0": lambda net: net.network.classifier, "resnet152": lambda net: net.network.fc}

Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the picture


def region_encoder(
    source: str = "grid", name: str = "lite0", size: int = 192, boxes: Callable[[Picture], Iterable[Box]] | None = None
) -> "RegionEncoder":
    """What encodes regions from that source: "grid" (6x6 at 192 px), "boxes" (those that `boxes` gives of a picture,
    the first 36) or "detector" (torchvision's Faster R-CNN; `name` does not matter).

    Raises ValueError for an unknown source, or for "boxes" without `boxes`; DataError where an encoder cannot do it.
    """
    require_known("regions", source, SOURCES)
    if (source == "boxes") != (boxes is not None):
        raise ValueError(f"regions {source!r} take {'a' if source == 'boxes' else 'no'} function `boxes`")
    return DetectorEncoder(size) if source == "detector" else RegionEncoder(name, size, boxes)


def regions_at_most(encoder: "RegionEncoder") -> int:
    """How many regions a picture has at most."""
    return encoder.side**2 if encoder.source == "grid" else REGIONS


@dataclass(frozen=True)
class Boxed:
    """A picture with boxes in it."""

    picture: Picture
    boxes: tuple[Box, ...]

    @property
    def key(self) -> str:
        """Decides every pixel and every box."""
        return f"{picture_key(self.picture).hex()} {self.boxes}"

    def draw(self) -> Image.Image:
        """The picture. Raises DataError as `open_picture` does."""
        return open_picture(self.picture)


class RegionEncoder(ImageEncoder):
    """The grid of a frozen network, averaged over boxes: `boxes(picture)`, or else the grid's own cells.

    Raises DataError as ImageEncoder does, for a grid of more than 36 cells, and for a network whose classes cannot be
    read from one vector (VGG's need all of the grid).
    """

    def __init__(self, name: str = "lite0", size: int = 192, boxes: Callable[[Picture], Iterable[Box]] | None = None):
        super().__init__(name, "grid", size)
        if name not in HEADS:
            raise DataError(f"{name} tells no classes of a region, expected one of {', '.join(HEADS)}")
        self.side = size // 32
        if boxes is None and self.side**2 > REGIONS:
            raise DataError(f"image size {size} makes {self.side**2} regions, expected at most 192 px for {REGIONS}")
        self.source, self.boxes = ("grid", self._cells) if boxes is None else ("boxes", boxes)

    @property
    def dim(self) -> int:
        """Width D of a region's vector."""
        return self.spec.dims["grid"]

    @property
    def row_shape(self) -> tuple[int, int]:
        """Shape of one picture's regions."""
        return REGIONS, self.dim + 8 + 2 * TOP

    @property
    def identity(self) -> str:
        """All that decides the regions beside pictures and boxes, but for the machine's rounding."""
        return f"regions-{self.source}-{super().identity}-r{VERSION}"

    def features(self, pictures: Sequence[Picture], cache: Path = CACHE) -> Features:
        """The regions of each picture, computed at most once and kept in `cache`; missing and corrupt pictures as in
        ImageEncoder. Raises ValueError for a box that is not inside its picture."""
        boxed = [picture and Boxed(picture, _checked(self.boxes(picture))) for picture in pictures]
        return super().features(boxed, cache=cache)

    def _encode_into(self, store: FeatureCache, batches: list[list[bytes]], wanted: dict) -> None:
        with ThreadPoolExecutor(2) as pool:  # pictures are decoded while the network computes
            for batch in ticking(batches, "encoding pictures", sum(map(len, batches)), len):
                shown = dict(zip(batch, pool.map(lambda key: self._shown(*wanted[key]), batch), strict=True))
                good = [key for key in batch if shown[key] is not None]
                if good:
                    boxes = _padded([torch.tensor(wanted[key][0].boxes).view(-1, 4) for key in good])
                    rows = self.encode_boxes(torch.stack([shown[key] for key in good]), boxes)
                    store.append(good, rows.numpy())

    @torch.no_grad()
    def encode_boxes(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """uint8 pictures [B, 3, S, S] and boxes [B, 36, 4], empty ones for none -> rows [B, 36, D + 8 + 64]."""
        grid = self.encode(pixels).transpose(1, 2).unflatten(2, (self.side, self.side))  # (B, D, h, w)
        vectors = average(grid, boxes)  # (B, 36, D)
        logits = HEADS[self.name](_network(self.name))(vectors.to(device())).cpu()  # (B, 36, 1000)
        return _rows(vectors, boxes, pixels, logits)

    def _cells(self, picture: Picture) -> list[Box]:
        steps = [i / self.side for i in range(self.side + 1)]
        spans = list(zip(steps, steps[1:], strict=False))
        return [(left, top, right, bottom) for top, bottom in spans for left, right in spans]


class DetectorEncoder(RegionEncoder):
    """What torchvision's Faster R-CNN (ResNet-50 with a feature pyramid, COCO) sees best, at `size` px.

    Raises DataError where torchvision's compiled operations are missing.
    """

    dim, spec_name = 1024, "fasterrcnn_resnet50_fpn_coco-258fb6c6"  # the file's name ends in its hash

    def __init__(self, size: int = 512):
        from torchvision.extension import _has_ops

        if not _has_ops():
            raise DataError(
                "Faster R-CNN: torchvision's compiled operations (nms, roi_align) do not load beside this torch,"
                " expected a torchvision built for it; or choose regions 'grid' or 'boxes'"
            )
        super().__init__("resnet152", size, lambda picture: ())
        self.source = "detector"

    @property
    def identity(self) -> str:
        """All that decides the regions, but for the machine's rounding."""
        return f"regions-detector-{self.spec_name}-{self.size}-r{VERSION}"

    @torch.no_grad()
    def encode_boxes(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """As RegionEncoder; the boxes are those found, whatever is given."""
        model = _detector(self.size)
        images, _ = model.transform(list(pixels.to(device()).float() / 255))
        maps = model.backbone(images.tensors)
        proposals, _ = model.rpn(images, maps)
        seen, _ = model.roi_heads(maps, proposals, images.image_sizes)
        found = [of_one["boxes"][:REGIONS] for of_one in seen]  # best first
        vectors = model.roi_heads.box_head(model.roi_heads.box_roi_pool(maps, found, images.image_sizes))
        logits, _ = model.roi_heads.box_predictor(vectors)
        counts = [len(of_one) for of_one in found]
        places = _padded([of_one.cpu() / self.size for of_one in found])
        vectors, logits = (_padded(flat.cpu().split(counts)) for flat in (vectors, logits))
        return _rows(vectors, places, pixels, logits)


@lru_cache(maxsize=1)
def _detector(size: int, pretrained: bool = True) -> nn.Module:
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, fasterrcnn_resnet50_fpn

    weights = FasterRCNN_ResNet50_FPN_Weights.COCO_V1 if pretrained else None
    sizes = {"min_size": size, "max_size": size, "box_score_thresh": 0.01, "box_detections_per_img": REGIONS}
    model = fasterrcnn_resnet50_fpn(weights=weights, weights_backbone=None, **sizes)
    return model.eval().requires_grad_(False).to(device())


def unpack(rows: Tensor) -> dict[str, Tensor]:
    """Rows of regions [..., 36, D + 8 + 64] by name: `features` [..., 36, D]; `boxes` [..., 36, 5] as left, top, right,
    bottom and area, fractions of the picture; `colours` [..., 36, 3] from 0 to 1; the likeliest `classes` [..., 36, 32]
    and their `probabilities`; `present` [..., 36], which are regions (all False of a missing picture)."""
    widths = (rows.shape[-1] - 8 - 2 * TOP, 5, 3, TOP, TOP)
    features, boxes, colours, classes, probabilities = rows.split(widths, dim=-1)
    named = {"features": features, "boxes": boxes, "colours": colours, "probabilities": probabilities}
    return named | {"classes": classes.long(), "present": boxes[..., 4] > 0}


def distribution(classes: Tensor, probabilities: Tensor, count: int) -> Tensor:
    """The likeliest classes [..., 32] and their probabilities as a distribution over `count` classes [..., count]; what
    is left is spread evenly over the others."""
    left = (1 - probabilities.sum(-1, keepdim=True)).clamp_min(0) / (count - classes.shape[-1])  # (..., 1)
    return left.expand(*classes.shape[:-1], count).scatter(-1, classes, probabilities)


def overlap(boxes: Tensor) -> Tensor:
    """Intersection over union of every two regions of a picture: boxes [..., R, 4 or 5] -> [..., R, R], float32.

    An empty box overlaps with nothing, itself included. (The released code masks a region together with all that
    overlap with it by more than 0.4.)
    """
    low, high = boxes[..., :2].float(), boxes[..., 2:4].float()  # (..., R, 2)
    area = (high - low).clamp_min(0).prod(-1)  # (..., R)
    shared = torch.minimum(high[..., :, None, :], high[..., None, :, :]) - torch.maximum(
        low[..., :, None, :], low[..., None, :, :]
    )  # (..., R, R, 2)
    shared = shared.clamp_min(0).prod(-1)  # (..., R, R)
    return shared / (area[..., :, None] + area[..., None, :] - shared).clamp_min(1e-12)


def average(values: Tensor, boxes: Tensor) -> Tensor:
    """The mean of a map [B, C, H, W] over each box [B, R, 4], cells weighted by their part inside it -> [B, R, C]."""
    across, down = (_cover(boxes[..., i], boxes[..., i + 2], values.shape[3 - i]) for i in (0, 1))
    columns = torch.einsum("brh,bchw->brcw", down, values)  # (B, R, C, W)
    return torch.einsum("brw,brcw->brc", across, columns)  # (B, R, C)


def _cover(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Which part of [low, high] [B, R] lies in each of `count` equal cells [B, R, count]; sums to one."""
    edges = torch.linspace(0, 1, count + 1, device=low.device)
    inside = torch.minimum(high[..., None], edges[1:]) - torch.maximum(low[..., None], edges[:-1])
    return inside.clamp_min(0) / (high - low).clamp_min(1e-6)[..., None]


def _rows(vectors: Tensor, boxes: Tensor, pixels: Tensor, logits: Tensor) -> Tensor:
    probabilities, classes = logits.softmax(-1).topk(TOP)  # (B, 36, 32)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1, keepdim=True)  # (B, 36, 1)
    colours = average(pixels.cpu().float() / 255, boxes)  # (B, 36, 3)
    return torch.cat([vectors, boxes, area, colours, classes, probabilities], -1) * (area > 0)


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [n, K] of at most 36 rows -> [B, 36, K], zeros after each one's end."""
    return torch.stack([pad(part.float(), (0, 0, 0, REGIONS - len(part))) for part in parts])


def _checked(boxes: Iterable[Box]) -> tuple[Box, ...]:
    boxes = tuple(boxes)[:REGIONS]
    for box in boxes:
        if not (0 <= box[0] <= box[2] <= 1 and 0 <= box[1] <= box[3] <= 1):
            raise ValueError(f"box {box} is not inside its picture, expected left, top, right, bottom from 0 to 1")
    return boxes
