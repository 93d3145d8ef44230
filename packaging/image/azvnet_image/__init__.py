"""The container image, put together without a daemon, a registry or root.

The frozen bundle, the few libraries of the distribution that it needs, who made which of them, and nothing
else. ``content`` says what is in it, ``archive`` writes it, ``origins`` and ``bill`` say whose each file is.
"""
