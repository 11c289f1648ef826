"""The long stages in pieces that are kept: what is done is never done again, whatever ends a build or a worker."""
