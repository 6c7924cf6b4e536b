"""Models loaded here as judges: by what they write, or by the log-odds of their verdict's token.

What is answered is kept at once: an answer that ends among others that are still being written, or a block of `READ`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from likelier.data.canonical import digest
from likelier.data.labelled import utc_now
from likelier.data.tokens import Tokenization
from likelier.data.trees import tree_of
from likelier.engines.decoding import generation_copy
from likelier.engines.drawing import Sampler
from likelier.engines.judges import Answered, Said
from likelier.engines.prompts import Prompt, encode_prompts
from likelier.engines.protocol import Failure
from likelier.engines.rubric import LEAD
from likelier.engines.sampling import SampledPrompt, sample_each
from likelier.errors import ModelError
from likelier.models.identity import forward_config_digest, weights_digest
from likelier.models.loading import Loaded, load_model
from likelier.models.noise import silence_noise
from likelier.scoring.equality import choose_way
from likelier.scoring.parts import causal_model
from likelier.scoring.precision import DTYPES, Precision, default_device, default_precision, master_dtype
from likelier.scoring.reference import model_digest
from likelier.scoring.scorer import Scorer

READ = 8
"""Questions that are read at once: more would share nothing but a flat row, and be lost together."""
VERDICTS = (" A", " B")
TOO_LONG = "longer than the judge's context"


class WritingJudge:
    """A model loaded here that writes its verdict, the likeliest token every time.

    Args:
        model: a name, a folder, or a module with its `tokenizer`.
        max_tokens: of what it writes.
        precision: bfloat16 where the processor has it, else float32, unless given.
    """

    def __init__(
        self, model: Any, *, max_tokens: int, tokenizer: Any = None, precision: Precision | None = None
    ) -> None:
        loaded, precision = _loaded(model, tokenizer, precision)
        self.name = _name(model, loaded)
        self.max_tokens = max_tokens
        self.identity = f"writes {_content(loaded)} {precision} {max_tokens}"
        self._tokenizer = loaded.tokenizer
        self._model = generation_copy(loaded.model) if precision == "bfloat16" else loaded.model

    def close(self) -> None:
        """Nothing was changed."""

    def ask(self, questions: Sequence[str]) -> Generator[Answered, None, None]:
        """Each question as its answer ends."""
        prompts = writing_prompts(self._tokenizer, questions)
        lengths = [len(tokens) for tokens in encode_prompts(self._tokenizer, prompts)]
        fit, too_long = _fitting(lengths, room=self.max_tokens, context=_context(self._model))
        yield from too_long
        written = sample_each(
            self._model,
            self._tokenizer,
            [prompts[index] for index in fit],
            n=1,
            max_new_tokens=self.max_tokens,
            sampler=Sampler(temperature=0.0),
        )
        for number, prompt in written:
            yield fit[number], _said(prompt)


class LogOddsJudge:
    """A model loaded here whose verdict is read off its next-token probabilities: nothing is written.

    What the model has read up to `Verdict:` is the trunk of a tree, ` A` and ` B` are its branches.

    Args:
        model: a name, a folder, or a module with its `tokenizer`.
        precision: bfloat16 where the processor has it, else float32, unless given.

    Raises:
        ModelError: a tokenizer that writes both verdicts alike.
    """

    def __init__(self, model: Any, *, tokenizer: Any = None, precision: Precision | None = None) -> None:
        loaded, precision = _loaded(model, tokenizer, precision)
        self.name = _name(model, loaded)
        self._tokenizer = loaded.tokenizer
        self._verdicts = Tokenization.of(loaded.tokenizer).continue_texts(VERDICTS)
        if self._verdicts[0] == self._verdicts[1]:
            raise ModelError(f"{self.name}: its tokenizer writes the verdicts A and B alike")
        self._stack = ExitStack()
        self._stack.callback(silence_noise(loaded.model).undo)
        choice = choose_way(loaded.model)
        self._scorer = Scorer(loaded.model, dtype=DTYPES[precision], way=choice.way, own_head=choice.own_head)
        self._stack.callback(self._scorer.close)
        self.identity = f"log-odds {_content(loaded)} {model_digest(self._scorer).hex()}"

    def close(self) -> None:
        """The model as it was."""
        self._stack.close()

    def ask(self, questions: Sequence[str]) -> Generator[Answered, None, None]:
        """A block of questions after another, those of like length together."""
        tokens = read_before_verdict(self._tokenizer, questions)
        room = max(map(len, self._verdicts))
        fit, too_long = _fitting(list(map(len, tokens)), room=room, context=_context(self._scorer.model))
        yield from too_long
        for start in range(0, len(fit), READ):
            block = fit[start : start + READ]
            yield from zip(block, self._score([tokens[index] for index in block]), strict=True)

    def _score(self, trunks: list[list[int]]) -> list[Said]:
        trees = [tree_of(trunk, self._verdicts, id=str(index)) for index, trunk in enumerate(trunks)]
        return [
            Said(
                logps=(float(first.double().sum()), float(second.double().sum())),
                prompt_tokens=len(trunk),
                time=utc_now(),
            )
            for (first, second), trunk in zip(self._scorer.score(trees), trunks, strict=True)
        ]


def writing_prompts(tokenizer: Any, questions: Sequence[str]) -> list[Prompt]:
    """What a judge that writes is asked."""
    return [Prompt(id=str(index), content=_asked(tokenizer, text)) for index, text in enumerate(questions)]


def read_before_verdict(tokenizer: Any, questions: Sequence[str]) -> list[list[int]]:
    """The tokens of each question, and of an answer to it up to its verdict."""
    tokenization = Tokenization.of(tokenizer)
    found = []
    for content in (_asked(tokenizer, question) for question in questions):
        if isinstance(content, str):
            start, text = tokenization.bos, f"{content}\n\n{LEAD}"
        else:
            turns = tokenizer.apply_chat_template(content, tokenize=False, add_generation_prompt=True)
            start, text = [], f"{turns}{LEAD}"
        found.append([*start, *tokenization.start_texts([text])[0]])
    return found


def _loaded(model: Any, tokenizer: Any, precision: Precision | None) -> tuple[Loaded, Precision]:
    device = default_device()
    precision = precision or default_precision(device)
    return load_model(model, tokenizer=tokenizer, dtype=master_dtype(precision), device=device), precision


def _name(model: Any, loaded: Loaded) -> str:
    """As it was given: `smollm2` rather than the file that it stands for."""
    return str(model) if isinstance(model, str | Path) else loaded.name


def _content(loaded: Loaded) -> str:
    """The model by its weights, settings, tokenizer and template: never by its name."""
    causal = causal_model(loaded.model)
    backend = getattr(loaded.tokenizer, "backend_tokenizer", None)
    words = "" if backend is None else backend.to_str()
    written = digest([words, str(getattr(loaded.tokenizer, "chat_template", None))])
    return (weights_digest(causal) + forward_config_digest(causal.config) + written).hex()


def _asked(tokenizer: Any, text: str) -> Any:
    """A user's turn where the model was trained to chat, else the text alone."""
    return [{"role": "user", "content": text}] if getattr(tokenizer, "chat_template", None) else text


def _context(model: Any) -> int | None:
    positions = getattr(causal_model(model).config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None


def _fitting(lengths: list[int], *, room: int, context: int | None) -> tuple[list[int], list[Answered]]:
    """The questions that fit into the context, short ones first, and the failure of each that does not."""
    too_long: list[Answered] = []
    fit = []
    for index, length in enumerate(lengths):
        if context is not None and length + room > context:
            detail = f"{length} tokens and {room} more, for a context of {context}"
            too_long.append((index, Failure(reason=TOO_LONG, detail=detail, attempts=0)))
        else:
            fit.append(index)
    return sorted(fit, key=lambda index: lengths[index]), too_long


def _said(prompt: SampledPrompt) -> Said:
    (answer,) = prompt.completions
    return Said(
        text=answer.text,
        finish=answer.finish,
        prompt_tokens=len(prompt.prompt_tokens),
        completion_tokens=len(answer.tokens),
        time=utc_now(),
    )
