"""The reference in docs/ is what the code says, and leaves nothing out."""

import importlib.util
from pathlib import Path

import pytest

from vitax import arguments, recipe
from vitax.specs import images, text

ROOT = Path(__file__).parent.parent
COMMAND = "python scripts/make_reference.py"


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "scripts" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_files_are_what_the_code_says(reference):
    stale = [str(p.relative_to(ROOT)) for p, text in reference.made().items() if p.read_text() != text]
    assert not stale, f"stale: {', '.join(stale)}. Run `{COMMAND}` and commit what it writes."


def test_every_field_says_what_it_is(reference):
    silent = []
    for part in reference.PARTS:
        for kind, target in (part.table or ({"": part.target} if part.target else {})).items():
            silent += [f"{part.path} {kind}: {f.name}" for f in reference.fields(target, part) if not f.text]
    assert not silent, f"without a line in the docstring's Attributes: {silent}"


def test_every_part_kind_and_verb_has_a_heading(reference):
    fields, verbs = ("\n".join(lines()) for lines in (reference.recipe_lines, reference.verbs_lines))
    for name in recipe.TOP_LEVEL:
        assert f"\n## {name}\n" in fields
    for part in reference.PARTS:
        for kind in part.table or ():
            assert f"\n### {part.path}: {kind}\n" in fields
    for name in [*arguments.VERBS, *(f"{v} {below}" for v, names in arguments.BELOW.items() for below in names)]:
        assert f"\n## vitax {name}\n" in verbs


def test_fields_that_come_from_elsewhere_are_those_that_the_recipe_gives(reference, tiny, monkeypatch):
    given = {}

    def record(suffix):
        def construct(table, spec, where, **values):
            name = where.rstrip(".0123456789") + (suffix if where == "data.source" else "")
            if not where.startswith("evaluators."):
                given[name] = given.get(name, set()) | set(values)
            return build(table, spec, where, **values)

        return construct

    build = recipe.construct
    for module, suffix in ((recipe, ""), (images, ""), (text, " (text)")):
        monkeypatch.setattr(module, "construct", record(suffix))
    for checked in (recipe.build(tiny(evaluators=None)), recipe.load("gpt_shakespeare")):
        checked.objective()
        checked.data.build_source()
    parts = {"model", "objective", "data.source", "data.source (text)", "data.tokenizer", "data.ops"}
    assert given.keys() == parts | {"optimizer", "schedule"}
    for part in reference.PARTS:
        if part.path in given:
            assert given[part.path] == {*part.given, *part.hidden}, f"mend PARTS of make_reference.py: {part.path}"


def test_docstrings_are_read_to_the_end_and_with_what_they_inherit(reference):
    class Above:
        """Above.

        Attributes:
          one: first line
            and second: with a colon.
        """

    class Below(Above):
        """Below.

        More text.

        Attributes:
          two, three: both.

        Reference: a paper.
        """

    text, attributes = reference.describe(Below)
    assert text == "Below.\n\nMore text.\n\nReference: a paper."
    assert attributes == {"one": "first line and second: with a colon.", "two": "both.", "three": "both."}
