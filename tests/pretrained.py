"""Small models of transformers with fixed seeds, as folders: real architectures, untrained."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers as t


def _save(folder: Path, model: t.PreTrainedModel) -> Path:
    model.save_pretrained(folder)
    return folder


def image_model(folder: Path) -> Path:
    """A vision transformer."""
    torch.manual_seed(0)
    config = t.Dinov2Config(
        image_size=28, patch_size=14, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        mlp_ratio=2,
    )  # fmt: skip
    folder.mkdir()
    settings = {"crop_size": {"height": 28, "width": 28}, "image_mean": [0.4] * 3,
                "image_std": [0.2] * 3}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return _save(folder, t.Dinov2Model(config))


def narrowing_model(folder: Path) -> Path:
    """A convolutional network whose maps widen from stage to stage."""
    torch.manual_seed(0)
    config = t.ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, image_size=32)
    return _save(folder, t.ConvNextModel(config))


def video_model(folder: Path) -> Path:
    """A video transformer of clips of four frames."""
    torch.manual_seed(0)
    config = t.VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, tubelet_size=2, hidden_size=16,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip
    return _save(folder, t.VideoMAEModel(config))


def sound_model(folder: Path) -> Path:
    """A model of speech, 50 states a second."""
    torch.manual_seed(0)
    config = t.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8,) * 7, num_feat_extract_layers=7, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    t.Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(folder)
    return _save(folder, t.Wav2Vec2Model(config))


def spectrogram_model(folder: Path) -> Path:
    """A spectrogram transformer: patches of a fixed stretch of sound."""
    torch.manual_seed(0)
    config = t.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_length=64, num_mel_bins=32, patch_size=16,
    )  # fmt: skip
    t.ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder)
    return _save(folder, t.ASTModel(config))


def picture_and_text_model(folder: Path) -> Path:
    """A network for pictures and for words."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 32}  # fmt: skip
    config = t.CLIPConfig(
        text_config={**sizes, "vocab_size": 50}, projection_dim=16,
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )  # fmt: skip
    folder.mkdir()
    settings = {"crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return _save(folder, t.CLIPModel(config))


def language_model(folder: Path, words: list[str]) -> Path:
    """A causal language model that knows some words, letters and spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ'.,;"
    marks = ["<unk>", *letters, *(f"Ġ{word}" for word in words), *words, "Ġ"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(marks))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>",
                                     model_max_length=64)  # fmt: skip
    fast.save_pretrained(folder)
    config = t.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return _save(folder, t.LlamaModel(config))


def settings_of(folder: Path) -> dict[str, object]:
    """Return a model's config as it is saved."""
    found: dict[str, object] = json.loads((folder / "config.json").read_text())
    return found
