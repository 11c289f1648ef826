"""coreinfer as a model of EleutherAI's lm-evaluation-harness, as sparse as it decodes.

``scoring`` (needs no harness): what a continuation costs on the neurons that its context needs. ``model``: the model
type ``coreinfer``. ``python -m coreinfer.lm_eval`` is the harness's own command line with that type known, since the
harness looks for model types in no other package.
"""
