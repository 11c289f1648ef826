"""From the first step, or the last checkpoint, to the end: look at the losses, report, keep what a later run needs."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coreinfer.errors import CoreInferError
from coreinfer.wording import lasting
from pipeline.adapt.checkpoints import Checkpoint, Checkpoints
from pipeline.adapt.report import HeldOut, measure
from pipeline.adapt.trainer import Trainer

Say = Callable[[str], Any]
CHECK = 20  # steps whose losses are looked at together: each look waits for the GPU


def run_steps(trainer: Trainer, held: HeldOut, checkpoints: Checkpoints, say: Say) -> list[dict[str, Any]]:
    """Train from the last checkpoint, or from the start, to the end."""
    settings, steps = trainer.settings, trainer.settings.train.steps
    reports = _resume(trainer, checkpoints, say)
    if not reports:
        _report(trainer, held, reports, "before", say)
    pending, watch = list[Tensor](), _Watch(trainer.step)
    while trainer.step < steps:
        pending.append(trainer.advance())
        reporting = trainer.step % settings.report_every == 0 or trainer.step == steps
        saving = trainer.step % settings.checkpoint_every == 0 or trainer.step == steps
        if reporting or saving or len(pending) == CHECK:
            loss = _check(pending, trainer, checkpoints)
            watch.look(trainer, say)
        if reporting:
            _report(trainer, held, reports, f"step {trainer.step:,} of {steps:,}: train {loss:.3f}", say)
        if saving:
            checkpoints.save(Checkpoint(trainer.step, trainer.tensors(), reports))
    return reports


def _resume(trainer: Trainer, checkpoints: Checkpoints, say: Say) -> list[dict[str, Any]]:
    """Put the trainer where the last checkpoint was -> the reports until then."""
    found = checkpoints.last(trainer.settings.device)
    if found is None:
        return []
    trainer.restore(found.step, found.tensors)
    say(f"going on after step {found.step:,} of {trainer.settings.train.steps:,}, from {checkpoints.folder}")
    return found.reports


def _report(trainer: Trainer, held: HeldOut, reports: list[dict[str, Any]], what: str, say: Say) -> None:
    losses = measure(trainer, held)
    reports.append(losses.row())
    say(f"{what}; {losses.sentence()}")


def _check(pending: list[Tensor], trainer: Trainer, checkpoints: Checkpoints) -> float:
    """The last loss, unless one of the steps since the last look, or its gradients, was no number."""
    found = torch.stack(pending).float().cpu()
    bad = torch.nonzero(~found.isfinite().all(1)).flatten().tolist()
    if bad:
        step = trainer.step - len(pending) + bad[0] + 1
        raise CoreInferError(
            f"the loss of step {step} is {float(found[bad[0], 0]):g}, its gradients' norm {float(found[bad[0], 1]):g}: "
            f"lower --rate from {trainer.settings.train.full_rate:g} and remove {checkpoints.folder}, which keeps the "
            "last checkpoint"
        )
    pending.clear()
    return float(found[-1, 0])


class _Watch:
    """Says once how long it will take, when the first steps, which compile, are past."""

    def __init__(self, step: int) -> None:
        self._first, self._since, self._said = step, 0.0, False

    def look(self, trainer: Trainer, say: Say) -> None:
        train, now = trainer.settings.train, time.perf_counter()
        if not self._since:
            self._first, self._since = trainer.step, now
        elif not self._said and trainer.step > self._first:
            each = (now - self._since) / (trainer.step - self._first)
            speed, left = train.batch * trainer.settings.context / each, each * (train.steps - trainer.step)
            say(f"{speed:,.0f} tokens/s: about {lasting(left)} to go")
            self._said = True
