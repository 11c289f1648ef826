"""What sets two artifacts apart, in words: what ``comparing.differences`` found, a line each."""

from typing import Any

from coreinfer.wording import counted, shortened

Facts = dict[str, Any]
QUIET = ("model.", "embedder.")  # fields that are said in a line of their own


def in_words(found: Facts) -> list[str]:
    """The most important first: what the models are, and so what is not compared."""
    lines = [
        _models(found, "model"),
        _models(found, "embedder"),
        *(f"not compared: {why}" for why in found["left_out"]),
    ]
    lines += [f"{row['field']}: {_value(row['a'])} -> {_value(row['b'])}" for row in _settings(found)]
    for part, words in (("clusters", _clusters), ("neurons", _neurons), ("calibration", _calibration)):
        lines += words(found[part]) if found[part] is not None else []
    lines += _budgets(found["budgets"]) if found["budgets"] is not None else []
    return [line for line in lines if line] or ["nothing differs"]


def _models(found: Facts, what: str) -> str:
    fields = {row["field"]: row for row in found["manifest"]}
    if found[f"same_{what}"]:
        return ""
    name = fields.get(f"{what}.id")
    called = f"{name['a']!r} -> {name['b']!r}" if name else "of one name, but other weights or settings"
    return f"another {what}: {called}"


def _settings(found: Facts) -> list[Facts]:
    hashes = ("weights", "setup")
    return [row for row in found["manifest"] if not (row["field"].startswith(QUIET) and row["field"].endswith(hashes))]


def _clusters(facts: Facts) -> list[str]:
    s = facts["similarity"]
    same = s["least"] > 0.99999 and facts["a"] == facts["b"] == facts["mutual"]
    if same:
        head = f"clusters: {counted(facts['a'], 'centroid')}, the same in both"
    else:
        head = (
            f"clusters: {facts['a']} -> {facts['b']}; the nearest of the second lies at a similarity of "
            f"{s['median']:.3f} (median; 5% below {s['q05']:.3f}, least {s['least']:.3f}); "
            f"{counted(facts['mutual'], 'pair')} mutually nearest"
        )
    rows = [
        f"  cluster {row['a']} -> {row['b']} [{', '.join(row['terms'][:3])}]: {row['size_a']:,} -> "
        f"{counted(row['size_b'], 'passage')}"
        for row in facts["sizes"][:5]
    ]
    moved = [f"  {facts['passages_moved']:.1%} of all passages would have to move for equal shares"] * bool(rows)
    return [head, *moved, *rows] if rows or not same else []


def _neurons(facts: Facts) -> list[str]:
    lines = [f"core set of the global prior: {_mean(facts['global_core_overlap']):.1%} in common"]
    if (apart := facts["global_distance"]) is not None:
        lines.append(
            f"global prior: {_mean(apart):.4f} apart, {max(apart):.4f} in the layer where most (0 equal, 1 disjoint)"
        )
    if (cores := facts.get("core_overlap")) is not None:
        layers = " ".join(f"{value:.0%}" for value in cores["layers"])
        lines.append(
            f"core sets of matched clusters: {cores['mean']:.1%} in common, {cores['least']:.1%} where least; by layer "
            f"{shortened(layers, 200)}"
        )
    return lines if _any(facts) else []


def _any(facts: Facts) -> bool:
    """Whether any neuron's place differs."""
    cores = facts.get("core_overlap") or {"least": 1.0}
    return any(facts["global_distance"] or [1]) or min(facts["global_core_overlap"]) < 1 or bool(cores["least"] < 1)


def _calibration(facts: Facts) -> list[str]:
    lines = [f"policy: {row['number']} {row['a']} -> {row['b']}" for row in facts["policy"]]
    lines += [f"expected rise at keep {row['keep']:g}: {row['a']:.4f} -> {row['b']:.4f}" for row in facts["curve"]]
    only = facts["curve_only_in"]
    return lines + [f"only the {'first' if only == 'a' else 'second'} holds a curve of what a keep costs"] * bool(only)


def _budgets(facts: Facts) -> list[str]:
    lines = []
    if facts["most"]:
        lines = [
            f"layer budgets: up to {counted(facts['most'], 'neuron')} of a layer, at keep {facts['most_at_keep']:g}; "
            f"at keep {facts['keep']:g} {facts['a']} -> {facts['b']}"
        ]
    return lines + ["the neurons' weights (sensitivity) differ"] * facts["weights_differ"]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _value(value: Any) -> str:
    return "nothing" if value is None else shortened(str(value), 60)
