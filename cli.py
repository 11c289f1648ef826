"""The command line: its verbs, and how a run begins. Data goes to stdout, talk to stderr.

The verbs are in ``coreinfer/verbs.py`` (online) and ``pipeline/verbs/`` (offline).
"""

import sys

try:
    import os
    import signal

    import typer

    from coreinfer import verbs
    from coreinfer.bench.verb import bench
    from coreinfer.cli_help import BOTH, Verb, summary
    from coreinfer.cli_options import VersionOption, run
    from coreinfer.export.route_verb import route
    from coreinfer.export.verb import export, import_sets
    from coreinfer.report.verb import report
    from coreinfer.serve.verb import serve
    from coreinfer.upkeep.verbs import diff, verify
    from pipeline.verbs.adapt import adapt
    from pipeline.verbs.analyze import analyze
    from pipeline.verbs.build import build_clusters
    from pipeline.verbs.calibrate import calibrate
    from pipeline.verbs.evaluate import evaluate
    from pipeline.verbs.merge import merge
    from pipeline.verbs.update import update
except KeyboardInterrupt:  # the first tenth of a second; ``run`` looks after the rest
    print("interrupted", file=sys.stderr)
    raise SystemExit(130) from None

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,  # plain help: a third of a second would go into importing what draws boxes
    pretty_exceptions_enable=False,
    context_settings=BOTH,
)


@app.callback()
def options(version: VersionOption = False) -> None:
    """Run a language model on only the neurons that a prompt needs."""


for verb in (  # in the order in which --help shows them
    build_clusters, merge, verbs.predict, verbs.generate, verbs.inspect, report, evaluate, analyze, calibrate, update,
    verify, diff, adapt, bench, export, route,
    serve,
):  # fmt: skip
    app.command(cls=Verb, short_help=summary(verb))(verb)
app.command("import", cls=Verb, short_help=summary(import_sets))(import_sets)


def main() -> None:
    """Run a verb. A polite kill ends it as an error would: with nothing left behind."""
    # torch's threads spin while they wait for each other, and beside another busy process they wait a scheduler's
    # slice each time. Asleep they cost a little where nothing else runs. (Decoding has a team of its own.)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    run(app)


if __name__ == "__main__":
    main()
