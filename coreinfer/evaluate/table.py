"""The ladder on a terminal, one screen."""

from coreinfer.evaluate.rows import Row
from coreinfer.output import show


def print_ladder(rows: list[Row]) -> None:
    """Rows over all texts as a table on stdout, a table for each prompt length."""
    for tokens in dict.fromkeys(row.prompt_tokens for row in rows):
        _print([row for row in rows if row.prompt_tokens == tokens and row.domain is None])


def _print(rows: list[Row]) -> None:
    from rich.table import Table

    dense, *rest = rows
    table = Table(box=None, header_style="dim")
    table.add_column("policy")
    for name in ("keep", "NLL rise", "95% interval", "over auto", "KL", "agreement", "recall"):
        table.add_column(name, justify="right")
    for last, row in zip([None, *rest], rest, strict=False):
        if last is not None and last.keep != row.keep:
            table.add_section()
        table.add_row(*_cells(row), style="bold" if row.policy == "auto" else None)
    show(
        f"{dense.texts} texts: {dense.prompt_tokens} prompt tokens dense, then {dense.continuation_tokens} on the kept "
        f"neurons; dense NLL {dense.nll:.4f} nats per token",
        table,
        *(line for line in [_auto_line(rest)] if line),
    )


def _cells(row: Row) -> tuple[str, ...]:
    interval = "" if row.ci_low is None or row.ci_high is None else f"{row.ci_low:.4f} to {row.ci_high:.4f}"
    over = "" if row.policy == "auto" or row.diff_auto is None else f"{row.diff_auto:+.4f}{_clear(row)}"
    return (
        row.policy, f"{row.keep:g}", f"{row.nll_rise:.4f}", interval, over, f"{row.kl:.4f}", f"{row.agreement:.1%}",
        f"{row.recall:.0%}",
    )  # fmt: skip


def _clear(row: Row) -> str:
    """A star where the paired interval leaves out zero."""
    if row.diff_low is None or row.diff_high is None:
        return "  "
    return " *" if row.diff_low > 0 or row.diff_high < 0 else "  "


def _auto_line(rows: list[Row]) -> str:
    auto = next((row for row in rows if row.policy == "auto"), None)
    if auto is None:
        return ""
    used = {"similarity": auto.share_similarity, "hybrid": auto.share_hybrid, "stability": auto.share_stability}
    shares = ", ".join(f"{name} for {share:.0%}" for name, share in used.items() if share)
    return f"[dim]auto used {shares} of the prompts. *: 95% interval of the paired difference to auto leaves out 0.[/]"
