"""One train step of GPT-2 small on the CPU: vitax against transformers, in alternating bursts.

    python benchmarks/gpt_step_cpu.py --torch-python /path/to/env/bin/python

The step: forward, cross-entropy of the next token over 50,257, backward, AdamW; 2 windows of
256 tokens, float32, no dropout, two threads. Ours is one jitted program with donated state;
theirs the eager step of ``GPT2LMHeadModel`` with ``torch.optim.AdamW``. Prints the median
milliseconds of each and the median over pairs of bursts of the ratio transformers / vitax
(above 1: vitax is faster). Run it on an idle machine, as ``vit_step_cpu.py`` says.
"""

import argparse
import os
import statistics
import time

import two_sides

BATCH, LENGTH, VOCAB = 2, 256, 50_257
RATE, DECAY = 1e-4, 0.1


def torch_side(threads: int) -> two_sides.Side:
    """Returns a function that runs n steps and gives the seconds."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    tokens = torch.randint(0, VOCAB, (BATCH, LENGTH + 1))

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            logits = model(tokens[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            loss.item()
        return time.perf_counter() - start

    return run


def jax_side() -> two_sides.Side:
    """Returns a function that runs n steps and gives the seconds."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import optax

    from vitax.models import gpt_sizes
    from vitax.models.gpt import GPT
    from vitax.objectives.language import LanguageModel

    objective = LanguageModel(GPT(**gpt_sizes.fields("GPT-2-small")), VOCAB)
    tx = optax.adamw(RATE, weight_decay=DECAY)
    drawn = jax.random.randint(jax.random.key(1), (BATCH, LENGTH + 1), 0, VOCAB)
    batch = {
        "tokens": drawn[:, :-1],
        "targets": drawn[:, 1:],
        "segment_ids": jnp.ones((BATCH, LENGTH), jnp.int32),
        "mask": jnp.ones(BATCH, bool),
        "index": jnp.arange(BATCH),
    }
    params = nn.meta.unbox(jax.jit(objective.init)(jax.random.key(0), batch))["params"]
    state = params, jax.jit(tx.init)(params)

    def step(state, batch):
        params, opt_state = state

        def loss_of(params):
            loss = objective.loss({"params": params}, batch, jax.random.key(0), train=False).loss
            return loss.total / loss.weight

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()

    def run(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state, loss = compiled(state, batch)
            float(loss)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", help="Python with torch and transformers; without it only vitax is timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bursts", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="steps a burst")
    parser.add_argument("--serve-torch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    two_sides.use_cores(args.threads)
    if args.serve_torch:
        return two_sides.serve(torch_side(args.threads))
    os.environ["JAX_PLATFORMS"] = "cpu"
    sides: dict[str, two_sides.Side] = {"vitax": jax_side()}
    if args.torch_python:
        command = [args.torch_python, __file__, "--serve-torch", "--threads", str(args.threads)]
        sides["transformers"] = two_sides.Other(command)
    times = two_sides.alternate(sides, args.bursts, args.steps)
    for name, seconds in times.items():
        ms = [1e3 * s for s in seconds]
        print(f"{name:13s} {statistics.median(ms):8.1f} ms a step  (least {min(ms):.1f}, most {max(ms):.1f})")
    if args.torch_python:
        print(f"transformers / vitax: {two_sides.ratio(times, 'transformers'):.2f}x  ({two_sides.load()})")
        sides["transformers"].close()
    return None


if __name__ == "__main__":
    main()
