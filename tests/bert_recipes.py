"""Small data in the place of that which the recipes of BERT ask for."""

import tempfile
from pathlib import Path

from tests.questions import CONTEXT, squad

FOLDER = tempfile.TemporaryDirectory()
VOCAB = {"kind": "wordpiece", "path": "embedded:new_testament"}
QUESTIONS = [("q1", "Who was it?", [("Good one", CONTEXT.index("Good one"))]), ("q2", "Who is not?", [])]
# kind of objective -> source, examples of it, and other fields of the data.
DATA = {
    "masked_language_model": ({"kind": "bible_chapters", "part": "test"}, 317, {"max_predictions": 10}),
    "text_classification": ({"kind": "verse_pairs", "part": "test", "limit": 20}, 20, {"num_classes": 2}),
    "span": ({"kind": "squad", "path": f"{FOLDER.name}/squad.json", "stride": 7}, 2, {}),
}


def shrunk(config):
    """The config with these data and short sequences; the model is small already."""
    Path(FOLDER.name, "squad.json").write_text(squad(CONTEXT, *QUESTIONS))
    source, num_examples, fields = DATA[config.objective.kind]
    config.data.update({"num_examples": num_examples, "length": 64, "batch_size": 8, "vocab_size": 3_000, **fields})
    config.data.source, config.data.tokenizer = source, VOCAB
    for name in config.evaluators:
        config.evaluators[name].data = {"source": source, "num_examples": num_examples, "batch_size": 16}
    config.model.context = 64
    return config
