"""``create_model(checkpoint=...)``: what is taken, resampled, started afresh, left; and a published teacher."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitax
from tests import families
from tests.published import FILES, TOLERANCE, error, nested, outputs
from vitax.checkpoint import files
from vitax.checkpoint.store import Store
from vitax.core.errors import UserError
from vitax.core.types import TrainState
from vitax.layers.embed import resample_kernel, resample_positions
from vitax.weights import reading

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
TINY = {"width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 2}
TIMM = str(FILES["timm_tok"])


def small(checkpoint=TIMM, **fields):
    return vitax.create_model("vit_tiny_patch16_224", checkpoint=checkpoint, **{**TINY, "patch_size": 4, **fields})


def test_a_published_file_gives_its_outputs(capsys):
    model, variables = small()
    want = outputs("timm_tok")
    assert error(quick(model.apply)(variables, want["image"]).logits, want["logits"]) <= TOLERANCE
    assert (model.gelu, model.norm_eps, model.num_classes) == ("erf", 1e-6, 5)
    told = capsys.readouterr().err
    assert "timm ViT, 32 arrays matched" in told
    assert "placed 40 parameters as they are" in told
    assert "reset" not in told


def test_another_size_patch_and_head_that_are_not_square(capsys):
    model, variables = small(num_classes=7, image_size=(24, 40), patch_size=(8, 10), zero_head=False)
    params, arrays = variables["params"], files.read(TIMM).arrays
    table = resample_positions(arrays["pos_embed"], (3, 3), (3, 4), "antialiased_bicubic")
    np.testing.assert_array_equal(params["pos_embedding"], table)
    kernel = resample_kernel(arrays["patch_embed.proj.weight"].transpose(2, 3, 1, 0), (8, 10), "antialiased_bicubic")
    np.testing.assert_array_equal(params["embedding"]["kernel"], kernel)
    assert params["head"]["kernel"].shape == (16, 7)
    assert jax.eval_shape(model.apply, variables, np.zeros((1, 24, 40, 3), np.float32)).logits.shape == (1, 7)
    lines = capsys.readouterr().err.splitlines()
    changed = [line.split()[:2] for line in lines if line.startswith(("resampled", "reset", "ignored"))]
    assert changed == [
        ["resampled", "embedding/kernel"],
        ["resampled", "pos_embedding"],
        ["reset", "head/bias"],
        ["reset", "head/kernel"],
    ]


def test_numerics_are_those_of_the_weights_unless_asked_for(capsys):
    google = str(FILES["google_vit_jax"])
    model, _ = small(google)
    assert model.gelu == "tanh"
    assert "gelu: tanh, as the checkpoint has it; vit_tiny_patch16_224 alone has erf" in capsys.readouterr().err
    model, _ = small(google, gelu="erf")
    assert model.gelu == "erf"


def test_a_head_that_is_left_out_is_said(capsys):
    model, variables = small(num_classes=0)
    assert "head" not in variables["params"]
    assert "ignored   head/kernel" in capsys.readouterr().err
    want = outputs("timm_tok")
    assert error(quick(model.apply)(variables, want["image"]).features, want["features"]) <= TOLERANCE


def test_another_model_is_refused():
    with pytest.raises(UserError, match="is no ViT-B/16: it has width 16, not 768, depth 2, not 12"):
        vitax.create_model("ViT-B/16", checkpoint=TIMM)
    with pytest.raises(UserError, match="is no BiT-M-R50x1: it has kind vit, not bit"):
        vitax.create_model("BiT-M-R50x1", checkpoint=TIMM)
    with pytest.raises(UserError, match="abstract has no arrays"):
        vitax.create_model("ViT-B/16", checkpoint=TIMM, abstract=True)
    with pytest.raises(UserError, match="widht: unknown field. Did you mean"):
        small(widht=3)
    with pytest.raises(UserError, match="create_model: checkpoint nowhere: no checkpoint"):
        small("nowhere")


def test_running_statistics_come_along(tmp_path):
    path = families.write("efficientnet_timm_tf", tmp_path)
    held = reading.load(str(path)).recipe["model"]
    fields = {name: held[name] for name in ("stages", "stem_channels", "top_channels")}
    model, variables = vitax.create_model("tf_efficientnet_b0", checkpoint=str(path), image_size=(33, 48), **fields)
    want = families.outputs("efficientnet_timm_tf")
    have = quick(model.apply)(variables, families.image("efficientnet_timm_tf")).logits
    assert error(have, want["logits"]) <= TOLERANCE
    mean = files.read(str(path)).arrays["bn1.running_mean"]
    np.testing.assert_array_equal(variables["batch_stats"]["stem"]["norm"]["mean"], mean)


def test_a_workdir_with_a_grid_that_is_no_square(tmp_path, tiny):
    config = tiny(data__image_size=(8, 16), data__num_classes=5, model__mlp_dim=24, model__width=16)
    held = reading.load(TIMM).params
    positions = held["pos_embedding"][:, :9]  # as of 2 x 4 patches
    params = nested({**held, "pos_embedding": positions})
    store = Store(tmp_path / "run" / "checkpoints")
    store.save(1, TrainState(jnp.int32(1), params, {}, (), {}), {"recipe": config, "versions": {}, "class_names": None})
    store.close()
    found = reading.read(str(tmp_path / "run")).whole()
    assert found.grid == (2, 4)
    model, variables = small(str(tmp_path / "run"), image_size=(16, 8))
    assert (model.num_classes, model.dropout, model.gelu) == (5, 0.1, "tanh")
    table = resample_positions(np.asarray(positions), (2, 4), (4, 2), "corner_linear")
    np.testing.assert_array_equal(variables["params"]["pos_embedding"], table)


@pytest.mark.parametrize("name", ["timm_tok", "efficientnet_timm_ported"])
def test_a_published_file_teaches(name, tmp_path, tiny, capsys):
    from vitax import recipe, teacher

    path = str(FILES[name]) if name in FILES else str(families.write(name, tmp_path))
    objective = {"kind": "distillation", "teacher": {"checkpoint": path}}
    built = recipe.build(tiny(evaluators={}, objective=objective, data__num_classes=5))
    taught = built.config["objective"]["teacher"]
    assert taught["model"]["kind"] == ("vit" if name in FILES else "efficientnet")
    program = built.program()
    state = teacher.load(built.config["objective"], program, program.abstract_state)
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3), minval=-1.0)
    have = quick(program.objective.teacher_logits)(state.constants["teacher"], images)
    found = reading.load(path)
    scaled = ((np.asarray(images) * 0.5 + 0.5) - np.asarray(taught["mean"])) / np.asarray(taught["std"])
    if name in FILES:
        assert "teacher: resampled: pos_embedding [1, 10, 16] -> [1, 17, 16]" in capsys.readouterr().err
        own = state.constants["teacher"]["params"]
        want = quick(program.objective.teacher.model.apply)({"params": own}, scaled)
    else:
        want = families.apply(found, scaled.astype(np.float32))
    assert error(have, np.asarray(want.logits)) <= TOLERANCE
