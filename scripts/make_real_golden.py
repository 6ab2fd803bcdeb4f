"""Writes tests/golden/real/: what the original programs compute with real trained weights.

    python scripts/make_real_golden.py vit_s_focus MODEL.onnx
    python scripts/make_real_golden.py efficientnet_lite0 MODEL.pth
    python scripts/make_real_golden.py minilm_l6 FOLDER

The files are those of scripts/real_weights.py, before they are converted. The first
wants onnx and onnxruntime, the second torch and efficientnet-lite-pytorch==0.1.0 (the
program that these weights were published for, in float64), the third torch and
transformers (in float64); none wants vitax. The images are made from the embedded ones by
``images``; tests make them likewise. The texts are ``SENTENCES``.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
OUT = ROOT / "tests" / "golden" / "real"
EMBEDDED = ROOT / "vitax" / "data" / "embedded" / "fashion_mnist.npz"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The whole sequence after the last norm, in the graph that PyTorch exported.
TOKENS = "/backbone/layernorm/Add_1_output_0"


def images(grey: np.ndarray) -> np.ndarray:
    """uint8 [N, 28, 28, 1] -> float32 [N, 224, 224, 3]: eight times as large, coloured, scaled as for ImageNet."""
    large = np.kron(grey, np.ones((1, 8, 8, 1))) / 255
    coloured = np.concatenate([large, 1 - large, 0.5 * large[:, ::-1]], -1)
    return ((coloured - MEAN) / STD).astype(np.float32)


def vit_s_focus(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """The class token and the mean of the patches after the last norm."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(TOKENS))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (tokens,) = session.run([TOKENS], {session.get_inputs()[0].name: x.transpose(0, 3, 1, 2)})
    return {"features": tokens[:, 0], "patches": tokens[:, 1:].mean(1)}


def efficientnet_lite0(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Logits."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).double().eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(x.transpose(0, 3, 1, 2)).double())
    return {"logits": logits.float().numpy()}


SENTENCES = (
    "A man is playing a guitar on the stage.",
    "Someone plays music in front of people.",
    "The cat sleeps.",
    "Überraschung! Naïve café owners préfèrent l'été (42%).",
    "hello",
    "The train from Vienna to Prague was late, so we missed the boat; nobody seemed to mind much. " * 12,
)


def minilm_l6(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Mean of the last hidden states over real tokens, at unit length; and the pooled vectors."""
    import torch
    from transformers import AutoTokenizer, BertModel

    inputs = AutoTokenizer.from_pretrained(path)(list(SENTENCES), padding=True, return_tensors="pt")
    model = BertModel.from_pretrained(path).double().eval()
    with torch.no_grad():
        output = model(**inputs)
    mask = inputs["attention_mask"][:, :, None]
    mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    features = torch.nn.functional.normalize(mean)
    return {"features": features.float().numpy(), "pooled": output.pooler_output.float().numpy()}


MAKERS: dict[str, Callable[[Path, np.ndarray], dict[str, np.ndarray]]] = {
    "vit_s_focus": vit_s_focus,
    "efficientnet_lite0": efficientnet_lite0,
    "minilm_l6": minilm_l6,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=MAKERS)
    parser.add_argument("path", type=Path)
    args = parser.parse_args()
    with np.load(EMBEDDED) as file:
        grey = file["train_images"][:4]
    outputs = MAKERS[args.name](args.path, images(grey.reshape(-1, 28, 28, 1)))
    OUT.mkdir(parents=True, exist_ok=True)
    np.savez(OUT / f"{args.name}.npz", **outputs)
    print({name: x.shape for name, x in outputs.items()})


if __name__ == "__main__":
    main()
