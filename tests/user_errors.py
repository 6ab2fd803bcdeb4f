"""Errors that users make, what other programs say to them, and the command that shows what vitax says.

``python -m scripts.make_error_docs`` runs the commands and writes docs/errors.md; tests/test_error_messages.py
runs them again and compares. ``python tests/user_errors.py FOLDER`` prints what happened as JSON.
"""

import contextlib
import dataclasses
import io
import json
import os
import sys
from pathlib import Path

import numpy as np

# When an error is found. The order is that of the rows: what a row has started stays started.
NO_JAX = "before JAX is imported"
NO_DEVICE = "before a device is started"
LATE = "after devices were started"


@dataclasses.dataclass(frozen=True)
class Row:
    """One error.

    Attributes:
      title: what the user did.
      others: what timm, transformers (HF), or JAX and its libraries print, where that was measured.
      show: arguments of ``vitax``, or Python code where it is a string.
      found: when.
      hide: a package that is not there.
      platforms: what JAX_PLATFORMS asks for.
    """

    title: str
    others: str
    show: tuple[str, ...] | str
    found: str
    hide: str = ""
    platforms: str = ""

    @property
    def command(self) -> str:
        if isinstance(self.show, str):
            return self.show.strip()
        return "vitax " + " ".join(f'"{a}"' if set(a) & set("{}() ") else a for a in self.show)


def train(*changes: str, config: str = "quickstart:pretrain") -> tuple[str, ...]:
    return ("train", "--config", config, "--workdir", "new", *changes)


def idx(name: str) -> str:
    return f"--config.data.source={{'kind': 'idx', 'images': '{name}.idx', 'labels': '{name}-labels.idx'}}"


MINUS_ONE = """
from vitax.data.pipeline import Pipeline
Pipeline(Unlabelled(), [], batch_size=4, num_classes=5, image_size=8).batch(0)
"""
NCHW = """
from vitax.models.vit import ViT
vit = ViT(width=32, depth=1, mlp_dim=64, num_heads=2, patch_size=16)
jax.eval_shape(vit.init, key, jax.ShapeDtypeStruct((8, 3, 224, 224), float))
"""
ARGPARSE = "timm: the whole usage, then the error (argparse). absl: a list of flags."
PACKAGES = "timm's inference.py: `ModuleNotFoundError` of pandas. HF names the extra."

ROWS = (
    Row("Unknown verb", "", ("trian",), NO_JAX),
    Row("Unknown recipe", "", train(config="quickstar"), NO_JAX),
    Row(
        "Unknown variant (tag)",
        "timm: `Invalid pretrained tag (augreg99)`. HF, offline: `couldn't connect`.",
        train(config="vit_i1k:B/15"),
        NO_JAX,
    ),
    Row("Unknown key of a variant", "", train(config="vit_i1k:B/16,epoch=7"), NO_JAX),
    Row("Unknown flag", ARGPARSE, train("--learning-rate", "3e-4"), NO_JAX),
    Row(
        "Unknown flag of a verb without a recipe", ARGPARSE, ("eval", "--checkpoint", "runs/pretrain", "--jsno"), NO_JAX
    ),
    Row(
        "Missing flag, given under the name of another program",
        ARGPARSE,
        ("train", "--config", "quickstart:pretrain", "--output-dir", "new"),
        NO_JAX,
    ),
    Row(
        "Odd value of a flag",
        "timm's benchmark.py, `--num-bench-iter 3`: `ZeroDivisionError`",
        ("quickstart", "--seeds", "0"),
        NO_JAX,
    ),
    Row(
        "Flag that is no number",
        "",
        ("predict", "--checkpoint", "runs/pretrain", "a.jpg", "--topk", "all"),
        NO_JAX,
    ),
    Row(
        "Share out of range",
        "",
        ("finetune", "--data", "photos", "--checkpoint", "runs/pretrain", "--workdir", "new", "--val-fraction", "20"),
        NO_JAX,
    ),
    Row("Override that leads through a number", "", train("--config.seed.data=3"), NO_JAX),
    Row(
        "Unknown model",
        "timm: `Unknown model (vit_base_patch16_224x)`. HF: every model type that it knows.",
        ("models", "vit_base_patch16_224x"),
        NO_DEVICE,
    ),
    Row("No recipe of that name to list", "", ("recipes", "vit_jtf"), NO_DEVICE),
    Row("Unknown part of a recipe", "", train("--config.modle.width=64"), NO_DEVICE),
    Row("Unknown kind of model", "HF: every model type that it knows", train("--config.model.kind=vitt"), NO_DEVICE),
    Row("Unknown field", "", train("--config.optimizer.learning_rate=3e-4"), NO_DEVICE),
    Row("Unknown unit of time", "", train("--config.duration.epoch=3"), NO_DEVICE),
    Row("Field of another type", "", train("--config.optimizer.lr=fast"), NO_DEVICE),
    Row("Field out of range", "", train("--config.data.batch_size=0"), NO_DEVICE),
    Row("Interval of nothing", "", train("--config.log.every.steps=0"), NO_DEVICE),
    Row("Width and heads that do not fit", "", train("--config.model.num_heads=5"), NO_DEVICE),
    Row("Images that patches do not divide", "", train("--config.data.image_size=30"), NO_DEVICE),
    Row(
        "Data folder missing",
        "timm: a bare `AssertionError`",
        ("finetune", "--data", "photo", "--checkpoint", "runs/pretrain", "--workdir", "new"),
        NO_DEVICE,
    ),
    Row(
        "Data folder missing, in a recipe",
        "timm: a bare `AssertionError`",
        train("--config.data.source={'kind': 'folder', 'path': 'photo'}"),
        NO_DEVICE,
    ),
    Row(
        "Prepared data set missing",
        "",
        train("--config.data.source.data_dir=tfds", config="vit_i1k:B/16"),
        NO_DEVICE,
    ),
    Row(
        "Checkpoint missing",
        "timm: an empty `FileNotFoundError()`. Orbax: a trace.",
        ("eval", "--checkpoint", "runs/pretrian"),
        NO_DEVICE,
    ),
    Row(
        "Step of a checkpoint missing",
        "timm: an empty `FileNotFoundError()`. Orbax: a trace.",
        ("eval", "--checkpoint", "runs/pretrain@500"),
        NO_DEVICE,
    ),
    Row(
        "Checkpoint to start from missing",
        "timm: an empty `FileNotFoundError()`. Orbax: a trace.",
        train("--config.init_from.checkpoint=runs/pretrian", config="quickstart:finetune"),
        NO_DEVICE,
    ),
    Row(
        "Going on with another recipe",
        "",
        ("train", "--config", "quickstart:pretrain", "--workdir", "runs/begun", "--config.optimizer.lr=1e-3"),
        NO_DEVICE,
    ),
    Row(
        "Image size",
        "timm: `Input height (256) doesn't match model (224).` HF: `Input image size (48*48) doesn't match model "
        "(32*32).` Flax: `ScopeParamShapeError ... shape (5, 4) ... (3, 4)`",
        train(
            "--config.data.source={'kind': 'folder', 'path': 'photos'}",
            "--config.data.ops=({'kind': 'decode', 'channels': 1},)",
            "--config.data.num_examples=2",
            "--config.data.num_classes=2",
            "--config.duration.steps=9",
            "--config.evaluators=None",
        ),
        NO_DEVICE,
    ),
    Row(
        "Channels first (NCHW), in the data",
        "timm: `Input width (3) doesn't match model (224).` HF: `channel dimension ... Expected 3 but got 32`",
        train(idx("nchw"), "--config.data.ops=()", "--config.data.num_examples=4", "--config.duration.steps=9"),
        NO_DEVICE,
    ),
    Row(
        "Channels first (NCHW), in Python",
        "timm: `Input width (3) doesn't match model (224).` HF: `channel dimension ... Expected 3 but got 32`",
        NCHW,
        NO_DEVICE,
    ),
    Row(
        "Label not below num_classes",
        "torch: `index 2 is out of bounds`. optax's cross-entropy: NaN; a one-hot label: zero loss; no error.",
        train(
            idx("labels"),
            "--config.data.num_examples=4",
            "--config.data.num_classes=5",
            "--config.duration.steps=9",
            "--config.evaluators=None",
        ),
        NO_DEVICE,
    ),
    Row(
        "More class folders than num_classes",
        "torch: `index 2 is out of bounds`. optax's cross-entropy: NaN; a one-hot label: zero loss; no error.",
        train(
            "--config.data.source={'kind': 'folder', 'path': 'photos'}",
            "--config.data.num_examples=2",
            "--config.data.num_classes=1",
            "--config.duration.steps=9",
            "--config.evaluators=None",
        ),
        NO_DEVICE,
    ),
    Row("Label -1", "optax's cross-entropy: takes the last class; no error.", MINUS_ONE, NO_DEVICE),
    Row(
        "Package missing: plan",
        PACKAGES,
        ("plan", "--config", "vit_jft:B/16", "--topology", "v3:4x4"),
        NO_DEVICE,
        hide="libtpu",
    ),
    Row(
        "Package missing: interop",
        PACKAGES,
        ("ckpt", "export", "runs/pretrain", "weights.safetensors"),
        NO_DEVICE,
        hide="safetensors",
    ),
    Row("Package missing: gcs", PACKAGES, ("cost", "--workdir", "gs://bucket/run"), NO_DEVICE, hide="gcsfs"),
    Row("Package missing: cuda", "JAX: a bare `AssertionError`", train(), NO_DEVICE, platforms="cuda"),
    Row(
        "Token ids not below vocab_size",
        "torch: an index error. JAX: `x[i]` clamps silently, `jnp.take` gives NaN",
        train("--config.data.vocab_size=200", config="gpt_shakespeare"),
        NO_DEVICE,
    ),
    Row("Tokenizer missing", "", train(config="gpt_shakespeare:tokenizer=bpe.json"), NO_DEVICE),
    Row(
        "Tokenizer of another kind",
        "",
        train("--config.data.vocab_size=2048", config="gpt_shakespeare:tokenizer=wordpiece.json"),
        NO_DEVICE,
    ),
    Row(
        "Prompt that is too long",
        "",
        train("--config.data.length=8", "--config.init_from=None", config="gpt_finetune:data=pairs.jsonl"),
        NO_DEVICE,
    ),
)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def make_world(folder: Path) -> None:
    """What the commands find in the working directory."""
    from PIL import Image

    for name in ("cat", "dog"):
        (folder / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "photos" / name / "1.png")
    for step in (469, 938):
        (folder / "runs" / "pretrain" / "checkpoints" / str(step)).mkdir(parents=True)
    (folder / "runs" / "begun" / "checkpoints" / "469").mkdir(parents=True)
    (folder / "wordpiece.json").write_text('{"model": {"type": "WordPiece"}}')
    (folder / "pairs.jsonl").write_text('{"prompt": "Who killed Duncan? ", "completion": "Macbeth."}')
    write_idx(folder / "nchw.idx", np.zeros((4, 3, 28, 28)))
    write_idx(folder / "nchw-labels.idx", np.zeros(4))
    write_idx(folder / "labels.idx", np.zeros((4, 28, 28)))
    write_idx(folder / "labels-labels.idx", np.array([0, 4, 7, 1]))


class Unlabelled:
    """Four images whose third has the label -1, as in test sets whose labels are kept secret."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"image": np.zeros((8, 8, 3), np.uint8), "label": -1 if index == 2 else 0}

    def describe(self, index):
        return f"test/{index}.png"


def state() -> str:
    if "jax" not in sys.modules:
        return NO_JAX
    from jax._src import xla_bridge

    return LATE if xla_bridge.backends_are_initialized() else NO_DEVICE


def run(row: Row) -> dict:
    """What a row prints: code, message, state after it."""
    from vitax.__main__ import main
    from vitax.core.errors import UserError

    shown, before = io.StringIO(), dict(sys.modules)
    if row.hide:
        sys.modules[row.hide] = None
    try:
        with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(io.StringIO()):
            if isinstance(row.show, str):
                import jax

                code = 0
                try:
                    exec(row.show, {"Unlabelled": Unlabelled, "jax": jax, "key": jax.eval_shape(jax.random.key, 0)})
                except UserError as error:
                    code = 2
                    print(f"UserError: {error}", file=shown)
            else:
                sys.argv = ["vitax", *row.show]
                code = main(row.show)
    finally:
        if row.hide:
            sys.modules.pop(row.hide)
            if row.hide in before:
                sys.modules[row.hide] = before[row.hide]
    return {"code": code, "message": shown.getvalue().rstrip("\n"), "found": state()}


def main(folder: Path) -> None:
    make_world(folder)
    os.chdir(folder)
    results = {}
    for row in ROWS:
        if row.title == "Going on with another recipe":
            from vitax import config_files

            begun = json.dumps(config_files.load("quickstart:pretrain").to_dict())
            Path("runs/begun/recipe.json").write_text(begun)
        if row.platforms:
            import jax

            os.environ["JAX_PLATFORMS"] = row.platforms
            jax.config.update("jax_platforms", row.platforms)
        results[row.title] = run(row)
    text = json.dumps(results).replace(str(folder), "/home/me")
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
