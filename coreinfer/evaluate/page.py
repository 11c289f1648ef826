"""What a report's page looks like, and its words on each policy."""

POLICIES = {
    "random": "neurons at random: the floor",
    "wrong-cluster": "the prior of a random cluster outside the prompt's mixture: what a wrong topic costs",
    "global": "the prior of the whole corpus, the same neurons for every prompt",
    "paper-stability": "CoreInfer, eq. 1 and 2 over the prompt by magnitude, the same number of neurons in every layer",
    "griffin": "GRIFFIN: norms of the prompt's normalised activations",
    "stability": "the artifact's statistic over the prompt",
    "glass": "GLASS: the ranks of the prompt's statistic and of the global prior, half each",
    "similarity": "the prior of the clusters nearest to the prompt's meaning; knows nothing of its activations",
    "hybrid": "the mean of both, the prior worth a calibrated number of prompt tokens",
    "auto": "what calibration chose, and stability where the match is weak: the default",
    "oracle": "ranks by the statistic of the continuation itself. It knows the future, yet it is no bound: another set "
    "can lose less, because the statistic does not say how neurons work together",
}  # fmt: skip
CSS = """
:root{--ink:#22262e;--grey:#6d7480;--line:#e6e4df;--paper:#fcfbf8}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"Noto Sans",sans-serif}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Noto Sans",sans-serif!important}
main{max-width:1040px;margin:0 auto;padding:48px 24px 64px}
h1{font-size:34px;line-height:1.15;margin:0 0 10px;letter-spacing:-.02em}
h2{font-size:19px;margin:0 0 2px;letter-spacing:-.01em}
section{margin-top:44px}
.lead{max-width:70ch;margin:0;color:#434954;overflow-wrap:anywhere}
.note{margin:0 0 12px;color:var(--grey);font-size:14px;max-width:80ch}
svg{display:block;width:100%;height:auto}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:24px 0 8px}
.card{flex:1 1 200px;max-width:330px;background:#fff;border:1px solid var(--line);border-radius:10px;padding:14px 18px}
.card b{display:block;font-size:27px;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.card span{display:block}.card small{color:var(--grey)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{font-weight:500;color:var(--grey);border-bottom:1px solid #c9c6bf}
th,td{padding:4px 10px;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:4px}
th:nth-child(2),td:nth-child(2),th:nth-child(3),td:nth-child(3){text-align:left}
tr.auto td{background:#f1efe9;font-weight:600}
tr.first td{border-top:1px solid #c9c6bf;padding-top:8px}
.heat th,.heat td{text-align:right!important}
.heat th:first-child,.heat td:first-child{text-align:left!important}
.heat th{white-space:normal;vertical-align:bottom;line-height:1.2}
.heat td{border:2px solid var(--paper)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:5px 18px;margin:10px 0 0;font-size:14px}
dt{color:var(--grey)}dd{margin:0;overflow-wrap:anywhere}
.policies dt{color:var(--ink);font-weight:500}
.policies i{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:8px}
"""
