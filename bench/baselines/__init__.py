"""Other ways to adapt the reference model to a stream, each tuned on the same validation streams: see run.py."""
