"""Beam search: targets a second beside `transformers`' generate, for encoder-decoders of like size, the same sources and as many steps.

    python benchmarks/seq2seq_beam.py [--beams 5] [--rows 64] [--source 20] [--target 20] [--width 256] [--layers 3] [--threads 2]

Both have random weights, cannot end early, and keep their keys and values; transformers' is a Marian model. The two take turns, three
times each; the best of each counts.
"""

import argparse
import time

import torch

from latente import registry
from latente.generation import Search, search
from latente.spec import PairSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"beams": 5, "rows": 64, "source": 20, "target": 20, "width": 256, "layers": 3, "vocabulary": 64}
    for name, value in {**sizes, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    from transformers import MarianConfig, MarianMTModel

    family = registry.load("seq2seq")
    spec = PairSpec(given.vocabulary, given.vocabulary, given.source, given.target)
    ours = family.Model(family.Config(layers=given.layers, width=given.width, shape="textbook"), spec).eval()
    config = MarianConfig(
        vocab_size=given.vocabulary, d_model=given.width, encoder_layers=given.layers, decoder_layers=given.layers,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=4 * given.width, decoder_ffn_dim=4 * given.width,
        max_position_embeddings=512, pad_token_id=0, eos_token_id=2, bos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    theirs = MarianMTModel(config).eval()
    source = torch.randint(3, given.vocabulary, (given.rows, given.source))
    mask = torch.ones_like(source)

    def our() -> None:
        found = search(ours, source, Search(beams=given.beams), never=[spec.end], most=given.target)
        assert all(len(each[0].tokens) == given.target for each in found)

    def their() -> None:
        with torch.inference_mode():
            made = theirs.generate(
                source, attention_mask=mask, num_beams=given.beams, min_new_tokens=given.target, max_new_tokens=given.target,
                do_sample=False, early_stopping=False,
            )  # fmt: skip
        assert made.shape[1] == given.target + 1

    best = {"latente": float("inf"), "transformers": float("inf")}
    for _ in range(4):  # the first round warms up
        for name, run in (("latente", our), ("transformers", their)):
            began = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - began)
    for name, model in (("latente", ours), ("transformers", theirs)):
        size = sum(p.numel() for p in model.parameters())
        print(f"{name:<14}{given.rows / best[name]:>9.1f} targets a second, {size / 1e6:.2f} M parameters")
    print(f"{best['transformers'] / best['latente']:.2f} times as many")


if __name__ == "__main__":
    main()
