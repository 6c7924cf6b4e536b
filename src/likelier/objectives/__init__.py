"""The losses as pure functions of tensors, their table, and the rewards and metrics that go with them.

No configuration crosses into this room, and it imports nothing else of ours.
"""

from likelier.objectives.lookup import (
    UnknownLossError,
    UnknownOptionError,
    check_options,
    kway,
    resolve,
    stepwise,
    unknown_option,
)
from likelier.objectives.metrics import accuracies, log_ratio, reward_metrics
from likelier.objectives.objective import Objective, implicit_reward, with_sft
from likelier.objectives.preferences import bradley_terry, plackett_luce_log_probability
from likelier.objectives.rewards import REWARD_OBJECTIVES
from likelier.objectives.table import OBJECTIVES

__all__ = [
    "OBJECTIVES",
    "REWARD_OBJECTIVES",
    "Objective",
    "UnknownLossError",
    "UnknownOptionError",
    "accuracies",
    "bradley_terry",
    "check_options",
    "implicit_reward",
    "kway",
    "log_ratio",
    "plackett_luce_log_probability",
    "resolve",
    "reward_metrics",
    "stepwise",
    "unknown_option",
    "with_sft",
]
