"""What the GAN adds to the contract: its penalty, its augmentation, its truncation, the figures that show it failing."""

import torch

from latente.models import gan
from latente.rng import keyed
from latente.spec import ImageSpec

SPEC = ImageSpec(1, 8, 8)
TINY = gan.Config(noise_dim=8, generator_width=8, discriminator_width=8)


class Linear(torch.nn.Module):
    """D(x) = <w, x>: its gradient is w everywhere."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(1, 8, 8, generator=keyed(0)))

    def forward(self, x, label):
        return (x * self.weight).flatten(1).sum(1)


def test_the_penalty_of_a_linear_discriminator_is_its_squared_weight():
    model = gan.Model(TINY, SPEC)
    model.discriminator = Linear()  # type: ignore[assignment]
    real, fake = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    square = model.discriminator.weight.square().sum()
    for progress, times in ((1.0, 1.0), (0.0, 10.0)):
        losses = model._penalty(real, fake, torch.zeros(5, 0), progress)
        assert torch.allclose(losses.terms["r1"], square) and torch.allclose(losses.terms["r2"], square)
        assert torch.allclose(losses.total, gan.LAZY * times * model.config.penalty / 2 * 2 * square)
    losses.total.backward()
    assert torch.allclose(model.discriminator.weight.grad, 2 * losses.total / square * model.discriminator.weight)


def test_at_equal_scores_both_sides_lose_ln_2():
    model = gan.Model(TINY, SPEC)
    torch.nn.init.zeros_(model.discriminator.score.weight)
    batch = {**SPEC.example(6, keyed(1)), **model.noise(6, "discriminator", keyed(2))}
    for phase in ("discriminator", "generator"):
        assert torch.allclose(model(batch, phase, 1.0).total, torch.tensor(2.0).log())


def test_augmentation_is_nothing_at_zero_and_what_its_draws_say_else():
    x, draws = SPEC.example(32, keyed(0))["x"].float() / 127.5 - 1, torch.rand(32, 8, generator=keyed(1))
    assert gan.augmented(x, draws, 0.0) is x
    changed = gan.augmented(x, draws, 1.0)
    assert not torch.allclose(changed, x) and changed.shape == x.shape
    assert torch.equal(gan.augmented(x[3:5], draws[3:5], 1.0), changed[3:5])  # row by row, whatever the batch
    still = draws.clone()
    still[:, :3] = 1.0  # no draw is below the strength
    assert torch.equal(gan.augmented(x, still, 0.9), x)


def test_augmentation_shifts_by_whole_pixels():
    x = torch.full((1, 1, 16, 16), -1.0)
    x[..., 8, 8] = 1.0
    draws = torch.tensor(
        [[1.0, 0.0, 1.0, 0.5, 1.0, 0.0, 0.5, 0.5]]
    )  # only the shift: most down the rows, least along columns
    moved = gan.augmented(x, draws, 0.5)
    assert moved.flatten().argmax() == 6 * 16 + 10 and moved.sum() == x.sum()


def test_augmentation_lets_gradients_through():
    x = torch.zeros(4, 1, 8, 8, requires_grad=True)
    gan.augmented(x, torch.rand(4, 8, generator=keyed(0)), 1.0).sum().backward()
    assert x.grad is not None and (x.grad > 0).any()


def test_truncation_draws_samples_together():
    torch.manual_seed(0)
    model = gan.Model(TINY, SPEC).eval()
    torch.nn.init.normal_(model.generator.ups[-1].weight, std=0.5)
    with torch.no_grad():
        spread = [
            model.sample(64, generator=keyed(0), truncation=t)["x"].float().std(0).mean() for t in (1.0, 0.5, 0.0)
        ]
    assert spread[0] > spread[1] > spread[2] == 0


def test_collapse_is_said_with_what_to_do():
    torch.manual_seed(0)
    model = gan.Model(TINY, SPEC).eval()
    with torch.no_grad():
        for parameter in model.generator.ups[-1].parameters():
            parameter.zero_()
        figures = model.validate(SPEC.example(32, keyed(0)), keyed(1))
    assert figures["spread"] < 0.01 and figures["fake_accuracy"] in (0.0, 1.0)
    (said,) = model.warnings({name: float(value) for name, value in figures.items()})
    assert "mode collapse" in said and "--penalty" in said
    assert not model.warnings({"spread": 0.9})
