"""GXN's settings, and the rewards that they name."""

import pytest
import torch

from lib.layers.decoder import END, PAD
from lib.papers.gxn import ModelSettings, Reward


@pytest.mark.parametrize("name", ("cider", "bleu"))
def test_a_reward_judges_by_the_captions_of_the_same_picture(name):
    judge = Reward(name, [[[3, 4, 7, 8, END], [3, END]], *[[[5, 6, 7, 9, END]]] * 5])
    said = torch.tensor([[3, 4, 7, 8, END], [3, 4, 7, 8, END], [3, 4, 7, 8, PAD]])
    own, other, unfinished = judge(said, torch.tensor([0, 1, 0])).tolist()
    assert own > unfinished > other >= 0


@pytest.mark.parametrize("changes, message", [
    ({"game": "wgan"}, "game 'wgan' is unknown"),
    ({"direction": "up"}, "direction 'up' is unknown"),
    ({"text_gradient": "all"}, "text_gradient 'all' is unknown"),
    ({"levels": "abstract", "captions": True}, "levels is 'abstract', expected 'both'"),
    ({"levels": "abstract", "pictures": True}, "levels is 'abstract', expected 'both'"),
    ({"gamma": 0.5}, "gamma is 0.5 without captions, expected captions or gamma 0"),
    ({"captions": True, "gamma": 1.5}, "gamma is 1.5, expected 0 to 1"),
    ({"lam": -0.1}, "lam is -0.1, expected 0 to 1"),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelSettings(**changes)
