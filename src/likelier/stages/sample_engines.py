"""The two ways in which `likelier sample` gets its answers: a model here, or an OpenAI-compatible server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from likelier.engines.decoding import check_can_decode, lowered
from likelier.engines.drawing import Sampler
from likelier.engines.mixing import at_strength, share_equal_weights
from likelier.engines.noise import draw_key
from likelier.engines.prompts import Prompt, check_context, encode_prompts
from likelier.engines.protocol import Choice, Failure, Request
from likelier.engines.sampling import SampledCompletion, sample_each
from likelier.engines.server import Server
from likelier.models.identity import weights_digest
from likelier.models.loading import Loaded, load_model
from likelier.scoring.precision import DTYPES, default_device, default_precision
from likelier.stages.sample_config import SampleConfig
from likelier.training.stored import mixed_with


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt's answers as they stand in its row, and what is counted beside them."""

    completions: list[dict[str, Any]]
    """`{"text", "tokens", "logp", "finish"}` each."""
    counts: dict[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """Answers prompts."""

    def identity(self, prompts: Sequence[Prompt]) -> Mapping[str, Any]:
        """What, beside the settings, decides the answers."""

    def answer(
        self, prompts: Sequence[Prompt], on_progress: Callable[[int], None]
    ) -> Iterator[tuple[int, Answered | Failure]]:
        """`(index of the prompt, its answers)`, in any order."""

    def notes(self) -> list[str]:
        """What a person should know of the answers, once they are there."""


class Local:
    """A model of transformers on this machine."""

    def __init__(self, config: SampleConfig, model: Any, tokenizer: Any) -> None:
        check_can_decode(model)
        self._config = config
        self._model = model
        self._tokenizer = tokenizer
        self._counts = {"ties": 0, "tokens": 0}

    @classmethod
    def load(cls, config: SampleConfig, model: Any, tokenizer: Any) -> Local:
        """By name, or a module as it is with its tokenizer; a module of the caller's is not changed."""
        device = default_device()
        dtype = DTYPES[config.precision or default_precision(device)]
        options: dict[str, Any] = {"device": device, "trust_remote_code": config.trust_remote_code}
        loaded: Loaded = load_model(model, tokenizer=tokenizer, **options)
        policy = lowered(loaded.model, dtype, copied=isinstance(model, torch.nn.Module))
        if config.strength is not None:
            reference = lowered(
                load_model(mixed_with(config.model, config.reference), **options).model, dtype, copied=False
            )
            share_equal_weights(policy, reference)
            policy = at_strength(policy, reference, config.strength)
        return cls(config, policy, loaded.tokenizer)

    def identity(self, prompts: Sequence[Prompt]) -> Mapping[str, Any]:
        """By content: weights as they are used, and the tokens of every prompt."""
        encoded = encode_prompts(self._tokenizer, prompts)
        check_context(self._model, prompts, encoded, self._config.max_new_tokens)
        read = [(prompt.id, tokens) for prompt, tokens in zip(prompts, encoded, strict=True)]
        return {"weights": weights_digest(self._model).hex(), "prompts": _digest(read)}

    def answer(
        self, prompts: Sequence[Prompt], on_progress: Callable[[int], None]
    ) -> Iterator[tuple[int, Answered | Failure]]:
        """By `engines.sampling`."""
        config = self._config
        sampler = Sampler(
            seed=config.seed,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            min_p=config.min_p,
        )
        for index, sampled in sample_each(
            self._model,
            self._tokenizer,
            prompts,
            n=config.n,
            max_new_tokens=config.max_new_tokens,
            sampler=sampler,
            stop=config.stop,
            on_progress=on_progress,
        ):
            counts = {
                "tokens": sum(len(answer.tokens) for answer in sampled.completions),
                "ties": sum(answer.ties for answer in sampled.completions),
            }
            for name, count in counts.items():
                self._counts[name] += count
            yield index, Answered([_completion(answer) for answer in sampled.completions], counts)

    def notes(self) -> list[str]:
        """Ties, where they may matter."""
        if next(self._model.parameters()).device.type == "cpu" or not self._counts["ties"]:
            return []
        return [
            f"{self._counts['ties']} of {self._counts['tokens']} tokens were drawn with another as close as rounding: "
            "in another batch those may differ"
        ]


def _completion(answer: SampledCompletion) -> dict[str, Any]:
    """As it stands in a row: without tokens where they hold more than the text (`engines/stopping.py`)."""
    tokens = answer.tokens if answer.text_is_tokens else None
    return {"text": answer.text, "tokens": tokens, "logp": answer.logp, "finish": answer.finish}


class Remote:
    """A server's model. Its answers follow from the seed only as far as the server keeps to it."""

    def __init__(self, config: SampleConfig) -> None:
        self._config = config
        self.server = Server.of(config, config.model)
        self._plain = Sampler(
            temperature=config.temperature, top_p=config.top_p, top_k=config.top_k, min_p=config.min_p
        ).plain

    def identity(self, prompts: Sequence[Prompt]) -> Mapping[str, Any]:
        """Of the server only the model's name is known; it may have moved to another address."""
        return {"model": self._config.model, "prompts": _digest([(p.id, p.content) for p in prompts])}

    def answer(
        self, prompts: Sequence[Prompt], on_progress: Callable[[int], None]
    ) -> Iterator[tuple[int, Answered | Failure]]:
        """By `engines.server`, one request a prompt."""
        for index, reply in self.server.map(self._request(prompt) for prompt in prompts):
            on_progress(self._config.n)
            if isinstance(reply, Failure):
                yield index, reply
            elif strange := [choice for choice in reply.choices if choice.finish not in ("stop", "length")]:
                reason = f"finish {strange[0].finish}"
                detail = f"the server ended an answer with `{strange[0].finish}`, not stop or length"
                yield index, Failure(reason=reason, detail=detail, attempts=1, choices=reply.choices)
            else:
                counts = {"prompt_tokens": reply.prompt_tokens, "tokens": reply.completion_tokens}
                yield index, Answered([self._completion(choice) for choice in reply.choices], counts)

    def notes(self) -> list[str]:
        """Of the server."""
        return self.server.notes

    def _request(self, prompt: Prompt) -> Request:
        config = self._config
        extra = {"top_k": config.top_k, "min_p": config.min_p}
        return Request(
            prompt=prompt.content,
            n=config.n,
            max_tokens=config.max_new_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            stop=tuple(config.stop),
            # A place in the range that all servers take, with room for the answers' numbers above it.
            seed=draw_key(config.seed, prompt.id, 0, 0) % 2**30,
            logprobs=True,
            extra={name: value for name, value in extra.items() if value},
        )

    def _completion(self, choice: Choice) -> dict[str, Any]:
        """Log-probs of servers are the model's own: the sampler's too only where that draws from just these."""
        logp = sum(choice.logprobs) if choice.logprobs and self._plain else None
        # What ended it, turn or string, is not told: with stop strings the tokens may hold more than the text.
        kept = not (self._config.stop and choice.finish == "stop")
        return {
            "text": choice.text,
            "tokens": choice.tokens if kept else None,
            "logp": logp,
            "finish": choice.finish,
        }


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()
