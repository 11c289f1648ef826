"""A chart of the report as a file of its own, for a README or a paper."""

import re


def standalone(svg: str) -> str:
    """A chart that a page would size and colour -> an SVG file of its natural size on white paper."""
    tag, rest = svg.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', tag)
    assert box is not None, "a chart has a viewBox"
    size = f'width="{box[1]}" height="{box[2]}" font-family="sans-serif"'
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n{tag} {size}><rect width="100%" height="100%" fill="#fff"/>{rest}\n'
    )
