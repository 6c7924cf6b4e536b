"""Two models read as one: the next-token distributions of a policy and its reference, mixed at a strength.

The β dial of math.md (14) in its per-token form (arXiv 2402.02992): next-token logits `(1−λ) ℓ_ref + λ ℓ_θ`. λ = 0 is
the reference, 1 the policy, above 1 goes beyond it. What it loses against mixing whole answers, which only worlds that
can be listed allow, `theory/dial.py` computes.

A `Mixture` takes one list of cache layers, the policy's first, and returns mixed logits. So whatever reads a model
token by token (`decoding.py`, `cohorts.py`, `divergence.py`) reads it too, and temperature, top-k, top-p and min-p act
on the mixed distribution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutput

from likelier.errors import UsageError


class Mixture(nn.Module):
    """A policy and its reference as one model: `softmax((1−λ) ℓ_ref + λ ℓ_θ)` over next tokens.

    Args:
        policy, reference: causal language models over the same tokens. Answers end as the policy's do.
        strength: λ; None leaves the policy's logits and the reference's as they are, one behind the other, for whoever
            mixes each row at a strength of its own (`dialling.py`).
    """

    def __init__(self, policy: nn.Module, reference: nn.Module, strength: float | None) -> None:
        super().__init__()
        self.policy = policy
        self.reference = reference
        self.strength = strength
        # Else whoever puts the mode back after sampling would switch on dropout.
        self.training = policy.training

    @property
    def config(self) -> Any:
        """The policy's."""
        return self.policy.config

    @property
    def generation_config(self) -> Any:
        """The policy's: what ends an answer."""
        return self.policy.generation_config

    def get_input_embeddings(self) -> Any:
        """The policy's."""
        return self.policy.get_input_embeddings()  # type: ignore[operator]

    def forward(self, *, past_key_values: Cache | None = None, **inputs: Any) -> CausalLMOutput:
        """Logits; `past_key_values` holds the policy's layers, then the reference's, or there are none."""
        own: Cache | None = None
        other: Cache | None = None
        if past_key_values is not None:
            layers = past_key_values.layers
            place = num_layers(self.policy)
            own, other = Cache(layers=layers[:place]), Cache(layers=layers[place:])
        policy = self.policy(past_key_values=own, **inputs).logits
        reference = self.reference(past_key_values=other, **inputs).logits
        if self.strength is None:
            return CausalLMOutput(logits=torch.cat([policy, reference], dim=-1))
        return CausalLMOutput(logits=mixed_logits(reference, policy, self.strength))


def mixed_logits(reference: Tensor, policy: Tensor, strength: float) -> Tensor:
    """`(1−λ) ℓ_ref + λ ℓ_θ`, math.md (14), in float32 at least; what the reference never says stays unsaid.

    Exactly the reference's logits at λ = 0 and the policy's at λ = 1. In separate products and a sum, each rounded for
    itself: a fused one gives an entry other bits by its place in the tensor, and so by who else is in the batch.

    Args:
        reference, policy: logits, or log-probabilities, of one shape `[…, vocabulary]`.
        strength: λ.

    >>> reference, policy = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 3.0])
    >>> mixed_logits(reference, policy, 0.5).tolist(), mixed_logits(reference, policy, 2.0).tolist()
    ([0.0, 2.0], [0.0, 5.0])
    """
    wide = torch.promote_types(policy.dtype, torch.float32)
    mixed = reference.to(wide) * (1.0 - strength)
    mixed += policy.to(wide) * strength
    return mixed.masked_fill_(reference == -torch.inf, -torch.inf)


def at_strength(policy: Any, reference: Any, strength: float) -> Any:
    """The model that answers at a strength: at 0 and 1 the reference and the policy themselves, else a mixture.

    Raises:
        UsageError: models over different tokens.
    """
    require_same_tokens(policy, reference, needs="mixing next tokens needs")
    if strength in (0.0, 1.0):
        return policy if strength else reference
    return Mixture(policy, reference, strength)


def parts_of(model: Any) -> tuple[Any, ...]:
    """The models that a model is made of: itself, or the policy and the reference of a mixture."""
    return (model.policy, model.reference) if isinstance(model, Mixture) else (model,)


def num_layers(model: Any) -> int:
    """Layers of keys and values that reading `model` fills."""
    return sum(int(part.config.get_text_config(decoder=True).num_hidden_layers) for part in parts_of(model))


def require_same_tokens(policy: Any, reference: Any, *, needs: str) -> None:
    """Raises `UsageError` where the vocabularies differ in size; `needs` begins the reason."""
    ours, theirs = (one.get_input_embeddings().weight.shape[0] for one in (policy, reference))
    if ours != theirs:
        raise UsageError(
            f"--reference has a vocabulary of {theirs} tokens and the policy one of {ours}; {needs} the same tokens"
        )


@torch.no_grad()
def share_equal_weights(policy: nn.Module, reference: nn.Module) -> None:
    """Lets the policy read the reference's tensors wherever its own hold the same bits.

    Of an adapter's policy that is all but the adapter, so that one set of base weights is in memory; by content,
    whatever the adapter's start was. Neither model may be trained afterwards.

    >>> policy, reference = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> _ = policy.load_state_dict(reference.state_dict())
    >>> share_equal_weights(policy, reference)
    >>> policy.weight.data_ptr() == reference.weight.data_ptr()
    True
    """
    theirs = dict(reference.named_parameters())
    for name, parameter in policy.named_parameters():
        other = theirs.get(plain_name(name))
        if other is not None and same_bits(parameter, other):
            parameter.data = other.data


def plain_name(name: str) -> str:
    """What a parameter of an adapted model is called in its base.

    >>> plain_name("base_model.model.h.0.attn.base_layer.weight")
    'h.0.attn.weight'
    """
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers in the same form and place."""
    alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    return alike and torch.equal(one, other)
