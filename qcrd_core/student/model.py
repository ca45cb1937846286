"""T5-type and causal students behind one interface.

    context = student.read(prompt_ids, prompt_mask)
    nll = student.nll(context, question, target_ids, target_mask)

`read` takes each question once; `nll` then scores any number of target sequences against it. A T5
encodes in `read` and expands the encoder's states. A causal model keeps its prompt's keys and
values for sequences scored without gradient, and reads prompt and target together where a gradient
must flow.

Shape letters: Q prompts, S target sequences, T tokens, H hidden size, V vocabulary.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from qcrd_core.losses import token_mean_nll


@dataclass(frozen=True)
class Context:
    """What `read` made of the prompts."""

    prompt_ids: Tensor
    """[Q, T]."""
    prompt_mask: Tensor
    """[Q, T], 1 on real tokens."""
    states: Tensor | None
    """T5: encoder output, [Q, T, H], with gradient. Causal: None."""


class Student(nn.Module):
    """A Hugging Face model under the interface above."""

    def __init__(self, model: Any) -> None:
        """Wrap `model`; its parameters stay its own."""
        super().__init__()
        self.model = model

    @abstractmethod
    def read(self, prompt_ids: Tensor, prompt_mask: Tensor) -> Context:
        """Read each prompt once.

        Args:
            prompt_ids: Right-padded token ids, [Q, T].
            prompt_mask: 1 on real tokens, [Q, T].

        Returns:
            What `nll` needs.
        """

    @abstractmethod
    def _nll(self, context: Context, question: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Token mean of each target, [S]."""

    def nll(
        self,
        context: Context,
        question: Tensor,
        target_ids: Tensor,
        target_mask: Tensor,
        *,
        num_buckets: int = 1,
    ) -> Tensor:
        """Score targets, in buckets of similar length so that little padding is computed.

        Args:
            context: From `read`.
            question: Which prompt each target answers, [S], in [0, Q).
            target_ids: Right-padded targets, end token included, [S, T].
            target_mask: 1 on real tokens, [S, T].
            num_buckets: Forward passes to split the targets over.

        Returns:
            CE(target | prompt), token mean, [S], nats.
        """
        if num_buckets <= 1 or target_ids.shape[0] < 2 * num_buckets:
            return self._nll(context, question, target_ids, target_mask)
        order = target_mask.sum(dim=1).argsort()
        pieces = []
        for rows in order.tensor_split(num_buckets):
            longest = int(target_mask[rows].sum(dim=1).max())
            ids, mask = target_ids[rows, :longest], target_mask[rows, :longest]
            pieces.append(self._nll(context, question[rows], ids, mask))
        return torch.cat(pieces)[order.argsort()]


class Seq2SeqStudent(Student):
    """T5, mT5, Flan-T5: the encoder runs once a question."""

    def read(self, prompt_ids: Tensor, prompt_mask: Tensor) -> Context:
        """Encode the prompts; see `Student.read`."""
        states = self.model.get_encoder()(
            input_ids=prompt_ids, attention_mask=prompt_mask
        ).last_hidden_state
        return Context(prompt_ids, prompt_mask, states)

    def _nll(self, context: Context, question: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        if context.states is None:
            msg = "A Seq2SeqStudent scores contexts that it has read itself."
            raise TypeError(msg)
        width = int(context.prompt_mask[question].sum(dim=1).max())
        hidden = self.model.decoder(
            input_ids=self._shift_right(ids),
            encoder_hidden_states=context.states[question, :width],
            encoder_attention_mask=context.prompt_mask[question, :width],
            use_cache=False,
        ).last_hidden_state
        real = mask.bool()
        # Only real tokens reach the vocabulary: a third of a padded batch would be wasted on it.
        hidden = hidden[real]
        if getattr(self.model.config, "scale_decoder_outputs", False):
            hidden = hidden * self.model.config.d_model**-0.5
        logits = self.model.lm_head(hidden)
        sequence = real.nonzero()[:, 0]
        return token_mean_nll(logits, ids[real], sequence, ids.shape[0])

    def _shift_right(self, ids: Tensor) -> Tensor:
        start = torch.full_like(ids[:, :1], self.model.config.decoder_start_token_id)
        return torch.cat([start, ids[:, :-1]], dim=1)

    def generate_inputs(self, context: Context) -> dict[str, Any]:
        """Arguments for `model.generate` that reuse the encoder's states."""
        return {
            "encoder_outputs": BaseModelOutput(last_hidden_state=context.states),
            "attention_mask": context.prompt_mask,
        }


class CausalStudent(Student):
    """Llama, Qwen, SmolLM and other decoder-only models."""

    def read(self, prompt_ids: Tensor, prompt_mask: Tensor) -> Context:
        """Keep the prompts; see `Student.read`."""
        return Context(prompt_ids, prompt_mask, None)

    def _nll(self, context: Context, question: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._nll_joined(context, question, ids, mask)
        return self._nll_cached(context, question, ids, mask)

    def _nll_joined(self, context: Context, question: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        # Prompt padding sits between prompt and target, so positions are counted over real tokens.
        prompt_mask = context.prompt_mask[question]
        joined_mask = torch.cat([prompt_mask, mask], dim=1)
        hidden = self._hidden(
            torch.cat([context.prompt_ids[question], ids], dim=1), joined_mask, None
        )
        # The token before target position t: the prompt's last real token for t = 0.
        first = prompt_mask.sum(dim=1, keepdim=True) - 1
        rest = prompt_mask.shape[1] + torch.arange(ids.shape[1] - 1, device=ids.device)
        before = torch.cat([first, rest.expand(ids.shape[0], -1)], dim=1)
        picked = hidden.gather(1, before[..., None].expand(-1, -1, hidden.shape[-1]))
        return self._score(picked, ids, mask)

    def _nll_cached(self, context: Context, question: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        cache = DynamicCache()
        prompt_hidden = self._hidden(context.prompt_ids, context.prompt_mask, cache)
        last = (context.prompt_mask.sum(dim=1) - 1)[:, None, None]
        first = prompt_hidden.gather(1, last.expand(-1, -1, prompt_hidden.shape[-1]))[question]
        if ids.shape[1] == 1:
            return self._score(first, ids, mask)
        cache.batch_select_indices(question)
        full_mask = torch.cat([context.prompt_mask[question], mask[:, :-1]], dim=1)
        rest = self._hidden(ids[:, :-1], full_mask, cache)
        return self._score(torch.cat([first, rest], dim=1), ids, mask)

    def _hidden(self, ids: Tensor, mask: Tensor, cache: DynamicCache | None) -> Tensor:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self.model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _score(self, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        real = mask.bool()
        logits = self.model.lm_head(hidden[real])
        return token_mean_nll(logits, ids[real], real.nonzero()[:, 0], ids.shape[0])


def wrap(model: Any) -> Student:
    """Choose the interface by the model's own configuration."""
    return Seq2SeqStudent(model) if model.config.is_encoder_decoder else CausalStudent(model)
