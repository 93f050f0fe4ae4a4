"""What the autoencoder adds to the contract: noise it is told to remove, and a density of its latents to generate from."""

import numpy as np
import pytest
import torch

import latente
from latente.models import autoencoder
from latente.rng import keyed
from latente.spec import ImageSpec


def test_noise_is_read_or_refused():
    assert autoencoder.parse_noise("none") == ("none", 0.0)
    assert autoencoder.parse_noise("gaussian:0.2") == ("gaussian", 0.2)
    assert autoencoder.parse_noise("mask") == ("mask", 0.1)
    for wrong in ("loud", "gaussian:-1", "gaussian:x", "mask:2", "gaussian:nan", ""):
        with pytest.raises(ValueError, match="--noise"):
            autoencoder.parse_noise(wrong)


@pytest.mark.parametrize(("kind", "amount"), [("gaussian", 0.2), ("salt-pepper", 0.3), ("mask", 0.3)])
def test_noise_has_the_strength_it_says(kind, amount):
    spec = ImageSpec(3, 32, 32)
    model = autoencoder.Model(autoencoder.Config(noise=f"{kind}:{amount}"), spec)
    clean = torch.full((64, *spec.shape), 128, dtype=torch.uint8)
    noisy = autoencoder.corrupted(clean, model.noise(64, "main", keyed(0))["noise"], kind, amount)
    assert noisy.dtype == torch.uint8 and noisy.shape == clean.shape
    if kind == "gaussian":
        assert abs(noisy.float().std().item() / 255 - amount) < 0.01  # three sigma of it stay within 0..255
        return
    changed = noisy != clean
    assert abs(changed.float().mean().item() - amount) < 0.01
    assert set(noisy[changed].unique().tolist()) == ({0} if kind == "mask" else {0, 255})
    if kind == "mask":
        assert (changed.any(1) == changed.all(1)).all()  # a lost pixel is lost in every channel


def test_denoising_removes_noise_from_images_never_seen(tmp_path):
    run = latente.train(
        "autoencoder", "digits", noise="gaussian:0.2", out=tmp_path / "run", steps=250, size="tiny", quiet=True
    )
    data = run.reopened()
    clean = data.images[data.splits["test"]]
    noise = np.random.default_rng(0).normal(0, 51, clean.shape)
    noisy = (clean + noise).round().clip(0, 255).astype(np.uint8)
    batch = {"x": torch.from_numpy(noisy)}
    with torch.no_grad():
        cleaned = run.model.denoise(batch)["x"].numpy()

    def psnr(x):
        return -10 * np.log10(((x.astype(float) - clean) ** 2).mean() / 255**2)

    assert psnr(cleaned) > psnr(noisy) + 2.0


def test_an_autoencoder_trained_without_noise_does_not_denoise(tmp_path):
    run = latente.train("autoencoder", "digits", out=tmp_path / "run", steps=1, size="tiny", quiet=True)
    with pytest.raises(ValueError, match="without --noise"):
        run.denoise("digits")


def test_the_fitted_density_is_the_latents():
    """Latents drawn from two known Gaussians, one a class: the mixture finds their means and spreads, and samples keep to them."""
    spec = ImageSpec(1, 8, 8, ("a", "b"))
    config = autoencoder.Config(latent_dim=2, width=8, blocks=0, hidden=8, mixture=1)
    model = autoencoder.Model(config, spec)
    centres = torch.tensor([[3.0, 0.0], [-3.0, 1.0]])
    label = torch.arange(2000) % 2
    latents = centres[label] + 0.5 * torch.randn(2000, 2, generator=keyed(0))
    model.encode = lambda batch: latents  # type: ignore[method-assign]
    model.finish([{"x": torch.zeros(2000, 1, 8, 8), "label": label}])
    assert torch.allclose(model.mixture_means[:, 0], centres, atol=0.06)
    spread = model.mixture_factors[:, 0] @ model.mixture_factors[:, 0].mT
    assert torch.allclose(spread, 0.25 * torch.eye(2).expand(2, 2, 2), atol=0.03)
    seen = []
    model.decode = lambda z: seen.append(z) or torch.zeros(len(z), 1, 8, 8, dtype=torch.uint8)  # type: ignore[method-assign]
    model.sample(500, condition=torch.ones(500, dtype=torch.long), generator=keyed(1))
    assert torch.allclose(seen[0].mean(0), centres[1], atol=0.1) and abs(seen[0].std(0).mean() - 0.5) < 0.05


def test_few_images_of_a_class_still_get_a_density():
    spec = ImageSpec(1, 8, 8, ("a", "b"))
    model = autoencoder.Model(autoencoder.Config(latent_dim=4, width=8, blocks=0, hidden=8), spec)
    batch = spec.example(40, keyed(0))
    batch["label"] = (torch.arange(40) == 0).long()  # one image of class b
    model.finish([batch])
    assert all(torch.isfinite(t).all() for t in (model.mixture_means, model.mixture_factors, model.mixture_weights))
