"""A page of measurements that grows: a section for each thing measured, which a later run replaces."""

from pathlib import Path

from coreinfer.bench.plan import PROMPT
from coreinfer.bench.report import GB, notes
from coreinfer.bench.run import Measured
from coreinfer.machine import hardware, machine, versions
from coreinfer.places import moved_in, writing
from coreinfer.wording import table

TOP = """# Performance

Decoding, each subject in turn and all in one run, so that a machine's moods reach all alike; the median of three rounds
counts. `share` is of the limit: the memory's bandwidth, measured in the same run, over the bytes that a step must read,
which are weights, of the neurons that it keeps, and cache. `texts` are decoded at a time, and their tokens add up. Of
CPUs there are ratios alone, since shared ones are faster at one hour than at another. Each section is written by the
command that it names.
"""
HEADING = "\n## "


def section(made: Measured, command: str) -> str:
    """In Markdown: what, on what, when, by which command, and the figures."""
    now, used = machine(), ", ".join(f"{name} {number}" for name, number in versions().items())
    memory = f"memory {made.bandwidth / GB:,.0f} GB/s"
    facts = f"{hardware(now)}, {memory}; {now['date'][:10]}; {used}"
    return f"{title(made)}\n\n{facts}\n\n```\n{command}\n```\n\n{table_of(made)}\n"


def table_of(made: Measured) -> str:
    """Each subject beside the dense peers; on a GPU its tokens a second too."""
    peers = made.dense_peers
    head = ["", "keep", "texts", "dtype", *(["tok/s"] if _on_gpu(made) else []), "share"]
    rows = [[*head, *(f"over {peer.engine}, dense" for peer in peers)]]
    for s in made.speeds:
        rate = [f"{s.tokens_per_second:.1f}"] if _on_gpu(made) else []
        times = ["" if (times := s.over(peer)) is None else f"{times:.2f}x" for peer in peers]
        rows.append([s.engine, f"{s.keep:g}", str(s.texts), s.dtype, *rate, f"{s.share_of_limit:.0%}", *times])
    ends = notes(made, _prefill(made), rates=False)
    return table(rows) + "\n\n" + "\n".join(f"- {x}" for x in ends)


def _on_gpu(made: Measured) -> bool:
    return made.device.startswith("cuda")


def _prefill(made: Measured) -> str:
    """In ratios."""
    return (
        f"the statistic adds {made.statistic_adds:.1%} to the prompt's prefill; to put another set in place takes as "
        f"long as {made.switch_s * made.own.tokens_per_second:.1f} tokens at keep {made.own.keep:g}"
    )


def title(made: Measured) -> str:
    """What is measured and on which GPU, and so what a section is replaced by; CPUs, with ratios alone, share one."""
    long = "" if made.prompt_tokens == PROMPT else f", {made.prompt_tokens:,} prompt tokens"
    where = f"one {machine()['gpu']}" if _on_gpu(made) else "a CPU"
    return f"{made.shape}, {made.dtype}, on {where}{long}"


def put(text: str, new: str) -> str:
    """The page with this section in the place of the one of its title, or at the end."""
    rest = text.rstrip("\n").split(HEADING)[1:]
    name = new.partition("\n")[0]
    parts = [new.rstrip("\n") if part.partition("\n")[0] == name else part.rstrip("\n") for part in rest]
    parts += [] if any(part.partition("\n")[0] == name for part in rest) else [new.rstrip("\n")]
    return f"\n{HEADING}".join([TOP.rstrip("\n"), *parts]) + "\n"


def write(made: Measured, command: str, page: Path) -> None:
    """Put a run's section into a page, which is made if it is not there.

    Raises:
        CoreInferError: the disk refuses.
    """
    with writing(page, "choose another --page"):
        before = page.read_text("utf-8") if page.exists() else ""
        with moved_in(page) as part:
            part.write_text(put(before, section(made, command)), "utf-8")
