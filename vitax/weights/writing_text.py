"""GPT and BERT in the names of Hugging Face, with the tokenizer beside them."""

from collections.abc import Mapping
from typing import Any

from vitax.checkpoint.names import bert as bert_names
from vitax.checkpoint.names import gpt as gpt_names
from vitax.construct import construct
from vitax.core.errors import UserError
from vitax.data.tokenizers import TOKENIZERS, Bytes
from vitax.weights.reading import Published
from vitax.weights.writing_parts import Written, hf_labels, renamed, torch_files

# Names of GPT-2's first files -> what its later ones are called.
_RENAMED = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}
# Head -> architecture there, and its layout.
_BERTS = {
    "pretraining": ("BertForPreTraining", bert_names.BERT),
    "mlm": ("BertForMaskedLM", bert_names.BERT),
    "classification": ("BertForSequenceClassification", bert_names.BERT),
    "span": ("BertForQuestionAnswering", bert_names.SPAN),
    "none": ("BertModel", bert_names.MODEL),
}


def gpt(found: Published) -> Written:
    """Hugging Face's GPT-2, or its GPT-1 where norms come after sums."""
    model = found.fields
    beside, mark, lines = _tokenizer(found, "GPT2Tokenizer")
    shared = {
        "vocab_size": model["vocab_size"],
        "n_positions": model["context"],
        "n_embd": model["width"],
        "n_layer": model["depth"],
        "n_head": model["num_heads"],
        "layer_norm_epsilon": model["norm_eps"],
        "embd_pdrop": model["dropout"],
        "resid_pdrop": model["dropout"],
        "attn_pdrop": model["attention_dropout"],
        "bos_token_id": mark,
        "eos_token_id": mark,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    if model["norm"] == "post":
        if model["mlp_dim"] != 4 * model["width"]:
            raise UserError(f"--to hf: GPT-1 has MLPs of four times the width, not {model['mlp_dim']}.")
        layout, own = gpt_names.GPT1, {"architectures": ["OpenAIGPTLMHeadModel"], "model_type": "openai-gpt"}
        own |= {"afn": "gelu"}
    else:
        layout, own = gpt_names.GPT2, {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
        own |= {"activation_function": "gelu_new", "n_inner": model["mlp_dim"]}
    return torch_files(renamed(layout, found, found.params), {"config.json": {**own, **shared}, **beside}, lines)


def bert(found: Published) -> Written:
    """Hugging Face's BERT with the same head."""
    model = found.fields
    architecture, layout = _BERTS[model["head"]]
    beside, _, lines = _tokenizer(found, "BertTokenizer")
    config = {
        "architectures": [architecture],
        "model_type": "bert",
        "vocab_size": model["vocab_size"],
        "max_position_embeddings": model["context"],
        "hidden_size": model["width"],
        "num_hidden_layers": model["depth"],
        "num_attention_heads": model["num_heads"],
        "intermediate_size": model["mlp_dim"],
        "type_vocab_size": model["num_types"],
        "hidden_act": "gelu",
        "layer_norm_eps": model["norm_eps"],
        "hidden_dropout_prob": model["dropout"],
        "attention_probs_dropout_prob": model["attention_dropout"],
        "tie_word_embeddings": True,
        "dtype": "float32",
        **(hf_labels(found) if model["head"] == "classification" else {}),
    }
    return torch_files(renamed(layout, found, found.params), {"config.json": config, **beside}, lines)


def _tokenizer(found: Published, named: str) -> tuple[Mapping[str, Any], int | None, tuple[str, ...]]:
    """Files of the tokenizer, the id of its mark between documents, and lines where something is left out."""
    spec = found.recipe["data"].get("tokenizer") or {"kind": "bytes"}
    tokenizer = construct(TOKENIZERS, spec, "data.tokenizer")
    if isinstance(tokenizer, Bytes):
        mark = tokenizer.end_of_document
        return {}, mark, (f"tokenizer: none, since ids are bytes, which other programs have not; {mark} is the mark",)
    try:
        held, mark = tokenizer.files, tokenizer.end_of_document
    except UserError as error:
        return {}, None, (left_out_tokenizer(error),)
    config = {"tokenizer_class": named} | ({"do_lower_case": spec["lowercase"]} if "lowercase" in spec else {})
    files = {_RENAMED.get(name, name): content for name, content in held.items()}
    return {**files, "tokenizer_config.json": config}, mark, ()


def left_out_tokenizer(error: UserError) -> str:
    """The line for a tokenizer that is not where it was, or is none that is read here."""
    return f"tokenizer: left out ({error})"
