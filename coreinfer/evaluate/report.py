"""A run as one HTML page that needs no network: what was measured and how, pictures, tables."""

from collections.abc import Sequence
from html import escape
from typing import Any

from coreinfer.evaluate import charts
from coreinfer.evaluate.drawing import FLOOR, colour, shown_keeps
from coreinfer.evaluate.forest import ladder
from coreinfer.evaluate.page import POLICIES, style
from coreinfer.evaluate.plan import REFRESH
from coreinfer.evaluate.rows import Row
from coreinfer.evaluate.scoring import Results
from coreinfer.machine import hardware
from coreinfer.refresh import Refresh, when


def report(rows: list[Row], results: Results, facts: dict[str, Any]) -> str:
    """The whole page; ``facts`` are those of ``coreinfer.evaluate.facts``."""
    whole = [row for row in rows if row.domain is None]
    threshold = float(facts["policy_settings"]["threshold"])
    parts = [
        _head(whole, results, facts),
        _figure("The ladder", ladder(rows, results), _LADDER),
        _figure("Against keep", charts.against_keep(rows, results), "To the left, fewer neurons are kept."),
        _figure("Against the length of the prompt", charts.against_prompt(rows, results), _PROMPT),
        _figure("Against the position in the continuation", charts.against_position(results), _POSITION),
        _figure("Against the similarity of the match", charts.against_similarity(results, threshold), _SIMILARITY),
        *_domain_tables(rows, results),
        *(_table(whole, tokens) for tokens in results.plan.prompt_tokens),
        _policies(results),
        _facts(facts, results),
    ]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>coreinfer evaluate</title><style>{style()}</style></head>"
    )
    return f"{head}<body><main>\n{''.join(parts)}</main></body></html>\n"


_LADDER = (
    "Points are means over texts, bars of the NLL rise 95% bootstrap intervals; an arrow marks a policy beyond the "
    "axis. NLL asks for the true next token only, and a model that finds a text hard may even gain on it; KL asks "
    "whether all predictions stay what they were."
)
_PROMPT = "The same texts at every length; each prompt is the first tokens of its text."
_POSITION = "How the loss develops while the set stays what the prompt chose."
_SIMILARITY = "Texts in bins of equal size, from the weakest match to the strongest."


def _head(rows: list[Row], results: Results, facts: dict[str, Any]) -> str:
    plan, first = results.plan, results.plan.prompt_tokens[0]
    auto = sorted(
        (row for row in rows if (row.policy, row.prompt_tokens) == ("auto", first)), key=lambda row: -row.keep
    )
    cards = "".join(_card(row) for row in auto[:4])
    words = (
        f"{facts['model']['id']} with {facts['paths']['']}, on {rows[0].texts} texts of {facts['dataset']}. Of "
        f"each text, {_listed(plan.prompt_tokens)} prompt tokens run dense; then {plan.continuation_tokens} tokens of "
        f"its true continuation are scored with the kept MLP neurons only. Dense NLL {rows[0].nll:.4f} nats per token."
    )
    note = f"<p class=note>Rise of the loss under <b>auto</b>, {first} prompt tokens.</p>" if auto else ""
    head = f"<h1>What a keep costs</h1><p class=lead>{escape(words)}</p>"
    return f"<header>{head}<div class=cards>{cards}</div>{note}</header>"


def _card(row: Row) -> str:
    interval = f"95%: {_interval(row)}<br>" if row.ci_low is not None else ""
    return (
        f'<div class="card"><b>{_signed(row.nll_rise)}</b><span>nats per token at keep {row.keep:g}</span>'
        f"<small>{interval}likeliest token the same: {row.agreement:.0%}</small></div>"
    )


def _listed(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last


def _figure(title: str, svg: str, words: str) -> str:
    return f"<section><h2>{title}</h2><p class=note>{words}</p>{svg}</section>\n" if svg else ""


def _signed(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")  # no -0.000


def _interval(row: Row) -> str:
    return f"{_signed(row.ci_low)} to {_signed(row.ci_high)}" if row.ci_low is not None else ""


HEADS = (
    "policy", "statistic", "budgets", "keep", "NLL rise", "95% interval", "over auto", "KL", "agreement", "recall",
)  # fmt: skip


def _table(rows: Sequence[Row], tokens: int) -> str:
    """All numbers at one prompt length."""
    mine = [row for row in rows if row.prompt_tokens == tokens]
    body, last = "", 1.0
    for row in mine:
        kind = " ".join(name for name, on in (("auto", row.policy == "auto"), ("first", row.keep != last)) if on)
        body += f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in _cells(row)) + "</tr>"
        last = row.keep
    auto = next((row for row in mine if row.policy == "auto"), None)
    used = ("similarity", "hybrid", "stability") if auto else ()
    shares = [f"{name} for {share:.0%}" for name in used if (share := getattr(auto, f"share_{name}"))]
    note = f" <b>auto</b> used {', '.join(shares)} of the prompts." if shares else ""
    return (
        f"<section><h2>All numbers, {tokens} prompt tokens</h2><p class=note>Over auto: the difference to auto, paired "
        f"by text; bold where its 95% interval leaves out 0.{note}</p><div class=wide><table><thead><tr>"
        f"{''.join(f'<th>{head}</th>' for head in HEADS)}</tr></thead><tbody>{body}</tbody></table></div></section>\n"
    )


def _cells(row: Row) -> tuple[str, ...]:
    clear = row.diff_low is not None and row.diff_high is not None and (row.diff_low > 0 or row.diff_high < 0)
    over = _signed(row.diff_auto) if row.policy != "auto" else ""
    return (
        escape(row.policy), row.statistic, row.budgets, f"{row.keep:g}", _signed(row.nll_rise), _interval(row),
        f"<b>{over}</b>" if clear else over, f"{row.kl:.4f}", f"{row.agreement:.1%}", f"{row.recall:.0%}",
    )  # fmt: skip


def _domain_tables(rows: list[Row], results: Results) -> list[str]:
    """NLL rise by domain, shaded by its size: a table for each keep shown, at the first prompt length."""
    tokens = results.plan.prompt_tokens[0]
    mine = [row for row in rows if row.domain is not None and row.prompt_tokens == tokens]
    return [_domain_table(mine, keep) for keep in shown_keeps(results) if mine]


def _domain_table(rows: list[Row], keep: float) -> str:
    at = {(row.domain, row.policy): row for row in rows if row.keep == keep}
    policies = list(dict.fromkeys(policy for _, policy in at if policy != "dense"))
    texts = {row.domain: row.texts for row in rows}
    most = max([row.nll_rise for row in at.values() if row.policy not in FLOOR] + [1e-9])
    body = ""
    for domain in sorted(texts, key=lambda name: -texts[name]):
        cells = "".join(_shaded(at[domain, policy].nll_rise, most) for policy in policies)
        body += f"<tr><td>{escape(str(domain))}</td><td>{texts[domain]}</td>{cells}</tr>"
    heads = "".join(f"<th>{escape(policy)}</th>" for policy in policies)
    return (
        f"<section><h2>By domain, keep {keep:g}</h2><p class=note>NLL rise, nats per token; the darker, the more.</p>"
        f"<div class=wide><table class=heat><thead><tr><th>domain</th><th>texts</th>{heads}</tr></thead><tbody>{body}"
        "</tbody></table></div></section>\n"
    )


def _shaded(value: float, most: float) -> str:
    part = min(max(value / most, 0.0), 1.0)
    return f'<td style="background:rgba(221,140,60,{0.55 * part:.2f})">{_signed(value, 3)}</td>'


def _policies(results: Results) -> str:
    names = list(dict.fromkeys(policy for _, policy in results.rungs))
    items = "".join(
        f'<dt><i style="background:{colour(name, names)}"></i>{escape(name)}</dt>'
        f"<dd>{_described(name, results.plan.refresh)}</dd>"
        for name in names
    )
    return f"<section><h2>The policies</h2><dl class=policies>{items}</dl></section>\n"


def _described(policy: str, refresh: Refresh) -> str:
    if policy.endswith(REFRESH):
        name = policy.removesuffix(REFRESH)
        return f"{name}, choosing again {when(refresh)}: the text so far runs dense, as a new prompt"
    return POLICIES.get(policy) or "the same, from the artifact compared with"


def _facts(facts: dict[str, Any], results: Results) -> str:
    """Settings, artifact and machine, as two columns."""
    machine, versions, artifact = facts["machine"], facts["versions"], facts["artifact"]
    paths, compare = facts["paths"], facts["compare"].items()
    compared = "; ".join(f"{name}: {paths[name]} ({made['statistic']})" for name, made in compare)
    model, texts = facts["model"], facts["texts"]
    lines = {
        "texts": f"{facts['dataset']}, {texts['count']} used, sha256 {texts['sha256'][:16]}",
        "model": f"{model['id']}, weights {model['weights'][:16]}, {facts['dtype']} on {facts['device']}",
        "artifact": f"{paths['']}, {artifact['clusters']} clusters of {artifact['passages']:,} passages, "
        f"statistic {artifact['statistic']}, embedder {artifact['embedder']}, sha256 of the manifest "
        f"{artifact['sha256'][:16]}",
        "compared with": compared,
        "policy settings": ", ".join(f"{name} {value}" for name, value in facts["policy_settings"].items()),
        "seed": str(facts["seed"]),
        "date": machine["date"],
        "hardware": hardware(machine),
        "software": ", ".join(f"{name} {made}" for name, made in versions.items()) + f", Python {machine['python']}",
        "files": "ladder.md, rows.json, rows.parquet, texts.parquet and settings.json lie beside this page",
    }
    items = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in lines.items() if value)
    return f"<section><h2>How it was measured</h2><dl class=facts>{items}</dl></section>\n"
