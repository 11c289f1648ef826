"""The report as one HTML file: texts and tables from Python, pictures drawn by the page's own scripts within it.

They are hand-written SVG and some 1,100 lines of JavaScript, not plotly: for 128 clusters the whole file has 190 kB,
and 35 kB more for each prompt, where plotly's page begins at 4.9 MB. The map is a list that keys and screen readers
walk through, and labels find new room at every zoom. It is the same code as the live page's; and every picture can be
hovered over, the map zoomed, dragged and searched. A Content-Security-Policy inside the file forbids every request:
nothing can leave the reader's machine.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from coreinfer.artifact import Artifact
from coreinfer.page.files import text_of
from coreinfer.report.facts import LOSS, calibration_facts, manifest_facts
from coreinfer.report.seen import Seen
from coreinfer.wording import counted

SCRIPTS = ("dom.js", "labels.js", "hands.js", "map.js", "finding.js", "curve.js", "heat.js", "charts.js", "report.js")
STYLES = ("base.css", "app.css")
SIZES = '<div id="sizes"></div>'


def document(artifact: Artifact, seen: Seen, name: str) -> str:
    """The whole file; ``name`` is what the artifact is called in it."""
    title = f"{counted(artifact.manifest.clusters, 'cluster')} of {counted(artifact.manifest.passages, 'passage')}"
    body = "".join([
        _head(artifact, seen, title, name), _map(), *_prompts(seen.prompts), _costs(artifact), _overlap(seen),
        _sizes(), _facts("How prompts are judged", calibration_facts(artifact)),
        _facts("What it was made from", manifest_facts(artifact)),
    ])  # fmt: skip
    scripts = [text_of(script) for script in SCRIPTS]
    styles = "".join(map(text_of, STYLES))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(styles, scripts)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(f'{name}: {title}')}</title>\n<style>{styles}</style></head>\n<body><main>\n{body}</main>\n"
        f'<script type="application/json" id="data">{_data(seen)}</script>\n'
        + "".join(f"<script>{script}</script>\n" for script in scripts)
        + "</body></html>\n"
    )


def _policy(styles: str, scripts: Iterable[str]) -> str:
    """Nothing but what is in this file, byte for byte."""

    def sha(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return f"default-src 'none'; style-src {sha(styles)}; script-src {' '.join(map(sha, scripts))}; base-uri 'none'"


def _data(seen: Seen) -> str:
    """JSON in which no text can end the element that holds it; neuron ids stand in their tables."""
    prompts = [{key: value for key, value in each.items() if key != "neurons"} for each in seen.prompts]
    data = {"overview": seen.overview, "overlaps": seen.overlaps, "prompts": prompts}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _head(artifact: Artifact, seen: Seen, title: str, name: str) -> str:
    made, first, last = artifact.manifest, seen.overlaps["layers"][0]["mean"], seen.overlaps["layers"][-1]["mean"]
    words = (
        f"Which MLP neurons each topic of a corpus needs, for {made.model.id}: {made.layers} layers of {made.width:,} "
        f"neurons, by the statistic {made.statistic.kind}. Meaning is read by {made.embedder.id}."
    )
    cost = next((row for row in artifact.calibration.get("curve") or [] if row["keep"] == made.default_keep), None)
    cards = [(f"keep {made.default_keep:g}", "share of MLP neurons that a prompt keeps", "the artifact's default")]
    if cost:
        cards.append((f"{cost['rise']:+.3f}", f"{LOSS} expected over dense", f"at most {cost['rise_high']:+.3f} (95%)"))
    if made.clusters > 1:
        share = f"in layer {made.layers - 1}; {first:.0%} in layer 0"
        cards.append((f"{last:.0%}", "of two topics' neurons are the same", share))
    cards.append((f"{artifact.policy.threshold:.3f}", "similarity that a match must reach", "below: stability"))
    shown = "".join(
        f'<div class="card"><b>{escape(b)}</b><span>{escape(s)}</span><small>{escape(t)}</small></div>'
        for b, s, t in cards
    )
    return (
        f'<div class="top"><b>coreinfer</b><span class="facts">{escape(name)}</span>'
        '<button type="button" class="plain" id="theme">Dark</button></div>\n'
        f'<header><h1>{escape(title)}</h1><p class="lead">{escape(words)}</p>'
        f'<div class="cards">{shown}</div></header>\n'
        "<noscript><p class=alert>The pictures need JavaScript, which is part of this file; texts and tables do not."
        "</p></noscript>\n"
    )


def _map() -> str:
    return (
        '<section aria-labelledby="map-name"><div class="bar"><h2 id="map-name">The map</h2>'
        '<span class="found" id="found" role="status"></span><div class="search"><label class="hidden" for="search">'
        'Search terms</label><input type="search" id="search" placeholder="Search terms"></div></div>'
        '<p class="note">Near: alike in meaning. Area: passages. Colour: neighbourhood. Zoom with the buttons, two '
        "fingers, or Ctrl and the wheel; then drag.</p>"
        '<div id="map"></div><details id="table"><summary>All clusters as a table</summary></details></section>\n'
    )


def _prompts(prompts: Sequence[dict[str, Any]]) -> list[str]:
    return [_prompt(each, i, len(prompts) > 1) for i, each in enumerate(prompts)]


def _prompt(each: dict[str, Any], i: int, several: bool) -> str:
    number = f" {i + 1}" if several else ""
    return (
        f'<section aria-labelledby="prompt-{i}"><h2 id="prompt-{i}">Where prompt{number} lands</h2>'
        f'<p class="prompt" dir="auto">{escape(each["prompt"])}</p><div class="split"><div>'
        f'<p class="lead"><b>{each["source"]}</b>: {escape(each["reason"])}. {each["compare"]["overlap"]:.0%} of its '
        f"neurons at keep {each['keep']:g} are in the core of cluster {each['cluster']} too.</p></div>"
        f'<div class="gauge plot" id="gauge-{i}"></div></div><div class="even heats" id="heat-{i}"></div>{_ids(each)}'
        "</section>\n"
    )


def _ids(each: dict[str, Any]) -> str:
    """A prompt's neurons, layer by layer."""
    if each["neurons"] is None:
        return '<p class="note">Too many to list here: <code>coreinfer predict --with-neurons --json</code> does.</p>'
    rows = "".join(
        f"<tr><td>{layer}</td><td>{len(ids):,}</td><td>{ranges(ids)}</td></tr>"
        for layer, ids in enumerate(each["neurons"])
    )
    return (
        '<details><summary>Its neurons by number</summary><div class="scroll" tabindex="0"><table class="ids"><thead>'
        f"<tr><th>layer</th><th>kept</th><th>neurons</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def ranges(ids: Sequence[int]) -> str:
    """Sorted numbers in few letters: ``0–3, 7, 9–10``."""
    runs: list[list[int]] = []
    for number in ids:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in runs)


def _costs(artifact: Artifact) -> str:
    curve = artifact.calibration.get("curve") or []
    rows = "".join(
        f"<tr><td>{r['keep']:g}</td><td>{r['rise']:+.4f}</td><td>{r['rise_high']:+.4f}</td></tr>" for r in curve
    )
    table = (
        "<details><summary>As a table</summary><table><thead><tr><th>keep</th><th>NLL rise</th><th>at most (95%)</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></details>"
    )
    cost = (
        f"How much the loss rises on held-out texts under auto, {LOSS}; the band ends at the upper end of its 95% "
        "interval."
    )
    kept = "The share of its neurons, for each keep. Level lines: every layer the same."
    return _beside(
        _part("What a keep costs", cost, f'<div id="curve"></div>{table if curve else ""}'),
        _part("What each layer keeps", kept, '<div class="plot" id="budgets"></div>'),
    )


def _overlap(seen: Seen) -> str:
    shown, of_all = len(seen.overlaps["clusters"]), len(seen.overview["clusters"])
    which = f"the {shown} largest clusters" if shown < of_all else "all clusters"
    common = (
        f"Neurons that the cores of two clusters at keep {seen.overlaps['keep']:g} have in common: the mean over pairs "
        f"of {which}, the bar from the least to the most. Dotted: chance."
    )
    every = "The mean over layers, clusters by neighbourhood: the darker, the more they share."
    return _beside(
        _part("What topics share, layer by layer", common, '<div id="layers"></div>'),
        _part("Every two of them", every, '<div id="matrix"></div>'),
    )


def _sizes() -> str:
    return f"<section>{_part('How large they are', 'Passages of each cluster.', SIZES)}</section>\n"


def _beside(left: str, right: str) -> str:
    return f'<section class="even">{left}{right}</section>\n'


def _part(title: str, words: str, picture: str) -> str:
    return f'<div><h2>{title}</h2><p class="note">{words}</p>{picture}</div>'


def _facts(title: str, facts: dict[str, str]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in facts.items())
    return f"<section><h2>{title}</h2><dl>{items}</dl></section>\n"
