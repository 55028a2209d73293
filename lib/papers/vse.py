"""VSE as experiments: the paper's rows, the released code's, and the best recipe found here."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch.nn.functional import normalize

from lib.asked import require_picture, require_text
from lib.corpora.types import DataError
from lib.encoders.images import ImageEncoder, pixels
from lib.encoders.words import Vocabulary, word_vectors
from lib.models.vse import VSE
from lib.names import require_known
from lib.run.paper import Paper, Variant
from lib.tasks import retrieval
from lib.tasks.retrieval import RetrievalSettings, reader


@dataclass(frozen=True)
class Settings(RetrievalSettings):
    """The model and its loss. `negatives` is "all", "hardest" or a number of random ones."""

    sentence: str = "lstm"  # or "gru", "sum", "mean"; "frozen", a text encoder; "random"
    word_dim: int = 300
    joint_dim: int = 1024
    image_head: str = "linear"  # or "mlp"
    dropout: float = 0.0  # of the picture's feature, of word vectors, inside the heads
    loss: str = "ranking"  # both directions; or "devise" (pictures only), or "contrastive"
    negatives: str | int = "all"
    hardest_after: int = 2  # epochs of all negatives before the hardest alone
    margin: float = 0.2
    reduction: str = "mean"  # over the pairs of a batch; the released code takes the "sum"
    temperature: float = 0.05  # where the contrastive loss starts; it is learned
    unit_features: bool = False  # scale the picture's feature q to unit norm, as the released code does
    normalise_images: bool = True
    same_picture_negatives: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name, known in CHOICES.items():
            require_known(name, getattr(self, name), known)
        if (self.sentence == "frozen") != (self.text_encoder is not None):
            found = f"sentence {self.sentence!r} with text_encoder {self.text_encoder!r}"
            raise ValueError(f"{found}, expected both a text encoder and sentence 'frozen', or neither")


CHOICES = {
    "sentence": ("lstm", "gru", "sum", "mean", "frozen", "random"),
    "image_head": ("linear", "mlp"),
    "loss": ("ranking", "devise", "contrastive"),
    "reduction": ("mean", "sum"),
}
PROFILES = {
    "smoke": dict(epochs=5, learning_rate=2e-3, joint_dim=128, word_dim=128, train_limit=800, image_size=128),
    "small": dict(epochs=8, learning_rate=2e-3, joint_dim=192, word_dim=192, image_size=128),
    "paper": dict(epochs=12, learning_rate=1e-3, schedule="linear", joint_dim=512)
    | dict(margin=0.08, dropout=0.3, views=("full", "full-flip")),
}
HARDEST = dict(negatives="hardest", margin=0.2)
RELEASED = dict(
    sentence="gru", margin=0.2, dropout=0.0, reduction="sum",
    unit_features=True, normalise_images=False, same_picture_negatives=True,
)  # fmt: skip
BEST = dict(
    sentence="frozen", text_encoder="minilm", image_head="mlp", joint_dim=512, dropout=0.5, loss="contrastive",
    batch_size=256, learning_rate=5e-4, weight_decay=1e-4, schedule="cosine", warmup=0.1, epochs=12,
)  # fmt: skip
VARIANTS = {
    "random": Variant("random ranking", dict(sentence="random")),
    "devise": Variant("DeViSE: mean of words, pictures only", dict(sentence="mean", loss="devise")),
    "sum": Variant("sum of words", dict(sentence="sum")),
    "sum-hardest": Variant("sum of words, hardest negatives", dict(sentence="sum") | HARDEST),
    "released": Variant("GRU, as released", RELEASED),
    "lstm": Variant("LSTM, as in the paper", dict(sentence="lstm")),
    "lstm-hardest": Variant("LSTM, hardest negatives", dict(sentence="lstm") | HARDEST),
    "gru-hardest": Variant("GRU, hardest negatives (VSE++)", dict(sentence="gru") | HARDEST),
    "best": Variant("the best recipe found here", BEST),
    # What the best recipe owes to each ingredient: the same without it, or with another in its place.
    "best-linear": Variant("one linear map of the picture, as in the paper", BEST | dict(image_head="linear")),
    "best-no-dropout": Variant("no dropout", BEST | dict(dropout=0.0)),
    "best-one-view": Variant("no mirrored pictures", BEST | dict(views=("full",))),
    "best-all-negatives": Variant("the paper's loss: all negatives", BEST | dict(loss="ranking")),
    "best-hardest": Variant("the loss of VSE++: hardest negatives", BEST | dict(loss="ranking") | HARDEST),
    "best-gru": Variant("a GRU from scratch reads", BEST | dict(sentence="gru", text_encoder=None)),
    "best-average": Variant("weights averaged over steps", BEST | dict(average=0.995)),
}
INGREDIENTS = [name for name in VARIANTS if name.startswith("best")]
ABLATION = [name for name in VARIANTS if name == "best" or name not in INGREDIENTS]
# What a minute has time for: rows whose order after few epochs is that of the whole training.
QUICK = ["sum", "lstm", "lstm-hardest"]


def rows(profile: str) -> list[str]:
    """The rows that a profile trains where nobody asks for others."""
    return QUICK if profile == "smoke" else list(VARIANTS)


def deviations(lstm: Settings) -> list[str]:
    """Where the rows differ from the paper, a sentence each; `lstm` is the settings of that row."""
    return [
        f"picture features: {lstm.image_encoder}, {lstm.image_layer}, at {lstm.image_size} px, views "
        f"{', '.join(lstm.views)} (the paper: VGG-19's 4096-d layer)",
        f"LSTM, as in the paper: joint space of {lstm.joint_dim} (the paper, from memory: 300), margin {lstm.margin} "
        f"(0.2), dropout {lstm.dropout} (none), Adam at {lstm.learning_rate}, {lstm.schedule}, {lstm.epochs} epochs "
        "(SGD), all other pairs of the batch as wrong ones (random ones), W_I with a bias as in the released code",
        "GRU, as released: its loss, margin and habits, with the sizes, steps and picture features of the other rows",
        "DeViSE: its one-directional loss on the mean of words, without its word vectors from a text corpus",
        "the paper's caption decoder SC-NLM is not needed for retrieval and not here",
        "the best recipe reads with MiniLM, whose own training saw the captions (no pictures) of Flickr30k, of which "
        "Flickr8k is a part, and of COCO; the ingredient 'a GRU from scratch reads' is the recipe without that help",
    ]


class RandomRanking(torch.nn.Module):
    """Vectors that know nothing, new ones at each call: the floor of every table."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = torch.nn.Parameter(torch.zeros(dim), requires_grad=False)

    def encode_images(self, q: torch.Tensor) -> torch.Tensor:
        return torch.randn(len(q), *self.dim.shape, device=self.dim.device)

    def encode_sentences(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return torch.randn(len(words), *self.dim.shape, device=self.dim.device)


def task(settings: Settings):
    """Image-sentence retrieval by the cosine."""
    return retrieval.task()


def build(context: dict, settings: Settings) -> torch.nn.Module:
    """The model that `settings` describe, with random weights."""
    if settings.sentence == "random":
        return RandomRanking(settings.joint_dim)
    return VSE(context["picture_dim"], context["sentence_dim"], settings)


def initialise(model: torch.nn.Module, context: dict, settings: Settings, parent=None) -> None:
    """Start the words that have one from their published vector, as DeViSE does; the others stay random.

    Raises DataError if the vectors are not as wide as the model's.
    """
    if settings.word_vectors is None:
        return
    vectors, found = word_vectors(Vocabulary(tuple(context["words"])), settings.word_vectors)
    embed = model.sentence.embed
    if vectors.shape[1] != embed.embedding_dim:
        wide = f"{settings.word_vectors}: found vectors of {vectors.shape[1]} numbers"
        raise DataError(f"{wide}, expected {embed.embedding_dim} (set word_dim, or joint_dim for a bag of words)")
    embed.weight.data[found] = vectors[found]


class Predictor:
    """A trained joint space with the test split as its gallery.

    `Predictor(text=...)` ranks the gallery's pictures, `Predictor(image=...)` its captions (a path or a PIL image),
    and with both the answer is their cosine.
    """

    def __init__(self, model: torch.nn.Module, context: dict, settings: Settings, predictions: dict):
        self.model, self.settings, self.predictions = model, settings, predictions
        self.vocabulary = Vocabulary(tuple(context["words"]))
        self.encoder = ImageEncoder(settings.image_encoder, settings.image_layer, settings.image_size)

    @torch.no_grad()
    def __call__(self, text: str | None = None, image=None, k: int = 5) -> pd.DataFrame | float:
        """The `k` nearest of the gallery, or all of a smaller one, as a table (index, score); or one score for a text
        and an image."""
        require_text(text)
        require_picture(image)
        if text is None and image is None:
            raise ValueError("found neither text nor image, expected at least one of them")
        v = None if text is None else self.embed_sentences([text])[0]
        x = None if image is None else self._embed(image)
        if v is not None and x is not None:
            return (x @ v).item()
        query, gallery = (v, self.predictions["images"]) if x is None else (x, self.predictions["sentences"])
        score, index = (gallery @ query).topk(min(k, len(gallery)))
        return pd.DataFrame({"index": index.tolist(), "score": score.tolist()})

    @torch.no_grad()
    def embed_sentences(self, sentences: Sequence[str]) -> torch.Tensor:
        """Sentences or single words in the joint space [n, D], unit norm."""
        seen = reader(sentences, self.vocabulary, self.settings.text_encoder)
        return self.model.encode_sentences(**seen.batch(range(len(sentences))))

    def _embed(self, image) -> torch.Tensor:
        shown = torch.stack([pixels(image, view, self.settings.image_size) for view in self.settings.views])
        return normalize(self.model.encode_images(self.encoder.encode(shown)).mean(0), dim=0)


PAPER = Paper("vse", Settings, PROFILES, VARIANTS, task, build, initialise, Predictor, main="best")
