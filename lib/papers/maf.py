"""MAF as experiments: the paper's model, what each part of it gives, and the released code's habits."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from lib import words
from lib.asked import require_picture, require_tokens
from lib.encoders.images import ImageEncoder, pixels
from lib.encoders.text import pretrained
from lib.encoders.tokens import CHARACTERS, TokenReader, token_encoder
from lib.metrics.entities import chunks
from lib.models.maf import MAF
from lib.names import require_known
from lib.run.paper import Paper, Variant
from lib.tasks.tagging import TASK, TaggingSettings


@dataclass(frozen=True)
class Settings(TaggingSettings):
    """The model and its losses; where a default is not the paper's, its line says so. What the paper leaves open is
    as in the released code, but for the rates and the share of swapped posts, chosen here."""

    tagger: str = "crf"  # or "softmax", each token by itself
    image: bool = True
    matching: bool = True  # CM
    alignment: bool = True  # CA
    gate: bool = True
    text_layers: int | None = None  # the encoder's first ones, all if None
    train_embeddings: bool = False  # of word pieces, half of MiniLM's weights; the paper trains them
    heads: int = 12
    dropout: float = 0.1
    head_rate: float = 1e-3  # learning rate of what is not pretrained
    matching_rate: float = 1e-4  # of CM's classifier
    sentence: str = "mean"  # CA's view of a text: of its pieces, as MiniLM was trained; or "cls", as in the paper
    temperature: float = 0.179  # of the contrastive loss
    lambda_c: float = 0.7  # the share of text -> image in it
    ner_weight: float = 1.0
    alpha: float = 0.2  # weight of CM's loss
    beta: float = 0.2  # weight of CA's loss
    tag_swapped: bool = False  # whether the tagger learns from swapped posts too, as released

    def __post_init__(self):
        super().__post_init__()
        for name, known in CHOICES.items():
            require_known(name, getattr(self, name), known)
        needing = [name for name in ("matching", "alignment", "gate") if getattr(self, name)]
        if needing and not self.image:
            raise ValueError(f"found {needing[0]} without image, expected image, or neither")


CHOICES = {"sentence": ("mean", "cls"), "tagger": ("crf", "softmax")}
SCHEDULE = dict(schedule="linear", warmup=0.1, weight_decay=0.01)
PROFILES = {
    "smoke": SCHEDULE
    | dict(epochs=3, batch_size=16, learning_rate=2e-4, text_layers=2, longest=64)
    | dict(train_limit=500, image_size=128, alpha=1.0, beta=1.0),
    "small": SCHEDULE
    | dict(epochs=8, batch_size=32, learning_rate=2e-4, text_layers=2, longest=64)
    | dict(image_size=128, alpha=1.0, beta=1.0),
    "paper": SCHEDULE | dict(epochs=6, batch_size=16, learning_rate=1e-4),
}
TEXT_ONLY = dict(image=False, matching=False, alignment=False, gate=False)
RELEASED = dict(
    swap="representations", swap_share=0.25, tag_swapped=True, pad_pairs=True, batch_norm="train",
    sentence="cls", ner_weight=0.62, alpha=0.38, beta=0.38,
)  # fmt: skip
VARIANTS = {
    "text-softmax": Variant("text only, softmax", TEXT_ONLY | dict(tagger="softmax")),
    "text": Variant("text only, CRF", TEXT_ONLY),
    "image": Variant("text + image (BERT-ResNet-CRF)", dict(matching=False, alignment=False, gate=False)),
    "no-matching": Variant("MAF without CM", dict(matching=False)),
    "no-alignment": Variant("MAF without CA", dict(alignment=False)),
    "no-gate": Variant("MAF without gate", dict(gate=False)),
    "full": Variant("MAF"),
    "released": Variant("MAF, as released", RELEASED),
}
# What a minute has time for: three epochs show what a picture gives, and are too few for CM and CA.
QUICK = ["text", "image"]


def rows(profile: str) -> list[str]:
    """The rows that a profile trains where nobody asks for others."""
    return QUICK if profile == "smoke" else list(VARIANTS)


def task(settings: Settings):
    """Tagging the tokens of posts."""
    return TASK


def build(context: dict, settings: Settings) -> MAF:
    """The model that `settings` describe, with random weights."""
    text = token_encoder(settings.text_encoder, context["characters"], settings.text_layers)
    from_scratch = settings.text_encoder == CHARACTERS
    text.get_input_embeddings().requires_grad_(settings.train_embeddings or from_scratch)
    return MAF(text, context["picture_dim"], len(context["labels"]), settings)


def initialise(model: MAF, context: dict, settings: Settings, parent=None) -> None:
    """Start the text encoder from its published weights; one that reads characters has none."""
    if settings.text_encoder != CHARACTERS:
        _, published = pretrained(settings.text_encoder)
        known = model.text.state_dict()
        model.text.load_state_dict({name: w for name, w in published.state_dict().items() if name in known})


class Predictor:
    """A trained tagger, for a sentence or a list of tokens, and a picture (a path or a PIL image) if there is one."""

    def __init__(self, model: MAF, context: dict, settings: Settings, predictions: dict):
        self.model, self.settings, self.labels = model.eval(), settings, context["labels"]
        self.predictions = predictions
        self.reader = TokenReader(settings.text_encoder, settings.longest, context["characters"])
        self.encoder = ImageEncoder(settings.image_encoder, "grid", settings.image_size)

    def __call__(self, text: str | Sequence[str], image=None) -> pd.DataFrame:
        """The entities as a table (entity, type, start, end), positions in tokens. Raises ValueError for no tokens."""
        read = self.inspect(text, image)
        found = chunks(read["tags"])
        rows = [(" ".join(read["tokens"][start:end]), kind, start, end) for kind, start, end in found]
        return pd.DataFrame(rows, columns=["entity", "type", "start", "end"])

    def inspect(self, text: str | Sequence[str], image=None) -> dict:
        """How the tagger came to its `tags` of the `tokens`: `matching`, how likely the picture belongs to them; the
        mean `gate` of each token [n]; and where in the picture each looks, `attention` [n, R]. What a model does not
        have, or has no picture for, is None. A picture alone has no batch: "released" models too see it normalised by
        their network's own statistics."""
        require_tokens(text)
        require_picture(image)
        tokens = words.tokens(text) if isinstance(text, str) else list(text)
        if not tokens:
            raise ValueError(f"found no token in {text!r}, expected a sentence")
        batch = self._batch(tokens, image)
        tagged, shown = self.model.tag(**batch), batch["token_mask"]
        looks = self.settings.image and image is not None
        return {
            "tokens": tokens,
            "tags": [self.labels[tag] for row in tagged["tags"] for tag in row],
            "matching": tagged["p"].mean().item() if looks and "p" in tagged else None,
            "gate": tagged["g"].mean(-1)[shown] if looks and "g" in tagged else None,
            "attention": self.model.look(**batch)[shown] if looks else None,
        }

    def _batch(self, tokens: Sequence[str], image) -> dict[str, torch.Tensor]:
        windows, s = self.reader.windows([tokens]), self.settings
        regions = torch.zeros(1, *self.encoder.row_shape)
        if image is not None:
            regions = self.encoder.encode(pixels(image, size=s.image_size)[None])
        present = torch.full((len(windows),), image is not None)
        pictures = {"image": regions.expand(len(windows), -1, -1), "present": present}
        return {**pictures, **self.reader.batch(windows, s.longest if s.pad_pairs else None)}


PAPER = Paper("maf", Settings, PROFILES, VARIANTS, task, build, initialise, Predictor, main="full")
