"""timm's names and layouts -> trees of ours; gradients go the same way as weights."""

import jax.numpy as jnp
import numpy as np

TOLERANCE = 1e-5  # of the largest value; never relaxed


def load(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def section(golden, prefix):
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def vit_from_timm(flat, num_heads):
    """timm's names and layouts -> a tree of ours; gradients go the same way as weights."""
    params = {}

    def put(name, value):
        *folders, leaf = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = jnp.asarray(value)

    def dense(name, there):
        put(f"{name}/kernel", flat[f"{there}.weight"].T)
        put(f"{name}/bias", flat[f"{there}.bias"])

    def norm(name, there):
        put(f"{name}/scale", flat[f"{there}.weight"])
        put(f"{name}/bias", flat[f"{there}.bias"])

    def heads(name, weight, bias):
        put(f"{name}/kernel", weight.T.reshape(weight.shape[1], num_heads, -1))
        put(f"{name}/bias", bias.reshape(num_heads, -1))

    def attention(name, there, projections):
        for part, (weight, bias) in projections.items():
            heads(f"{name}/{part}", weight, bias)
        weight = flat[f"{there}.proj.weight"]
        put(f"{name}/out/kernel", weight.T.reshape(num_heads, -1, weight.shape[0]))
        put(f"{name}/out/bias", flat[f"{there}.proj.bias"])

    def mlp(name, there):
        dense(f"{name}/in", f"{there}.fc1")
        dense(f"{name}/out", f"{there}.fc2")

    def split(there, parts):
        weight, bias = flat[f"{there}.weight"], flat[f"{there}.bias"]
        return dict(zip(parts, zip(np.split(weight, len(parts)), np.split(bias, len(parts)))))

    put("embedding/kernel", flat["patch_embed.proj.weight"].transpose(2, 3, 1, 0))
    put("embedding/bias", flat["patch_embed.proj.bias"])
    put("pos_embedding", flat["pos_embed"])
    for here, there in (("cls", "cls_token"), ("registers", "reg_token")):
        if there in flat:
            put(here, flat[there])
    depth = 1 + max(int(name.split(".")[1]) for name in flat if name.startswith("blocks."))
    for i in range(depth):
        here, there = f"encoder/block_{i:02d}", f"blocks.{i}"
        norm(f"{here}/norm_1", f"{there}.norm1")
        norm(f"{here}/norm_2", f"{there}.norm2")
        attention(f"{here}/attention", f"{there}.attn", split(f"{there}.attn.qkv", ("query", "key", "value")))
        mlp(f"{here}/mlp", f"{there}.mlp")
        for k in (1, 2):
            if f"{there}.ls{k}.gamma" in flat:
                put(f"{here}/layer_scale_{k}", flat[f"{there}.ls{k}.gamma"])
    norm("encoder/norm", "fc_norm" if "fc_norm.weight" in flat else "norm")
    if "attn_pool.latent" in flat:
        put("map_head/probe", flat["attn_pool.latent"])
        query = {"query": (flat["attn_pool.q.weight"], flat["attn_pool.q.bias"])}
        attention("map_head/attention", "attn_pool", query | split("attn_pool.kv", ("key", "value")))
        norm("map_head/norm", "attn_pool.norm")
        mlp("map_head/mlp", "attn_pool.mlp")
    dense("head", "head")
    return params


def error(have, want):
    return float(np.abs(np.asarray(have) - want).max() / np.abs(want).max())


def gradient_errors(have, want):
    """Name -> error of each gradient; have and want: (name, array) and name -> array."""
    largest = max(float(jnp.abs(g).max()) for g in want.values())
    # The gradient of a key's bias is zero: what is there is rounding, so it has no scale of its own.
    return {
        name: float(jnp.abs(g).max()) / largest if name.endswith("key/bias") else error(g, np.asarray(want[name]))
        for name, g in have
    }


def residual_from_timm(flat, root):
    """A ResNetV2 of timm -> root, root_norm and blocks.

    Args:
      flat: name -> array, without what is in front of ``stem.conv``.
      root: name of the root's convolution: ``stem.conv``, or ``conv`` where the root is all there is.
    """
    params = {}

    def put(name, value):
        *folders, leaf = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = jnp.asarray(value)

    def conv(name, there):
        put(f"{name}/kernel", flat[f"{there}.weight"].transpose(2, 3, 1, 0))

    def norm(name, there):
        if f"{there}.weight" in flat:
            put(f"{name}/scale", flat[f"{there}.weight"])
            put(f"{name}/bias", flat[f"{there}.bias"])

    conv("root", root)
    norm("root_norm", root.replace("conv", "norm"))
    for there in sorted({name.rpartition(".conv1")[0] for name in flat if name.endswith("conv1.weight")}):
        _, stage, _, unit = there.split(".")
        here = f"block_{int(stage) + 1}/unit_{int(unit) + 1:02d}"
        for k in (1, 2, 3):
            conv(f"{here}/conv_{k}", f"{there}.conv{k}")
            norm(f"{here}/norm_{k}", f"{there}.norm{k}")
        if f"{there}.downsample.conv.weight" in flat:
            conv(f"{here}/proj", f"{there}.downsample.conv")
            norm(f"{here}/proj_norm", f"{there}.downsample.norm")
    return params
