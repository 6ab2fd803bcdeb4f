"""Files in Google's layouts, every name written out: nothing here comes of the tables under test."""

import numpy as np

WIDTH, HEADS, MLP, PATCH, GRID, DEPTH, CLASSES = 8, 2, 12, 4, 3, 2, 5
SIZE = PATCH * GRID


def block_names(norm_1, attention, norm_2, mlp):
    """Name of an array in a block -> shape."""
    return {
        f"LayerNorm_{norm_1}/scale": (WIDTH,),
        f"LayerNorm_{norm_1}/bias": (WIDTH,),
        f"MultiHeadDotProductAttention_{attention}/query/kernel": (WIDTH, HEADS, WIDTH // HEADS),
        f"MultiHeadDotProductAttention_{attention}/query/bias": (HEADS, WIDTH // HEADS),
        f"MultiHeadDotProductAttention_{attention}/key/kernel": (WIDTH, HEADS, WIDTH // HEADS),
        f"MultiHeadDotProductAttention_{attention}/key/bias": (HEADS, WIDTH // HEADS),
        f"MultiHeadDotProductAttention_{attention}/value/kernel": (WIDTH, HEADS, WIDTH // HEADS),
        f"MultiHeadDotProductAttention_{attention}/value/bias": (HEADS, WIDTH // HEADS),
        f"MultiHeadDotProductAttention_{attention}/out/kernel": (HEADS, WIDTH // HEADS, WIDTH),
        f"MultiHeadDotProductAttention_{attention}/out/bias": (WIDTH,),
        f"LayerNorm_{norm_2}/scale": (WIDTH,),
        f"LayerNorm_{norm_2}/bias": (WIDTH,),
        f"MlpBlock_{mlp}/Dense_0/kernel": (WIDTH, MLP),
        f"MlpBlock_{mlp}/Dense_0/bias": (MLP,),
        f"MlpBlock_{mlp}/Dense_1/kernel": (MLP, WIDTH),
        f"MlpBlock_{mlp}/Dense_1/bias": (WIDTH,),
    }


PRE_LINEN = block_names(0, 1, 2, 3)
LINEN = block_names(0, 0, 1, 0)
POSITIONS = "Transformer/posembed_input/pos_embedding"


def original(names=PRE_LINEN, grid=(GRID, GRID), pre_logits=False, classes=CLASSES, seed=0):
    """vit_jax's ViT: before Linen by default."""
    shapes = {
        "embedding/kernel": (PATCH, PATCH, 3, WIDTH),
        "embedding/bias": (WIDTH,),
        "cls": (1, 1, WIDTH),
        POSITIONS: (1, grid[0] * grid[1] + 1, WIDTH),
        "Transformer/encoder_norm/scale": (WIDTH,),
        "Transformer/encoder_norm/bias": (WIDTH,),
        "head/kernel": (WIDTH, classes),
        "head/bias": (classes,),
    }
    if pre_logits:
        shapes |= {"pre_logits/kernel": (WIDTH, WIDTH), "pre_logits/bias": (WIDTH,)}
    for i in range(DEPTH):
        shapes |= {f"Transformer/encoderblock_{i}/{name}": shape for name, shape in names.items()}
    # Drawn in an order that does not depend on the names.
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal(shape) / np.sqrt(WIDTH)).astype(np.float32) for name, shape in shapes.items()}


def big_vision(arrays):
    """The same function in big_vision's tree: cls without a position, the table at the root."""
    table = arrays[POSITIONS]
    out = {name: x for name, x in arrays.items() if name != POSITIONS}
    return out | {"cls": arrays["cls"] + table[:, :1], "pos_embedding": table[:, 1:]}


def scanned(arrays):
    """big_vision's tree with scan=True: blocks stacked on a leading axis."""
    out = {name: x for name, x in arrays.items() if "encoderblock_" not in name}
    for name in LINEN:
        layers = [arrays[f"Transformer/encoderblock_{i}/{name}"] for i in range(DEPTH)]
        out[f"Transformer/encoderblock/{name}"] = np.stack(layers)
    return out


def save(path, arrays, root=""):
    np.savez(path, **{f"{root}{name}": x for name, x in arrays.items()})
    return str(path)
