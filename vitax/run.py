"""A recipe and a workdir -> a finished run: everything around the loop."""

import glob
import logging
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import vitax
from vitax import carried_tokenizers, teacher
from vitax import recipe as recipes
from vitax.checkpoint import store, warm_start
from vitax.checkpoint.files import is_weight_file
from vitax.core import tree
from vitax.core.environment import compile_cache
from vitax.core.errors import UserError
from vitax.core.types import TrainState
from vitax.cost import topology
from vitax.data.step_indexed import StepIndexed, difference
from vitax.parallel import hosts
from vitax.parallel.rules import replicated
from vitax.recipe import Recipe
from vitax.train import loop, terminal
from vitax.train.clock import Clock
from vitax.train.program import Program
from vitax.train.workdir import read_json, write_json
from vitax.weights import reading
from vitax.weights.fitting import Fit, stored_grid

log = logging.getLogger("vitax")


def start_jax() -> None:
    """Joins other processes where there are any, and turns the compilation cache on."""
    if not (glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")):
        topology.quiet(os.environ)  # libtpu may be here to plan with, and no TPU to start
    hosts.start_distributed()
    start_devices()
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(compile_cache(os.environ)))


def start_devices() -> None:
    """Starts the devices that JAX_PLATFORMS asks for; UserError where there are none."""
    asked = os.environ.get("JAX_PLATFORMS") or jax.config.values["jax_platforms"]
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts where CUDA is asked for and its plugin is absent
        extra = {"tpu": "tpu", "cuda": "cuda", "gpu": "cuda"}.get(str(asked).partition(",")[0])
        mend = f" On a machine that has one, install the extra: pip install -e '.[{extra}]'." if extra else ""
        why = "".join(f" ({line})" for line in str(error).splitlines()[:1])
        raise UserError(
            f"JAX_PLATFORMS={asked}: JAX finds no such device{why}."
            f"{mend} Unset JAX_PLATFORMS to take what there is; vitax doctor says what is wrong with a machine."
        ) from error


def train(recipe: Recipe, workdir: Path) -> int:
    """Trains a recipe in a workdir, going on where an earlier start stopped.

    Returns:
      The exit code of the loop.

    Raises:
      UserError: the workdir belongs to another recipe, or the input is bad.
      RunError: the run cannot go on.
    """
    clock = Clock()
    _check_workdir(recipe, workdir)
    carried_tokenizers.check(recipe.config["data"], workdir)
    check_data(recipe)
    if recipe.init_from is not None and not store.steps_in(workdir / "checkpoints"):
        if is_weight_file(recipe.init_from.checkpoint):
            found = reading.load(recipe.init_from.checkpoint, recipe.data.size)
            carried_tokenizers.check_weights(recipe, found.recipe["data"])
        else:
            carried_tokenizers.check_start(
                recipe, *warm_start.find(recipe.init_from.checkpoint, "init_from.checkpoint")
            )
    start_jax()
    primary = jax.process_index() == 0
    program = recipe.program()
    pipeline = recipe.data.pipeline(recipe.seed, source=recipe.source("data"))
    evaluators = recipe.evaluators()
    check_classes(getattr(pipeline.source, "class_names", None), evaluators)
    if primary:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "recipe.json", recipe.config)
        describe(recipe, program, workdir)
    hosts.agree("workdir", "made")
    run = loop.Run(
        program=program,
        pipeline=pipeline,
        workdir=workdir,
        total_steps=recipe.total_steps,
        log_every=recipe.every(recipe.log.every, "log.every"),
        checkpoint_every=recipe.every(recipe.checkpoint.every, "checkpoint.every"),
        keep=recipe.checkpoint.keep,
        evaluators=evaluators,
        start=lambda: initial_state(recipe, program, workdir),
        metadata=metadata(recipe, pipeline),
        check_resume=lambda found: check_resume(recipe, pipeline, found),
        model_flops_per_example=3.0 * recipe.forward_flops_per_example,
        ramp=recipe.data.ramp,
        chip=recipe.chip,
        paper=cited(recipe),
    )
    return loop.train(run, clock)


def _check_workdir(recipe: Recipe, workdir: Path) -> None:
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir}: is a file; expected a folder.")
    old = read_json(workdir / "recipe.json")
    if old is not None and store.steps_in(workdir / "checkpoints"):
        _refuse(recipes.resume_differences(old, recipe), workdir)


def _refuse(lines: list[str], where: Any) -> None:
    if lines:
        raise UserError(
            f"{where} holds a run of another recipe; going on would mix the two:\n  "
            + "\n  ".join(lines)
            + "\nUse the same settings, or another --workdir."
        )


def check_data(recipe: Recipe) -> None:
    """Opens all data and makes one example of each, on the host, before devices are started.

    Raises:
      UserError: data that is missing, or of another size, order of axes or number of classes than stated.
    """
    for where, source in recipe.sources.items():
        spec = recipe.data if where == "data" else recipes.evaluator_data(recipe.config, where.split(".")[1])
        # As the only process: how many there are is not known yet.
        pipeline = spec.pipeline(recipe.seed, where, source, process=(0, 1))
        try:
            pipeline.check()
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def check_classes(names: Sequence[str] | None, evaluators: Sequence[tuple[Any, float]]) -> None:
    """Refuses evaluation data whose classes are numbered otherwise than those trained on.

    Folders number their classes in order: one class less, and every label means another.
    """
    for evaluator, _ in evaluators:
        other = getattr(evaluator.pipeline.source, "class_names", None)
        if names and other and list(names) != list(other):
            lacks = ", ".join([n for n in names if n not in other][:5]) or "none"
            extra = ", ".join([n for n in other if n not in names][:5]) or "none"
            raise UserError(
                f"evaluators.{evaluator.name}.data: its classes are not those trained on; every label would mean "
                f"another class. Missing: {lacks}; only there: {extra}. "
                "Give it the same class folders, or another source."
            )


def check_resume(recipe: Recipe, pipeline: StepIndexed, found: dict[str, Any]) -> None:
    """Refuses to go on from a checkpoint of another recipe or other data."""
    lines = recipes.resume_differences(found["recipe"], recipe)
    lines += difference(found["data"], pipeline.fingerprint())
    _refuse(lines, "The checkpoint")


def cited(recipe: Recipe) -> dict[str, Any] | None:
    """The published run that the recipe is to be held against: ``paper, row, core_days``."""
    paper = recipe.config.get("paper")
    return {name: paper.get(name) for name in ("paper", "row", "core_days")} if paper else None


def metadata(recipe: Recipe, pipeline: StepIndexed) -> dict[str, Any]:
    """Plain data that every checkpoint carries."""
    names = getattr(pipeline.source, "class_names", None)
    return {
        "recipe": recipe.config,
        "name": recipe.name,
        "data": pipeline.fingerprint(),
        "class_names": list(names) if names else None,
        "tokenizer": recipe.data.build_tokenizer().fingerprint() if recipe.data.size is None else None,
        "tokenizers": carried_tokenizers.pack(recipe.config["data"]),
        "versions": {"vitax": vitax.__version__, "jax": jax.__version__, "python": platform.python_version()},
    }


def initial_state(recipe: Recipe, program: Program, workdir: Path) -> TrainState:
    """A fresh state, warm-started where the recipe says so."""
    state = teacher.load(recipe.config["objective"], program, program.init())
    if recipe.init_from is None:
        return state
    where, source, fit = _start(recipe, program)
    # Running statistics go with the parameters: either is wrong without the other.
    fresh = {**state.params, **state.mutables}
    placed, placement = warm_start.place(fresh, source, recipe.init_from.reset, fit.table())
    if jax.process_index() == 0:
        console = terminal.console()
        console.print(f"Warm start from {where}:", markup=False)
        for line in placement.lines():
            console.print(f"  {line}", markup=False)
        write_json(workdir / "warm_start.json", {"source": where, **vars(placement)})
    mutables = {name: placed.pop(name) for name in state.mutables}
    return state.replace(params=placed, mutables=mutables, **program.averages_of(placed, mutables))  # type: ignore[attr-defined]


def _start(recipe: Recipe, program: Program) -> tuple[str, Mapping[str, Any], Fit]:
    """What a warm start takes from: a name for it, its parameters, and how they are made to fit."""
    assert recipe.init_from is not None
    checkpoint, asked = recipe.init_from.checkpoint, recipe.init_from.positions
    model, size = recipe.model(), recipe.data.size
    if is_weight_file(checkpoint):
        found = reading.load(checkpoint, size)
        lines = [*found.lines, *(f"Warning: {line}" for line in reading.differences(found, recipe.config))]
        for line in lines if jax.process_index() == 0 else ():
            terminal.console().print(line, markup=False)
        return f"{checkpoint} ({found.title})", found.params, found.fit(model, size, asked)
    directory, step = warm_start.find(checkpoint, "init_from.checkpoint")
    abstract = program.abstract_state
    like = {**abstract.params, **abstract.mutables}
    source, root = warm_start.load_params(directory, step, program.mesh, like)
    grid = stored_grid(store.read_metadata(directory, step)[0]["recipe"])
    positions = "corner_linear" if asked == "auto" else asked
    return f"{directory / str(step)} ({root})", source, Fit(model, size, "cls" in source, grid, positions)


def describe(recipe: Recipe, program: Program, workdir: Path) -> None:
    """Prints the table that stands before step 1."""
    state, mesh = program.abstract_state, program.mesh
    device = mesh.devices.flat[0]
    model = recipe.config["model"]
    per_device = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(state))
    shape = " x ".join(f"{name} {n}" for name, n in mesh.shape.items() if n > 1) or "1 device"
    epochs, ramp = recipe.total_examples / recipe.data.num_examples, recipe.data.ramp
    grows = "" if ramp is None else f", from {ramp.start} on over {ramp.length(recipe.data.batch_size):,} steps"
    objective: Any = program.objective
    rows = [
        ("model", f"{model['kind']} {terminal.count(tree.size(state.params))} parameters ({objective.model.dtype})"),
        ("forward", f"{recipe.forward_flops_per_example / 1e9:.3g} GFLOPs an example (2 a multiply-accumulate)"),
        *([] if recipe.num_tokens is None else [("tokens", str(recipe.num_tokens))]),
        ("devices", f"{mesh.size} x {device.device_kind}, {jax.process_count()} process(es), mesh {shape}"),
        ("batch", f"{recipe.data.batch_size} in {recipe.accumulate} microbatch(es){grows}"),
        ("steps", f"{recipe.total_steps} ({epochs:.3g} epochs of {recipe.data.num_examples} examples)"),
        ("state", f"{terminal.size(per_device)} a device (parameters, optimiser, averages)"),
        ("data", str(dict(recipe.data.source))),
        ("workdir", str(workdir)),
    ]
    terminal.table("vitax train", rows)
    whole = replicated(state, jax.tree.map(lambda x: x.sharding, state), mesh)
    for line in whole:
        log.warning("Large and replicated on every device (no rule shards it on this mesh): %s", line)
