"""The arithmetic of each method and convention, against NumPy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.optim.optimizers import OPTIMIZERS
from vitax.optim.schedules import SCHEDULES

RATES = np.array([0.1, 0.05, 0.02])
PEAK = 0.1
ALL = (r".",)


def rate(step):
    return jnp.asarray(RATES, jnp.float32)[step]


def draw(seed=0, **shapes):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def small(seed=0):
    return draw(seed, kernel=(3, 4), bias=(4,))


GRADS = [small(10 + t) for t in range(3)]


def to_jax(params):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)


def train(optimizer, params, grads, schedule=rate):
    """float64 trees -> parameters after one step a gradient, and the last state."""
    p = to_jax(params)
    tx = optimizer.make(schedule, p)
    state, step = tx.init(p), jax.jit(tx.update)
    for g in grads:
        updates, state = step(to_jax(g), state, p)
        p = optax.apply_updates(p, updates)
    return p, state


def reference(direction, params, grads, *, wd=0.0, scale="lr", decays=("kernel",), clip=None, nesterov=None):
    """The chain of the module's docstring, by hand; ``direction(name, g, p, t)`` keeps its own state."""
    p = {k: v.copy() for k, v in params.items()}
    for t, g in enumerate(grads):
        strength = {k: wd if k in decays else 0.0 for k in p}
        if scale == "gradient":
            g = {k: g[k] + strength[k] * p[k] for k in p}
        if clip is not None:
            norm = np.sqrt(sum((x**2).sum() for x in g.values()))
            g = {k: x * min(1.0, clip / norm) for k, x in g.items()}
        new = {}
        for k in p:
            u = direction(k, g[k], p[k], t)
            if scale == "lr":
                u = u + strength[k] * p[k]
            new[k] = p[k] - RATES[t] * u
            if scale == "schedule":
                new[k] = new[k] - RATES[t] / PEAK * strength[k] * p[k]
        p = new
    return p


class Adam:
    def __init__(self, b1=0.9, b2=0.999, eps=1e-8):
        self.b1, self.b2, self.eps = b1, b2, eps
        self.m, self.v = {}, {}

    def __call__(self, k, g, p, t):
        self.m[k] = self.b1 * self.m.get(k, 0) + (1 - self.b1) * g
        self.v[k] = self.b2 * self.v.get(k, 0) + (1 - self.b2) * g**2
        m, v = self.m[k] / (1 - self.b1 ** (t + 1)), self.v[k] / (1 - self.b2 ** (t + 1))
        return m / (np.sqrt(v) + self.eps)


class Momentum:
    def __init__(self, momentum, nesterov=False):
        self.momentum, self.nesterov, self.v = momentum, nesterov, {}

    def __call__(self, k, g, p, t):
        self.v[k] = self.momentum * self.v.get(k, 0) + g
        return g + self.momentum * self.v[k] if self.nesterov else self.v[k]


class RMSProp:
    """TensorFlow's: eps in the root, the second moment from 1, the rate in the momentum."""

    def __init__(self, decay=0.9, momentum=0.9, eps=1e-3):
        self.decay, self.momentum, self.eps, self.v, self.m = decay, momentum, eps, {}, {}

    def __call__(self, k, g, p, t):
        self.v[k] = self.decay * self.v.get(k, 1.0) + (1 - self.decay) * g**2
        self.m[k] = self.momentum * self.m.get(k, 0) + RATES[t] * g / np.sqrt(self.v[k] + self.eps)
        return self.m[k] / RATES[t]  # what ``reference`` multiplies by the rate again


class Lion:
    def __init__(self, b1=0.9, b2=0.99):
        self.b1, self.b2, self.m = b1, b2, {}

    def __call__(self, k, g, p, t):
        m = self.m.get(k, 0)
        self.m[k] = self.b2 * m + (1 - self.b2) * g
        return np.sign(self.b1 * m + (1 - self.b1) * g)


class Adafactor:
    """Two largest axes of kernels of at least 32 x 32 factored; the last two here."""

    def __init__(self, momentum=0.9, cap=0.999, clip=1.0, factored=True):
        self.momentum, self.cap, self.clip, self.factored = momentum, cap, clip, factored
        self.row, self.col, self.v, self.m = {}, {}, {}, {}

    def __call__(self, k, g, p, t):
        beta = min(self.cap, 1 - (t + 1) ** -0.8)
        square = g**2 + 1e-30
        if self.factored and g.ndim == 2:
            self.row[k] = beta * self.row.get(k, 0) + (1 - beta) * square.mean(axis=1)
            self.col[k] = beta * self.col.get(k, 0) + (1 - beta) * square.mean(axis=0)
            v = np.outer(self.row[k], self.col[k]) / self.row[k].mean()
        else:
            v = self.v[k] = beta * self.v.get(k, 0) + (1 - beta) * square
        u = g / np.sqrt(v)
        if self.clip is not None:
            u = u / max(1.0, np.sqrt((u**2).mean()) / self.clip)
        self.m[k] = self.momentum * self.m.get(k, 0) + (1 - self.momentum) * u
        return self.m[k]


def close(got, want, rtol=2e-5):
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=rtol, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("scale", "clip"), [("lr", None), ("schedule", 0.5), ("gradient", 0.5)])
@pytest.mark.parametrize("kind", ["sgd", "nesterov", "adam", "adamw", "lion"])
def test_three_steps(kind, scale, clip):
    build, by_hand = {
        "sgd": (lambda **k: OPTIMIZERS["sgd"](**k), Momentum(0.9)),
        "nesterov": (lambda **k: OPTIMIZERS["sgd"](nesterov=True, **k), Momentum(0.9, True)),
        "adam": (lambda **k: OPTIMIZERS["adam"](**k), Adam()),
        "adamw": (lambda **k: OPTIMIZERS["adamw"](b2=0.95, eps=1e-6, **k), Adam(b2=0.95, eps=1e-6)),
        "lion": (lambda **k: OPTIMIZERS["lion"](**k), Lion()),
    }[kind]
    optimizer = build(lr=PEAK, weight_decay=0.3, weight_decay_scale=scale, clip_norm=clip)
    got, _ = train(optimizer, small(), GRADS)
    close(got, reference(by_hand, small(), GRADS, wd=0.3, scale=scale, clip=clip))


@pytest.mark.parametrize(("fields", "clip"), [({}, None), ({"momentum": 0.0, "decay": 0.5, "eps": 0.1}, 0.5)])
def test_rmsprop(fields, clip):
    p = to_jax(small())
    optimizer = OPTIMIZERS["rmsprop"](lr=PEAK, weight_decay=0.3, clip_norm=clip, **fields)
    got, _ = train(optimizer, small(), GRADS)
    close(got, reference(RMSProp(**fields), small(), GRADS, wd=0.3, scale="gradient", clip=clip))
    # Two moments, or one, and the count of the schedule.
    moments = 1 if fields else 2
    assert tree.size(jax.eval_shape(optimizer.make(rate, p).init, p)) == moments * tree.size(p) + 1


def test_the_published_rmsprop_is_the_default():
    optimizer = OPTIMIZERS["rmsprop"](lr=PEAK)
    assert (optimizer.decay, optimizer.momentum, optimizer.eps) == (0.9, 0.9, 1e-3)


def test_conventions_differ_and_adam_is_coupled_by_default():
    def one(kind, **fields):
        return np.asarray(train(OPTIMIZERS[kind](lr=PEAK, weight_decay=0.3, **fields), small(), GRADS)[0]["kernel"])

    lr, schedule, gradient = (one("adamw", weight_decay_scale=s) for s in ("lr", "schedule", "gradient"))
    assert np.abs(lr - schedule).max() > 1e-2
    assert np.abs(lr - gradient).max() > 1e-2
    np.testing.assert_array_equal(one("adam"), gradient)
    np.testing.assert_array_equal(one("adamw"), lr)


def test_paper_and_big_vision_decays_are_the_same_number():
    # ViT's Table 3: WD 0.1 at LR 8e-4; big_vision states wd = 0.1 x 8e-4.
    paper = OPTIMIZERS["adamw"](lr=PEAK, weight_decay=0.1)
    bv = OPTIMIZERS["adamw"](lr=PEAK, weight_decay=0.1 * PEAK, weight_decay_scale="schedule")
    close(train(paper, small(), GRADS)[0], train(bv, small(), GRADS)[0], rtol=1e-6)


def test_sgd_without_momentum_has_no_moment():
    got, state = train(OPTIMIZERS["sgd"](lr=PEAK, momentum=0.0), small(), GRADS[:1])
    assert [x.shape for x in jax.tree.leaves(state)] == [()]  # the count of the schedule
    close(got, {k: small()[k] - 0.1 * GRADS[0][k] for k in small()})


def test_lamb_one_step():
    p, g = small(), GRADS[0]
    got, _ = train(OPTIMIZERS["lamb"](lr=PEAK, weight_decay=0.3), p, [g])
    want = {}
    for k in p:
        u = Adam(eps=1e-6)(k, g[k], p[k], 0) + (0.3 * p[k] if k == "kernel" else 0.0)
        want[k] = p[k] - RATES[0] * np.linalg.norm(p[k]) / np.linalg.norm(u) * u
    close(got, want)


def test_lamb_moves_each_layer_by_its_own_norm():
    p = {f"block_{i:02d}": {"kernel": 10.0**i * draw(i, k=(3, 4))["k"]} for i in range(3)}
    g = {name: {"kernel": draw(9, k=(3, 4))["k"]} for name in p}
    new, _ = train(OPTIMIZERS["lamb"](lr=PEAK), p, [g])
    for name in p:
        moved = np.linalg.norm(np.asarray(new[name]["kernel"], np.float64) - p[name]["kernel"])
        assert moved == pytest.approx(RATES[0] * np.linalg.norm(p[name]["kernel"]), rel=1e-4)


def test_lamb_leaves_zeros_movable():
    p = {"kernel": np.zeros((3, 4)), "bias": np.zeros(4)}
    new, _ = train(OPTIMIZERS["lamb"](lr=PEAK), p, GRADS[:1])
    assert np.abs(new["kernel"]).min() > 0.05


@pytest.mark.parametrize("clip", [1.0, None, 0.3])
def test_adafactor(clip):
    p = draw(1, kernel=(32, 48), bias=(48,))
    # Gradients of very different sizes, so that the clip acts.
    grads = [{k: (10.0 ** (2 * t)) * x for k, x in draw(20 + t, kernel=(32, 48), bias=(48,)).items()} for t in range(3)]
    optimizer = OPTIMIZERS["adafactor"](lr=PEAK, clip_rms=clip, mu_dtype="float32", weight_decay=0.1)
    close(train(optimizer, p, grads)[0], reference(Adafactor(clip=clip), p, grads, wd=0.1), rtol=1e-4)


def test_adafactor_keeps_forgetting():
    # With a cap of 0 the second moment is that of this gradient alone.
    p = draw(1, kernel=(4, 5))
    grads = [{"kernel": c * draw(2, kernel=(4, 5))["kernel"]} for c in (1e3, 1e3, 1.0)]
    capped = OPTIMIZERS["adafactor"](lr=PEAK, b2_cap=0.0, momentum=0.0, clip_rms=None)
    close(train(capped, p, grads)[0], reference(Adafactor(cap=0.0, momentum=0.0, clip=None, factored=False), p, grads))


def test_adafactor_state_is_small():
    p = to_jax(draw(0, kernel=(768, 12, 64), bias=(64,)))
    state = jax.eval_shape(OPTIMIZERS["adafactor"](lr=1.0).make(rate, p).init, p)
    shapes = {name: (leaf.shape, str(leaf.dtype)) for name, leaf in tree.named_leaves(state)}

    def of(kind):
        return {v for k, v in shapes.items() if f"/{kind}/kernel" in k}

    # The two largest axes, 768 and 64, are averaged over in turn; heads stay.
    assert of("v_row") == {((12, 64), "float32")}
    assert of("v_col") == {((768, 12), "float32")}
    assert of("v") == {((1,), "float32")}
    assert of("ema") == {((768, 12, 64), "bfloat16")}


SHAPES = {
    "encoder/block_00/attention/query/kernel": ((32, 4, 8), (32, 32)),
    "encoder/block_00/attention/out/kernel": ((4, 8, 32), (32, 32)),
    "encoder/block_00/mlp/in/kernel": ((32, 128), (32, 128)),
    "encoder/block_00/mlp/out/kernel": ((128, 32), (128, 32)),
    "encoder/block_00/conv/kernel": ((3, 3, 8, 16), (72, 16)),
}


def nested(flat):
    out = {}
    for name, leaf in flat.items():
        at = out
        *path, last = name.split("/")
        for part in path:
            at = at.setdefault(part, {})
        at[last] = leaf
    return out


def spread(rng, rows, columns):
    """A matrix whose singular values run from 0.1 to 1: five iterations cannot lift those near 0."""
    u, _, vt = np.linalg.svd(rng.normal(size=(rows, columns)), full_matrices=False)
    return u * np.geomspace(0.1, 1.0, min(rows, columns)) @ vt


@pytest.mark.parametrize("rms", [0.2, None])
def test_muon_updates_are_orthogonal_matrices_of_their_layer(rms):
    rng = np.random.default_rng(0)
    p = {n: rng.normal(size=s) for n, (s, _) in SHAPES.items()}
    g = {n: spread(rng, *matrix).reshape(s) for n, (s, matrix) in SHAPES.items()}
    new, _ = train(OPTIMIZERS["muon"](lr=PEAK, consistent_rms=rms), nested(p), [nested(g)])
    new = dict(tree.named_leaves(new))
    for name, (_, (rows, columns)) in SHAPES.items():
        update = ((p[name] - np.asarray(new[name], np.float64)) / RATES[0]).reshape(rows, columns)
        scale = np.sqrt(max(1, columns / rows)) if rms is None else rms * np.sqrt(max(rows, columns))
        singular = np.linalg.svd(update / scale, compute_uv=False)
        assert 0.6 < singular.min() <= singular.max() < 1.3, name
        # It points where the gradient does: the polar factor of it.
        u, _, vt = np.linalg.svd(g[name].reshape(rows, columns), full_matrices=False)
        assert (update / scale * (u @ vt)).sum() / min(rows, columns) > 0.7, name
        if rms is not None:
            assert np.sqrt((update**2).mean()) == pytest.approx(rms, rel=0.3)


def test_muon_leaves_the_rest_to_adamw():
    names = {
        "embedding/kernel": (4, 4, 3, 8),
        "cls": (1, 1, 8),
        "head/kernel": (8, 3),
        "head/bias": (3,),
        "encoder/block_00/attention/query/bias": (2, 4),
        "encoder/block_00/mlp/in/kernel": (8, 16),
    }
    p, g = (nested(draw(seed, **names)) for seed in (0, 1))
    muon, adamw = OPTIMIZERS["muon"](lr=PEAK, weight_decay=0.1), OPTIMIZERS["adamw"](lr=PEAK, weight_decay=0.1)
    methods = {r.name: r.method for r in muon.describe(p_like(p))}
    assert [n for n in names if methods[n] == "muon"] == ["encoder/block_00/mlp/in/kernel"]
    a, b = (dict(tree.named_leaves(train(o, p, [g])[0])) for o in (muon, adamw))
    for name in names:
        assert np.array_equal(a[name], b[name]) == (methods[name] == "adamw"), name


def p_like(params):
    return jax.eval_shape(lambda: to_jax(params))


def test_clip_is_exact_at_and_below_the_norm():
    p = small()
    g = GRADS[0]
    norm = float(np.sqrt(sum((x**2).sum() for x in g.values())))
    plain = OPTIMIZERS["sgd"](lr=PEAK, momentum=0.0)
    for limit, factor in ((2 * norm, 1.0), (norm / 4, 0.25)):
        clipped = OPTIMIZERS["sgd"](lr=PEAK, momentum=0.0, clip_norm=limit)
        moved, free = (to_jax(p)["kernel"] - train(o, p, [g])[0]["kernel"] for o in (clipped, plain))
        np.testing.assert_allclose(moved, factor * free, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(
        train(OPTIMIZERS["sgd"](lr=PEAK, clip_norm=2 * norm), p, [g])[0]["kernel"],
        train(OPTIMIZERS["sgd"](lr=PEAK), p, [g])[0]["kernel"],
    )


@pytest.mark.parametrize("kind", ["sgd", "adamw", "lion", "muon", "adafactor", "lamb"])
def test_bfloat16_moment_halves_it_and_stays_near(kind):
    p = draw(0, kernel=(32, 48))
    grads = [draw(30 + t, kernel=(32, 48)) for t in range(3)]
    wide, narrow = (OPTIMIZERS[kind](lr=PEAK, mu_dtype=d) for d in ("float32", "bfloat16"))
    (a, wide_state), (b, narrow_state) = train(wide, p, grads), train(narrow, p, grads)
    assert tree.num_bytes(wide_state) - tree.num_bytes(narrow_state) == 2 * 32 * 48
    assert b["kernel"].dtype == jnp.float32
    if kind != "lion":  # whose sign may flip on a rounding
        np.testing.assert_allclose(a["kernel"], b["kernel"], atol=0.02)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_state_is_arrays_and_the_same_under_jit_and_eval_shape(kind):
    optimizer = OPTIMIZERS[kind](lr=PEAK, weight_decay=0.1, clip_norm=1.0, frozen=("bias",), ema=0.999)
    p = to_jax({"encoder": {"block_00": {"kernel": draw(0, k=(40, 4, 10))["k"], "bias": np.zeros(4)}}})
    schedule = SCHEDULES["cosine"](warmup={"steps": 2}).make(PEAK, 10, batch_size=1, num_examples=1)
    tx = optimizer.make(schedule, jax.eval_shape(lambda: p))
    abstract, state = jax.eval_shape(tx.init, p), jax.jit(tx.init)(p)
    assert tree.difference(abstract, state) == []
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
    updates, after = jax.jit(tx.update)(p, state, p)
    assert tree.difference(state, after) == []
    assert tree.difference(p, updates) == []


def test_the_count_reaches_the_schedule():
    p = {"kernel": np.zeros((2, 2))}
    ones = {"kernel": np.ones((2, 2))}
    got, _ = train(OPTIMIZERS["sgd"](lr=PEAK, momentum=0.0), p, [ones] * 3)
    np.testing.assert_allclose(got["kernel"], -RATES.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("sgd", {"lr": 0.0}, r"optimizer\.lr"),
        ("sgd", {"lr": float("nan")}, r"optimizer\.lr"),
        ("sgd", {"momentum": 1.0}, r"optimizer\.momentum"),
        ("adamw", {"weight_decay": -0.1}, r"optimizer\.weight_decay"),
        ("adamw", {"b2": 1.0}, r"optimizer\.b2"),
        ("adamw", {"clip_norm": 0.0}, r"optimizer\.clip_norm"),
        ("adamw", {"ema": 1.0}, r"optimizer\.ema"),
        ("adamw", {"layer_decay": 1.5}, r"optimizer\.layer_decay"),
        ("adamw", {"lr_multipliers": (("head", 0.0),)}, r"optimizer\.frozen"),
        ("adafactor", {"clip_rms": 0.0}, r"optimizer\.clip_rms"),
        ("lamb", {"weight_decay_scale": "schedule"}, "trust"),
        ("rmsprop", {"weight_decay_scale": "lr"}, "momentum of rmsprop"),
        ("rmsprop", {"decay": 1.0}, r"optimizer\.decay"),
    ],
)
def test_refuses(kind, fields, message):
    with pytest.raises(UserError, match=message):
        OPTIMIZERS[kind](**{"lr": PEAK, **fields})
