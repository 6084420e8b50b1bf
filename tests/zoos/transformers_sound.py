"""transformers: sound and time series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.zoos.specimen import Specimen
from tests.zoos.transformers_small import VOCABULARY, specimen

WAVES = {
    "vocab_size": VOCABULARY,
    "conv_dim": [16, 16, 16],
    "conv_stride": [4, 4, 2],
    "conv_kernel": [8, 4, 4],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_length": 2,
    "num_codevectors_per_group": 4,
    "num_negatives": 3,
}
SQUEEZED = {**WAVES, "squeeze_factor": 2}
SERIES = {
    "prediction_length": 4,
    "context_length": 8,
    "lags_sequence": [1, 2],
    "num_time_features": 1,
}
S2T = {"conv_channels": 16, "input_channels": 1, "input_feat_per_channel": 80}
SPEECHT5 = {**WAVES, "encoder_max_relative_position": 8, "decoder_start_token_id": 1, "speech_decoder_prenet_units": 16}
CODEC = {"num_filters": 4, "codebook_size": 16, "codebook_dim": 32, "upsampling_ratios": [4, 2]}
DECOMPOSED = {"label_length": 4, "moving_average": 3}
PATCHES = {"context_length": 16, "prediction_length": 4, "patch_length": 4}
DECISIONS = {"state_dim": 5, "act_dim": 3, "max_ep_len": 20}


def specimens() -> Iterator[Specimen]:
    """All of them."""
    for name, kind, overrides in (
        ("Wav2Vec2ForCTC", "wav2vec2", WAVES),
        ("Wav2Vec2ConformerForCTC", "wav2vec2-conformer", WAVES),
        ("HubertForCTC", "hubert", WAVES),
        ("WavLMForCTC", "wavlm", WAVES),
        ("UniSpeechForCTC", "unispeech", WAVES),
        ("UniSpeechSatForCTC", "unispeech-sat", WAVES),
        ("Data2VecAudioForCTC", "data2vec-audio", {**WAVES, "num_conv_pos_embeddings": 1, "conv_pos_kernel_size": 5}),
        ("SEWForCTC", "sew", SQUEEZED),
        ("SEWDForCTC", "sew-d", SQUEEZED),
    ):
        yield specimen(name, kind, _waves, **overrides)
    yield specimen("Wav2Vec2ForSequenceClassification", "wav2vec2", _spoken_words, **WAVES)
    yield specimen("Wav2Vec2ForPreTraining", "wav2vec2", _codes, **WAVES)
    yield specimen("Wav2Vec2BertForCTC", "wav2vec2-bert", _features(20, 160, VOCABULARY), vocab_size=VOCABULARY)
    yield specimen("WhisperForConditionalGeneration", "whisper", _mel(80, 128))
    yield specimen("Speech2TextForConditionalGeneration", "speech_to_text", _mel_last(40, 80), **S2T)
    yield specimen("SpeechT5ForSpeechToText", "speecht5", _waves, **SPEECHT5)
    yield specimen("MoonshineForConditionalGeneration", "moonshine", _waves, pad_token_id=0)
    yield specimen(
        "ASTForAudioClassification",
        "audio-spectrogram-transformer",
        _spectrogram,
        max_length=32,
        num_mel_bins=16,
        patch_size=8,
        time_stride=8,
        frequency_stride=8,
    )
    yield specimen("EncodecModel", "encodec", _sounds, **CODEC)
    yield specimen("PatchTSTForPrediction", "patchtst", _patches, **PATCHES)
    yield specimen("PatchTSMixerForPrediction", "patchtsmixer", _patches, **PATCHES)
    for name, kind in (
        ("TimeSeriesTransformerForPrediction", "time_series_transformer"),
        ("InformerForPrediction", "informer"),
        ("AutoformerForPrediction", "autoformer"),
    ):
        yield specimen(name, kind, _series, **SERIES, **(DECOMPOSED if kind == "autoformer" else {}))
    yield specimen("DecisionTransformerModel", "decision_transformer", _decisions, **DECISIONS)


def _words(length: int = 6) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (2, length))


def _waves() -> dict[str, Any]:
    return {"input_values": torch.randn(2, 1000), "labels": _words()}


def _sounds() -> dict[str, Any]:
    return {"input_values": torch.randn(2, 1, 320)}


def _spoken_words() -> dict[str, Any]:
    return {"input_values": torch.randn(2, 1000), "labels": torch.randint(0, 2, (2,))}


def _codes() -> dict[str, Any]:
    frames = 30
    masked = torch.zeros(2, frames, dtype=torch.bool)
    masked[:, 3:9] = True
    negatives = torch.randint(0, 2 * frames, (2, frames, 3))
    return {"input_values": torch.randn(2, 1000), "mask_time_indices": masked, "sampled_negative_indices": negatives}


def _features(length: int, width: int, words: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"input_features": torch.randn(2, length, width), "labels": torch.randint(3, words, (2, 6))}


def _mel(bins: int, frames: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"input_features": torch.randn(2, bins, frames), "labels": _words()}


def _mel_last(frames: int, bins: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"input_features": torch.randn(2, frames, bins), "labels": _words()}


def _spectrogram() -> dict[str, Any]:
    return {"input_values": torch.randn(2, 32, 16), "labels": torch.randint(0, 2, (2,))}


def _patches() -> dict[str, Any]:
    return {"past_values": torch.randn(2, 16, 1), "future_values": torch.randn(2, 4, 1)}


def _series() -> dict[str, Any]:
    return {
        "past_values": torch.rand(2, 10),
        "past_time_features": torch.rand(2, 10, 1),
        "past_observed_mask": torch.ones(2, 10),
        "future_values": torch.rand(2, 4),
        "future_time_features": torch.rand(2, 4, 1),
    }


def _decisions() -> dict[str, Any]:
    return {
        "states": torch.randn(2, 4, 5),
        "actions": torch.randn(2, 4, 3),
        "rewards": torch.randn(2, 4, 1),
        "returns_to_go": torch.randn(2, 4, 1),
        "timesteps": torch.arange(4).repeat(2, 1),
        "attention_mask": torch.ones(2, 4),
    }
