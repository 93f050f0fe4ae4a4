"""Closed forms of the VAE: its divergence, its likelihood, its bounds."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latente.models import vae
from latente.rng import keyed
from latente.spec import ImageSpec


def test_divergence_of_two_normals_is_the_library_s():
    mean, log_variance = torch.randn(5, 7, generator=keyed(0)), torch.randn(5, 7, generator=keyed(1))
    ours = vae.kl_normal(mean, log_variance)
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0)).sum(1)
    assert torch.allclose(ours, theirs, atol=1e-5)


@settings(deadline=None)
@given(st.floats(-100, 400), st.floats(-3, 6))
def test_discretised_logistic_sums_to_one(mean, log_scale):
    values = torch.arange(256, dtype=torch.float64)
    log_prob = vae.discretised_logistic_log_prob(values, torch.tensor(mean).double(), torch.tensor(log_scale).double())
    assert math.isclose(float(log_prob.exp().sum()), 1.0, abs_tol=1e-9)


def test_flow_is_invertible_and_its_volume_is_the_jacobian_s():
    torch.manual_seed(0)
    flow = vae.Flow(6, 5, 2, 32).double()
    for net in flow.nets:
        torch.nn.init.normal_(net[-1].weight, std=0.3)
    z, context = torch.randn(3, 6).double(), torch.randn(3, 2).double()
    u, volume = flow.inverse(z, context)
    assert torch.allclose(flow(u, context), z)
    jacobian = torch.autograd.functional.jacobian(lambda one: flow.inverse(one[None], context[:1])[0][0], z[0])
    assert torch.allclose(torch.linalg.slogdet(jacobian)[1], volume[0])


def test_bounds_rise_to_the_exact_likelihood_of_a_linear_gaussian_toy():
    """x = z + e, z ~ N(0,1), e ~ N(0, 0.5): with a wrong posterior, ELBO < bound of 10 < bound of 1000 < exact log p(x)."""

    class Toy(vae.Model):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.spec = ImageSpec(1, 8, 8)
            self.prior = vae.Flow(1, 0, 0, 4)
            self.encoder = torch.nn.Module()
            self.encoder.last = torch.nn.Linear(1, 1)

        def posterior(self, batch):
            return 0.5 * batch["x"], torch.zeros_like(batch["x"])

        def log_likelihood(self, x, z, context):
            return vae.normal_log_prob(x, z, torch.full_like(x, math.log(0.5)))

    toy = Toy()
    batch = {"x": torch.randn(2000, 1, generator=keyed(5)) * math.sqrt(1.5)}
    bounds = [toy.log_prob(batch, keyed(7), samples).mean().item() for samples in (1, 10, 1000)]
    exact = torch.distributions.Normal(0.0, math.sqrt(1.5)).log_prob(batch["x"]).mean().item()
    assert bounds[0] < bounds[1] < bounds[2] <= exact + 1e-3
    assert abs(bounds[2] - exact) < 0.005


def test_encoding_does_not_depend_on_the_batch():
    spec = ImageSpec(1, 28, 28)
    torch.manual_seed(0)
    model = vae.Model(vae.Config.preset("tiny", spec), spec).eval()
    batch = spec.example(6, keyed(0))
    together = model.encode(batch)
    alone = torch.cat([model.encode({"x": batch["x"][i : i + 1]}) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_spherical_interpolation_keeps_the_length():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    middle = vae.spherical(a, b, 0.5)
    assert torch.allclose(middle, torch.tensor([3.0, 3.0]) / math.sqrt(2))
    assert torch.allclose(vae.spherical(a, a, 0.3), a)


def test_collapse_is_said_with_what_to_do():
    spec = ImageSpec(1, 8, 8)
    model = vae.Model(vae.Config(latent_dim=16, width=8, hidden=16), spec)
    assert not model.warnings({"active_units": 12.0})
    (line,) = model.warnings({"active_units": 1.0})
    assert "collapse" in line and "--beta" in line
