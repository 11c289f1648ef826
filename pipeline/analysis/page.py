"""An analysis as one HTML page that needs no network, in the look of ``coreinfer evaluate``'s."""

from collections.abc import Mapping
from html import escape
from typing import Any

from coreinfer.evaluate.page import style
from coreinfer.machine import hardware
from pipeline.analysis.records import Findings, Mean, Stable
from pipeline.analysis.table import paper_words, value

FIGURES = {
    "quality": (
        "What the two shares cost",
        "NLL rise when everything after the prompt runs on the neurons that its tokens need most often, the same "
        "number in every layer. Dark: the value that the other panel holds fixed.",
    ),
    "tokens": (
        "How alike tokens are, and what they use together",
        "Left: the part of two tokens' core neurons that they share. Right: the part of a layer that at least one "
        "token of a window needs.",
    ),
    "stability": (
        "How well a prompt's core set holds as the text grows",
        "The overlap of the prompt's core set with that of the prompt and the tokens after it. Diamonds: the paper's. "
        "Dotted: what it would be if each token drew its core neurons by lot; the longer text holds the prompt, so "
        "overlap is high even then, and only what lies above shows a preference, the text's or the model's.",
    ),
    "similarity": (
        "Whether texts of like meaning need like neurons",
        "A point is a pair of texts; dark, the means of eighths by cosine. ρ is Spearman's correlation with its 95% "
        "interval over texts.",
    ),
}  # fmt: skip


def page(found: Findings, facts: dict[str, Any], svgs: Mapping[str, str]) -> str:
    """The whole page; ``svgs``: the pictures by name, as <svg> elements."""
    parts = [_head(found, facts)]
    for name, (title, words) in FIGURES.items():
        table = _stability(found.stability) if name == "stability" else ""
        parts.append(f"<section><h2>{title}</h2><p class=note>{words}</p>{svgs[name]}{table}</section>\n")
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>coreinfer analyze</title><style>{style()}{_MORE}</style></head>"
    )
    return f"{head}<body><main>\n{''.join(parts)}{_facts(facts)}</main></body></html>\n"


_MORE = "ul{margin:14px 0 0;padding-left:20px;max-width:80ch}table{margin-top:18px}"
_MORE += "table.plain th,table.plain td{text-align:right!important}"


def _head(found: Findings, facts: dict[str, Any]) -> str:
    words = (
        f"{facts['model']}, {facts['layers']} layers of {facts['width']} neurons, on {found.dense_nll.texts} texts of "
        f"{facts['dataset']}. Bands are 95% bootstrap intervals over texts. "
    )
    first, *rest = paper_words(found)
    items = "".join(f"<li>{escape(each)}</li>" for each in rest)
    listed = f"<ul>{items}</ul>" if rest else ""
    return f"<header><h1>Core neurons, observed</h1><p class=lead>{escape(words + first)}</p>{listed}</header>\n"


def _stability(rows: list[Stable]) -> str:
    heads = (
        "prompt tokens",
        "more tokens",
        "count",
        "95% interval",
        "by lot",
        "the paper",
        "energy",
        "95% interval",
        "texts",
    )
    energy = {(s.prompt_tokens, s.more_tokens): s.overlap for s in rows if s.statistic == "energy"}
    body = ""
    for s in (row for row in rows if row.statistic == "count"):
        cells = (
            str(s.prompt_tokens), str(s.more_tokens), *_cells(s.overlap), value(s.by_lot), value(s.paper),
            *_cells(energy[s.prompt_tokens, s.more_tokens]), str(s.overlap.texts),
        )  # fmt: skip
        body += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<div class=wide><table class=plain><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cells(mean: Mean) -> tuple[str, str]:
    interval = f"{mean.low:.3f} to {mean.high:.3f}" if mean.low is not None and mean.high is not None else ""
    return f"{mean.mean:.3f}", interval


def _facts(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    lines = {
        "texts": f"{facts['dataset']}, {facts['texts']} used of {facts['seen']}",
        "model": f"{facts['model']}, weights {facts['weights'][:16]}, {facts['dtype']} on {facts['device']}; embedder "
        f"{facts['embedder']}",
        "settings": ", ".join(
            f"{name.replace('_', ' ')} {facts[name]}"
            for name in ("alpha", "keep", "prompt_tokens", "continuation_tokens", "seed")
        ),
        "paper": "CoreInfer, arXiv 2410.18311; its values are read off its plots",
        "date": machine["date"],
        "hardware": hardware(machine),
        "software": ", ".join(f"{name} {made}" for name, made in facts["versions"].items())
        + f", Python {machine['python']}",
        "files": "analysis.json holds all numbers; each picture lies beside this page as .png and .svg",
    }
    items = "".join(f"<dt>{name}</dt><dd>{escape(words)}</dd>" for name, words in lines.items())
    return f"<section><h2>How it was measured</h2><dl class=facts>{items}</dl></section>\n"
