"""What a keep costs: the rise of the negative log-likelihood (NLL) when only the kept neurons continue a text.

Each text: P prompt tokens run dense, then C tokens of its true continuation are scored on a fixed neuron set (teacher
forcing). The prompt's tokens never count. In reading order: plan, masked, policies, scoring, rows; what lies around
them: bootstrap, partial (resuming), compare, saving, table, and the report with its drawing, charts and forest.
"""

from collections.abc import Iterable, Sequence

from coreinfer.engine import Engine
from coreinfer.evaluate.plan import LADDER, Plan, Text, name_texts
from coreinfer.evaluate.policies import Rungs
from coreinfer.evaluate.rows import Row, as_rows, rows_of
from coreinfer.evaluate.scoring import Results, measure
from coreinfer.generation import check_room

__all__ = ["LADDER", "Plan", "Results", "Row", "Rungs", "Text", "as_rows", "evaluate", "measure", "rows_of"]


def evaluate(
    engine: Engine,
    texts: Iterable[str],
    keeps: Sequence[float],
    prompt_tokens: int = 64,
    continuation_tokens: int = 128,
    policies: Sequence[str] = LADDER,
) -> list[Row]:
    """Every policy at every keep, dense first. Texts shorter than P + C tokens are left out.

    Raises:
        CoreInferError: fewer than two texts are long enough, or a number or policy that does not exist.
    """
    plan = Plan(tuple(keeps), (prompt_tokens,), continuation_tokens, tuple(policies))
    check_room(engine.model, plan.length)
    rungs = Rungs(engine, plan.policies, seed=plan.seed)
    return rows_of(measure(engine, name_texts(engine.tokenizer, texts, plan), plan, rungs), rungs)
