"""``data`` of a recipe whose examples are windows of text."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from vitax.construct import call, check, construct, fields_of
from vitax.core.bounds import NotNegative, Positive
from vitax.core.errors import UserError, pick, suggest
from vitax.core.ramp import Ramp
from vitax.data.text_pipeline import TextPipeline
from vitax.data.text_sources import TEXT_SOURCES
from vitax.data.tokenizers import TOKENIZERS


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """``data`` of a language recipe (and of an evaluator, whose missing fields come from it).

    Attributes:
      source: spec of a source of ``data.text_sources.TEXT_SOURCES``.
      num_examples: windows, stated here so that plans never open data; checked at training.
      length: T, tokens of a window.
      vocab_size: of the model; at least that of the tokenizer.
      tokenizer: spec of a tokenizer of ``data.tokenizers.TOKENIZERS``.
      batch_size: windows a step, over all devices.
      shuffle: a new permutation each epoch.
      seed: of the order; the recipe's ``seed`` if left out.
      batch_ramp: ``start`` and ``examples`` of ``core.ramp.Ramp``: the first batches are smaller.
      threads: that make batches; as many as there are cores if left out.
      prefetch: batches made ahead.
    """

    TABLE: ClassVar[Mapping[str, Any]] = TEXT_SOURCES
    PIPELINE: ClassVar[Any] = TextPipeline
    SHARED: ClassVar[tuple[str, ...]] = ("length", "vocab_size", "tokenizer", "batch_size", "threads", "prefetch")

    source: Mapping[str, Any]
    num_examples: Positive
    length: Positive
    vocab_size: Positive = 257
    tokenizer: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"kind": "bytes"})
    batch_size: Positive = 64
    shuffle: bool = True
    seed: NotNegative | None = None
    batch_ramp: Mapping[str, Any] | None = None
    threads: Positive | None = None
    prefetch: Positive = 2

    # What the examples are called.
    ROWS: ClassVar = "windows"
    # Text has no image size.
    size: ClassVar[None] = None

    @property
    def given(self) -> dict[str, Any]:
        """Fields of models and objectives that the data decide."""
        return {"vocab_size": self.vocab_size, "context": self.length}

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch."""
        b = self.batch_size
        window = jax.ShapeDtypeStruct((b, self.length), np.int32)
        return {
            "tokens": window,
            "targets": window,
            "segment_ids": window,
            "mask": jax.ShapeDtypeStruct((b,), np.bool_),
            "index": jax.ShapeDtypeStruct((b,), np.int32),
        }

    @property
    def ramp(self) -> Ramp | None:
        """The growth of the first batches, or None."""
        return None if self.batch_ramp is None else call(Ramp, self.batch_ramp, "data.batch_ramp")

    @property
    def of_source(self) -> dict[str, Any]:
        """Fields of the source that this kind of data has besides."""
        return {}

    @property
    def of_pipeline(self) -> dict[str, Any]:
        """Fields of the pipeline that this kind of data has besides."""
        return {}

    def check(self, where: str) -> None:
        """Checks source and tokenizer without opening anything.

        Raises:
          UserError: an unknown kind or field.
        """
        self._check_source(self.source, f"{where}.source")
        if self.batch_ramp is not None and where != "data":
            raise UserError(f"{where}.batch_ramp: only batches that are trained on grow. Leave it out.")
        if self.ramp is not None and self.ramp.start > self.batch_size:
            raise UserError(
                f"{where}.batch_ramp.start: {self.ramp.start}, but batches grow to {self.batch_size} "
                f"({where}.batch_size)."
            )
        self.build_tokenizer(where)

    def _check_source(self, source: Any, where: str) -> None:
        if not isinstance(source, Mapping):
            raise UserError(f"{where}: expected a source with a `kind`, got {source!r}.")
        fields = fields_of(pick(self.TABLE, source.get("kind", ""), f"{where}.kind"))
        for key in source:
            if key != "kind" and key not in fields:
                raise UserError(
                    f"{where}.{key}: unknown field.{suggest(key, fields)} Valid: {', '.join(sorted(fields))}."
                )
        for name, inner in check(source.get("sources") or {}, Mapping, f"{where}.sources").items():
            self._check_source(inner, f"{where}.sources.{name}")

    def open(self, spec: Mapping[str, Any], where: str, tokenizer: Any) -> Any:
        """A live source from its spec, and before it those that it is made of."""
        plain = dict(spec)
        if "sources" in plain:
            inner = plain["sources"].items()
            plain["sources"] = {name: self.open(one, f"{where}.sources.{name}", tokenizer) for name, one in inner}
        given = {"length": self.length, "tokenizer": tokenizer, **self.of_source}
        return construct(self.TABLE, plain, where, **given)

    def build_tokenizer(self, where: str = "data") -> Any:
        """The tokenizer."""
        return construct(TOKENIZERS, self.tokenizer, f"{where}.tokenizer")

    def build_source(self, where: str = "data") -> Any:
        """The source, with what the recipe states about it checked: opens it."""
        tokenizer = self.build_tokenizer(where)
        if tokenizer.vocab_size > self.vocab_size:
            raise UserError(
                f"{where}.vocab_size: {self.vocab_size}, but the tokenizer has {tokenizer.vocab_size} ids. "
                f"Set --config.{where}.vocab_size={tokenizer.vocab_size}."
            )
        source = self.open(self.source, f"{where}.source", tokenizer)
        if len(source) != self.num_examples:
            raise UserError(
                f"{where}.num_examples: the recipe states {self.num_examples}, the source holds {len(source)} "
                f"{self.ROWS} of {self.length} tokens. Set --config.{where}.num_examples={len(source)}."
            )
        return source

    def pipeline(
        self,
        seed: int,
        where: str = "data",
        source: Any = None,
        process: tuple[int, int] | None = None,
    ) -> Any:
        """The pipeline of a process (index, count), by default this one, over a source that is open or one it opens."""
        index, count = process or (jax.process_index(), jax.process_count())
        return self.PIPELINE(
            self.build_source(where) if source is None else source,
            vocab_size=self.vocab_size,
            **self.of_pipeline,
            batch_size=self.batch_size,
            seed=seed if self.seed is None else self.seed,
            shuffle=self.shuffle,
            threads=self.threads,
            prefetch=self.prefetch,
            ramp=self.ramp,
            process_index=index,
            process_count=count,
        )
