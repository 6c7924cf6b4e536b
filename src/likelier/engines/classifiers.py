"""A sequence classifier as a reward: a reward model of one number, or the share it gives its last label."""

from __future__ import annotations

from typing import Any

import torch

from likelier.data.records import Content
from likelier.errors import ModelError, UsageError
from likelier.models.quiet import quiet_transformers
from likelier.models.sources import find_source


class Classifier:
    """Scores `(prompt, completion)`, one at a time, so that a score does not depend on what is scored beside it.

    One output is the score itself; of several labels it is the probability of the last (of two: of the positive).
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    def __call__(self, prompt: Content, completion: str) -> float:
        """The score of one answer."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        tokens = read_by_classifier(self.tokenizer, prompt, completion)
        if limit is not None and len(tokens) > limit:
            raise ModelError(
                f"an answer with its prompt has {len(tokens)} tokens, and the classifier reads {limit}: "
                "lower --max-new-tokens, or shorten the prompts"
            )
        with torch.inference_mode():
            logits = self.model(input_ids=torch.tensor([tokens], device=self.model.device)).logits[0].float()
        return float(logits[0] if len(logits) == 1 else logits.softmax(-1)[-1])

    @property
    def meaning(self) -> str:
        """What a higher score means, for reports."""
        if self.model.config.num_labels == 1:
            return "the score of a reward model"
        last = self.model.config.num_labels - 1
        label = (self.model.config.id2label or {}).get(last, str(last))
        return f"the probability that a classifier gives the label {label}"


def read_by_classifier(tokenizer: Any, prompt: Content, completion: str) -> list[int]:
    """The tokens of a chat where the prompt is one and the tokenizer has a template, else of the text, end to end."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt + completion)["input_ids"])
    if getattr(tokenizer, "chat_template", None):
        turns = [*prompt, {"role": "assistant", "content": completion}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    # A classifier of plain text has never seen a chat: it judges the answer.
    return list(tokenizer(completion)["input_ids"])


def load_classifier(name: str) -> Classifier:
    """The classifier in a folder or under a hub name.

    Raises:
        ModelError: no such model.
        UsageError: a model that is no classifier.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    path = find_source(name).path
    architectures = AutoConfig.from_pretrained(path).architectures or []
    if not any(architecture.endswith("ForSequenceClassification") for architecture in architectures):
        raise UsageError(
            f"reward `{name}` is a {architectures[0] if architectures else 'model'}, which does not classify: "
            "give a …ForSequenceClassification, vader, length, regex:PATTERN or module:function"
        )
    with quiet_transformers():
        model, report = AutoModelForSequenceClassification.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
    if report["missing_keys"]:
        raise ModelError(
            f"reward `{name}`: the weights lack {min(report['missing_keys'])}; copy the model again"
        )
    return Classifier(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer)
