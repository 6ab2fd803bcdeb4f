"""ConfigDict -> Recipe: the one place where names meet classes.

Building a recipe checks all of it (names, types, durations, what fits together)
and touches neither a device nor the data; ``Recipe``'s methods make the live parts.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
from ml_collections import ConfigDict

from vitax import config_files, teacher
from vitax.construct import call, check, construct, fields_of
from vitax.core.bounds import NotNegative, Positive
from vitax.core.durations import Duration
from vitax.core.errors import UserError, pick, suggest
from vitax.core.types import DataSource, Evaluator
from vitax.cost import chips, flops
from vitax.evaluators.any_of import AnyOfEvaluator
from vitax.evaluators.bleu import BleuEvaluator
from vitax.evaluators.classification import ClassificationEvaluator
from vitax.evaluators.language import LanguageEvaluator
from vitax.evaluators.masked import MaskedLanguageEvaluator
from vitax.evaluators.span import SpanEvaluator
from vitax.evaluators.text import TextClassificationEvaluator
from vitax.models.table import MODELS
from vitax.objectives.distill import TEACHER, Distillation
from vitax.objectives.language import LanguageModel
from vitax.objectives.masked import MaskedLanguageModel
from vitax.objectives.text import Span, TextClassification
from vitax.objectives.translation import Translation
from vitax.objectives.vision import Classification
from vitax.optim.optimizers import OPTIMIZERS
from vitax.optim.schedules import SCHEDULES
from vitax.parallel.mesh import MeshSpec, build_mesh
from vitax.parallel.rules import Rules, unbox
from vitax.specs import kinds
from vitax.specs.kinds import evaluator_data
from vitax.train.program import Program

OBJECTIVES = {
    "classification": Classification,
    "distillation": Distillation,
    "language_model": LanguageModel,
    "masked_language_model": MaskedLanguageModel,
    "span": Span,
    "text_classification": TextClassification,
    "translation": Translation,
}
EVALUATORS = {
    "any_of": AnyOfEvaluator,
    "classification": ClassificationEvaluator,
    "language": LanguageEvaluator,
    "masked_language": MaskedLanguageEvaluator,
    "span": SpanEvaluator,
    "text_classification": TextClassificationEvaluator,
    "bleu": BleuEvaluator,
}
TOP_LEVEL = (
    *("paper", "model", "objective", "data", "evaluators", "optimizer", "schedule", "duration", "accumulate"),
    *("mesh", "rules", "remat", "unroll", "dtype", "init_from", "checkpoint", "log", "seed", "chip"),
)
REQUIRED = ("model", "objective", "data", "optimizer", "schedule", "duration")
# What a resumed run may change: none of these moves the numbers beyond rounding.
FREE_ON_RESUME = ("paper", "evaluators", "mesh", "rules", "accumulate", "remat", "unroll", "log", "checkpoint", "chip")
# Where data lies and how it is read (fingerprints say what it is); which code computes attention.
_PATHS = r"\w*tokenizer\.path|source\.(.*\.)?((\w+_)?path|data_dir|labels)"
_FREE_FIELDS = re.compile(rf"data\.(threads|prefetch|{_PATHS})|model\.attention_kernel")
DTYPES = ("auto", "float32", "bfloat16")


def auto_dtype(platform: str) -> str:
    """The compute dtype on a platform where the recipe states none."""
    return "float32" if platform == "cpu" else "bfloat16"


def dtype_of(config: Mapping[str, Any], platform: str) -> str:
    """The compute dtype on a platform that a recipe's plain data says.

    Raises:
      UserError: none that there is.
    """
    stated = config.get("dtype") or "auto"
    if stated not in DTYPES:
        raise UserError(f'dtype: "{stated}" is not one of {", ".join(DTYPES)}.')
    return auto_dtype(platform) if stated == "auto" else stated


@dataclasses.dataclass(frozen=True)
class CheckpointSpec:
    """``checkpoint`` of a recipe.

    Attributes:
      every: duration between two saves.
      keep: how many of the newest stay.
    """

    every: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"epochs": 1})
    keep: Positive = 3


@dataclasses.dataclass(frozen=True)
class LogSpec:
    """``log`` of a recipe.

    Attributes:
      every: duration between two rows of metrics.
    """

    every: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"steps": 50})


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """``init_from``: where parameters start.

    Attributes:
      checkpoint: a workdir (``DIR`` or ``DIR@STEP``) or a published weight file.
      reset: regular expressions of parameters that start afresh though they fit.
      positions: how position embeddings of another grid are resampled; ``auto`` as the
        program does that the weights come from (``corner_linear`` for vitax and Google).
    """

    checkpoint: str
    reset: tuple[str, ...] = ("^head/", "^pre_logits/")
    positions: Literal["auto", "corner_linear", "antialiased_bilinear", "bicubic", "antialiased_bicubic"] = "auto"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes:
      config: the resolved plain data.
      data: of the class that its source decides (``specs.kinds``).
      optimizer, schedule, mesh_spec, rules, checkpoint, log, init_from: typed parts.
      duration: the length as given; ``total_steps`` has it in steps.
      evaluators: name -> (spec, duration between evaluations).
      chip: numbers of the chip that replace those of the table (``cost.chips.override``).
      name: ``NAME:VARIANT`` where it comes of a file, to be recognised by; nothing depends on it.
    """

    config: dict[str, Any]
    data: Any
    optimizer: Any
    schedule: Any
    duration: Duration
    mesh_spec: MeshSpec
    rules: Rules
    checkpoint: CheckpointSpec
    log: LogSpec
    init_from: InitFrom | None
    accumulate: int
    seed: int
    chip: Mapping[str, Any]
    name: str = ""

    @property
    def total_steps(self) -> int:
        return self.steps(self.duration, "duration")

    @property
    def total_examples(self) -> int:
        """Examples that the run trains on, in all epochs."""
        size, ramp = self.data.batch_size, self.data.ramp
        return self.total_steps * size if ramp is None else ramp.before(self.total_steps, size)

    def steps(self, spec: Duration | Mapping[str, float], where: str) -> int:
        """A duration in steps of this recipe."""
        duration = spec if isinstance(spec, Duration) else Duration.parse(spec, where)
        assert duration is not None
        total = None if where == "duration" else self.total_steps
        return duration.steps(
            batch_size=self.data.batch_size, num_examples=self.data.num_examples, total_steps=total, ramp=self.data.ramp
        )

    def every(self, spec: Mapping[str, float], where: str) -> float:
        """An interval in steps (see ``core.durations.due``), at least one."""
        duration = Duration.parse(spec, where)
        assert duration is not None
        if not duration.value:
            raise UserError(f"{where}.{duration.unit}: expected a number above 0, got 0.")
        data = self.data
        exact = duration.exact_steps(
            batch_size=data.batch_size, num_examples=data.num_examples, total_steps=self.total_steps, ramp=data.ramp
        )
        return max(exact, 1.0)

    def dtype(self, platform: str) -> str:
        """The compute dtype on a platform (of the mesh's devices, not of this host)."""
        return dtype_of(self.config, platform)

    def model(self, platform: str = "cpu") -> Any:
        """The model for a platform."""
        return construct(
            MODELS,
            self.config["model"],
            "model",
            **self.data.given,
            dtype=self.dtype(platform),
            remat=self.config.get("remat") or "none",
            unroll=self.config.get("unroll", True),
        )

    def objective(self, platform: str = "cpu") -> Any:
        """The objective with its model, and its teacher where it has one."""
        spec = dict(self.config["objective"])
        if spec.get(TEACHER):
            spec[TEACHER] = teacher.build(spec[TEACHER], self.data.num_classes, self.dtype(platform))
        return construct(
            OBJECTIVES,
            spec,
            "objective",
            model=self.model(platform),
            **self.data.given,
        )

    def _abstract_objective(self) -> Any:
        """The objective to trace for shapes and counts, which no attention kernel changes and none may refuse."""
        objective = self.objective()
        if not hasattr(objective.model, "attention_kernel"):
            return objective
        return dataclasses.replace(objective, model=objective.model.clone(attention_kernel="xla"))

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch."""
        return self.data.batch_spec

    @functools.cached_property
    def num_tokens(self) -> int | None:
        """Length of the sequence that the model runs on; None where it has none, as convolutional networks."""
        if "tokens" in self.batch_spec:
            return self.batch_spec["tokens"].shape[1]  # of which a model of text may have more positions
        model = self.model()
        return model.num_tokens(self.data.size) if hasattr(model, "num_tokens") else None

    @functools.cached_property
    def learning_rate(self) -> Any:
        """step -> learning rate."""
        return self.schedule.make(
            self.optimizer.lr,
            self.total_steps,
            batch_size=self.data.batch_size,
            num_examples=self.data.num_examples,
            ramp=self.data.ramp,
        )

    @functools.cached_property
    def abstract_variables(self) -> Any:
        """Shapes of the parameters and the other collections."""
        objective = self._abstract_objective()
        # An abstract key: a real one would start the devices, before jax.distributed could.
        key = jax.eval_shape(jax.random.key, 0)
        return unbox(jax.eval_shape(objective.init, key, self.batch_spec))

    @property
    def abstract_params(self) -> Any:
        """Shapes of the parameters."""
        return self.abstract_variables["params"]

    @property
    def sources(self) -> dict[str, DataSource]:
        """The open sources of ``data`` and of each evaluator, by where they are stated; no device is touched."""
        places = ["data", *(f"evaluators.{name}.data" for name in self.config.get("evaluators") or {})]
        return {where: self.source(where) for where in places}

    def source(self, where: str) -> DataSource:
        """The source of ``data`` or ``evaluators.NAME.data``, opened when it is first asked for."""
        if where not in self._opened:
            spec = self.data if where == "data" else evaluator_data(self.config, where.split(".")[1])
            self._opened[where] = spec.build_source(where)
        return self._opened[where]

    @functools.cached_property
    def _opened(self) -> dict[str, DataSource]:
        return {}

    def program(self, mesh: Any = None, platform: str | None = None) -> Program:
        """The program on a mesh.

        Args:
          mesh: by default all devices; an ``AbstractMesh`` gives shapes and shardings alone.
          platform: of the mesh's devices, where it has none to ask.
        """
        mesh = build_mesh(self.mesh_spec) if mesh is None else mesh
        return Program(
            objective=self.objective(platform or mesh.devices.flat[0].platform),
            tx=self.optimizer.make(self.learning_rate, self.abstract_params),
            batch_spec=self.batch_spec,
            mesh=mesh,
            rules=self.rules,
            seed=self.seed,
            accumulate=self.accumulate,
            ema=self.optimizer.ema,
            ema_warmup=self.optimizer.ema_warmup,
            learning_rate=self.learning_rate,
        )

    @functools.cached_property
    def forward_flops_per_example(self) -> float:
        """Matrix products and convolutions of the forward pass, 2 FLOPs a multiply-accumulate."""
        objective = self._abstract_objective()
        one = {k: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for k, x in self.batch_spec.items()}
        prepare = functools.partial(objective.prepare, train=False)
        prepared = jax.eval_shape(prepare, one, jax.eval_shape(jax.random.key, 0))
        return float(flops.count(objective.forward, self.abstract_variables, prepared).flops)

    def evaluators(self) -> list[tuple[Evaluator, float]]:
        """Live evaluators with their intervals in steps; opens their data."""
        live = []
        for name, spec in (self.config.get("evaluators") or {}).items():
            where = f"evaluators.{name}"
            data = evaluator_data(self.config, name)
            own = {k: v for k, v in spec.items() if k not in ("data", "every", "kind")}
            target = pick(EVALUATORS, spec.get("kind", "classification"), f"{where}.kind")
            pipeline = data.pipeline(self.seed, f"{where}.data", self.source(f"{where}.data"))
            live.append(
                (
                    call(target, {"name": name, "pipeline": pipeline, **own}, where),
                    self.every(spec.get("every") or {"epochs": 1}, f"{where}.every"),
                )
            )
        return live


def build(config: ConfigDict | Mapping[str, Any], name: str = "") -> Recipe:
    """Checks a config and gives it types.

    Raises:
      UserError: with the dotted path of what is wrong.
    """
    plain = config_files.to_plain(config)
    for key in plain:
        if key not in TOP_LEVEL:
            raise UserError(f"{key}: unknown part of a recipe.{suggest(key, TOP_LEVEL)} Valid: {', '.join(TOP_LEVEL)}.")
    for key in REQUIRED:
        if plain.get(key) is None:
            raise UserError(f"{key}: missing from the recipe.")
    plain["objective"] = config_files.to_plain(teacher.resolve(check(plain["objective"], Mapping, "objective")))
    init_from = plain.get("init_from")
    init_from = {"checkpoint": init_from} if isinstance(init_from, str) else init_from
    duration = Duration.parse(plain["duration"], "duration")
    assert duration is not None
    dtype_of(plain, "cpu")
    recipe = Recipe(
        config=plain,
        data=kinds.build(plain["data"]),
        optimizer=construct(OPTIMIZERS, plain["optimizer"], "optimizer"),
        schedule=construct(SCHEDULES, plain["schedule"], "schedule"),
        duration=duration,
        mesh_spec=call(MeshSpec, plain.get("mesh") or {}, "mesh"),
        rules=Rules.build(plain.get("rules")),
        checkpoint=call(CheckpointSpec, plain.get("checkpoint") or {}, "checkpoint"),
        log=call(LogSpec, plain.get("log") or {}, "log"),
        init_from=call(InitFrom, init_from, "init_from") if init_from else None,
        accumulate=check(1 if plain.get("accumulate") is None else plain["accumulate"], Positive, "accumulate"),
        seed=check(plain.get("seed") or 0, NotNegative, "seed"),
        chip=check(plain.get("chip") or {}, Mapping, "chip"),
        name=name,
    )
    _check(recipe)
    return recipe


def load(spec: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """``build`` of a recipe file with command-line overrides."""
    return build(config_files.load(spec, overrides), spec)


def _check(recipe: Recipe) -> None:
    """Builds everything that needs neither device nor data, so that errors come early."""
    if recipe.total_steps < 1:
        raise UserError(f"duration: {dict(recipe.config['duration'])} is less than one step.")
    kinds.check(recipe.config, {"model": MODELS, "objective": OBJECTIVES, "evaluators": EVALUATORS})
    recipe.optimizer.make(recipe.learning_rate, recipe.abstract_params)
    objective, channels = recipe.objective(), getattr(recipe.data, "channels", 0)
    for name in ("mean", "std"):
        values = getattr(objective, name, ())
        if values and len(values) not in (1, channels):
            expected = "one" if channels == 1 else f"one, or {channels}"
            raise UserError(
                f"objective.{name}: {len(values)} values for images of {channels} channel(s) (data.channels); "
                f"expected {expected}."
            )
    recipe.data.check("data")
    recipe.every(recipe.checkpoint.every, "checkpoint.every")
    recipe.every(recipe.log.every, "log.every")
    chips.override(chips.CHIPS["v3"], recipe.chip)  # names and values; which chip it will be is not known yet
    for name, spec in (recipe.config.get("evaluators") or {}).items():
        where = f"evaluators.{name}"
        data = evaluator_data(recipe.config, name)
        data.check(f"{where}.data")
        target = pick(EVALUATORS, spec.get("kind", "classification"), f"{where}.kind")
        valid = [*(n for n in fields_of(target) if n not in ("name", "pipeline")), "kind", "data", "every"]
        for key in spec:
            if key not in valid:
                raise UserError(f"{where}.{key}: unknown field.{suggest(key, valid)} Valid: {', '.join(valid)}.")
        recipe.every(spec.get("every") or {"epochs": 1}, f"{where}.every")


def resume_differences(old: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What a resumed run must not change, as lines ``path: was -> is`` ([] = may go on)."""
    free: tuple[str, ...] = FREE_ON_RESUME
    if not recipe.schedule.depends_on_length:
        free = (*free, "duration")
    if recipe.abstract_variables.keys() != {"params"}:
        # BatchNorm takes the statistics of a microbatch: there the number of them is part of the numbers.
        free = tuple(name for name in free if name != "accumulate")
    before, after = (
        config_files.flatten({k: v for k, v in json.loads(json.dumps(c)).items() if k not in free and v is not None})
        for c in (old, recipe.config)
    )
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if _FREE_FIELDS.fullmatch(key) or before.get(key) == after.get(key):
            continue
        lines.append(f"{key}: {before.get(key, '(default)')!r} -> {after.get(key, '(default)')!r}")
    return lines
