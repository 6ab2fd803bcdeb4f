"""One train step of ViT-S/16 on the CPU: vitax against timm, in alternating bursts.

    python benchmarks/vit_step_cpu.py --torch-python /path/to/env/bin/python

The step: forward, softmax cross-entropy over 1000 classes, backward, AdamW; 224 px,
batch 16, float32, two threads. Ours is one jitted program with donated state and
plain ``optax.adamw``; timm's is its eager step with ``torch.optim.AdamW``. Both use the
same GELU (``--gelu``). The torch side runs in a subprocess with another Python
(scripts/requirements-parity.txt), so neither library's threads live beside the
other's; only one side works at a time. Prints the median milliseconds of each and
the median over pairs of bursts of the ratio timm / vitax (above 1: vitax is faster).

Run it on an idle machine: beside other work torch's threads wait for each other and
its step grows several times as much as XLA's, which flatters vitax. XLA takes fresh
memory each step (390,000 page faults, 0.6 s of system time). With ``MALLOC_MMAP_MAX_=0
MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_ARENA_MAX=1 GLIBC_TUNABLES=glibc.malloc.hugetlb=1`` in
the environment (of both sides) it keeps what it freed and our step is 15% shorter; vitax does not
set this for its users, since a training process then holds up to twice the memory.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

BATCH, SIZE, CLASSES = 16, 224, 1000
RATE, DECAY = 1e-3, 0.1
SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def torch_side(gelu: str, threads: int) -> Callable[[int], float]:
    """Returns a function that runs n steps and gives the seconds."""
    sys.path.insert(0, str(SCRIPTS))
    import fake_torchvision

    fake_torchvision.install()
    import torch
    from timm.models.vision_transformer import VisionTransformer

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    act = {"tanh": "gelu_tanh", "erf": "gelu"}[gelu]
    model = VisionTransformer(embed_dim=384, depth=12, num_heads=6, num_classes=CLASSES, act_layer=act)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(0, CLASSES, (BATCH,))

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        return time.perf_counter() - start

    return run


def jax_side(gelu: str) -> Callable[[int], float]:
    """Returns a function that runs n steps and gives the seconds."""
    import flax.linen as nn
    import jax
    import optax

    from vitax.models import vit_sizes
    from vitax.models.vit import ViT

    model = ViT(**vit_sizes.fields("S/16"), num_classes=CLASSES, gelu=gelu)
    tx = optax.adamw(RATE, weight_decay=DECAY)
    images = jax.random.normal(jax.random.key(1), (BATCH, SIZE, SIZE, 3))
    labels = jax.random.randint(jax.random.key(2), (BATCH,), 0, CLASSES)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), images[:1]))
    state = params, jax.jit(tx.init)(params)

    def step(state, images, labels):
        params, opt_state = state

        def loss_of(params):
            logits = model.apply(params, images, train=True).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    compiled = jax.jit(step, donate_argnums=0).lower(state, images, labels).compile()

    def run(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state, loss = compiled(state, images, labels)
            float(loss)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return run


def serve(run: Callable[[int], float]) -> None:
    """Runs as many steps as each line of stdin says, answers with the seconds."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(run(int(line)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", help="Python with torch and timm; without it only vitax is timed")
    parser.add_argument("--gelu", choices=("tanh", "erf"), default="tanh")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bursts", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps a burst")
    parser.add_argument("--serve-torch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    # XLA sizes its pool by the cores that the process may use; it reads them at import.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    if args.serve_torch:
        return serve(torch_side(args.gelu, args.threads))
    os.environ["JAX_PLATFORMS"] = "cpu"

    sides: dict[str, Callable[[int], float]] = {"vitax": jax_side(args.gelu)}
    other = None
    if args.torch_python:
        command = [args.torch_python, __file__, "--serve-torch", "--gelu", args.gelu, "--threads", str(args.threads)]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if other.stdout.readline().strip() != "ready":
            raise SystemExit("The torch side did not start; see scripts/requirements-parity.txt.")

        def run(steps: int) -> float:
            print(steps, file=other.stdin, flush=True)
            return float(other.stdout.readline())

        sides["timm"] = run

    for side in sides.values():
        side(2)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.bursts):
        for name, side in sides.items():
            times[name].append(1e3 * side(args.steps) / args.steps)
    for name, ms in times.items():
        print(f"{name:6s} {statistics.median(ms):8.1f} ms a step  (least {min(ms):.1f}, most {max(ms):.1f})")
    if other:
        ratio = statistics.median(t / v for t, v in zip(times["timm"], times["vitax"]))
        print(f"ratio timm / vitax: {ratio:.2f}  (gelu {args.gelu}, {args.threads} threads, batch {BATCH})")
        other.stdin.close()
        other.wait()
    return None


if __name__ == "__main__":
    main()
