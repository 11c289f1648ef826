"""``coreinfer report``: an artifact as one HTML file that needs no network, and as figures for a paper."""
