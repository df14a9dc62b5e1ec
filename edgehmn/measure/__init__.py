"""Energy as sensors measure it, and time on the thing itself. No sample, or one that cannot be, is never a zero."""
