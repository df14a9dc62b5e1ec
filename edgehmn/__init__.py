"""edgehmn: language models that go on learning on the device they run on."""

__version__ = "0.1.0"
