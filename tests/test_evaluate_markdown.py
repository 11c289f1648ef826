"""The ladder as Markdown: every number is a row's, every policy and keep is there."""

import re
from dataclasses import replace

from coreinfer.evaluate.markdown import ladder
from coreinfer.evaluate.rows import Row

DENSE = Row("dense", "none", "none", 1.0, 64, 128, None, 7, 2.5, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0)
AUTO = replace(DENSE, policy="auto", keep=0.4, nll_rise=0.1234, ci_low=0.1, ci_high=0.14, kl=0.05678)


def test_a_table_for_each_prompt_length() -> None:
    rows = [DENSE, AUTO, replace(AUTO, keep=0.2, nll_rise=0.5), replace(AUTO, domain="x", nll_rise=9.0)]
    short = [replace(row, prompt_tokens=16) for row in rows]
    text = ladder([*rows, *short])
    assert text.count("7 texts, 64 prompt tokens dense, 128 on the kept neurons; dense NLL 2.5000") == 1
    assert text.count("| auto | 0.123 ± 0.020 | 0.057 | 0.500 ± 0.020 | 0.057 |") == 2
    assert "9.0" not in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {6}


def test_how_often_the_sets_were_chosen_again_is_said() -> None:
    again = replace(AUTO, policy="auto+refresh")
    cases = (([AUTO], None), ([AUTO], 32), ([AUTO, again], 32), ([again], "auto"))
    heads = [ladder([DENSE, *rows], refresh).splitlines()[0].partition("2.5000")[2] for rows, refresh in cases]
    said = "; +refresh chooses again"
    assert heads == ["", "", f"{said} after every 32 tokens", f"{said} when the text has doubled"]


def test_without_intervals_it_says_none() -> None:
    alone = replace(AUTO, ci_low=None, ci_high=None)
    assert re.search(r"\| auto \| 0\.123 \| 0\.057 \|$", ladder([DENSE, alone]).strip())
