"""The verbs of text: parse, call, nothing more."""

import argparse
import contextlib
import sys

from vitax.console import on_the_host, show
from vitax.core.errors import EXIT_DONE, UserError


def predict(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import predict, predict_text

    form = predict.chosen_format(args.format, args.json, args.output)
    if args.images or args.attention or form == "csv":
        raise UserError("predict: --text and --question go without image files, --attention and --format csv.")
    predict.check_target("--output", args.output)
    predict.check_target("--features", args.features, (".npz",))
    request = (args.text, args.pair, args.question, args.passage, args.features, args.topk, args.batch_size)
    predict_text.run(args.checkpoint, rest, predict_text.Asked(*request), form, args.output)
    return EXIT_DONE


def generate(args: argparse.Namespace, rest: list[str]) -> int:
    from vitax import generation, given_text
    from vitax.generate.sampling import Sampling

    drawn = (args.temperature, args.top_k, args.top_p) != (None, None, None)
    given = [*(args.prompt or ()), *(args.source or ())]
    several = len(given) > 1 or any(map(given_text.is_file, args.source or ()))
    temperature, top_p = (1.0 if x is None else x for x in (args.temperature, args.top_p))
    request = generation.Request(
        prompts=tuple(args.prompt or ()),
        sources=tuple(line for source in args.source or () for line in given_text.lines(source, "--source")),
        sampling=Sampling(temperature, args.top_k or 0, top_p) if drawn else None,
        beams=args.beam,
        length_penalty=args.length_penalty,
        max_tokens=args.max_tokens,
        stop=tuple(args.stop or ()),
        seed=args.seed,
    )
    request.check(stream=args.stream)
    begun = False

    def emit(text: str) -> None:
        nonlocal begun
        print(text if begun else "".join([*request.prompts, text]), end="", flush=True)
        begun = True

    # What is streamed with --json goes to stderr, where progress goes.
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        rows = generation.generate(args.checkpoint, request, rest, emit if args.stream else None)
        if args.stream:
            emit("\n")  # behind the prompt, where nothing continues it
    if args.json or not args.stream:
        show(args, rows if several else rows[0], [row.get("prompt", "") + row["text"] for row in rows])
    return EXIT_DONE


def tokenizer(args: argparse.Namespace, rest: list[str]) -> int:
    if args.below == "export":
        on_the_host()
        from vitax import carried_tokenizers

        rows = carried_tokenizers.export(args.checkpoint, args.out)
        show(args, rows, carried_tokenizers.export_lines(rows))
        return EXIT_DONE
    from vitax import tokenizer_training

    text = tokenizer_training.read(args.paths, args.field, args.config, rest)
    row = tokenizer_training.train(text, args.kind, args.vocab_size, args.out, args.lowercase)
    show(args, row, tokenizer_training.lines(row))
    return EXIT_DONE
