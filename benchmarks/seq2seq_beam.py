"""Beam search: texts a second beside `transformers`' generate, with the same weights.

    python benchmarks/seq2seq_beam.py FOLDER [--data roman] [--beams 5] [--rows 64] [--steps 300] [--threads 2]

Trains a textbook Transformer (LayerNorm before each part, one vocabulary for both sides) on the pairs unless FOLDER holds it, and gives
its weights to an M2M100 of transformers, which computes the same function. Both write the likeliest target of every held-out source (and
of training ones, up to 1,000), ranked by log-probability; transformers in batches of like length with `early_stopping`, which ends
sooner than its exact search. They take turns, three times each; the best of each counts.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import latente

SHAPE = {"shape": "textbook", "norm": "pre", "tied": True, "shared_vocabulary": True, "tokenizer": "char"}


def same_in_transformers(run: Any) -> Any:
    """An M2M100 with the weights of a run's model."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    ours, spec = run.model, run.spec
    layers, heads, width = ours.config.layers, ours.config.heads, ours.config.width
    config = M2M100Config(
        vocab_size=spec.target, d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads,
        decoder_attention_heads=heads, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width, activation_function="relu",
        scale_embedding=True, max_position_embeddings=len(ours.positions), pad_token_id=spec.pad, bos_token_id=spec.begin,
        eos_token_id=spec.end, decoder_start_token_id=spec.begin, forced_eos_token_id=None,
    )  # fmt: skip
    theirs = M2M100ForConditionalGeneration(config).eval()
    parts = {
        "attention.part.query": "self_attn.q_proj", "attention.part.key": "self_attn.k_proj", "attention.part.value": "self_attn.v_proj",
        "attention.part.out": "self_attn.out_proj", "attention.norm": "self_attn_layer_norm", "cross.part.query": "encoder_attn.q_proj",
        "cross.part.key": "encoder_attn.k_proj", "cross.part.value": "encoder_attn.v_proj", "cross.part.out": "encoder_attn.out_proj",
        "cross.norm": "encoder_attn_layer_norm", "feedforward.part.widen": "fc1", "feedforward.part.narrow": "fc2",
        "feedforward.norm": "final_layer_norm",
    }  # fmt: skip
    held, state = ours.state_dict(), theirs.state_dict()
    for side in ("encoder", "decoder"):
        for kind in ("weight", "bias"):
            state[f"model.{side}.layer_norm.{kind}"].copy_(held[f"{side}_norm.{kind}"])
            for layer in range(layers):
                for part, name in parts.items():
                    if f"{side}.{layer}.{part}.{kind}" in held:
                        state[f"model.{side}.layers.{layer}.{name}.{kind}"].copy_(held[f"{side}.{layer}.{part}.{kind}"])
        places = getattr(theirs.model, side).embed_positions
        places.weights[1 : 1 + len(ours.positions)] = ours.positions  # their first token stands at place 1
    state["model.shared.weight"].copy_(ours.embedding.weight)
    return theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="roman")
    for name, value in {"beams": 5, "rows": 64, "steps": 300, "threads": 2, "width": 256, "layers": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    if not (given.folder / "run.json").exists():
        shape = {**SHAPE, "width": given.width, "layers": given.layers}
        latente.train(
            "seq2seq", given.data, out=given.folder, steps=given.steps, threads=given.threads, stop="never", **shape
        )
    torch.set_num_threads(given.threads)
    run = latente.load(given.folder)
    theirs, data = same_in_transformers(run), run.reopened()
    rows = np.concatenate([data.splits["test"], data.splits["train"]])
    texts = list(dict.fromkeys(data.texts["source"][row] for row in rows.tolist()))[:1_000]
    side = run._read(texts)
    order = np.argsort(-side.lengths, kind="stable")
    batches = [order[at : at + given.rows] for at in range(0, len(order), given.rows)]
    suppressed = [run.spec.pad, run.spec.begin, *run._never]

    def our() -> list[str]:
        return run.translate(texts, beams=given.beams, length_penalty=0.0)

    def their() -> list[str]:
        made = [""] * len(texts)
        with torch.inference_mode():
            for places in batches:
                source = torch.from_numpy(side.padded(places, opened=False))
                found = theirs.generate(
                    source, attention_mask=(source != run.spec.pad).long(), num_beams=given.beams, do_sample=False,
                    max_new_tokens=run.spec.longest_target, length_penalty=0.0, early_stopping=True, suppress_tokens=suppressed,
                )  # fmt: skip
                for place, tokens in zip(places, found.tolist()):
                    kept = [token - run.spec.special for token in tokens if token >= run.spec.special]
                    made[place] = run.tokenizers[1].decode(kept)
        return made

    best, made = {"latente": float("inf"), "transformers": float("inf")}, {}
    for _ in range(4):  # the first round warms up
        for name, write in (("latente", our), ("transformers", their)):
            began = time.perf_counter()
            made[name] = write()
            best[name] = min(best[name], time.perf_counter() - began)
    for name, took in best.items():
        print(f"{name:<14}{len(texts) / took:>9.1f} texts a second")
    alike = np.mean([a == b for a, b in zip(made["latente"], made["transformers"])])
    print(f"{best['transformers'] / best['latente']:.2f} times as many; {alike:.1%} of the targets are the same")


if __name__ == "__main__":
    main()
