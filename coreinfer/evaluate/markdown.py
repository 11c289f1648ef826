"""The ladder as a Markdown table, for a README or a paper."""

from collections.abc import Iterator, Sequence

from coreinfer.evaluate.plan import REFRESH
from coreinfer.evaluate.rows import Row
from coreinfer.refresh import Refresh, when


def ladder(rows: Sequence[Row], refresh: Refresh = None) -> str:
    """A table for each prompt length: a row a policy; for each keep its NLL rise, half of its 95% interval, its KL.

    ``refresh`` is the plan's.
    """
    whole = [row for row in rows if row.domain is None]
    lengths = dict.fromkeys(row.prompt_tokens for row in whole)
    tables = (_table([row for row in whole if row.prompt_tokens == p], refresh) for p in lengths)
    return "\n".join("\n".join(table) + "\n" for table in tables)


def _table(rows: list[Row], refresh: Refresh) -> Iterator[str]:
    dense, *rest = rows
    again = f"; {REFRESH} chooses again {when(refresh)}" if any(r.policy.endswith(REFRESH) for r in rest) else ""
    keeps, policies = list(dict.fromkeys(row.keep for row in rest)), list(dict.fromkeys(row.policy for row in rest))
    found = {(row.policy, row.keep): row for row in rest}
    yield (
        f"{dense.texts} texts, {dense.prompt_tokens} prompt tokens dense, {dense.continuation_tokens} on the kept "
        f"neurons; dense NLL {dense.nll:.4f}{again}\n"
    )
    yield "| policy |" + "".join(f" keep {keep:g}: NLL rise | KL |" for keep in keeps)
    yield "|---|" + "---|---|" * len(keeps)
    for policy in policies:
        yield f"| {policy} |" + "".join(_cells(found[policy, keep]) for keep in keeps)


def _cells(row: Row) -> str:
    half = "" if row.ci_low is None or row.ci_high is None else f" ± {(row.ci_high - row.ci_low) / 2:.3f}"
    return f" {row.nll_rise:.3f}{half} | {row.kl:.3f} |"
