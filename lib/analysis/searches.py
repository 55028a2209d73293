"""Looking inside retrieval: what a trained model finds in the test split, and what of it is right."""

from collections.abc import Iterable, Sequence

import torch

from lib.analysis.ceilings import true_pictures
from lib.corpora.types import DataError, Picture, open_picture
from lib.metrics.retrieval import SIMILARITIES, Similarity
from lib.report.plots import NEUTRAL, RIGHT, TRUE, WRONG
from lib.tasks.retrieval import RetrievalData

Cell = tuple[Picture, str, str]  # a picture, what stands below it, the colour of its frame: what `plots.pictures` draws


class Searches:
    """The test split of `data` in the joint space of a trained model, `predictor`, as rows for the figures; what is
    near is said by `similarity`, a name or the model's own."""

    def __init__(self, predictor, data: RetrievalData, similarity: Similarity = "cosine"):
        self.images, self.sentences = predictor.predictions["images"], predictor.predictions["sentences"]
        self.similarity = SIMILARITIES.get(similarity, similarity)
        self.examples, self.captions, self.owner = data.test.examples, data.test.captions, data.test.owner.tolist()
        self.true = true_pictures(data)

    def some_captions(self, count: int = 4) -> range:
        """The numbers of a few captions, spread over the split."""
        step = max(1, len(self.captions) // count)
        return range(min(2, len(self.captions) - 1), len(self.captions), step)[:count]

    def some_picture(self) -> int:
        """The number of the first picture that can be opened."""
        return next(i for i, example in enumerate(self.examples) if any(readable([example])))

    def pictures_for(self, caption: int, k: int = 5) -> list[Cell]:
        """The k pictures nearest to a caption; the colour says whether it was written for this one, is true of it."""
        found = nearest(self.similarity(self.images, self.sentences[caption, None])[:, 0], k)
        return [(self.examples[i].image, f"{score:.2f}", self.colour(caption, i)) for i, score in found]

    def sentences_for(self, picture: int, k: int = 5) -> list[tuple[str, float, str]]:
        """The k captions nearest to a picture: text, score, colour."""
        found = nearest(self.similarity(self.images[picture, None], self.sentences)[0], k)
        return [(self.captions[j], score, self.colour(j, picture)) for j, score in found]

    def answers(self, table) -> list[Cell]:
        """The pictures that a Predictor's table names."""
        rows = table[["index", "score"]].itertuples(index=False)
        return [(self.examples[i].image, f"{score:.2f}", NEUTRAL) for i, score in rows]

    def scores(self, count: int = 8) -> torch.Tensor:
        """The first pictures with the first caption of each (n, n)."""
        first = [self.owner.index(picture) for picture in range(min(count, len(self.images)))]
        return self.similarity(self.images[: len(first)], self.sentences[first])

    def colour(self, caption: int, picture: int) -> str:
        if picture == self.owner[caption]:
            return RIGHT
        return TRUE if picture in self.true[caption] else WRONG


def nearest(scores: torch.Tensor, k: int) -> list[tuple[int, float]]:
    """The k highest scores of a gallery [N], fewer where it has fewer: (number, score)."""
    score, index = scores.topk(min(k, len(scores)))
    return list(zip(index.tolist(), score.tolist(), strict=True))


def readable(examples: Sequence) -> Iterable[Picture]:
    """The pictures of some examples that can be opened."""
    for example in examples:
        try:
            if example.image is not None:
                yield open_picture(example.image) and example.image
        except DataError:
            continue
