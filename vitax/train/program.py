"""The program: one jitted train step for any objective on any mesh."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vitax.core import axes, metrics, tree
from vitax.core.errors import UserError
from vitax.core.metrics import Mean
from vitax.core.types import Batch, Objective, PyTree, TrainState
from vitax.cost import flops
from vitax.optim.ema import ema_update
from vitax.parallel.rules import Rules, shardings_of, unbox

# Streams of the step's key; the numbers are part of what a resume relies on.
_INIT, _PREPARE, _LOSS = 0, 1, 2


@dataclasses.dataclass
class Program:
    """Initialises and steps a train state.

    The same object trains on a pod, runs on 8 fake CPU devices in a test, and is
    lowered for devices that are only described.

    Attributes:
      objective: the task.
      tx: the optimiser, built for per-layer parameters.
      batch_spec: name -> ``ShapeDtypeStruct`` of the global batch.
      mesh: the devices.
      rules: logical names -> mesh axes.
      seed: of initialisation, dropout and mixing.
      accumulate: microbatches a step; gradients are summed and divided once by the
        summed weight, so the result does not depend on it. BatchNorm is the exception:
        each microbatch is normalised by its own statistics and moves the running ones.
      ema: decay of the averaged parameters (and running statistics), or None.
      ema_warmup: average faster in the first steps (see ``optim.ema``).
      learning_rate: step -> rate, for the log alone.
    """

    objective: Objective
    tx: optax.GradientTransformation
    batch_spec: Mapping[str, jax.ShapeDtypeStruct]
    mesh: Mesh
    rules: Rules
    seed: int = 0
    accumulate: int = 1
    ema: float | None = None
    ema_warmup: bool = False
    learning_rate: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        size = next(iter(self.batch_spec.values())).shape[0]
        if self.accumulate < 1 or size % self.accumulate:
            raise UserError(f"accumulate: {self.accumulate} microbatches do not divide a batch of {size} examples.")
        ways = self.rules.batch_ways(self.mesh)
        self.rules.batch((size,), self.mesh)
        if size // self.accumulate % ways:
            raise UserError(
                f"accumulate: {size} examples in {self.accumulate} microbatches leave {size // self.accumulate} each, "
                f"which do not divide over {ways} devices."
            )

    # ---- shapes and shardings -------------------------------------------------

    @functools.cached_property
    def _boxed(self) -> PyTree:
        with self._naming():
            return jax.eval_shape(self.objective.init, jax.eval_shape(jax.random.key, 0), dict(self.batch_spec))

    @functools.cached_property
    def _shapes(self) -> TrainState:
        params, variables, constants = self._divided(unbox(self._boxed))
        return TrainState(
            step=jax.eval_shape(lambda: jnp.int32(0)),
            params=params,
            mutables=variables,
            constants=constants,
            opt_state=jax.eval_shape(self.tx.init, params),
            ema=params if self.ema is not None else {},
            ema_mutables=variables if self.ema is not None else {},
        )

    def on(self, mesh: Any) -> "Program":
        """The same program on another mesh; the shapes, which do not depend on it, are not traced again."""
        other = dataclasses.replace(self, mesh=mesh)
        other.__dict__ |= {"_boxed": self._boxed, "_shapes": self._shapes}
        return other

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """The state as ``ShapeDtypeStruct``s with their shardings."""
        state = self._shapes
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, self._state_shardings(state)
        )

    def _state_shardings(self, state: TrainState) -> Any:
        params, variables, constants = self._divided(shardings_of(self._boxed, self.rules, self.mesh))
        whole = NamedSharding(self.mesh, PartitionSpec())
        known = {
            name: (leaf.shape, sharding)
            for (name, leaf), sharding in zip(tree.named_leaves(state.params), jax.tree.leaves(params))
        }

        def like_parameter(name: str, leaf: Any) -> NamedSharding:
            # Optimiser leaves end in the name of their parameter; those with another
            # shape (factored statistics, counts) are small and stay whole.
            parts = name.split("/")
            for start in range(len(parts)):
                shape, sharding = known.get("/".join(parts[start:]), (None, whole))
                if shape == leaf.shape:
                    return sharding
            return whole

        return state.replace(  # type: ignore[attr-defined]
            step=whole,
            params=params,
            mutables=variables,
            opt_state=tree.map_named(like_parameter, state.opt_state),
            ema=params if self.ema is not None else {},
            ema_mutables=variables if self.ema is not None else {},
            constants=constants,
        )

    def _divided(self, variables: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        """An objective's variables -> (params, mutables, constants)."""
        rest = dict(variables)
        params = rest.pop("params")
        constants = {name: rest.pop(name) for name in getattr(self.objective, "constants", ())}
        return params, rest, constants

    @functools.cached_property
    def batch_shardings(self) -> dict[str, NamedSharding]:
        """Name -> sharding of a global batch."""
        return {name: self.rules.batch(x.shape, self.mesh) for name, x in self.batch_spec.items()}

    def put(self, local: Mapping[str, Any]) -> Batch:
        """This process's slice of a batch -> global arrays; the copy is asynchronous."""
        return {
            name: jax.make_array_from_process_local_data(
                self.rules.batch((len(x) * jax.process_count(), *x.shape[1:]), self.mesh), x
            )
            for name, x in local.items()
        }

    def _naming(self) -> Any:
        return axes.resolving(self.rules.resolver(self.mesh))

    # ---- init -----------------------------------------------------------------

    def _init(self, rng: jax.Array) -> TrainState:
        with self._naming():
            batch = {k: jnp.zeros(x.shape, x.dtype) for k, x in self.batch_spec.items()}
            params, variables, constants = self._divided(unbox(self.objective.init(rng, batch)))
        return TrainState(
            step=jnp.int32(0),
            params=params,
            mutables=variables,
            constants=constants,
            opt_state=self.tx.init(params),
            **self.averages_of(params, variables),
        )

    def averages_of(self, params: PyTree, mutables: PyTree) -> dict[str, PyTree]:
        """Averages that start at these values, as fields of a state; empty where the recipe keeps none."""
        if self.ema is None:
            return {"ema": {}, "ema_mutables": {}}
        # Copies: two leaves of a donated state must not share a buffer.
        return {"ema": jax.tree.map(jnp.copy, params), "ema_mutables": jax.tree.map(jnp.copy, mutables)}

    def init(self, seed: int | None = None) -> TrainState:
        """A fresh state, made on the devices in its final sharding."""
        rng = jax.random.fold_in(jax.random.key(self.seed if seed is None else seed), _INIT)
        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state)
        return jax.jit(self._init, out_shardings=shardings)(rng)

    # ---- step -----------------------------------------------------------------

    def _step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        rng = jax.random.fold_in(jax.random.key(self.seed), state.step)
        with self._naming():
            batch = self.objective.prepare(batch, jax.random.fold_in(rng, _PREPARE), train=True)
            grads, loss, measured, mutables = self._gradients(state, batch, jax.random.fold_in(rng, _LOSS))
        grads = jax.tree.map(lambda g: (g / loss.weight).astype(g.dtype), grads)
        updates, opt_state = self.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema, ema_mutables = state.ema, state.ema_mutables
        if self.ema is not None:
            # Statistics are averaged as the parameters are: those of the last step belong to others.
            ema, ema_mutables = ema_update(
                (ema, ema_mutables), (params, mutables), self.ema, state.step, warmup=self.ema_warmup
            )
        scalars = {"grad_norm": optax.global_norm(grads), "param_norm": optax.global_norm(params)}
        if self.learning_rate is not None:
            scalars["lr"] = self.learning_rate(state.step)
        state = TrainState(state.step + 1, params, mutables, opt_state, ema, ema_mutables, state.constants)
        return state, {"loss": loss, **measured, **scalars}

    def _gradients(self, state: TrainState, batch: Batch, rng: jax.Array) -> tuple[Any, Mean, dict[str, Mean], Any]:
        def of(params: PyTree, mutables: PyTree, part: Batch) -> tuple[jax.Array, Any]:
            out = self.objective.loss({"params": params, **mutables, **state.constants}, part, rng, train=True)
            return out.loss.total, out

        gradient = jax.grad(of, has_aux=True)
        if self.accumulate == 1:
            grads, out = gradient(state.params, state.mutables, batch)
            return grads, out.loss, out.metrics, out.mutables

        # Row r goes to microbatch r % k: every device keeps its own rows, so splitting
        # moves no data.
        k = self.accumulate
        parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0] // k, k, *x.shape[1:]), 1, 0), batch)
        parts = jax.tree.map(lambda x: axes.constrain(x, (None, "batch", *[None] * (x.ndim - 2))), parts)
        shapes = jax.eval_shape(gradient, state.params, state.mutables, jax.tree.map(lambda x: x[0], parts))
        grads0, loss0, measured0 = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[1].loss, shapes[1].metrics)
        )

        def add(carry: Any, part: Batch) -> tuple[Any, None]:
            grads, loss, measured, mutables = carry
            g, out = gradient(state.params, mutables, part)
            # Without the constraint the compiler may keep sums of a sharded model whole.
            grads = jax.tree.map(
                lambda a, b, p: jax.lax.with_sharding_constraint(a + b, p.sharding),
                grads,
                g,
                self.abstract_state.params,
            )
            return (grads, loss + out.loss, metrics.add(measured, out.metrics), out.mutables), None

        carry, _ = jax.lax.scan(add, (grads0, loss0, measured0, state.mutables), parts)
        return carry

    @functools.cached_property
    def jitted_step(self) -> Any:
        """``jax.jit`` of the step, with shardings and a donated state."""
        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_state)
        return jax.jit(
            self._step,
            in_shardings=(shardings, self.batch_shardings),
            out_shardings=(shardings, NamedSharding(self.mesh, PartitionSpec())),
            donate_argnums=0,
        )

    @functools.cached_property
    def traced(self) -> Any:
        """The traced step: tracing happens here, once, for ``lower`` and ``executed_flops``."""
        batch = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.batch_shardings[name])
            for name, x in self.batch_spec.items()
        }
        return self.jitted_step.trace(self.abstract_state, batch)

    def lower(self) -> Any:
        """The step lowered for the mesh's devices, which need not exist."""
        return self.traced.lower()

    @functools.cached_property
    def executed_flops(self) -> float | None:
        """FLOPs that one step executes on the whole mesh, recomputation included.

        None where a loop of unknown length holds matrix products: a step that cannot be
        counted can still train.
        """
        try:
            return float(flops.count_jaxpr(self.traced.jaxpr).flops)
        except UserError:
            return None

    @functools.cached_property
    def compiled(self) -> Any:
        """The compiled step; compiling happens here, once."""
        return self.lower().compile()

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        """One update. ``state`` is donated: use the returned one.

        Returns:
          The new state, and metrics: ``Mean``s (``loss`` and the objective's) and
          float32 scalars (``grad_norm`` before clipping, ``param_norm``, ``lr``).
        """
        return self.compiled(state, batch)
