"""VSE: the model says what the equations say, whatever reads the sentence."""

import pytest
import torch

from lib.models.vse import VSE
from lib.papers.vse import VARIANTS, Settings
from lib.run.training import Progress

SENTENCES = ["lstm", "gru", "sum", "mean", "frozen"]


def model(**changes) -> VSE:
    torch.manual_seed(0)
    encoder = {"text_encoder": "minilm"} if changes.get("sentence") == "frozen" else {}
    return VSE(6, 20, Settings(**{"word_dim": 8, "joint_dim": 10} | encoder | changes)).eval()


def batch(sentence: str = "lstm", pairs: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 6, (pairs,), generator=generator)
    words = torch.randint(3, 20, (pairs, 5), generator=generator) * (torch.arange(5) < lengths[:, None])
    words = torch.randn(pairs, 20, generator=generator) if sentence == "frozen" else words
    image = torch.randn(pairs, 6, generator=generator)
    return {"image": image, "words": words, "lengths": lengths, "owner": torch.tensor([0, 1, 1, 2, 3, 3, 3])[:pairs]}


def losses(vse: VSE, b: dict, epoch: int = 0) -> dict:
    return vse.losses("model", b, Progress(epoch, 0, 0.0))


@pytest.mark.parametrize("sentence", SENTENCES)
def test_both_sides_have_unit_norm(sentence):
    vse, b = model(sentence=sentence), batch(sentence)
    for vectors in (vse.encode_images(b["image"]), vse.encode_sentences(b["words"], b["lengths"])):
        assert vectors.shape == (7, 10)
        assert torch.allclose(vectors.norm(dim=1), torch.ones(7), atol=1e-6)


@pytest.mark.parametrize("sentence", ["lstm", "gru", "sum", "mean"])
def test_padding_does_not_reach_a_sentence(sentence):
    vse, b = model(sentence=sentence), batch(sentence)
    together = vse.encode_sentences(b["words"], b["lengths"])
    for row, (words, length) in enumerate(zip(b["words"], b["lengths"], strict=True)):
        alone = vse.encode_sentences(words[None, :length], length[None])
        assert torch.allclose(together[row], alone[0], atol=1e-6)


def test_sum_and_mean_are_what_they_say():
    words, lengths = torch.tensor([[3, 4, 4, 0]]), torch.tensor([3])
    for kind, parts in (("sum", 1), ("mean", 3)):
        encoder = model(sentence=kind).sentence
        weight = encoder.embed.weight
        assert torch.allclose(encoder(words, lengths)[0], (weight[3] + 2 * weight[4]) / parts)


def plain_loss(x, v, owner, margin, same_picture_negatives=False, directions=("images", "sentences")):
    """The paper's double sum, one pair after the other, averaged over the pairs."""
    total, pairs = 0.0, len(x)
    for i in range(pairs):
        for k in range(pairs):
            if k == i or (owner[k] == owner[i] and not same_picture_negatives):
                continue
            own = (x[i] @ v[i]).item()
            total += max(0.0, margin - own + (x[i] @ v[k]).item()) * ("images" in directions)
            total += max(0.0, margin - own + (x[k] @ v[i]).item()) * ("sentences" in directions)
    return total / pairs


@pytest.mark.parametrize("changes, oracle", [
    ({}, {}),
    ({"same_picture_negatives": True}, {"same_picture_negatives": True}),
    ({"loss": "devise"}, {"directions": ("images",)}),
    ({"negatives": 10_000}, {}),
])  # fmt: skip
def test_the_loss_is_the_papers(changes, oracle):
    vse, b = model(**changes), batch()
    x, v = vse.encode_images(b["image"]), vse.encode_sentences(b["words"], b["lengths"])
    (loss,) = losses(vse, b).values()
    assert loss.item() == pytest.approx(plain_loss(x, v, b["owner"], 0.2, **oracle), rel=1e-5)


def test_the_released_code_leaves_pictures_unnormalised_in_training_only():
    released, b = model(normalise_images=False, same_picture_negatives=True), batch()
    x, v = released.project(b["image"]), released.encode_sentences(b["words"], b["lengths"])
    expected = plain_loss(x, v, b["owner"], 0.2, same_picture_negatives=True)
    assert losses(released, b)["ranking"].item() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(released.encode_images(b["image"]).norm(dim=1), torch.ones(7), atol=1e-6)


def test_hardest_negatives_come_after_all_of_them():
    vse, b = model(negatives="hardest", hardest_after=2), batch()
    found = [losses(vse, b, epoch)["ranking"].item() for epoch in range(4)]
    assert found[0] == found[1] > found[2] == found[3]
    assert found[0] == pytest.approx(losses(model(), b)["ranking"].item())


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "random"])
def test_every_variant_learns_its_batch(name):
    changes = VARIANTS[name].changes
    torch.manual_seed(0)
    vse = VSE(6, 20, Settings(**{"word_dim": 8, **changes, "joint_dim": 16, "dropout": 0.0}))
    b = batch(changes.get("sentence"))
    optimizer = torch.optim.Adam(vse.parameters(), lr=0.02)
    found = []
    for _ in range(60):
        (loss,) = losses(vse, b).values()
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found[-1] < 0.7 * found[0], found[::10]


@pytest.mark.parametrize("changes, message", [
    ({"sentence": "lsmt"}, "sentence 'lsmt' is unknown, did you mean 'lstm'"),
    ({"image_head": "MLP"}, "image_head 'MLP' is unknown"),
    ({"loss": "devize"}, "loss 'devize' is unknown, did you mean 'devise'"),
    ({"reduction": "max"}, "reduction 'max' is unknown"),
    ({"sentence": "frozen", "text_encoder": None}, "expected both a text encoder and sentence 'frozen', or neither"),
    ({"text_encoder": "minilm"}, "expected both a text encoder and sentence 'frozen', or neither"),
    ({"epochs": 0}, "epochs is 0, expected at least 1"),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


@pytest.mark.parametrize("loss", ["ranking", "devise", "contrastive"])
def test_every_weight_gets_a_gradient(loss):
    """What has none would stop a run that is spread over processes."""
    vse = model(loss=loss).train()
    sum(losses(vse, batch()).values()).backward()
    assert all(weight.grad is not None for weight in vse.parameters())


def test_unit_features_make_the_scale_of_a_picture_meaningless():
    q = batch()["image"]
    for unit, same in ((True, True), (False, False)):
        vse = model(unit_features=unit)
        assert torch.allclose(vse.project(q), vse.project(7 * q), atol=1e-6) == same
