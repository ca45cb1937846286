"""The discriminator D (QJ in the paper): s = D(x, r), equation 1 of arXiv 2405.13014.

Encoder, maximum over tokens, two linear layers, as the paper's review describes it. The output is a
logit; s in (0, 1) is its sigmoid, which `score.py` takes.

Shape letters: S texts, T tokens, H hidden size.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, T5EncoderModel

from qcrd_core.config.models import FolderModel, HubModel, ScratchEncoder
from qcrd_core.errors import ConfigError
from qcrd_core.ids import derive_seed
from qcrd_core.student.fused import fuse
from qcrd_core.student.weights import t5_config

_HEAD = "head.safetensors"


class Discriminator(nn.Module):
    """Logit of a text's quality; its sigmoid is the score."""

    def __init__(self, encoder: Any) -> None:
        """Put a fresh head on an encoder."""
        super().__init__()
        fuse(encoder)  # replaces slow modules in place; the weights stay
        self.encoder = encoder
        size = encoder.config.hidden_size
        # The review gives two layers. That the first keeps the width and a ReLU follows is ours.
        self.head = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 1))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Compute the logits of texts.

        Args:
            ids: Token ids of `question, rationale`, [S, T].
            mask: 1 on real tokens, [S, T].

        Returns:
            Logits, [S].
        """
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state  # [S, T, H]
        # Padding must never be the maximum, so that a score is the same in any batch.
        hidden = hidden.masked_fill(~mask.bool()[..., None], -torch.inf)  # [S, T, H]
        pooled = hidden.amax(dim=1)  # [S, H]
        logits: Tensor = self.head(pooled)[:, 0]  # [S, 1] -> [S]
        return logits

    def save(self, folder: Path) -> None:
        """Write the encoder as a Hugging Face folder and the head beside it."""
        self.encoder.save_pretrained(folder, safe_serialization=True)
        save_file(self.head.state_dict(), folder / _HEAD)
        kind = {"encoder": type(self.encoder).__name__}
        (folder / "discriminator.json").write_text(json.dumps(kind), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Discriminator":
        """Read what `save` wrote."""
        discriminator = cls(_load_encoder(folder, None))
        discriminator.head.load_state_dict(load_file(folder / _HEAD))
        return discriminator


def make_discriminator(
    weights: HubModel | FolderModel | ScratchEncoder, tokenizer: Any, seed: int
) -> Discriminator:
    """Make an untrained discriminator.

    Args:
        weights: Where the encoder comes from; an encoder-decoder model gives its encoder half.
        tokenizer: Tokenizer that an encoder from scratch is sized for.
        seed: Run seed; head and encoder from scratch are the same for the same seed.

    Returns:
        The model, float32.

    Raises:
        ConfigError: If the encoder cannot be loaded.
    """
    torch.manual_seed(derive_seed(seed, "discriminator weights"))
    if isinstance(weights, ScratchEncoder):
        return Discriminator(T5EncoderModel(t5_config(weights, tokenizer)))
    if isinstance(weights, FolderModel):
        return Discriminator(_load_encoder(weights.path, None))
    return Discriminator(_load_encoder(weights.name, weights.revision))


def _load_encoder(source: str | Path, revision: str | None) -> Any:
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        # AutoModel would load T5's decoder too.
        kind = T5EncoderModel if config.model_type in {"t5", "mt5"} else AutoModel
        return kind.from_pretrained(
            source, revision=revision, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        msg = f"discriminator.model must be an encoder; got {source} ({reason})."
        raise ConfigError(msg) from error
