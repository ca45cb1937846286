"""T5-type and causal students behind one interface.

    context = student.read(prompt_ids, prompt_mask)
    nll = student.nll(context, question, target_ids, target_mask)
    logits, state = student.start(prompt_ids, prompt_mask)
    logits = student.step(state, token_ids)

`read` reads each question once; `nll` then scores any number of target sequences against it. A T5
keeps the encoder's states, a causal model the keys and values of its prompt; both are repeated for
the targets. With gradient checkpointing, a causal model keeps nothing, because a recomputed layer
has no cache: each target reads its prompt again. `start` and `step` decode token by token.

Shape letters: Q prompts, S target sequences, B texts being written, T tokens (T' of a target where
a prompt is meant as well), H hidden size, V vocabulary.
"""

from abc import abstractmethod
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import pad
from transformers import Cache, DynamicCache, EncoderDecoderCache

from qcrd_core.student.buckets import by_length
from qcrd_core.student.decoding_state import (
    DecodeState,
    EncodedPrompts,
    attention_bias,
    decode_cache,
    select_rows,
    with_newest,
)
from qcrd_core.student.fused import fuse

_LOGITS_PER_PIECE = 2**26
"""Logits computed at once without gradient: 256 MiB in float32."""


@dataclass(frozen=True)
class Context:
    """Prompts as `read` has encoded them."""

    prompt_ids: Tensor
    """[Q, T]."""
    prompt_mask: Tensor
    """[Q, T], 1 on real tokens."""
    states: Tensor
    """T5: encoder output, [Q, T, H]. Causal: output at the prompt's last token, [Q, 1, H]; with
    gradient checkpointing nothing, [0]."""
    cache: DynamicCache | None = None
    """Causal: the prompts' keys and values. T5, or with gradient checkpointing: None."""


class Student(nn.Module):
    """A Hugging Face model behind the interface above."""

    def __init__(self, model: Any) -> None:
        """Wrap `model`; its parameters stay its own."""
        super().__init__()
        self.model = model

    @abstractmethod
    def read(self, prompt_ids: Tensor, prompt_mask: Tensor, *, max_buckets: int = 1) -> Context:
        """Read each prompt once.

        Args:
            prompt_ids: Right-padded token ids, [Q, T].
            prompt_mask: 1 on real tokens, [Q, T].
            max_buckets: Most forward passes over which the prompts are split by length; a causal
                model makes one pass, because its prompts share one cache.

        Returns:
            The context for `nll`.
        """

    @abstractmethod
    def start(self, prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, DecodeState]:
        """Read prompts in order to continue them.

        Args:
            prompt_ids: Right-padded token ids, [B, T].
            prompt_mask: 1 on real tokens, [B, T].

        Returns:
            Scores of each text's first token, [B, V], and the state for `step`.
        """

    @abstractmethod
    def step(self, state: DecodeState, token_ids: Tensor) -> Tensor:
        """Read one more token.

        Args:
            state: From `start`; it grows by one token.
            token_ids: Each text's newest token, [B].

        Returns:
            Scores of the token after it, [B, V].
        """

    @abstractmethod
    def _decode(self, context: Context, question: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Output that predicts each target token, padding included, [S, T, H]."""

    @abstractmethod
    def _logits(self, hidden: Tensor) -> Tensor:
        """Scores of the vocabulary, [..., V], from output [..., H]."""

    def nll(
        self,
        context: Context,
        question: Tensor,
        target_ids: Tensor,
        target_mask: Tensor,
        first: Tensor | None = None,
        *,
        max_buckets: int = 1,
    ) -> Tensor:
        """Score targets, in buckets of similar length so that little padding is computed.

        Args:
            context: From `read`.
            question: Which prompt each target answers, [S], in [0, Q).
            target_ids: Right-padded targets, end token included, [S, T].
            target_mask: 1 on real tokens, [S, T].
            first: First token of each target that counts, [S]; earlier ones are context. None: 0.
            max_buckets: Most forward passes over which the targets are split.

        Returns:
            CE(target | prompt), token mean, [S], nats.
        """
        first = torch.zeros_like(question) if first is None else first  # [S]
        buckets = by_length(target_mask, max_buckets)
        pieces = []
        for rows, longest in buckets:
            # Rows of the bucket, without columns that are padding in all of them.
            ids, mask = target_ids[rows, :longest], target_mask[rows, :longest]
            # The ranks of ZeRO-3, which have one bucket, must reach the vocabulary equally often.
            can_split = max_buckets > 1 and not torch.is_grad_enabled()
            pieces.append(
                self._nll(context, question[rows], ids, mask, first[rows], can_split=can_split)
            )
        order = torch.cat([rows for rows, _ in buckets])  # [S], a permutation
        return torch.cat(pieces)[order.argsort()]  # [S], in the order asked for

    def _nll(
        self,
        context: Context,
        question: Tensor,
        ids: Tensor,
        mask: Tensor,
        first: Tensor,
        *,
        can_split: bool,
    ) -> Tensor:
        """CE of the targets of one pass, [S], nats."""
        hidden = self._decode(context, question, ids, mask)  # [S, T, H]
        real = _counted(mask, first)  # [S, T]
        # Only these reach the vocabulary: a third of a padded batch would be wasted on it.
        hidden, targets = hidden[real], ids[real]  # [tokens that count, H], [tokens that count]
        size = len(targets)
        if can_split:  # logits that no gradient needs later need not exist all at once
            size = min(size, max(1, _LOGITS_PER_PIECE // self.model.config.vocab_size))
        pieces = zip(hidden.split(max(1, size)), targets.split(max(1, size)), strict=True)
        nll = torch.cat([token_nll(self._logits(some), aims) for some, aims in pieces])
        return sequence_mean(nll, real.nonzero()[:, 0], ids.shape[0])

    def nll_and_peak(
        self, context: Context, question: Tensor, target_ids: Tensor, target_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score targets, and find the largest probability of each word over all positions.

        Args:
            context: From `read`.
            question: Which prompt each target answers, [S], in [0, Q).
            target_ids: Right-padded targets, end token included, [S, T].
            target_mask: 1 on real tokens, [S, T].

        Returns:
            CE(target | prompt), [S], nats; and the largest probability of each word over all
            positions, those of the padding included, [S, V].
        """
        logits = self._logits(self._decode(context, question, target_ids, target_mask))  # [S, T, V]
        real = target_mask.bool()  # [S, T]
        sequence = real.nonzero()[:, 0]  # [real tokens], in [0, S)
        nll = token_nll(logits[real], target_ids[real])  # [real tokens]
        return sequence_mean(nll, sequence, target_ids.shape[0]), logits.float().softmax(
            dim=-1
        ).amax(dim=1)  # [S], [S, T, V] -> [S, V]


class Seq2SeqStudent(Student):
    """T5, mT5, Flan-T5: the encoder runs once per question."""

    def read(self, prompt_ids: Tensor, prompt_mask: Tensor, *, max_buckets: int = 1) -> Context:
        """Encode the prompts; see `Student.read`."""
        encode, width = self.model.get_encoder(), prompt_ids.shape[1]
        pieces, buckets = [], by_length(prompt_mask, max_buckets)
        for rows, longest in buckets:
            ids, mask = prompt_ids[rows, :longest], prompt_mask[rows, :longest]
            states = encode(input_ids=ids, attention_mask=mask).last_hidden_state
            pieces.append(pad(states, (0, 0, 0, width - longest)))  # [bucket, longest -> T, H]
        order = torch.cat([rows for rows, _ in buckets])  # [Q], a permutation
        return Context(prompt_ids, prompt_mask, torch.cat(pieces)[order.argsort()])  # [Q, T, H]

    def _decode(self, context: Context, question: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        del mask  # targets are padded on the right: no real token sees padding
        # The longest prompt of these targets: a bucket need not attend to the padding of the batch.
        width = int(context.prompt_mask[question].sum(dim=1).max())
        hidden: Tensor = self.model.decoder(
            input_ids=self._shift_right(ids),
            encoder_hidden_states=context.states[question, :width],  # [Q, T, H] -> [S, width, H]
            encoder_attention_mask=context.prompt_mask[question, :width],
            use_cache=False,
        ).last_hidden_state
        return hidden

    def _logits(self, hidden: Tensor) -> Tensor:
        # T5 v1.0 ties its head to the embeddings and scales what it is fed; v1.1 does neither.
        if getattr(self.model.config, "scale_decoder_outputs", False):
            hidden = hidden * self.model.config.d_model**-0.5
        logits: Tensor = self.model.lm_head(hidden)
        return logits

    def _shift_right(self, ids: Tensor) -> Tensor:
        # The decoder sees the token before the one that it predicts.
        start = torch.full_like(ids[:, :1], self.model.config.decoder_start_token_id)
        return torch.cat([start, ids[:, :-1]], dim=1)  # [S, 1] + [S, T - 1]

    def start(self, prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, DecodeState]:
        """Encode prompts and take the start token; see `Student.start`."""
        context = self.read(prompt_ids, prompt_mask)
        bias = attention_bias(prompt_mask, context.states.dtype)
        prompt = EncodedPrompts(context.states, bias, decode_cache())
        state = DecodeState(decode_cache(), prompt_mask[:, :0], prompt)
        begin = torch.full_like(prompt_ids[:, 0], self.model.config.decoder_start_token_id)
        return self.step(state, begin), state

    def step(self, state: DecodeState, token_ids: Tensor) -> Tensor:
        """See `Student.step`."""
        if state.prompt is None:
            msg = "The state must come from this student's own `start`; got one without a prompt."
            raise TypeError(msg)
        state.mask = with_newest(state.mask)
        hidden = self.model.decoder(
            input_ids=token_ids[:, None],
            attention_mask=attention_bias(state.mask, state.prompt.states.dtype),
            encoder_hidden_states=state.prompt.states,
            encoder_attention_mask=state.prompt.bias,
            past_key_values=EncoderDecoderCache(state.cache, state.prompt.cache),
            use_cache=True,
        ).last_hidden_state
        return self._logits(hidden[:, 0])  # [B, 1, H] -> [B, V]


class CausalStudent(Student):
    """Llama, Qwen, GPT-2 and other decoder-only models; `student.check` tries each one."""

    def __init__(self, model: Any) -> None:
        """Wrap `model`; its parameters stay its own."""
        super().__init__(model)
        # Models with ALiBi count positions by the mask.
        arguments = signature(model.base_model.forward).parameters
        self._takes_positions = "position_ids" in arguments

    def read(self, prompt_ids: Tensor, prompt_mask: Tensor, *, max_buckets: int = 1) -> Context:
        """Compute the prompts' keys and values; see `Student.read`."""
        del max_buckets
        if self.training and self.model.is_gradient_checkpointing:
            return Context(prompt_ids, prompt_mask, torch.empty(0))
        cache = DynamicCache()
        hidden = self._hidden(prompt_ids, prompt_mask, cache)  # [Q, T, H]
        return Context(prompt_ids, prompt_mask, _last_of(hidden, prompt_mask), cache)

    def start(self, prompt_ids: Tensor, prompt_mask: Tensor) -> tuple[Tensor, DecodeState]:
        """Compute the prompts' keys and values; see `Student.start`."""
        # The text follows its prompt directly, so padding goes to the left.
        order = prompt_mask.argsort(dim=1, stable=True)
        ids, state = (
            prompt_ids.gather(1, order),  # [B, T]
            DecodeState(decode_cache(), prompt_mask.gather(1, order)),
        )
        return self._logits(self._hidden(ids, state.mask, state.cache)[:, -1]), state

    def step(self, state: DecodeState, token_ids: Tensor) -> Tensor:
        """See `Student.step`."""
        state.mask = with_newest(state.mask)
        return self._logits(self._hidden(token_ids[:, None], state.mask, state.cache)[:, 0])

    def _decode(self, context: Context, question: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        # Each token predicts the next one: the prompt's last token predicts the first target token.
        # At least one token is fed, even if none is needed, because the ranks of ZeRO-3 must make
        # the same passes.
        fed, used = max(1, ids.shape[1] - 1), ids.shape[1] - 1
        prompt_mask, fed_ids = context.prompt_mask[question], ids[:, :fed]  # [S, T], [S, fed]
        # Prompt padding sits between prompt and target: masked out, and not counted as positions.
        joined_mask = torch.cat([prompt_mask, mask[:, :fed]], dim=1)  # [S, T + fed]
        if context.cache is not None:
            hidden = self._hidden(fed_ids, joined_mask, select_rows(context.cache, question))
            # [S, 1, H] + [S, T' - 1, H]
            return torch.cat([context.states[question], hidden[:, :used]], dim=1)
        joined_ids = torch.cat([context.prompt_ids[question], fed_ids], dim=1)  # [S, T + fed]
        hidden = self._hidden(joined_ids, joined_mask, None)  # [S, T + fed, H]
        width = prompt_mask.shape[1]
        last = _last_of(hidden[:, :width], prompt_mask)  # [S, 1, H]
        return torch.cat([last, hidden[:, width : width + used]], dim=1)  # [S, T', H]

    def _logits(self, hidden: Tensor) -> Tensor:
        config = self.model.config
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        # Some families scale or cap the logits: Cohere, Granite, Gemma.
        logits = logits * getattr(config, "logit_scale", 1.0)
        logits = logits / getattr(config, "logits_scaling", 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _hidden(self, ids: Tensor, mask: Tensor, cache: Cache | None) -> Tensor:
        # Padding does not count: the position of a token is the number of real ones before it.
        # The mask covers the cache as well, `ids` only its end.
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        placed = {"position_ids": positions} if self._takes_positions else {}
        output = self.model.base_model(
            input_ids=ids,
            attention_mask=mask,
            **placed,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


def _counted(mask: Tensor, first: Tensor) -> Tensor:
    """Tokens whose cross entropy counts, [S, T]."""
    return mask.bool() & (torch.arange(mask.shape[1], device=mask.device) >= first[:, None])


def _last_of(hidden: Tensor, mask: Tensor) -> Tensor:
    """Output at the last real token of right-padded prompts, [Q, 1, H]."""
    last = (mask.sum(dim=1) - 1)[:, None, None].expand(-1, -1, hidden.shape[-1])  # [Q, 1, H]
    return hidden.gather(1, last)  # [Q, T, H] -> [Q, 1, H]


def wrap(model: Any) -> Student:
    """Choose the interface by the model's configuration, and replace its slow modules."""
    fuse(model)
    return Seq2SeqStudent(model) if model.config.is_encoder_decoder else CausalStudent(model)


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of each token, [T], at least float32, nats, from logits [T, V]."""
    # bfloat16 has three digits: too few for a logarithm over the vocabulary and for a margin.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(logits, targets, reduction="none")


def sequence_mean(nll: Tensor, sequence: Tensor, num_sequences: int) -> Tensor:
    """Average the cross entropy over the tokens of each sequence.

    Args:
        nll: Cross entropy of all real tokens, without padding, [T], nats.
        sequence: Sequence of each token, [T], in [0, num_sequences).
        num_sequences: S.

    Returns:
        Mean cross entropy of each sequence, [S], nats; 0 for empty sequences.

    Source:
        CE of equations 6 and 7; token mean instead of sum is this project's reading.
    """
    total = nll.new_zeros(num_sequences).index_add(0, sequence, nll)  # [T] -> [S]
    count = torch.bincount(sequence, minlength=num_sequences)  # [S]
    # Clamped, so that a sequence without counted tokens has CE 0 instead of 0 / 0.
    return total / count.clamp(min=1)
