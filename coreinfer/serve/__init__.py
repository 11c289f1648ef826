"""An OpenAI-compatible server over one engine.

The event loop parses and answers (``app``); one thread owns the language model (``worker``): it prefills, groups texts
by their neurons (``joining``) and decodes them together (``running``); another finds prompts' clusters meanwhile
(``matching``). They meet in ``jobs``. What it does not do: several models, several processes, or keep a prompt's
prefill for the next request.
"""
