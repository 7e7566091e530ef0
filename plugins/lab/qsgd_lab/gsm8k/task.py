"""Task ``gsm8k``: the paper's fine-tuning of a language model, with its settings (Table III).

Learning rate 2e-5, up in 500 steps and then linearly to 0, gradients clipped at norm 1, one problem
a step, weight decay 0.01, one epoch, 2,048 tokens of context, mixed float16 on CUDA (float32 on a
CPU, where float16 saves nothing). 500 steps are 6.7 % of the paper's epoch of 7,473; a shorter run
keeps that share, as 500 steps of a run of 40 would be a run at a hundredth of the learning rate.

All seeds start from the same trained weights: they differ in the order of the problems, and in
dropout if the model has any.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from qsgd_core.errors import ConfigError
from qsgd_core.seeds import derive_seed
from qsgd_core.task import Built, Task, TaskDefaults
from qsgd_lab.gsm8k import judging, models
from qsgd_lab.gsm8k.answers import final_number
from qsgd_lab.gsm8k.data import Problem, Problems, fetch, read_folder
from qsgd_lab.gsm8k.encoding import Encoder, Example, collate
from qsgd_lab.gsm8k.options import PREFIX, Options, load_options

WARMUP = 500 / 7473
"""The paper's warm-up steps in its number of problems."""
TEST_BATCH = 4
CHOICES = tuple(Options.model_fields)


class Gsm8k(Task):
    """Grade school maths problems, answered with their working by any causal language model.

    Args:
        model, context, test_examples, exact_match, precision: see
            :class:`~qsgd_lab.gsm8k.options.Options`; None for the environment's.
        data: folder with train.jsonl and test.jsonl; None for the hub's ``openai/gsm8k``.

    Raises:
        ConfigError: an option that cannot be used.
    """

    name = "gsm8k"
    summary = "grade school maths: fine-tunes a causal language model of Hugging Face transformers"

    def __init__(
        self,
        *,
        model: str | None = None,
        data: Path | None = None,
        context: int | None = None,
        test_examples: int | None = None,
        exact_match: bool | None = None,
        precision: str | None = None,
    ) -> None:
        self._folder = data
        self._choose(
            load_options(
                model=model,
                context=context,
                test_examples=test_examples,
                exact_match=exact_match,
                precision=precision,
            )
        )

    def with_data(self, folder: Path) -> Gsm8k:
        """The same with the problems of ``folder``; :meth:`check` reads them."""
        made = copy.copy(self)
        made._folder = folder
        vars(made).pop("problems", None)
        return made

    def identity(self) -> Mapping[str, Any]:
        """Every option, and a digest of the problems."""
        chosen = {name: self._chosen(name) for name in CHOICES}
        return chosen | {"data": self.problems.digest()}

    def as_recorded(self, identity: Mapping[str, Any]) -> Gsm8k:
        """The same with the options of a recorded run, unless others were chosen here."""
        for name in sorted(self.options.model_fields_set):
            if (mine := self._chosen(name)) != identity.get(name):
                raise ConfigError(
                    f"{PREFIX}{name.upper()} (or the argument {name}) is {mine!r}, and the run has "
                    f"{identity.get(name)!r}. Leave it out to go on with the run, or start another."
                )
        made = copy.copy(self)
        made._choose(load_options(**{k: v for k, v in identity.items() if k != "data"}))
        if (digest := made.problems.digest()) != identity.get("data"):
            raise ConfigError(
                f"The problems in {made.problems.where} have changed since the run was started "
                f"(digest {digest} instead of {identity.get('data')}). Put the old ones back, or "
                "start another run."
            )
        return made

    def check(self) -> Sequence[str]:
        """Read configuration, tokenizer and problems, and say what will be trained on what."""
        config = models.load_config(self._source)
        limit = getattr(config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and limit < self.options.context:
            raise ConfigError(
                f"The model {self._source.name} reads {limit} tokens, and the context is "
                f"{self.options.context}. Set {PREFIX}CONTEXT={limit}."
            )
        problems, test = self.problems, self._test
        self._encoder.check("training", problems.train)
        self._encoder.check("test", test)
        if self.options.exact_match:
            _require_numbers(test)
        judged = "loss and exact match" if self.options.exact_match else "loss"
        return (
            f"The model is {self._source.said}, read by transformers {version('transformers')}. It "
            f"learns from {len(problems.train):,} problems of {problems.where}, and is judged by "
            f"its {judged} on the first {len(test):,} of {len(problems.test):,} test problems.",
            f"{_say_precision(self.defaults.precision)} The warm-up is {100 * WARMUP:.1f} % of a "
            "run's steps, as 500 are of the paper's 7,473.",
        )

    def build(self, seed: int) -> Built:
        """The trained model as it comes, and the problems in the order of the seed.

        Raises:
            ConfigError: as :meth:`check`, or the weights cannot be loaded.
        """
        self.check()
        encoder, test = self._encoder, self._test
        model = models.load_model(self._source).to(_device())
        loader = DataLoader(
            _Encoded(self.problems.train, encoder),
            batch_size=1,
            shuffle=True,
            generator=torch.Generator().manual_seed(derive_seed("gsm8k", "order", seed)),
            collate_fn=collate,
        )
        # By length, so that little is padded.
        ordered = sorted(map(encoder.example, test), key=lambda example: len(example.tokens))
        batches = [collate(ordered[i : i + TEST_BATCH]) for i in range(0, len(ordered), TEST_BATCH)]

        def evaluate(model: nn.Module) -> Mapping[str, float]:
            found = {"loss": judging.mean_loss(model, batches)}
            if self.options.exact_match:
                found["accuracy"] = judging.exact_match(model, encoder, test, TEST_BATCH)
            return found

        return Built(model, loader, evaluate)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean cross-entropy over the answers' tokens."""
        return judging.answer_losses(model, batch).mean()

    @cached_property
    def problems(self) -> Problems:
        """Both parts of the data, read once."""
        return fetch() if self._folder is None else read_folder(self._folder)

    @cached_property
    def _source(self) -> models.ModelSource:
        return models.find_model(self.options.model)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(models.load_tokenizer(self._source), self.options.context)

    @property
    def _test(self) -> tuple[Problem, ...]:
        return self.problems.test[: self.options.test_examples]

    def _choose(self, options: Options) -> None:
        """Take on ``options`` and what follows from them."""
        self.options = options
        for name in ("_source", "_encoder"):
            vars(self).pop(name, None)
        self.metrics = ("loss", "accuracy") if options.exact_match else ("loss",)
        self.defaults = TaskDefaults(
            epochs=1,
            lr=2e-5,
            weight_decay=0.01,
            lr_schedule="linear",
            warmup=WARMUP,
            clip_norm=1.0,
            precision=str(self._chosen("precision")),
        )

    def _chosen(self, name: str) -> Any:
        """An option as it is recorded: the same wherever it is read."""
        value = getattr(self.options, name)
        if name == "model":
            return self._source.name
        if name == "precision" and value == "auto":
            return "float16" if _device().type == "cuda" else "float32"
        return value


class _Encoded(Dataset[Example]):
    """Problems in tokens, made when they are wanted: a short run does not wait for all of them."""

    def __init__(self, problems: Sequence[Problem], encoder: Encoder) -> None:
        self._problems = problems
        self._encoder = encoder

    def __len__(self) -> int:
        return len(self._problems)

    def __getitem__(self, index: int) -> Example:
        return self._encoder.example(self._problems[index])


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _say_precision(precision: str) -> str:
    where = "CUDA" if _device().type == "cuda" else "the CPU"
    if precision == "float16":
        return f"Trained in mixed float16 on {where}, as in the paper."
    return (
        f"Trained in float32 on {where}; the paper has mixed float16 ({PREFIX}PRECISION=float16)."
    )


def _require_numbers(problems: Sequence[Problem]) -> None:
    for n, problem in enumerate(problems, 1):
        if final_number(problem.answer) is None:
            raise ConfigError(
                f"Problem {n} of the test data has no number after ####, which exact match "
                f"compares with: {problem.answer[-60:]!r}. Mend it, or leave {PREFIX}EXACT_MATCH "
                "out."
            )
