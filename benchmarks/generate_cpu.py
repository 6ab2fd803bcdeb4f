"""Cached decoding of GPT-2 small on the CPU: vitax against transformers, in alternating bursts.

    python benchmarks/generate_cpu.py --torch-python /path/to/env/bin/python [--batch 1 8]

Random weights, float32, prompts of 128 tokens, 128 new ones, greedy (``--top-p`` draws
instead), two threads. Both make all of them: no token ends a text. Ours is the decoder of
``vitax generate``; theirs ``model.generate`` with its cache. Prints the median tokens a
second of each, prompts included, and the median over pairs of bursts of the ratio.
"""

import argparse
import os
import statistics
import time

import two_sides

PROMPT, VOCAB, END = 128, 50_257, 50_256


def torch_side(batch: int, new: int, top_p: float | None, threads: int) -> two_sides.Side:
    """Returns a function that generates n times and gives the seconds."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=END, eos_token_id=None, pad_token_id=END)).eval()
    prompts = torch.randint(0, VOCAB - 1, (batch, PROMPT))
    drawing = {"do_sample": False} if top_p is None else {"do_sample": True, "top_p": top_p, "top_k": 0}

    def run(rounds: int) -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            with torch.inference_mode():
                made = model.generate(
                    prompts,
                    attention_mask=torch.ones_like(prompts),
                    max_new_tokens=new,
                    min_new_tokens=new,
                    **drawing,
                )
            assert made.shape == (batch, PROMPT + new)
        return time.perf_counter() - start

    return run


def jax_side(batch: int, new: int, top_p: float | None) -> two_sides.Side:
    """Returns a function that generates n times and gives the seconds."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np

    from vitax.generate.decoding import Decoder, Model
    from vitax.generate.sampling import Sampling
    from vitax.models import gpt_sizes
    from vitax.models.gpt import GPT

    model = GPT(**gpt_sizes.fields("GPT-2-small"))
    tokens = jnp.zeros((1, PROMPT), jnp.int32)
    variables = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), tokens))

    def decode(*arguments, **options):
        return model.apply(*arguments, method="decode", **options)

    # An end that no token is.
    decoder = Decoder(Model(decode, model.empty_cache, model.context, VOCAB))
    prompts = np.random.default_rng(0).integers(0, VOCAB - 1, (batch, PROMPT)).tolist()
    sampling = Sampling(temperature=0.0) if top_p is None else Sampling(top_p=top_p)

    def run(rounds: int) -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            made = decoder(variables, prompts, new, sampling)
            assert [len(one.tokens) for one in made] == [new] * batch
        return time.perf_counter() - start

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", help="Python with torch and transformers; without it only vitax is timed")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--new", type=int, default=128, help="tokens to generate")
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bursts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1, help="generations a burst")
    parser.add_argument("--serve-torch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    two_sides.use_cores(args.threads)
    if args.serve_torch:
        return two_sides.serve(torch_side(args.batch[0], args.new, args.top_p, args.threads))
    os.environ["JAX_PLATFORMS"] = "cpu"
    for batch in args.batch:
        sides: dict[str, two_sides.Side] = {"vitax": jax_side(batch, args.new, args.top_p)}
        if args.torch_python:
            command = [args.torch_python, __file__, "--serve-torch", "--batch", str(batch)]
            command += ["--new", str(args.new)]
            command += ["--threads", str(args.threads)] + (["--top-p", str(args.top_p)] if args.top_p else [])
            sides["transformers"] = two_sides.Other(command)
        times = two_sides.alternate(sides, args.bursts, args.rounds)
        for name, seconds in times.items():
            rates = [batch * args.new / s for s in seconds]
            print(
                f"batch {batch}  {name:13s} {statistics.median(rates):7.1f} tokens/s  "
                f"(least {min(rates):.1f}, most {max(rates):.1f})"
            )
        if args.torch_python:
            found = two_sides.ratio(times, "transformers")
            print(f"batch {batch}  vitax / transformers: {found:.2f}x  ({two_sides.load()})", flush=True)
            sides["transformers"].close()
    return None


if __name__ == "__main__":
    main()
