"""Reports of a profile: one result, as JSON says it, and its forms for people."""

from edgehmn.report.result import Use, profile_result

__all__ = ["Use", "profile_result"]
