"""A file of questions as SQuAD writes them."""

import json

CONTEXT = "The film  was good, not bad. It was the (Bad) film; a Good one to be seen 1984 and 85."


def squad(context, *questions):
    """A file's content: questions are (id, text, answers), an answer (text, start)."""
    qas = [
        {"id": i, "question": q, "answers": [{"text": t, "answer_start": s} for t, s in a], "is_impossible": not a}
        for i, q, a in questions
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]})
